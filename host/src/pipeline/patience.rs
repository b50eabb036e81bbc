//! The pauses between attempts at something that waiting may mend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use crate::backoff::Backoff;
use crate::disposition::Disposition;
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::logging::{Repeated, chain};
use crate::telemetry::metrics::{Metrics, StepLabels};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An attempt that lasted this long was a success that ended.
const LASTING: Duration = Duration::from_secs(30);

/// Waits longer after every attempt that failed, and tells who has to know.
#[derive(Debug)]
pub(super) struct Patience {
    failures: Repeated,
    step: &'static str,
    shutdown: Shutdown,
    leg: Leg,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    begun: Instant,
}

impl Patience {
    /// `task` is what the log says is being tried, `step` the label of its metric, and `leg` stalls meanwhile.
    pub(super) fn new(
        task: &'static str,
        step: &'static str,
        shutdown: &Shutdown,
        leg: Leg,
        metrics: Arc<Metrics>,
    ) -> Patience {
        Patience {
            failures: Repeated::new(task),
            step,
            shutdown: shutdown.clone(),
            leg,
            metrics,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            begun: Instant::now(),
        }
    }

    /// The leg that waits.
    pub(super) fn leg(&self) -> &Leg {
        &self.leg
    }

    /// What was tried works: tells the log if it had failed before.
    pub(super) fn works(&self) {
        self.failures.succeeded();
    }

    /// Whether to try again, after the pause: not when it ended well, and not when the process
    /// drains meanwhile.
    ///
    /// # Errors
    /// What no waiting mends.
    pub(super) async fn another<E: Into<Error>>(
        &mut self,
        ended: Result<(), E>,
    ) -> Result<bool, Error> {
        let error = match ended.map_err(Into::into) {
            Ok(()) => return Ok(false),
            Err(error) if error.disposition() == Disposition::Retry => error,
            Err(error) => return Err(error),
        };
        if self.begun.elapsed() >= LASTING {
            self.backoff.reset();
        }
        let pause = self.backoff.pause(&mut rand::rng()).max(error.least_pause());
        self.failures.failed(&error);
        self.leg.stalled(chain(&error));
        self.metrics.reconnects.get_or_create(&StepLabels { step: self.step }).inc();
        let drains = self.shutdown.reached(Phase::Draining);
        let paused = tokio::time::timeout(pause, drains).await.is_err();
        self.begun = Instant::now();
        Ok(paused)
    }
}
