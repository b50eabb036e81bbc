//! A plugin's turn with a batch: which rows it is shown, and what becomes of those it fails on.
//!
//! A call that fails as a whole is repeated with parts of its rows until the rows at fault stand
//! alone, so that nothing but them is set aside. The parts are small, because it is the failing calls
//! that cost (a deadline, a new instance): one per level, and levels are few.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change::Changes;
use crate::plugin::boundary::{Fates, Verdicts, patch, rewrite};
use crate::plugin::chain::member::ahead::Ahead;
use crate::plugin::chain::member::meters::Usage;
use crate::plugin::chain::member::task::{Rows, Shown, Task, by_run, by_table};
use crate::plugin::chain::member::{Member, Subscription};
use crate::plugin::error::Error;
use crate::plugin::guest::{Outcome, Role, shorten};
use crate::table::Table;

/// Bytes that a batch may still take in.
fn room(changes: &Changes) -> usize {
    (u32::MAX as usize).saturating_sub(changes.bytes())
}

impl Member {
    /// Runs the plugin over a batch by itself: edits cells, drops rows, sets rows aside.
    pub(crate) fn run(&mut self, changes: &mut Changes, fates: &mut Fates) -> Result<(), Error> {
        let started = Instant::now();
        fates.begin(changes);
        let before = self.before_comparing(changes);
        let set_aside = fates.dead_letters.len();
        let done = self.show_batch(changes, fates);
        fates.sweep(changes);
        self.report(started.elapsed());
        if let (Some(before), Ok(())) = (before, &done) {
            self.keep_to_compare(before, changes, &fates.dead_letters[set_aside..]);
        }
        done
    }

    /// Runs the plugin over a batch as one of a [wave](crate::plugin::chain::wave), for which the fates
    /// begin and end.
    pub(crate) fn run_in_wave(
        &mut self,
        changes: &mut Changes,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let done = self.show_batch(changes, fates);
        self.report(started.elapsed());
        done
    }

    fn show_batch(&mut self, changes: &mut Changes, fates: &mut Fates) -> Result<(), Error> {
        self.begin(changes);
        self.failed_rows = 0;
        self.usage.batch_rows = 0;
        let done = self.run_tables(changes, fates);
        self.end();
        done
    }

    /// Takes in a batch before any of its rows are shown.
    pub(super) fn begin(&mut self, changes: &Changes) {
        let has_begun = mem::replace(&mut self.has_begun, true);
        if self.version.role == Role::Dedup && !has_begun {
            self.memory.window.begin(changes);
            for set_aside in mem::take(&mut self.unseen) {
                self.memory.window.hide(changes, &set_aside);
            }
        }
    }

    /// Forgets a batch, and what was asked ahead of it but not taken.
    pub(crate) fn end(&mut self) {
        if mem::take(&mut self.has_begun) {
            self.hangs.end();
        }
        self.down = None;
        self.questions_hang = false;
        self.unseen.clear();
        self.ahead = Ahead::default();
        self.instance.look_away();
    }

    /// Whether it failed on too many of the rows it was shown lately, or hangs.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Hanging`].
    pub(crate) fn count_failures(&mut self) -> Result<(), Error> {
        self.breaker.count(&self.loader.options, self.usage.batch_rows, self.failed_rows)
    }

    /// Runs the plugin over changes that were set aside before.
    pub(crate) fn run_again(
        &mut self,
        changes: &mut Changes,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        self.redriving = true;
        let done = self.run(changes, fates);
        self.redriving = false;
        done
    }

    fn run_tables(&mut self, changes: &mut Changes, fates: &mut Fates) -> Result<(), Error> {
        let runs = self.runs(changes);
        self.hangs.behind = runs.iter().map(|run| run.shown.len()).sum();
        for Rows { table, shown: rows, truncates } in runs {
            let table = Arc::clone(&changes.tables[table]);
            match self.subscription(&table) {
                Subscription::Ignored => {
                    fates.pass(&self.name, &table, changes, &rows, |_| false);
                    self.hangs.behind -= rows.len();
                    continue;
                }
                Subscription::Wanted(plan) => {
                    let shape = plan.shape.iter();
                    let emptied =
                        shape.flat_map(|shape| truncates.iter().map(move |at| (shape, at)));
                    emptied.for_each(|(shape, at)| rewrite::truncate(shape, changes, *at, fates));
                }
                Subscription::Refused(_) => {}
            }
            self.usage.batch_rows += rows.len() as u64;
            for part in rows.chunks(self.part_rows()) {
                self.hangs.behind -= part.len();
                let whole = self.task(part);
                let tasks = if self.hangs.has_hung() { whole.parts() } else { vec![whole] };
                self.run_part(&table, changes, tasks, fates)?;
            }
        }
        self.show_suspects(changes, fates)
    }

