//! One plugin of a chain: which rows it is shown, and what becomes of those it fails on.
//!
//! A call that fails as a whole is repeated with parts of its rows until the rows at fault stand
//! alone, so that nothing but them is set aside. The parts are small, because it is the failing calls
//! that cost (a deadline, a new instance): one per level, and levels are few.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::change::{Changes, Op};
use crate::dead_letter::{DeadLetter, Stage};
use crate::plugin::adopt::{self, Beside, Verdicts};
use crate::plugin::bindings::types::{Fault, Interest};
use crate::plugin::convert::{Plan, Scratch, Unreadable, number, with_table};
use crate::plugin::dedup::Window;
use crate::plugin::error::Error;
use crate::plugin::fates::Fates;
use crate::plugin::instance::{Instance, Outcome, Role};
use crate::plugin::loader::{Loaded, Loader, Version};
use crate::plugin::options::{OnError, Options};
use crate::plugin::rewrite;
use crate::plugin::shape::Shape;
use crate::position::Position;
use crate::table::Table;
use crate::telemetry::metrics::{PluginKindLabels, PluginLabels};

/// Parts a failing call's rows are split into.
const PARTS: usize = 16;
/// Deadlines that looking for the rows at fault may cost per batch. A plugin that hangs on every
/// row would else hold the stream for as many deadlines as there are rows.
const SEARCH_DEADLINES: u32 = 16;

/// A version that is ready to take over.
pub(crate) type Incoming = Arc<Mutex<Option<Loaded>>>;

pub(crate) struct Member {
    loader: Loader,
    version: Version,
    instance: Instance,
    subscriptions: FxHashMap<u64, Subscription>,
    window: Window,
    incoming: Incoming,
    scratch: Scratch,
    usage: Usage,
}

#[derive(Clone)]
enum Subscription {
    Ignored,
    Wanted(Arc<Plan>),
    Refused(String),
}

/// What a batch cost so far, for the metrics.
#[derive(Default)]
struct Usage {
    calls: u64,
    rows: u64,
    searching: Duration,
}

/// Rows to be shown together.
struct Task {
    rows: Vec<u32>,
    retries: u32,
    /// Rows after these were looked at before.
    late: bool,
}

