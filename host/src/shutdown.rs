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

    /// One part's own end: it drains when the whole drains, but may drain and be done before. What
    /// follows the whole ends when the part is done, or nobody has it any more.
    #[must_use]
    pub fn part(&self) -> Shutdown {
        let (whole, part) = (self.clone(), Shutdown::default());
        let (mut done, follower) = (part.0.subscribe(), Arc::downgrade(&part.0));
        tokio::spawn(async move {
            tokio::select! {
                () = whole.reached(Phase::Draining) => {
                    if let Some(part) = follower.upgrade() {
                        Shutdown(part).advance(Phase::Draining);
                    }
                }
                // An error says that it is gone.
                _ = done.wait_for(|now| *now == Phase::Drained) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets everything run that can.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn tasks() -> usize {
        tokio::runtime::Handle::current().metrics().num_alive_tasks()
    }

    #[tokio::test]
    async fn a_part_drains_with_the_whole() {
        let whole = Shutdown::default();
        let part = whole.part();
        whole.advance(Phase::Draining);
        part.reached(Phase::Draining).await;
        assert_eq!(part.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn parts_that_are_over_leave_nothing_behind() {
        let whole = Shutdown::default();
        let (done, draining, dropped) = (whole.part(), whole.part(), whole.part());
        settle().await;
        assert_eq!(tasks(), 3);
        done.advance(Phase::Drained);
        draining.advance(Phase::Draining);
        drop((draining, dropped));
        settle().await;
        assert_eq!(tasks(), 0);
        assert_eq!(whole.phase(), Phase::Running);
    }
}