    /// The changes of a batch that it is offered, in the order in which it is shown them.
    pub(super) fn runs(&self, changes: &Changes) -> Vec<Rows> {
        // A state says what was before, so rows that may depend on it come as they are in the log.
        let mut runs = if self.options().has_state() { by_run(changes) } else { by_table(changes) };
        runs.retain(|Rows { table, shown, truncates }| {
            let none = shown.is_empty() && (truncates.is_empty() || self.role() != Role::Reshape);
            !none && self.covers(&changes.tables[*table])
        });
        runs
    }

    /// Rows that one call is shown at most.
    pub(super) fn part_rows(&self) -> usize {
        self.options().batch_rows.max(1) as usize
    }

    /// Rows that are shown for the first time.
    pub(super) fn task(&self, rows: &[u32]) -> Task {
        let (retries, late) = (self.options().retries, self.redriving);
        Task { rows: rows.to_vec(), retries, late, ..Task::default() }
    }

    pub(super) fn run_part(
        &mut self,
        table: &Arc<Table>,
        changes: &mut Changes,
        mut tasks: Vec<Task>,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        while let Some(task) = tasks.pop() {
            let started = Instant::now();
            let waiting = tasks.iter().map(|task| task.rows.len()).sum();
            let shown = match self.ahead.take(&task) {
                Some(shown) => shown,
                None if !self.give(&task, waiting) => {
                    self.pass_over(changes, &task, fates)?;
                    continue;
                }
                None => self.ask(table, changes, &task, room(changes)),
            };
            match shown {
                Shown::Ignored => {}
                Shown::Answered(plan, verdicts) => {
                    self.breaker.answered();
                    let failed = |row| verdicts.failed(row);
                    fates.pass(&self.name, table, changes, &task.rows, failed);
                    patch::apply(&plan, changes, &task.rows, &verdicts);
                    if let Some(shape) = &plan.shape {
                        rewrite::carry_out(shape, changes, &task.rows, &verdicts, fates);
                    }
                    let again = self.settle(changes, &task, *verdicts, fates)?;
                    tasks.extend(again);
                }
                Shown::Unreadable(row) => {
                    let reason = "a value is not what its column's type says".to_owned();
                    self.set_aside(changes, task.rows[row], reason, fates)?;
                    tasks.extend(task.without(row));
                }
                Shown::Refused(reason) => self.set_all_aside(changes, &task, &reason, fates)?,
                Shown::Failed(outcome) => {
                    // It may be what it kept of earlier batches that filled its memory.
                    let leaked = matches!(outcome, Outcome::Memory(_)) && !self.instance.is_fresh();
                    let cut_short = self.note_hang(&outcome);
                    let suspect = self.suspect(table, &task, &outcome);
                    self.after_failure(&outcome);
                    self.usage.searching += started.elapsed();
                    match leaked {
                        true => tasks.push(task),
                        false if suspect => {}
                        false if cut_short => self.give_up(changes, &task, &outcome, fates)?,
                        false => tasks.extend(self.search(changes, task, &outcome, fates)?),
                    }
                }
            }
        }
        self.hangs.end_part();
        Ok(())
    }

    /// Carries verdicts out; gives back the rows to be shown again.
    fn settle(
        &mut self,
        changes: &mut Changes,
        task: &Task,
        verdicts: Verdicts,
        fates: &mut Fates,
    ) -> Result<Option<Task>, Error> {
        let mut again = Vec::new();
        for fault in &verdicts.faults {
            let row = task.rows[fault.row as usize];
            self.count_fault("row");
            if fault.retryable && task.retries > 0 {
                again.push(row);
            } else {
                self.set_aside(changes, row, shorten(fault.message.clone()), fates)?;
            }
        }
        // The answer of one that reshapes has said already where discarded rows go.
        let discard = verdicts.discard.iter().filter(|_| self.role() != Role::Reshape);
        let discard = discard.filter(|row| !verdicts.failed(**row));
        fates.discard(changes, discard.map(|row| task.rows[*row as usize]));
        for row in verdicts.duplicates {
            fates.drop_row(task.rows[row as usize]);
        }
        let retries = task.retries.saturating_sub(1);
        Ok((!again.is_empty()).then_some(Task {
            rows: again,
            retries,
            late: true,
            ..Task::default()
        }))
    }

    fn report(&mut self, elapsed: Duration) {
        let batch_rows = self.usage.batch_rows;
        let usage = mem::replace(&mut self.usage, Usage { batch_rows, ..Usage::default() });
        let elapsed = elapsed + usage.ahead;
        if usage.calls == 0 {
            return;
        }
        self.pace.rows += usage.rows;
        self.pace.time += elapsed;
        self.meters.count(&usage, elapsed);
        self.meters.holds(self.instance.memory_bytes());
        self.report_memory();
    }
}
