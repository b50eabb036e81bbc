//! Answers that a plugin gives before its turn, while others of its [wave](crate::plugin::chain::wave) give theirs.
//!
//! They are asked for in the order in which the rows are shown anyway, so a state and a window of
//! duplicates come by the same calls as in a plugin's turn. With the first answer after which rows are
//! shown again it ends: what follows depends on that.

use std::collections::VecDeque;
use std::time::Instant;

use crate::change::Changes;
use crate::plugin::chain::member::Member;
use crate::plugin::chain::member::task::{Rows, Shown, Task};
use crate::plugin::guest::Outcome;

/// Answers with the rows they are about, in the order of the calls.
#[derive(Default)]
pub(super) struct Ahead {
    answers: VecDeque<(Vec<u32>, Shown)>,
}

impl Ahead {
    /// The answer to a task, if it was asked for.
    pub(super) fn take(&mut self, task: &Task) -> Option<Shown> {
        let (_, answer) = self.answers.pop_front_if(|(rows, _)| *rows == task.rows)?;
        Some(answer)
    }
}

impl Member {
    /// Asks it about the rows of a batch before its turn, as long as its answers hold no more than
    /// `room` bytes of text. They are taken in its turn.
    pub(crate) fn ask_ahead(&mut self, changes: &Changes, room: usize) {
        let started = Instant::now();
        self.begin(changes);
        self.ask_parts(changes, room);
        self.usage.ahead += started.elapsed();
    }

    fn ask_parts(&mut self, changes: &Changes, mut room: usize) {
        for Rows { table, shown: rows, .. } in self.runs(changes) {
            for part in rows.chunks(self.part_rows()) {
                let (task, asked) = (self.task(part), Instant::now());
                let answer = self.ask(&changes.tables[table], changes, &task, room);
                match &answer {
                    // It may be malformed because there is no room for it: it is asked for again.
                    Shown::Failed(Outcome::Malformed(_)) => return,
                    Shown::Failed(_) => self.usage.searching += asked.elapsed(),
                    Shown::Answered(_, verdicts) => room -= verdicts.bytes,
                    _ => {}
                }
                let goes_on = goes_on(&answer);
                self.ahead.answers.push_back((task.rows, answer));
                if !goes_on {
                    return;
                }
            }
        }
    }
}

/// Whether the rows behind are shown next, whatever becomes of these.
fn goes_on(answer: &Shown) -> bool {
    match answer {
        Shown::Ignored | Shown::Refused(_) => true,
        Shown::Answered(_, verdicts) => !verdicts.faults.iter().any(|fault| fault.retryable),
        Shown::Unreadable(_) | Shown::Failed(_) => false,
    }
}
