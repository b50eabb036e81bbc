//! One call of a plugin, by its role: the rows as it wants them, and what its answer comes to.

use crate::change::Changes;
use crate::plugin::adopt::{self, Beside, Verdicts};
use crate::plugin::convert::{Plan, Unreadable, number};
use crate::plugin::instance::Outcome;
use crate::plugin::member::Member;
use crate::plugin::memory::Memory;
use crate::plugin::rewrite;
use crate::plugin::task::{Shown, Task};

impl Member {
    pub(super) fn transform(&mut self, plan: &Plan, changes: &mut Changes, rows: &[u32]) -> Shown {
        let Member { scratch, instance, memory, .. } = self;
        let answer = scratch.with_batch(plan, changes, rows, |batch| {
            instance.with_state(&mut memory.state, |instance| instance.process(batch))
        });
        match answer {
            Err(Unreadable(row)) => Shown::Unreadable(row),
            Ok(Err(outcome)) => Shown::Failed(outcome),
            Ok(Ok(patch)) => adopt::adopt(plan, changes, rows, patch, Beside::default())
                .map_or_else(|why| Shown::Failed(Outcome::Malformed(why)), Shown::Answered),
        }
    }

    pub(super) fn reshape(&mut self, plan: &Plan, changes: &mut Changes, rows: &[u32]) -> Shown {
        let Member { scratch, instance, memory, .. } = self;
        let answer = scratch.with_batch(plan, changes, rows, |batch| {
            instance.with_state(&mut memory.state, |instance| instance.rewrite(batch))
        });
        let adopted = match answer {
            Err(Unreadable(row)) => return Shown::Unreadable(row),
            Ok(Err(outcome)) => return Shown::Failed(outcome),
            Ok(Ok(answer)) => {
                rewrite::check(plan.shape(), changes, rows, answer).and_then(|checked| {
                    let (patch, rewritten, beside) = checked;
                    let verdicts = adopt::adopt(plan, changes, rows, patch, beside)?;
                    Ok(Verdicts { rewritten, ..verdicts })
                })
            }
        };
        adopted.map_or_else(|why| Shown::Failed(Outcome::Malformed(why)), Shown::Answered)
    }

    pub(super) fn deduplicate(&mut self, plan: &Plan, changes: &Changes, task: &Task) -> Shown {
        let Member { scratch, instance, memory: Memory { state, window }, .. } = self;
        let Task { rows, late, .. } = task;
        let keys = scratch.with_batch(plan, changes, rows, |batch| {
            instance.with_state(state, |instance| instance.keys(batch))
        });
        let keys = match keys {
            Err(Unreadable(row)) => return Shown::Unreadable(row),
            Ok(Err(outcome)) => return Shown::Failed(outcome),
            Ok(Ok(keys)) => keys,
        };
        let mut duplicates = Vec::new();
        let checked = adopt::each_key(rows.len(), &keys, |row, key| {
            let change = &changes.list[rows[row] as usize];
            if window.is_duplicate(changes, change, key, *late) {
                duplicates.push(number(row));
            }
        });
        match checked {
            Err(why) => Shown::Failed(Outcome::Malformed(why)),
            Ok(()) => {
                let faults = keys.faults;
                Shown::Answered(Verdicts { duplicates, faults, ..Verdicts::default() })
            }
        }
    }
}