impl Member {
    pub(crate) fn new(loader: Loader, loaded: Loaded) -> Member {
        let window = Window::new(loader.options.window_keys, loader.options.window_seconds);
        Member {
            loader,
            version: loaded.version,
            instance: loaded.instance,
            subscriptions: FxHashMap::default(),
            window,
            incoming: Incoming::default(),
            scratch: Scratch::default(),
            usage: Usage::default(),
        }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    pub(crate) fn incoming(&self) -> Incoming {
        Arc::clone(&self.incoming)
    }

    /// Lets a version that is ready take over; the memory of keys stays.
    pub(crate) fn take_over(&mut self) -> bool {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(loaded) = incoming.take() else { return false };
        drop(incoming);
        self.version = loaded.version;
        self.instance = loaded.instance;
        self.subscriptions.clear();
        true
    }

    pub(crate) fn commit(&mut self) {
        self.window.commit();
    }

    pub(crate) fn roll_back(&mut self) {
        self.window.roll_back();
    }

    pub(crate) fn rewind(&mut self, durable: Position) {
        self.window.rewind(durable);
    }

    pub(crate) fn forget(&mut self, failed: &HashSet<Position>) {
        self.window.forget(failed);
    }

    /// Runs the plugin over a batch: edits cells, drops rows, sets rows aside.
    pub(crate) fn run(&mut self, changes: &mut Changes, fates: &mut Fates) -> Result<(), Error> {
        let started = Instant::now();
        fates.begin(changes);
        if self.version.role == Role::Dedup {
            self.window.note_truncates(changes);
        }
        let done = self.run_tables(changes, fates);
        fates.sweep(changes);
        self.report(started.elapsed());
        done
    }

    fn run_tables(&mut self, changes: &mut Changes, fates: &mut Fates) -> Result<(), Error> {
        for (index, Rows { shown: rows, truncates }) in by_table(changes).into_iter().enumerate() {
            let table = Arc::clone(&changes.tables[index]);
            let none = rows.is_empty() && (truncates.is_empty() || self.role() != Role::Reshape);
            if none || !self.options().covers(&table.schema, &table.name) {
                continue;
            }
            match self.subscription(&table)? {
                Subscription::Ignored => continue,
                Subscription::Wanted(plan) => {
                    let shape = plan.shape.iter();
                    let emptied =
                        shape.flat_map(|shape| truncates.iter().map(move |at| (shape, at)));
                    emptied.for_each(|(shape, at)| rewrite::truncate(shape, changes, *at, fates));
                }
                Subscription::Refused(_) => {}
            }
            let size = self.options().batch_rows.max(1) as usize;
            for part in rows.chunks(size) {
                self.run_part(&table, changes, part.to_vec(), fates)?;
            }
        }
        Ok(())
    }

    fn run_part(
        &mut self,
        table: &Arc<Table>,
        changes: &mut Changes,
        rows: Vec<u32>,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let retries = self.options().retries;
        let mut tasks = vec![Task { rows, retries, late: false }];
        while let Some(task) = tasks.pop() {
            let started = Instant::now();
            match self.show(table, changes, &task)? {
                Shown::Ignored => {}
                Shown::Answered(verdicts) => {
                    if let Some(Subscription::Wanted(plan)) =
                        self.subscriptions.get(&table.fingerprint)
                        && let Some(shape) = &plan.shape
                    {
                        rewrite::carry_out(shape, changes, &task.rows, &verdicts, fates);
                    }
                    let again = self.settle(changes, &task, verdicts, fates)?;
                    tasks.extend(again);
                }
                Shown::Unreadable(row) => {
                    let reason = "a value is not what its column's type says".to_owned();
                    self.set_aside(changes, task.rows[row], reason, fates)?;
                    tasks.push(task.without(row));
                }
                Shown::Refused(reason) => self.set_all_aside(changes, &task, &reason, fates)?,
                Shown::Failed(outcome) => {
                    self.after_failure(&outcome)?;
                    self.usage.searching += started.elapsed();
                    tasks.extend(self.search(changes, task, &outcome, fates)?);
                }
            }
        }
        Ok(())
    }

    fn after_failure(&mut self, outcome: &Outcome) -> Result<(), Error> {
        self.count_fault(outcome.kind());
        if self.instance.is_dead() { self.restart() } else { Ok(()) }
    }

    /// Sets rows of a failed call aside once they stand alone; else the parts to go on with.
    fn search(
        &self,
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
        self.set_all_aside(changes, &task, &reason, fates)?;
        Ok(Vec::new())
    }

    /// One call, if the plugin wants the table.
    fn show(
        &mut self,
        table: &Arc<Table>,
        changes: &mut Changes,
        task: &Task,
    ) -> Result<Shown, Error> {
        if task.rows.is_empty() {
            return Ok(Shown::Ignored);
        }
        let plan = match self.subscription(table)? {
            Subscription::Ignored => return Ok(Shown::Ignored),
            Subscription::Refused(reason) => return Ok(Shown::Refused(reason)),
            Subscription::Wanted(plan) => plan,
        };
        self.usage.calls += 1;
        self.usage.rows += task.rows.len() as u64;
        Ok(match self.version.role {
            Role::Transform => self.transform(&plan, changes, &task.rows),
            Role::Reshape => self.reshape(&plan, changes, &task.rows),
            Role::Dedup => self.deduplicate(&plan, changes, task),
        })
    }

    fn transform(&mut self, plan: &Plan, changes: &mut Changes, rows: &[u32]) -> Shown {
        let Member { scratch, instance, .. } = self;
        let answer = scratch.with_batch(plan, changes, rows, |batch| instance.process(batch));
        match answer {
            Err(Unreadable(row)) => Shown::Unreadable(row),
            Ok(Err(outcome)) => Shown::Failed(outcome),
            Ok(Ok(patch)) => adopt::adopt(plan, changes, rows, patch, Beside::default())
                .map_or_else(|why| Shown::Failed(Outcome::Malformed(why)), Shown::Answered),
        }
    }

    fn reshape(&mut self, plan: &Plan, changes: &mut Changes, rows: &[u32]) -> Shown {
        let Member { scratch, instance, .. } = self;
        let answer = scratch.with_batch(plan, changes, rows, |batch| instance.rewrite(batch));
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

    fn deduplicate(&mut self, plan: &Plan, changes: &Changes, task: &Task) -> Shown {
        let Member { scratch, instance, window, .. } = self;
        let Task { rows, late, .. } = task;
        let keys = match scratch.with_batch(plan, changes, rows, |batch| instance.keys(batch)) {
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
        let failed =
            |row: u32| verdicts.faults.binary_search_by_key(&row, |fault| fault.row).is_ok();
        // Of those that reshape, it was said where discarded rows are no more.
        let discard = verdicts.discard.into_iter().filter(|_| self.role() != Role::Reshape);
        for row in discard.filter(|row| !failed(*row)) {
            fates.discard(changes, task.rows[row as usize]);
        }
        for row in verdicts.duplicates {
            fates.drop_row(task.rows[row as usize]);
        }
        let retries = task.retries.saturating_sub(1);
        Ok((!again.is_empty()).then_some(Task { rows: again, retries, late: true }))
    }

    fn set_all_aside(
        &self,
        changes: &Changes,
        task: &Task,
        reason: &str,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let mut rows = task.rows.iter();
        rows.try_for_each(|row| self.set_aside(changes, *row, reason.to_owned(), fates))
    }

    fn set_aside(
        &self,
        changes: &Changes,
        row: u32,
        reason: String,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let change = &changes.list[row as usize];
        if self.options().on_error == OnError::Halt {
            return Err(Error::Fault {
                plugin: self.options().name.clone(),
                position: changes.position(change),
                table: changes.table(change).full_name().to_string(),
                reason,
            });
        }
        let plugin = Some(self.version.id.clone());
        let letter = DeadLetter::new(changes, change, Stage::Transform, plugin, reason);
        fates.set_aside(row, letter);
        Ok(())
    }

    /// What the instance said about a table version; asks it if it was not asked yet.
    fn subscription(&mut self, table: &Arc<Table>) -> Result<Subscription, Error> {
        if let Some(known) = self.subscriptions.get(&table.fingerprint) {
            return Ok(known.clone());
        }
        let id = number(self.subscriptions.len());
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
        if self.instance.is_dead() {
            self.restart()?;
        }
        self.subscriptions.insert(table.fingerprint, subscription.clone());
        Ok(subscription)
    }

    fn plan(&mut self, id: u32, table: &Arc<Table>, interest: &Interest) -> Result<Plan, Outcome> {
        let mut plan = Plan::new(id, table, interest)?;
        if self.role() == Role::Reshape {
            let shape = with_table(id, table, |shown| self.instance.reshape(shown))?;
            plan.shape = Some(Shape::new(table, &shape).map_err(Outcome::Malformed)?);
        }
        Ok(plan)
    }

    /// Replaces a dead instance; the new one was told of no table yet.
    fn restart(&mut self) -> Result<(), Error> {
        self.instance = self.loader.start(&self.version)?;
        self.subscriptions.retain(|_, known| matches!(known, Subscription::Refused(_)));
        Ok(())
    }

    fn role(&self) -> Role {
        self.version.role
    }

    fn options(&self) -> &Options {
        &self.loader.options
    }

    fn count_fault(&self, kind: &'static str) {
        let labels = PluginKindLabels { plugin: self.options().name.clone(), kind };
        self.loader.metrics.plugin_faults.get_or_create(&labels).inc();
    }

    fn report(&mut self, elapsed: Duration) {
        let usage = std::mem::take(&mut self.usage);
        if usage.calls == 0 {
            return;
        }
        let labels = PluginLabels { plugin: self.options().name.clone() };
        let metrics = &self.loader.metrics;
        metrics.plugin_seconds.get_or_create(&labels).inc_by(elapsed.as_secs_f64());
        metrics.plugin_calls.get_or_create(&labels).inc_by(usage.calls);
        metrics.plugin_rows.get_or_create(&labels).inc_by(usage.rows);
        let memory = i64::try_from(self.instance.memory_bytes()).unwrap_or(i64::MAX);
        metrics.plugin_memory_bytes.get_or_create(&labels).set(memory);
    }
}

enum Shown {
    Ignored,
    Refused(String),
    Answered(Verdicts),
    Unreadable(usize),
    Failed(Outcome),
}

impl Task {
    /// The earliest part is last, so that a stack of tasks keeps the order of rows.
    fn parts(&self) -> Vec<Task> {
        let part = |rows: &[u32]| Task { rows: rows.to_vec(), ..*self };
        self.rows.rchunks(self.rows.len().div_ceil(PARTS)).map(part).collect()
    }

    fn without(mut self, row: usize) -> Task {
        self.rows.remove(row);
        self
    }
}

/// Indices into `changes.list`, in order.
#[derive(Clone, Default)]
struct Rows {
    shown: Vec<u32>,
    /// They have no row to show.
    truncates: Vec<u32>,
}

/// The changes per table version.
fn by_table(changes: &Changes) -> Vec<Rows> {
    let mut tables = vec![Rows::default(); changes.tables.len()];
    for (index, change) in changes.list.iter().enumerate() {
        let rows = &mut tables[change.table as usize];
        let rows = if change.op == Op::Truncate { &mut rows.truncates } else { &mut rows.shown };
        rows.push(number(index));
    }
    tables
}

fn shorten(fault: &Fault) -> String {
    let end = fault.message.floor_char_boundary(500);
    fault.message[..end].to_owned()
}
