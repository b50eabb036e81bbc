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
//! its rows must not count as duplicates of themselves. For the same reason [`Window::rewind`]
//! forgets the changes that a restarted source will send again, and [`Window::forget`] those that
//! were set aside and never reached the copy.

use std::collections::hash_map::Entry;
use std::collections::{HashSet, VecDeque};

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use crate::change::{Change, Changes, Op, Row, Value};
use crate::position::Position;
use crate::table::{Table, TableName};

/// 128 bits of SHA-256: as good as what was hashed, and of bounded size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hash128([u8; 16]);

/// The last change of a row that went on.
#[derive(Debug, Clone, Copy)]
struct Kept {
    position: Position,
    /// Microseconds since the Unix epoch.
    committed_at: i64,
    /// What the plugin said of it; none if the row is gone, or the plugin said nothing.
    key: Option<Hash128>,
}

pub(crate) struct Window {
    rows_max: usize,
    age_max: i64,
    known: FxHashMap<Hash128, Kept>,
    /// Each known row once, in the order in which they became known.
    order: VecDeque<Hash128>,
    /// Changed since the last commit, with what was known of each row before.
    provisional: Vec<(Hash128, Option<Kept>)>,
    /// Where tables were emptied, ascending: what was known of their rows before counts no more
    /// after. The last of earlier batches, and all of this one.
    emptied: FxHashMap<TableName, Vec<Position>>,
    newest: i64,
}

impl Hash128 {
    fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash128 {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        Hash128(digest[..16].try_into().expect("32 bytes"))
    }

    fn of_row(table: &Table, parts: Vec<&[u8]>) -> Hash128 {
        Hash128::of([table.schema.as_bytes(), table.name.as_bytes()].into_iter().chain(parts))
    }

    /// The row with that key; none if a part of the key was not sent.
    fn of_key(changes: &Changes, change: &Change, row: Row) -> Option<Hash128> {
        let table = changes.table(change);
        let part = |column| match changes.value(row, column) {
            Value::Text(text) => Some(text),
            Value::Null | Value::Unchanged => None,
        };
        let parts: Option<Vec<&[u8]>> = table.key().map(part).collect();
        parts.filter(|parts| !parts.is_empty()).map(|parts| Hash128::of_row(table, parts))
    }
}

impl Window {
    /// Remembers `rows_max` rows at most, each until a commit is `seconds` younger.
    pub(crate) fn new(rows_max: usize, seconds: u32) -> Window {
        Window {
            rows_max,
            age_max: i64::from(seconds) * 1_000_000,
            known: FxHashMap::default(),
            order: VecDeque::new(),
            provisional: Vec::new(),
            emptied: FxHashMap::default(),
            newest: i64::MIN,
        }
    }

    /// Takes in which tables a batch empties, before its rows.
    pub(crate) fn note_truncates(&mut self, changes: &Changes) {
        for places in self.emptied.values_mut() {
            places.drain(..places.len() - 1);
        }
        for change in changes.list.iter().filter(|change| change.op == Op::Truncate) {
            let places = self.emptied.entry(changes.table(change).full_name()).or_default();
            places.push(changes.position(change));
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
        let key = key.map(|key| Hash128::of([key]));
        let kept = Kept { position: changes.position(change), committed_at, key };
        if change.op == Op::Delete || changes.key_changed(change) {
            let old = change.old.row().and_then(|row| Hash128::of_key(changes, change, row));
            old.into_iter().for_each(|row| self.note(row, Kept { key: None, ..kept }));
        }
        let Some(row) = change.new.and_then(|row| identity(changes, change, row, key)) else {
            return false;
        };
        let compare = key.is_some() && !late && !changes.key_changed(change);
        if compare && self.says_nothing_new(changes.table(change), change.op, row, &kept) {
            return true;
        }
        self.note(row, kept);
        false
    }

    fn says_nothing_new(&self, table: &Table, op: Op, row: Hash128, now: &Kept) -> bool {
        let horizon = self.newest.saturating_sub(self.age_max);
        let Some(known) = self.known.get(&row).filter(|known| known.committed_at >= horizon) else {
            return false;
        };
        let between = |at: &Position| known.position < *at && *at <= now.position;
        if !self.emptied.is_empty() {
            let places = self.emptied.get(&table.full_name());
            if places.is_some_and(|places| places.iter().any(between)) {
                return false;
            }
        }
        now.position <= known.position || (op != Op::Read && now.key == known.key)
    }

    fn note(&mut self, row: Hash128, kept: Kept) {
        match self.known.entry(row) {
            Entry::Occupied(mut known) if known.get().position <= kept.position => {
                self.provisional.push((row, Some(known.insert(kept))));
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(kept);
                self.order.push_back(row);
                self.provisional.push((row, None));
            }
        }
    }

    /// The batch is through: what it added stays, and what is too old or too much goes.
    pub(crate) fn commit(&mut self) {
        self.provisional.clear();
        let horizon = self.newest.saturating_sub(self.age_max);
        while let Some(oldest) = self.order.front() {
            let aged = self.known[oldest].committed_at < horizon;
            if !aged && self.order.len() <= self.rows_max {
                break;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
    }

    /// The batch failed: its changes were never seen.
    pub(crate) fn roll_back(&mut self) {
        while let Some((row, before)) = self.provisional.pop() {
            if let Some(kept) = before {
                self.known.insert(row, kept);
            } else {
                self.known.remove(&row);
                self.order.pop_back();
            }
        }
    }

    /// Forgets the changes after `durable`.
    pub(crate) fn rewind(&mut self, durable: Position) {
        self.provisional.clear();
        self.known.retain(|_, kept| kept.position <= durable);
        self.order.retain(|row| self.known.contains_key(row));
    }

    /// Forgets changes that did not reach the copy after all.
    pub(crate) fn forget(&mut self, failed: &HashSet<Position>) {
        for kept in self.known.values_mut().filter(|kept| failed.contains(&kept.position)) {
            kept.key = None;
        }
    }
}

fn identity(changes: &Changes, change: &Change, row: Row, key: Option<Hash128>) -> Option<Hash128> {
    let table = changes.table(change);
    if table.has_key() {
        return Hash128::of_key(changes, change, row);
    }
    let inserted = matches!(change.op, Op::Insert | Op::Read);
    key.filter(|_| inserted).map(|key| Hash128::of_row(table, vec![&key.0]))
}

#[cfg(test)]
mod tests;
