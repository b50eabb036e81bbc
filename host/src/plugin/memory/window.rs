//! The memory that tells duplicates. It belongs to the host, so it outlives traps and reloads of the
//! plugin, and it is per row of the source, so that what is dropped was already in the copy:
//!
//! * a change whose place in the log is not after the row's last kept change was delivered twice;
//! * an insert or update to which the plugin gave the key of the row's last kept change says
//!   nothing new. `a`, `b`, `a` are three changes: what counts is the last one, not any one.
//!
//! Deletes, changes of a row's key and rows without a key from the plugin always stay, and so do the
//! rows of a snapshot, which somebody may have asked for to mend the copy. Rows of a table without a
//! key cannot be told apart but by what the plugin says: there, any equal insert is a duplicate.
//!
//! What a batch adds is provisional until [`Window::commit`]: a batch that fails is seen again, and
//! its rows must not count as duplicates of themselves. For a like reason [`Window::forget`]
//! forgets those that were set aside and never reached the copy, and [`Window::hide`] what was known
//! before those that were set aside earlier on. A source that is read again from an
//! earlier place finds the window as it was there, see [`memory`](super).

use std::collections::HashSet;
use std::mem;

use rustc_hash::FxHashMap;

use crate::change::{Change, Changes, Op, Row};
use crate::plugin::memory::set_aside::{Reach, SetAside};
use crate::position::Position;
use crate::table::Table;
pub(crate) use known::Kept;
use known::{Known, Number};
pub(crate) use mark::Mark;
use mark::Marker;

mod known;
mod mark;

/// Stands for all tables, as a mark of which nothing is the text.
const EVERYTHING: Mark = Mark(0, 0);

/// What a batch changed of a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WindowDelta {
    /// Rows by their number, which they have for as long as they are known.
    pub(crate) rows: Vec<(u64, (Mark, Kept))>,
    /// Rows with smaller numbers are known no more.
    pub(crate) first: u64,
    /// The youngest commit that was seen, in microseconds since the Unix epoch.
    pub(crate) newest: i64,
    /// Where tables were emptied last.
    pub(crate) emptied: Vec<(Mark, Position)>,
}

pub(crate) struct Window {
    rows_max: usize,
    age_max: i64,
    marker: Marker,
    known: Known,
    /// Changed since the last commit, with what was known of each row before.
    provisional: Vec<(Number, Option<Kept>)>,
    /// Where tables were emptied, ascending: what was known of their rows before counts no more
    /// after. The last of earlier batches, and all of this one, with its [hidden](Self::hide) rows.
    emptied: FxHashMap<Mark, Vec<Position>>,
    /// What the batch added to that.
    emptying: Vec<(Mark, Position)>,
    /// The rows of it that are hidden.
    hidden: Vec<(Mark, Kept)>,
    /// The tables of the batch.
    tables: Vec<Mark>,
    newest: i64,
}

impl Window {
    /// Remembers `rows_max` rows at most, each until a commit is `seconds` younger; rows are marked
    /// under `secret`.
    pub(crate) fn new(rows_max: usize, seconds: u32, secret: [u8; 16]) -> Window {
        Window {
            rows_max,
            age_max: i64::from(seconds) * 1_000_000,
            marker: Marker::new(secret),
            known: Known::default(),
            provisional: Vec::new(),
            emptied: FxHashMap::default(),
            emptying: Vec::new(),
            hidden: Vec::new(),
            tables: Vec::new(),
            newest: i64::MIN,
        }
    }

    /// Takes in a batch's tables and which of them it empties, before its rows.
    pub(crate) fn begin(&mut self, changes: &Changes) {
        self.tables.clear();
        self.tables.extend(changes.tables.iter().map(|table| self.marker.of_table(table)));
        for places in self.emptied.values_mut() {
            places.drain(..places.len() - 1);
        }
        self.emptying.clear();
        for change in changes.list.iter().filter(|change| change.op == Op::Truncate) {
            self.empty(self.tables[change.table as usize], changes.position(change));
        }
    }

    fn empty(&mut self, what: Mark, at: Position) {
        let places = self.emptied.entry(what).or_default();
        places.insert(places.partition_point(|place| *place <= at), at);
        self.emptying.push((what, at));
    }

    /// A change that was set aside may come yet, so what was known of its row before must drop nothing
    /// that comes after it. To be called after [`begin`](Self::begin).
    pub(crate) fn hide(&mut self, changes: &Changes, set_aside: &SetAside) {
        let SetAside { table, position, committed_at, reach, .. } = set_aside;
        if *reach == Reach::Everything {
            return self.empty(EVERYTHING, *position);
        }
        // A row without a key comes again as a row of its own.
        if !table.has_key() {
            return;
        }
        let mark = self.marker.of_table(table);
        for row in set_aside.rows.into_iter().flatten() {
            let row = self.marker.of_row(changes, table, mark, row);
            let Some(row) = row.filter(|_| *reach == Reach::Row) else {
                return self.empty(mark, *position);
            };
            let kept = Kept { position: *position, committed_at: *committed_at, key: None };
            self.empty(row, *position);
            self.hidden.push((row, kept));
        }
    }

    /// The batch has no further rows to which it matters where in it others were hidden.
    fn settle_hidden(&mut self) {
        for (row, kept) in mem::take(&mut self.hidden) {
            self.emptied.remove(&row);
            let found = self.known.find(row);
            // What was set aside at first may have been kept after all.
            if found.is_some_and(|found| self.known.row(found).1.position < kept.position) {
                self.note_found(row, found, kept);
            }
        }
    }

