//! Which legs of the pipeline really move.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The state of every leg, shared by those that move it and `/readyz`. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    legs: Arc<Mutex<BTreeMap<String, LegState>>>,
}

/// Whether a leg moves, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegState {
    /// Data moves, or would if there were any.
    pub moving: bool,
    /// Why not; empty while moving. Shown without a token: no secret, no row value.
    pub reason: String,
}

/// One leg's own handle.
#[derive(Debug, Clone)]
pub struct Leg {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Announces a leg (`capture`, `slot`, `send`, `receive` or `sink`): not moving, `starting`.
    pub fn leg(&self, name: impl Into<String>) -> Leg {
        let leg = Leg { name: name.into(), readiness: self.clone() };
        leg.stalled("starting");
        leg
    }

    /// Marks a step as stuck for a reason, or takes that back. Ignored while a leg says itself why it stands
    /// still, which tells more.
    pub fn stuck(&self, step: &str, reason: Option<String>) {
        let mut legs = self.lock();
        legs.remove(step);
        if let Some(reason) = reason.filter(|_| legs.values().all(|leg| leg.moving)) {
            legs.insert(step.to_owned(), LegState { moving: false, reason });
        }
    }

    /// Every leg that was announced.
    #[must_use]
    pub fn legs(&self) -> BTreeMap<String, LegState> {
        self.lock().clone()
    }

    /// Whether there is a leg and all of them move.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let legs = self.lock();
        !legs.is_empty() && legs.values().all(|leg| leg.moving)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LegState>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leg {
    /// The leg moves.
    pub fn moving(&self) {
        self.set(LegState { moving: true, reason: String::new() });
    }

    /// The leg stands still. `reason` is one sentence, without secrets.
    pub fn stalled(&self, reason: impl Into<String>) {
        self.set(LegState { moving: false, reason: reason.into() });
    }

    fn set(&self, state: LegState) {
        self.readiness.lock().insert(self.name.clone(), state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_nothing_passes_is_told_while_no_leg_says_why() {
        let readiness = Readiness::default();
        let leg = readiness.leg("sink");
        leg.moving();
        readiness.stuck("stored", Some("nothing passes".into()));
        assert!(!readiness.is_ready());
        leg.stalled("ClickHouse is away");
        readiness.stuck("stored", Some("nothing passes".into()));
        assert_eq!(readiness.legs().into_keys().collect::<Vec<_>>(), ["sink"]);
        leg.moving();
        readiness.stuck("stored", None);
        assert!(readiness.is_ready());
    }

    #[test]
    fn ready_means_that_every_announced_leg_moves() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        let (capture, sink) = (readiness.leg("capture"), readiness.leg("sink"));
        capture.moving();
        assert!(!readiness.is_ready());
        sink.moving();
        assert!(readiness.is_ready());
        capture.stalled("the slot is gone");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.legs()["capture"].reason, "the slot is gone");
    }
}
