//! One plugin of a chain: which rows it is shown, and what becomes of those it fails on.
//!
//! A call that fails as a whole is repeated with parts of its rows until the rows at fault stand
//! alone, so that nothing but them is set aside. The parts are small, because it is the failing calls
//! that cost (a deadline, a new instance): one per level, and levels are few.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::change::Changes;
use crate::dead_letter::{DeadLetter, Stage};
use crate::plugin::adopt::{self, Verdicts};
use crate::plugin::ahead::Ahead;
use crate::plugin::bindings::types::Interest;
use crate::plugin::breaker::Breaker;
use crate::plugin::convert::{Plan, Scratch, number, with_table};
use crate::plugin::error::Error;
use crate::plugin::fates::Fates;
use crate::plugin::handover::Handover;
use crate::plugin::instance::{Instance, Outcome, Role};
use crate::plugin::loader::{Loaded, Loader, Version};
use crate::plugin::lost::Lost;
use crate::plugin::memory::{Memory, Scope};
use crate::plugin::meters::{Meters, Usage};
use crate::plugin::options::{OnError, Options};
use crate::plugin::probation::{Pace, Probation};
use crate::plugin::rewrite;
use crate::plugin::shape::Shape;
use crate::plugin::task::{Rows, Shown, Task, by_run, by_table, shorten};
use crate::table::Table;
use crate::telemetry::metrics::PluginKindLabels;

/// Deadlines that looking for the rows at fault may cost per batch. A plugin that hangs on every
/// row would else hold the stream for as many deadlines as there are rows.
const SEARCH_DEADLINES: u32 = 16;

/// Bytes that a batch may still take in.
fn room(changes: &Changes) -> usize {
    (u32::MAX as usize).saturating_sub(changes.bytes())
}

pub(crate) struct Member {
    name: Arc<str>,
    pub(super) loader: Loader,
    pub(super) version: Version,
    pub(super) instance: Instance,
    pub(super) subscriptions: FxHashMap<u64, Subscription>,
    /// What is remembered for it.
    pub(super) memory: Memory,
    pub(super) scope: Scope,
    /// What is remembered in other scopes.
    pub(super) elsewhere: FxHashMap<Scope, Memory>,
    /// What windows mark rows under.
    pub(super) secret: [u8; 16],
    pub(super) handover: Arc<Handover>,
    pub(super) probation: Option<Probation>,
    pub(super) scratch: Scratch,
    pub(super) usage: Usage,
    meters: Meters,
    /// Rows of the batch that it failed on for good.
    pub(super) failed_rows: u64,
    /// Time and rows of the version that runs.
    pub(super) pace: Pace,
    pub(super) breaker: Breaker,
    /// The rows were set aside before, and later changes of theirs were looked at since.
    pub(super) redriving: bool,
    /// What it answered before its turn.
    pub(super) ahead: Ahead,
    /// Changes of the batch that were set aside before it could see them.
    pub(super) lost: Vec<Lost>,
    /// The batch was taken in already.
    has_begun: bool,
    /// The digest of the version that ran before, if no change was shown to the one that runs.
    pub(super) swapped_from: Option<String>,
    /// Why its instance was not replaced in this batch, though it is dead.
    pub(super) down: Option<String>,
}

#[derive(Clone)]
pub(super) enum Subscription {
    Ignored,
    Wanted(Arc<Plan>),
    Refused(String),
}

impl Drop for Member {
    fn drop(&mut self) {
        self.loader.lines.finish();
    }
}

impl Member {
    pub(crate) fn new(loader: Loader, loaded: Loaded) -> Member {
        let handover = Handover::of(loaded.version.identity(&loader.options));
        let secret = rand::random();
        let memory = Memory::new(&loader.options, secret);
        let meters = Meters::new(&loader.metrics, &loader.options.name);
        meters.holds(loaded.instance.memory_bytes());
        Member {
            name: loader.options.name.as_str().into(),
            loader,
            version: loaded.version,
            instance: loaded.instance,
            subscriptions: FxHashMap::default(),
            memory,
            scope: Scope::default(),
            elsewhere: FxHashMap::default(),
            secret,
            handover: Arc::new(handover),
            probation: None,
            scratch: Scratch::default(),
            usage: Usage::default(),
            meters,
            failed_rows: 0,
            pace: Pace::default(),
            breaker: Breaker::default(),
            redriving: false,
            ahead: Ahead::default(),
            lost: Vec::new(),
            has_begun: false,
            swapped_from: None,
            down: None,
        }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// SHA-256 of the version that runs, hex.
    pub(crate) fn digest(&self) -> String {
        self.version.id.digest.clone()
    }

    pub(crate) fn handover(&self) -> &Arc<Handover> {
        &self.handover
    }

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

    /// Runs the plugin over a batch as one of a [wave](super::wave), for which the fates begin and end.
    pub(super) fn run_in_wave(
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
            for lost in mem::take(&mut self.lost) {
                self.memory.window.hide(changes, &lost);
            }
        }
    }

