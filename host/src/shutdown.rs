//! How the process ends: first it drains, then it is done.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the end has come. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Running,
    /// Nothing new is read; what was read goes its way and is acknowledged.
    Draining,
    /// All that was read is acknowledged, or given up.
    Drained,
}

/// Shared by everything that has to end.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<Phase>>);

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown(Arc::new(watch::Sender::new(Phase::Running)))
    }
}

impl Shutdown {
    /// Where the end stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves forward to the phase.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let moves = phase > *now;
            *now = phase.max(*now);
            moves
        });
    }

    /// One part's own end: it drains when the whole drains, but may drain and be done before.
    /// Whoever asks for it has to bring it to [`Phase::Drained`].
    #[must_use]
    pub fn part(&self) -> Shutdown {
        let (whole, part) = (self.clone(), Shutdown::default());
        let follower = part.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = whole.reached(Phase::Draining) => follower.advance(Phase::Draining),
                () = follower.reached(Phase::Drained) => {}
            }
        });
        part
    }

    /// Waits for the phase, or one after it.
    pub async fn reached(&self, phase: Phase) {
        let mut watch = self.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _reached = watch.wait_for(|now| *now >= phase).await;
    }
}
