//! What the lives of all legs have in common: the stages before the last one, and how they end.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::keeper::{self, Give, Keeping, Kept, Ledger};
use super::patience::Patience;
use super::plugins::{Plugins, Transforming};
use super::{Error, Pipeline};
use crate::ack::Durable;
use crate::hop::Point as _;
use crate::shutdown::{Phase, Shutdown};

/// The stages of one life of a leg but for the last.
pub(super) struct Stages {
    /// The capture or the receiver. One that finds the next stage gone ends well.
    pub(super) first: JoinHandle<Result<(), Error>>,
    pub(super) transforming: Transforming,
    /// The life's own end.
    pub(super) end: Shutdown,
}

impl Stages {
    /// Whatever ended the last stage ends those before it, and the plugins come back.
    ///
    /// # Errors
    /// The one that came first: a stage that found its neighbour gone has nothing of its own to say.
    pub(super) async fn finish<E: Into<Error>>(
        self,
        last: Result<(), E>,
        plugins: &mut Plugins,
    ) -> Result<(), Error> {
        self.end.advance(Phase::Drained);
        let transformed = plugins.come_back(self.transforming).await;
        let first = self.first.await.expect("the first stage does not panic");
        last.map_err(Into::into)?;
        transformed?;
        first
    }
}

impl Pipeline {
    /// The pauses between the lives of a leg: `task` is what the log says is being tried, `step` the label of
    /// its metric, `leg` its entry in `/readyz`.
    pub(super) fn patience(&self, task: &'static str, step: &'static str, leg: &str) -> Patience {
        let (leg, metrics) = (self.report.leg(leg), Arc::clone(self.report.metrics()));
        Patience::new(task, step, &self.shutdown, leg, metrics)
    }

    /// Gives what is durable to `acknowledge`, once the memory of it is on disk, and notes how late the `step`
    /// is before. When the disk fails, `end` drains.
    pub(super) fn keep<L: Ledger>(
        &self,
        step: &'static str,
        kept: Option<Kept<L>>,
        end: &Shutdown,
        acknowledge: impl FnMut(Durable<L::Point>) + Send + 'static,
    ) -> (Give<L::Point>, Keeping) {
        let metrics = Arc::clone(self.report.metrics());
        let (mut give, keeping) = keeper::keep(kept, end, &metrics, acknowledge);
        let give = move |durable: Durable<L::Point>| {
            metrics.passed_by(step, durable.point().newest_commit());
            give(durable);
        };
        (Box::new(give), keeping)
    }
}
