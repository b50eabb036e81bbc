//! One call of a plugin, by its role: the rows as it wants them, and what its answer comes to. Rows are
//! only read here; an answer is carried out later.

use std::sync::Arc;

use crate::change::Changes;
use crate::plugin::boundary::{Beside, Plan, Unreadable, Verdicts, number, patch, rewrite};
use crate::plugin::chain::member::task::{Shown, Task};
use crate::plugin::chain::member::{Member, Subscription};
use crate::plugin::guest::{Outcome, Role};
use crate::plugin::memory::{Memory, SetAside};
use crate::table::Table;

impl Member {
    /// One call, if the plugin wants the table. What it writes into its state, and keys that the window
    /// learns, count from now on. The answer may hold `room` bytes of text.
    pub(super) fn ask(
        &mut self,
        table: &Arc<Table>,
        changes: &Changes,
        task: &Task,
        room: usize,
    ) -> Shown {
        let plan = match self.subscription(table) {
            Subscription::Ignored => return Shown::Ignored,
            Subscription::Refused(reason) => return Shown::Refused(reason),
            Subscription::Wanted(plan) => plan,
        };
        self.instance.give(self.hangs.given(self.options().deadline()));
        self.usage.calls += 1;
        self.usage.rows += task.rows.len() as u64;
        let first = &changes.list[task.rows[0] as usize];
        self.instance.look_at(table, Some((changes.position(first), task.rows.len())));
        let fresh = self.instance.is_fresh();
        let answer = match self.version.role {
            Role::Transform => self.transform(&plan, changes, &task.rows),
            Role::Reshape => self.reshape(&plan, changes, &task.rows),
            Role::Dedup => self.deduplicate(&plan, changes, task),
        };
        let held = |verdicts| patch::check_room(verdicts, room).map_err(malformed);
        match answer.and_then(held) {
            Ok(verdicts) => {
                self.memory.state.keep_call();
                self.usual.note(task.rows.len(), self.instance.took().time, fresh);
                self.hangs.answered(self.instance.took());
                Shown::Answered(plan, Box::new(verdicts))
            }
            Err(failed) => {
                self.memory.state.undo_call();
                failed
            }
        }
    }

    fn transform(
        &mut self,
        plan: &Plan,
        changes: &Changes,
        rows: &[u32],
    ) -> Result<Verdicts, Shown> {
        let Member { scratch, instance, memory, .. } = self;
        let answer = scratch.with_batch(plan, changes, rows, |batch| {
            instance.with_state(&mut memory.state, |instance| instance.process(batch))
        });
        let patch = answered(answer)?;
        patch::check(plan, changes, rows, patch, Beside::of(rows.len())).map_err(malformed)
    }

    fn reshape(&mut self, plan: &Plan, changes: &Changes, rows: &[u32]) -> Result<Verdicts, Shown> {
        let Member { scratch, instance, memory, .. } = self;
        let answer = scratch.with_batch(plan, changes, rows, |batch| {
            instance.with_state(&mut memory.state, |instance| instance.rewrite(batch))
        });
        let checked = rewrite::check(plan.shape(), changes, rows, answered(answer)?);
        let (patch, rewritten, beside) = checked.map_err(malformed)?;
        let verdicts = patch::check(plan, changes, rows, patch, beside).map_err(malformed)?;
        Ok(Verdicts { rewritten, ..verdicts })
    }

    fn deduplicate(
        &mut self,
        plan: &Plan,
        changes: &Changes,
        task: &Task,
    ) -> Result<Verdicts, Shown> {
        let Member { scratch, instance, memory: Memory { state, window }, .. } = self;
        let Task { rows, late, .. } = task;
        let keys = scratch.with_batch(plan, changes, rows, |batch| {
            instance.with_state(state, |instance| instance.keys(batch))
        });
        let keys = answered(keys)?;
        // They come later than the rows behind them, if at all.
        for row in keys.faults.iter().filter_map(|fault| rows.get(fault.row as usize)) {
            window.hide(changes, &SetAside::new(changes, &changes.list[*row as usize]));
        }
        let mut duplicates = Vec::new();
        patch::each_key(rows.len(), &keys, |row, key| {
            let change = &changes.list[rows[row] as usize];
            if window.is_duplicate(changes, change, key, *late) {
                duplicates.push(number(row));
            }
        })
        .map_err(malformed)?;
        Ok(Verdicts { duplicates, faults: keys.faults, ..Verdicts::default() })
    }
}

/// What was answered, if it was.
fn answered<T>(answer: Result<Result<T, Outcome>, Unreadable>) -> Result<T, Shown> {
    answer.map_err(|Unreadable(row)| Shown::Unreadable(row))?.map_err(Shown::Failed)
}

fn malformed(why: String) -> Shown {
    Shown::Failed(Outcome::malformed(why))
}
