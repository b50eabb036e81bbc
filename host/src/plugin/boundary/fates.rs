//! What becomes of the changes of a batch.
//!
//! Discarding is about the row, not about the event: a plugin that discards a change says "this row
//! is not in the copy". An event that just vanished would leave its row's last version there for
//! ever, so that
//!
//! * a discarded insert or snapshot row goes away whole;
//! * a discarded update becomes the delete of the row (of its old key, if the key changed);
//! * a discarded delete stays a delete.
//!
//! Of a discarded change nothing but the key travels on. In a table without a key the copy has
//! nothing to delete, and every discarded change goes away.

use std::collections::HashSet;
use std::sync::Arc;

use crate::change::{Change, Changes, Old, Op, Row};
use crate::dead_letter::{DeadLetter, Noted, Passed};
use crate::plugin::memory::SetAside;
use crate::position::Position;
use crate::table::Table;

#[derive(Default)]
pub(crate) struct Fates {
    /// By index into `changes.list`.
    gone: Vec<bool>,
    any_gone: bool,
    /// Changes to be put in after those of these indices.
    added: Vec<(u32, Change)>,
    new_tables: bool,
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// The changes that they are of, and those that the chain before set aside: plugins behind do not see them.
    pub(crate) unseen: Vec<SetAside>,
    /// What passed the plugins, if that is noted.
    pub(crate) noted: Option<Noted>,
}

impl Fates {
    /// Begins with what one plugin makes of a batch.
    pub(crate) fn begin(&mut self, changes: &Changes) {
        self.gone.clear();
        self.gone.resize(changes.len(), false);
        self.any_gone = false;
        self.added.clear();
        self.new_tables = false;
    }

    /// Puts a change in behind one of the batch, and behind what was put in there before.
    pub(crate) fn add_after(&mut self, index: u32, change: Change) {
        self.added.push((index, change));
    }

    /// Changes belong to other tables than before.
    pub(crate) fn note_new_tables(&mut self) {
        self.new_tables = true;
    }

    /// The change goes no further.
    pub(crate) fn drop_row(&mut self, row: u32) {
        self.gone[row as usize] = true;
        self.any_gone = true;
    }

    /// The rows of these changes of one table are not in the copy.
    pub(crate) fn discard(&mut self, changes: &mut Changes, rows: impl Iterator<Item = u32>) {
        let mut rows = rows.peekable();
        let Some(first) = rows.peek() else { return };
        let table = Arc::clone(changes.table(&changes.list[*first as usize]));
        let (columns, key): (usize, Vec<usize>) = (table.columns.len(), table.key().collect());
        rows.for_each(|row| self.discard_row(changes, columns, &key, row));
    }

    fn discard_row(&mut self, changes: &mut Changes, columns: usize, key: &[usize], row: u32) {
        let change = changes.list[row as usize];
        let Some(known) = deleted_row(&change, !key.is_empty()) else { return self.drop_row(row) };
        let key = changes.key_row_of(columns, key, known);
        let deleted = &mut changes.list[row as usize];
        deleted.op = Op::Delete;
        deleted.old = Old::Key(key);
        deleted.new = None;
    }

    /// The change is set aside.
    pub(crate) fn set_aside(&mut self, row: u32, letter: DeadLetter) {
        self.dead_letters.push(letter);
        self.drop_row(row);
    }

    /// The plugin took these rows of a table, but for those that `failed`, by index into `rows`.
    pub(crate) fn pass(
        &mut self,
        plugin: &Arc<str>,
        table: &Table,
        changes: &Changes,
        rows: &[u32],
        failed: impl Fn(u32) -> bool,
    ) {
        let Some(noted) = &mut self.noted else { return };
        // Rows that another plugin added share the position of the one that they come of.
        if table.oid == 0 {
            return;
        }
        let passed = (0..).zip(rows).filter(|(index, _)| !failed(*index));
        let row = |(_, row): (u32, &u32)| {
            let change = &changes.list[*row as usize];
            (changes.position(change), change.op)
        };
        let rows = passed.map(row).collect();
        let (plugin, table) = (Arc::clone(plugin), table.full_name().to_string());
        noted.passed(Passed { plugin, table, rows });
    }

    /// The plugin failed on a row, whatever becomes of it.
    pub(crate) fn fail(&mut self, plugin: &Arc<str>, position: Position) {
        if let Some(noted) = &mut self.noted {
            noted.failed(plugin, position);
        }
    }