    /// Whether a change to which the plugin gave that key is to be dropped; if not, it counts as
    /// kept from now on. `late`: later changes of the batch were looked at before.
    pub(crate) fn is_duplicate(
        &mut self,
        changes: &Changes,
        change: &Change,
        key: Option<&[u8]>,
        late: bool,
    ) -> bool {
        let committed_at = changes.transaction(change).committed_at;
        self.newest = self.newest.max(committed_at);
        let key = key.map(|key| self.marker.of(key));
        let kept = Kept { position: changes.position(change), committed_at, key };
        let table = (&**changes.table(change), self.tables[change.table as usize]);
        let moved = changes.key_changed(change);
        if change.op == Op::Delete || moved {
            let old = change.old.row();
            let old = old.and_then(|row| self.marker.of_row(changes, table.0, table.1, row));
            old.into_iter().for_each(|row| self.note(row, Kept { key: None, ..kept }));
        }
        let row = change.new.and_then(|row| self.identity(changes, change.op, table, row, key));
        let Some(row) = row else { return false };
        let found = self.known.find(row);
        if let Some(known) = found
            && key.is_some()
            && !late
            && !moved
            && self.says_nothing_new((table.1, row), change.op, known, &kept)
        {
            return true;
        }
        self.note_found(row, found, kept);
        false
    }

    fn identity(
        &mut self,
        changes: &Changes,
        op: Op,
        (table, mark): (&Table, Mark),
        row: Row,
        key: Option<Mark>,
    ) -> Option<Mark> {
        if table.has_key() {
            return self.marker.of_row(changes, table, mark, row);
        }
        let inserted = matches!(op, Op::Insert | Op::Read);
        key.filter(|_| inserted).map(|key| self.marker.of_content(mark, key))
    }

    fn says_nothing_new(
        &self,
        (table, row): (Mark, Mark),
        op: Op,
        known: Number,
        now: &Kept,
    ) -> bool {
        let horizon = self.newest.saturating_sub(self.age_max);
        let (_, known) = self.known.row(known);
        if known.committed_at < horizon {
            return false;
        }
        let between = |places: &Vec<Position>| {
            let next = places.partition_point(|at| *at <= known.position);
            places.get(next).is_some_and(|at| *at <= now.position)
        };
        if !self.emptied.is_empty() {
            let marks = [row, table, EVERYTHING];
            if marks.iter().filter_map(|mark| self.emptied.get(mark)).any(between) {
                return false;
            }
        }
        now.position <= known.position || (op != Op::Read && now.key == known.key)
    }

    fn note(&mut self, row: Mark, kept: Kept) {
        self.note_found(row, self.known.find(row), kept);
    }

    fn note_found(&mut self, row: Mark, found: Option<Number>, kept: Kept) {
        let Some(number) = found else {
            let number = self.known.push(row, kept);
            return self.provisional.push((number, None));
        };
        let known = self.known.kept_mut(number);
        if known.position <= kept.position {
            self.provisional.push((number, Some(mem::replace(known, kept))));
        }
    }

    /// Puts a window back as its deltas made it; they were marked under the same secret.
    pub(crate) fn restore(&mut self, delta: WindowDelta) {
        self.known.begin_at(delta.first);
        for (_, (row, kept)) in delta.rows {
            self.known.push(row, kept);
        }
        self.newest = delta.newest;
        self.emptied = delta.emptied.into_iter().map(|(table, at)| (table, vec![at])).collect();
    }

    /// Takes over limits that were changed.
    pub(crate) fn limit(&mut self, rows_max: usize, seconds: u32) {
        (self.rows_max, self.age_max) = (rows_max, i64::from(seconds) * 1_000_000);
    }

    /// Rows that are known.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// The batch is through: what it added stays, and what is too old or too much goes.
    pub(crate) fn commit(&mut self) {
        self.settle_hidden();
        let horizon = self.newest.saturating_sub(self.age_max);
        while let Some((_, oldest)) = self.known.oldest() {
            let aged = oldest.committed_at < horizon;
            if !aged && self.known.len() <= self.rows_max {
                break;
            }
            self.known.pop_oldest();
        }
        self.provisional.clear();
        self.emptying.clear();
    }

    /// As [`commit`](Self::commit), and tells what changed.
    pub(crate) fn commit_with_delta(&mut self) -> WindowDelta {
        self.settle_hidden();
        let touched: Vec<Number> = self.provisional.iter().map(|(number, _)| *number).collect();
        self.commit();
        let row = |number| Some((self.known.whole(number)?, *self.known.row(number)));
        let last = |(table, places): (&Mark, &Vec<Position>)| Some((*table, *places.last()?));
        WindowDelta {
            rows: touched.into_iter().filter_map(row).collect(),
            first: self.known.first(),
            newest: self.newest,
            emptied: self.emptied.iter().filter_map(last).collect(),
        }
    }

    /// The batch failed: its changes were never seen.
    pub(crate) fn roll_back(&mut self) {
        while let Some((number, before)) = self.provisional.pop() {
            match before {
                Some(kept) => *self.known.kept_mut(number) = kept,
                None => self.known.pop_newest(),
            }
        }
        self.hidden.clear();
        for (what, at) in self.emptying.drain(..).rev() {
            let Some(places) = self.emptied.get_mut(&what) else { continue };
            if let Ok(index) = places.binary_search(&at) {
                places.remove(index);
            }
            if places.is_empty() {
                self.emptied.remove(&what);
            }
        }
    }

    /// Forgets changes of the batch that did not reach the copy after all.
    pub(crate) fn forget(&mut self, failed: &HashSet<Position>) {
        for (number, _) in &self.provisional {
            let kept = self.known.kept_mut(*number);
            if failed.contains(&kept.position) {
                kept.key = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
