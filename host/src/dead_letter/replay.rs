//! From dead letters back to changes.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::DeadLetter;
use crate::change::{Cell, Change, Changes, Old, Op, Row, Transaction};
use crate::position::Lsn;
use crate::table::Table;

/// What is needed to drive a change through again, beside its original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The table version that the original is a row of; letters of one batch share it.
    #[serde(with = "shared")]
    pub table: Arc<Table>,
    /// LSN of the change's own record.
    pub lsn: Lsn,
    /// When it was committed, in microseconds since the Unix epoch.
    pub committed_at: i64,
    /// Transaction id.
    pub xid: u32,
    /// Whether all of the row before is known, not only its key.
    pub whole_before: bool,
    /// The part of the source whose memory the plugins had of the change, if they remember.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
}

/// A table in JSON is the same, whoever shares it.
mod shared {
    use serde::{Deserializer, Serializer};

    use super::{Arc, Deserialize, Serialize, Table};

    pub(super) fn serialize<S: Serializer>(
        table: &Arc<Table>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Table::serialize(table, serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Arc<Table>, D::Error> {
        Table::deserialize(deserializer).map(Arc::new)
    }
}

impl Replay {
    /// What it takes as JSON.
    pub(super) fn bytes(&self) -> usize {
        serde_json::to_string(self).expect("a table is plain data").len()
    }
}

/// Makes changes of letters again, each at the position it always had, oldest first. Letters that
/// hold no change (a record that could not be read) are left out.
#[must_use]
pub fn changes_of(letters: &[DeadLetter]) -> Changes {
    let mut letters: Vec<&DeadLetter> = letters.iter().collect();
    letters.sort_by_key(|letter| letter.position);
    let mut changes = Changes::default();
    let mut tables: FxHashMap<u64, Arc<Table>> = FxHashMap::default();
    for letter in letters {
        let Some(replay) = &letter.replay else { continue };
        let Some(op) = Op::of_code(&letter.op) else { continue };
        let Ok(Json::Object(original)) = serde_json::from_str(&letter.original) else { continue };
        let known = tables.entry(replay.table.fingerprint);
        let table = Arc::clone(known.or_insert_with(|| Arc::clone(&replay.table)));
        let row = |changes: &mut Changes, image: &str, absent| match &original[image] {
            Json::Object(values) => Some(push_row(changes, &table, values, absent)),
            _ => None,
        };
        let old = match row(&mut changes, "before", Cell::NULL) {
            None => Old::None,
            Some(row) if replay.whole_before => Old::Full(row),
            Some(row) => Old::Key(row),
        };
        let new = row(&mut changes, "after", Cell::UNCHANGED);
        let transaction = changes.push_transaction(Transaction {
            commit: letter.position.commit,
            previous_commit: Lsn(0),
            committed_at: replay.committed_at,
            xid: replay.xid,
        });
        let table = changes.intern_table(&table);
        let (ordinal, lsn) = (letter.position.ordinal, replay.lsn);
        changes.list.push(Change { op, table, transaction, ordinal, lsn, old, new });
    }
    changes
}

fn push_row(changes: &mut Changes, table: &Table, values: &Map<String, Json>, absent: Cell) -> Row {
    let row = changes.begin_row();
    for column in &table.columns {
        let cell = match values.get(&column.name) {
            None => absent,
            Some(Json::String(text)) => changes.push_text(text.as_bytes()),
            Some(_) => Cell::NULL,
        };
        changes.push_cell(cell);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::Stage;
    use crate::position::Position;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    fn table() -> Table {
        let column = |name: &str, key: bool| {
            let column = Column::new(name, ColumnType::Text, "text");
            Column { nullable: !key, key, ..column }
        };
        let columns = vec![column("id", true), column("note", false), column("big", false)];
        Table::new(1, "public".into(), "t".into(), columns, ReplicaIdentity::Default)
    }

    /// One change at that place, with an old key.
    fn update(changes: &mut Changes, ordinal: u64, note: Cell, big: Cell) {
        let index = changes.tables.len().checked_sub(1);
        let table = index.map_or_else(|| Arc::new(table()), |at| Arc::clone(&changes.tables[at]));
        let table = changes.intern_table(&table);
        let row = changes.begin_row();
        let id = changes.push_text(b"7");
        [id, note, big].into_iter().for_each(|cell| changes.push_cell(cell));
        let old = Old::Key(changes.key_row(table, row));
        let (op, lsn, new) = (Op::Update, Lsn(ordinal), Some(row));
        changes.list.push(Change { op, table, transaction: 0, ordinal, lsn, old, new });
    }

    #[test]
    fn a_letter_becomes_the_change_it_was_made_of() {
        let (commit, previous_commit) = (Lsn(9), Lsn(0));
        let mut changes = Changes::default();
        changes.push_transaction(Transaction { commit, previous_commit, committed_at: 5, xid: 3 });
        let note = changes.push_text("ünï \"q\"".as_bytes());
        update(&mut changes, 2, note, Cell::UNCHANGED);
        update(&mut changes, 1, Cell::NULL, Cell::NULL);
        let letter = |change| {
            DeadLetter::new(&changes, change, Stage::Transform, None, "it failed".to_owned())
        };
        let letters: Vec<DeadLetter> = changes.list.iter().map(letter).collect();
        let tables = letters.iter().filter_map(|letter| letter.replay.as_ref());
        assert!(tables.into_iter().all(|replay| Arc::ptr_eq(&replay.table, &changes.tables[0])));
        let again = changes_of(&letters);
        let positions = again.list.iter().map(|change| again.position(change));
        let at = |ordinal| Position { commit, ordinal };
        assert_eq!(positions.collect::<Vec<_>>(), [at(1), at(2)], "oldest first");
        assert_eq!(again.tables.len(), 1);
        assert_eq!(again.transaction(&again.list[1]).committed_at, 5);
        let letters_again = again.list.iter().rev().map(|change| {
            DeadLetter::new(&again, change, Stage::Transform, None, "it failed".to_owned())
        });
        assert_eq!(letters_again.collect::<Vec<_>>(), letters);
    }
}
