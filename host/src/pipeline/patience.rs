//! The pauses between attempts at something that waiting may mend.

use std::time::Duration;

use rand::Rng;

use super::Error;
use crate::disposition::Disposition;
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::logging::{Repeated, chain};
use crate::telemetry::metrics::{Metrics, StepLabels};

/// Pauses double from the first to the second of these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// An attempt that lasted this long was a success that ended.
const LASTING: Duration = Duration::from_secs(30);

/// Waits longer after every attempt that failed, less a random part so that many spread out.
#[derive(Debug)]
pub(super) struct Patience {
    failures: Repeated,
    step: &'static str,
    shutdown: Shutdown,
    pause: Duration,
    begun: std::time::Instant,
}

impl Patience {
    /// `task` is what the log says is being tried, `step` the label of its metric.
    pub(super) fn new(task: &'static str, step: &'static str, shutdown: &Shutdown) -> Patience {
        let begun = std::time::Instant::now();
        Patience {
            failures: Repeated::new(task),
            step,
            shutdown: shutdown.clone(),
            pause: PAUSE.0,
            begun,
        }
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
        leg: &Leg,
        metrics: &Metrics,
    ) -> Result<bool, Error> {
        let error = match ended.map_err(Into::into) {
            Ok(()) => return Ok(false),
            Err(error) if error.disposition() == Disposition::Retry => error,
            Err(error) => return Err(error),
        };
        if self.begun.elapsed() >= LASTING {
            self.pause = PAUSE.0;
        }
        let pause = self.pause.max(error.least_pause());
        self.failures.failed(&error);
        leg.stalled(chain(&error));
        metrics.reconnects.get_or_create(&StepLabels { step: self.step }).inc();
        let drains = self.shutdown.reached(Phase::Draining);
        let paused = tokio::time::timeout(pause, drains).await.is_err();
        self.pause = (self.pause * 2).min(PAUSE.1).mul_f64(rand::rng().random_range(0.75..=1.0));
        self.begun = std::time::Instant::now();
        Ok(paused)
    }
}