    /// Removes what goes no further, and puts in what was added.
    pub(crate) fn sweep(&mut self, changes: &mut Changes) {
        if !self.added.is_empty() {
            self.put_in(changes);
        } else if self.any_gone {
            let mut gone = self.gone.iter();
            changes.list.retain(|_| !gone.next().expect("one per change"));
        }
        if self.new_tables {
            changes.forget_unused_tables();
        }
    }

    fn put_in(&mut self, changes: &mut Changes) {
        self.added.sort_by_key(|(index, _)| *index);
        let mut added = self.added.drain(..).peekable();
        let mut list = Vec::with_capacity(changes.list.len() + added.len());
        for (index, (change, gone)) in (0..).zip(changes.list.iter().zip(&self.gone)) {
            if !gone {
                list.push(*change);
            }
            while let Some((_, change)) = added.next_if(|(after, _)| *after == index) {
                list.push(change);
            }
        }
        drop(added);
        changes.list = list;
    }

    /// Where the changes that were set aside stand.
    pub(crate) fn failed(&self) -> HashSet<Position> {
        self.dead_letters.iter().map(|letter| letter.position).collect()
    }
}

/// The row whose key the delete of a change's row has; none where there is nothing to delete: a new row is
/// nowhere yet, and without a key none is found.
pub(super) fn deleted_row(change: &Change, has_key: bool) -> Option<Row> {
    match change.op {
        Op::Update | Op::Delete if has_key => change.old.row().or(change.new),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Row, Value};
    use crate::position::Lsn;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    fn batch(keyed: bool, op: Op, old: bool, new: bool) -> Changes {
        let column = |name: &str, key: bool| Column {
            name: name.into(),
            kind: ColumnType::Text,
            type_name: "text".into(),
            nullable: !key,
            key,
            default: None,
            number: None,
            missing: None,
        };
        let columns = vec![column("id", keyed), column("note", false)];
        let identity = ReplicaIdentity::Full;
        let table = Arc::new(Table::new(1, "public".into(), "t".into(), columns, identity));
        let mut changes = Changes::default();
        let table = changes.intern_table(&table);
        let mut row = |id: &str| {
            let row = changes.begin_row();
            for text in [id, "secret"] {
                let cell = changes.push_text(text.as_bytes());
                changes.push_cell(cell);
            }
            row
        };
        let old = if old { Old::Full(row("1")) } else { Old::None };
        let new = new.then(|| row("2"));
        let lsn = Lsn(1);
        changes.list.push(Change { op, table, transaction: 0, ordinal: 1, lsn, old, new });
        changes
    }

    /// The key that is deleted, if anything goes on.
    fn discarded(mut changes: Changes) -> Option<String> {
        let mut fates = Fates::default();
        fates.begin(&changes);
        fates.discard(&mut changes, std::iter::once(0));
        fates.sweep(&mut changes);
        let change = changes.list.first()?;
        let (Op::Delete, Old::Key(row), None::<Row>) = (change.op, change.old, change.new) else {
            panic!("not the delete of a key: {change:?}");
        };
        assert_eq!(changes.value(row, 1), Value::Null, "nothing but the key travels on");
        let Value::Text(key) = changes.value(row, 0) else { panic!("no key") };
        Some(String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn a_discarded_insert_goes_away() {
        assert_eq!(discarded(batch(true, Op::Insert, false, true)), None);
        assert_eq!(discarded(batch(true, Op::Read, false, true)), None);
    }

    #[test]
    fn a_discarded_update_deletes_its_row() {
        assert_eq!(discarded(batch(true, Op::Update, false, true)).as_deref(), Some("2"));
    }

    #[test]
    fn a_discarded_update_of_the_key_deletes_the_old_key() {
        assert_eq!(discarded(batch(true, Op::Update, true, true)).as_deref(), Some("1"));
    }

    #[test]
    fn a_discarded_delete_stays_one() {
        assert_eq!(discarded(batch(true, Op::Delete, true, false)).as_deref(), Some("1"));
    }

    #[test]
    fn without_a_key_everything_discarded_goes_away() {
        assert_eq!(discarded(batch(false, Op::Update, true, true)), None);
        assert_eq!(discarded(batch(false, Op::Delete, true, false)), None);
    }
}