    /// Forgets a batch, and what was asked ahead of it but not taken.
    pub(super) fn end(&mut self) {
        self.has_begun = false;
        self.down = None;
        self.lost.clear();
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
        for Rows { table, shown: rows, truncates } in self.runs(changes) {
            let table = Arc::clone(&changes.tables[table]);
            match self.subscription(&table) {
                Subscription::Ignored => {
                    fates.pass(&self.name, &table, changes, &rows, |_| false);
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
                self.run_part(&table, changes, self.task(part), fates)?;
            }
        }
        Ok(())
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

    pub(super) fn covers(&self, table: &Table) -> bool {
        self.options().covers(&table.schema, &table.name)
    }

    /// Rows that one call is shown at most.
    pub(super) fn part_rows(&self) -> usize {
        self.options().batch_rows.max(1) as usize
    }

    /// Rows that are shown for the first time.
    pub(super) fn task(&self, rows: &[u32]) -> Task {
        Task { rows: rows.to_vec(), retries: self.options().retries, late: self.redriving }
    }

    fn run_part(
        &mut self,
        table: &Arc<Table>,
        changes: &mut Changes,
        whole: Task,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let mut tasks = vec![whole];
        while let Some(task) = tasks.pop() {
            let started = Instant::now();
            let shown = match self.ahead.take(&task) {
                Some(shown) => shown,
                None => self.ask(table, changes, &task, room(changes)),
            };
            match shown {
                Shown::Ignored => {}
                Shown::Answered(plan, verdicts) => {
                    self.breaker.answered();
                    let failed = |row| verdicts.failed(row);
                    fates.pass(&self.name, table, changes, &task.rows, failed);
                    adopt::apply(&plan, changes, &task.rows, &verdicts);
                    if let Some(shape) = &plan.shape {
                        rewrite::carry_out(shape, changes, &task.rows, &verdicts, fates);
                    }
                    let again = self.settle(changes, &task, *verdicts, fates)?;
                    tasks.extend(again);
                }
                Shown::Unreadable(row) => {
                    let reason = "a value is not what its column's type says".to_owned();
                    self.set_aside(changes, task.rows[row], reason, fates)?;
                    tasks.push(task.without(row));
                }
                Shown::Refused(reason) => self.set_all_aside(changes, &task, &reason, fates)?,
                Shown::Failed(outcome) => {
                    // It may be what it kept of earlier batches that filled its memory.
                    let leaked = matches!(outcome, Outcome::Memory(_)) && !self.instance.is_fresh();
                    self.after_failure(&outcome);
                    self.usage.searching += started.elapsed();
                    match leaked {
                        true => tasks.push(task),
                        false => tasks.extend(self.search(changes, task, &outcome, fates)?),
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets rows of a failed call aside once they stand alone; else the parts to go on with.
    fn search(
        &mut self,
        changes: &Changes,
        task: Task,
        outcome: &Outcome,
        fates: &mut Fates,
    ) -> Result<Vec<Task>, Error> {
        let mut reason = outcome.to_string();
        let given_up = self.usage.searching > self.options().deadline() * SEARCH_DEADLINES;
        if task.rows.len() > 1 && !given_up {
            return Ok(task.parts());
        }
        if task.rows.len() > 1 {
            reason.push_str(", on this row or on one shown with it");
        }
        let set_aside = fates.dead_letters.len();
        self.set_all_aside(changes, &task, &reason, fates)?;
        let letters = &mut fates.dead_letters[set_aside..];
        if !letters.is_empty() {
            let places = |start, offset| self.version.places.at(start, offset);
            let backtrace = outcome.backtrace(places);
            letters.iter_mut().for_each(|letter| letter.backtrace.clone_from(&backtrace));
        }
        Ok(Vec::new())
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
                self.set_aside(changes, row, shorten(fault), fates)?;
            }
        }
        // Of those that reshape, it was said where discarded rows are no more.
        let discard = verdicts.discard.iter().filter(|_| self.role() != Role::Reshape);
        let discard = discard.filter(|row| !verdicts.failed(**row));
        fates.discard(changes, discard.map(|row| task.rows[*row as usize]));
        for row in verdicts.duplicates {
            fates.drop_row(task.rows[row as usize]);
        }
        let retries = task.retries.saturating_sub(1);
        Ok((!again.is_empty()).then_some(Task { rows: again, retries, late: true }))
    }

    fn set_all_aside(
        &mut self,
        changes: &Changes,
        task: &Task,
        reason: &str,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let mut rows = task.rows.iter();
        rows.try_for_each(|row| self.set_aside(changes, *row, reason.to_owned(), fates))
    }

    fn set_aside(
        &mut self,
        changes: &Changes,
        row: u32,
        reason: String,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let change = &changes.list[row as usize];
        self.failed_rows += 1;
        fates.fail(&self.name, changes.position(change));
        let on_error = if self.redriving { OnError::DeadLetter } else { self.options().on_error };
        if on_error == OnError::Halt {
            return Err(Error::Fault {
                plugin: self.options().name.clone(),
                position: changes.position(change),
                table: changes.table(change).full_name().to_string(),
                reason,
            });
        }
        if on_error == OnError::Skip {
            self.count_fault("skipped");
            fates.drop_row(row);
            return Ok(());
        }
        let lost = Lost::new(changes, change);
        if self.role() == Role::Dedup {
            self.memory.window.hide(changes, &lost);
        }
        fates.lost.push(lost);
        let plugin = Some(self.version.id.clone());
        let mut letter = DeadLetter::new(changes, change, Stage::Transform, plugin, reason);
        if let Some(replay) = letter.replay.as_mut().filter(|_| !self.scope.is_empty()) {
            replay.scope = self.scope.to_string();
        }
        fates.set_aside(row, letter);
        Ok(())
    }

    /// What the instance said about a table version; asks it if it was not asked yet.
    pub(super) fn subscription(&mut self, table: &Arc<Table>) -> Subscription {
        let known = self.subscriptions.get(&table.fingerprint);
        let stale = self.instance.is_dead();
        if let Some(known) =
            known.filter(|known| !stale || !matches!(known, Subscription::Wanted(_)))
        {
            return known.clone();
        }
        if let Some(why) = self.replace_dead() {
            return Subscription::Refused(why);
        }
        let id = number(self.subscriptions.len());
        self.instance.look_at(table, None);
        let answer = with_table(id, table, |shown| self.instance.subscribe(shown));
        let subscription = match answer {
            Ok(None) => Ok(Subscription::Ignored),
            Ok(Some(interest)) => {
                self.plan(id, table, &interest).map(|plan| Subscription::Wanted(Arc::new(plan)))
            }
            Err(outcome) => Err(outcome),
        };
        let subscription = subscription.unwrap_or_else(|outcome| {
            self.count_fault(outcome.kind());
            let (plugin, name) = (&self.version.id.name, table.full_name());
            tracing::error!(%plugin, table = %name, %outcome, "plugin does not take the table");
            Subscription::Refused(format!(
                "it does not take table {}: {outcome}",
                table.full_name()
            ))
        });
        self.replace_dead();
        self.subscriptions.insert(table.fingerprint, subscription.clone());
        subscription
    }

    fn plan(&mut self, id: u32, table: &Arc<Table>, interest: &Interest) -> Result<Plan, Outcome> {
        let mut plan = Plan::new(id, table, interest)?;
        if self.role() == Role::Reshape {
            let shape = with_table(id, table, |shown| self.instance.reshape(shown))?;
            plan.shape = Some(Shape::new(table, &shape).map_err(Outcome::Malformed)?);
        }
        Ok(plan)
    }

    pub(super) fn role(&self) -> Role {
        self.version.role
    }

    pub(super) fn options(&self) -> &Options {
        &self.loader.options
    }

    pub(super) fn count_fault(&self, kind: &'static str) {
        let labels = PluginKindLabels { plugin: self.options().name.clone(), kind };
        self.loader.metrics.plugin_faults.get_or_create(&labels).inc();
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
