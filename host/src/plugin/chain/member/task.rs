//! Rows to be shown to a plugin, and in which parts.

use std::sync::Arc;

use crate::change::{Changes, Op};
use crate::plugin::boundary::{Plan, Verdicts, number};
use crate::plugin::guest::Outcome;

/// Parts a failing call's rows are split into.
const PARTS: usize = 16;

/// Rows to be shown together.
#[derive(Default)]
pub(super) struct Task {
    pub(super) rows: Vec<u32>,
    pub(super) retries: u32,
    /// Rows after these were looked at before.
    pub(super) late: bool,
    /// They are a part of those of a call that failed.
    pub(super) part: bool,
    /// It is a row that hung alone, and has what is left of the batch's time.
    pub(super) last_chance: bool,
}

/// How showing rows ended.
pub(super) enum Shown {
    Ignored,
    Refused(String),
    /// By the plan that it was asked with.
    Answered(Arc<Plan>, Box<Verdicts>),
    Unreadable(usize),
    Failed(Outcome),
}

impl Task {
    /// The earliest part is last, so that a stack of tasks keeps the order of rows.
    pub(super) fn parts(&self) -> Vec<Task> {
        let part = |rows: &[u32]| Task { rows: rows.to_vec(), part: true, ..*self };
        self.rows.rchunks(self.rows.len().div_ceil(PARTS)).map(part).collect()
    }

    /// The rows but for one of them, if there are others.
    pub(super) fn without(mut self, row: usize) -> Option<Task> {
        self.rows.remove(row);
        (!self.rows.is_empty()).then_some(self)
    }
}

/// Changes of one table version: indices into `changes.list`, in order.
#[derive(Clone, Default)]
pub(super) struct Rows {
    /// Index into `changes.tables`.
    pub(super) table: usize,
    pub(super) shown: Vec<u32>,
    /// They have no row to show.
    pub(super) truncates: Vec<u32>,
}

/// The changes per table version.
pub(super) fn by_table(changes: &Changes) -> Vec<Rows> {
    let share = changes.len().checked_div(changes.tables.len()).unwrap_or_default();
    let of = |table| {
        let shown = Vec::with_capacity(share);
        Rows { table, shown, truncates: Vec::new() }
    };
    let mut tables: Vec<Rows> = (0..changes.tables.len()).map(of).collect();
    for (index, change) in (0..).zip(&changes.list) {
        let rows = &mut tables[change.table as usize];
        let rows = if change.op == Op::Truncate { &mut rows.truncates } else { &mut rows.shown };
        rows.push(index);
    }
    tables
}

/// The changes as they are in the log, those of one table version together that follow each other.
pub(super) fn by_run(changes: &Changes) -> Vec<Rows> {
    let mut runs: Vec<Rows> = Vec::new();
    for (index, change) in changes.list.iter().enumerate() {
        let table = change.table as usize;
        if runs.last().is_none_or(|run| run.table != table) {
            runs.push(Rows { table, ..Rows::default() });
        }
        let run = runs.last_mut().expect("one was just added");
        let rows = if change.op == Op::Truncate { &mut run.truncates } else { &mut run.shown };
        rows.push(number(index));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_its_only_row_there_is_no_task() {
        let task = |rows: &[u32]| Task { rows: rows.to_vec(), ..Task::default() };
        assert_eq!(task(&[3, 5, 7]).without(1).map(|task| task.rows), Some(vec![3, 7]));
        assert!(task(&[3]).without(0).is_none());
    }
}
