//! Dead letters that come through again: closed in the transaction of what they became.

use tokio::sync::oneshot;

use crate::dead_letter::DeadLetter;
use crate::failpoint;
use crate::hop::{Outcome, Redrive};

/// What waits for the commit.
#[derive(Default)]
pub(super) struct Redriven(Vec<(oneshot::Sender<Outcome>, Outcome)>);

impl Redriven {
    /// Takes in a drive of which these failed again; the ids to close.
    pub(super) fn take_in(&mut self, redrive: Redrive, failed: &[DeadLetter]) -> Vec<String> {
        failpoint::pass("before_redriven");
        let outcome = redrive.outcome(failed);
        let closed = outcome.closed.clone();
        self.0.push((redrive.done, outcome));
        closed
    }

    /// Tells who asked that it is committed. Who is not told asks again.
    pub(super) fn tell(self) {
        for (done, outcome) in self.0 {
            failpoint::pass("after_redriven");
            // Who asked may have gone.
            done.send(outcome).ok();
        }
    }
}
