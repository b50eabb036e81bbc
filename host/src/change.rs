//! A batch of changes as every stage between `decode` and `store` holds it.
//!
//! All text of a batch lies in one arena; a cell is eight bytes that point into it, and a row is a
//! run of cells as long as its table has columns. Nothing is allocated per change. A stage that
//! rewrites a cell appends the new text to the arena and repoints the cell.

use std::sync::Arc;

use crate::position::{Lsn, Position};
use crate::table::Table;

/// What happened to a row, or to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Read by a snapshot.
    Read,
    /// Inserted.
    Insert,
    /// Updated; the key may have changed too, see [`Changes::key_changed`].
    Update,
    /// Deleted.
    Delete,
    /// The whole table was emptied.
    Truncate,
}

impl Op {
    /// Debezium's letter.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Op::Read => "r",
            Op::Insert => "c",
            Op::Update => "u",
            Op::Delete => "d",
            Op::Truncate => "t",
        }
    }

    /// The operation of a letter of Debezium's.
    #[must_use]
    pub fn of_code(code: &str) -> Option<Op> {
        let all = [Op::Read, Op::Insert, Op::Update, Op::Delete, Op::Truncate];
        all.into_iter().find(|op| op.code() == code)
    }
}

/// One cell's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// Not told: a TOASTed value that the update left alone. Distinct from NULL to the very end.
    Unchanged,
    /// PostgreSQL's text form, UTF-8.
    Text(&'a [u8]),
}

/// Where a cell's text lies in the batch's arena; the two largest lengths mark the absent kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    start: u32,
    len: u32,
}

impl Cell {
    /// SQL NULL.
    pub const NULL: Cell = Cell { start: 0, len: u32::MAX };
    /// A TOASTed value that was not sent.
    pub const UNCHANGED: Cell = Cell { start: 0, len: u32::MAX - 1 };

    /// A cell whose text is `arena[start..start + len]`.
    #[must_use]
    pub fn text(start: u32, len: u32) -> Cell {
        debug_assert!(len < u32::MAX - 1, "a value of 4 GiB");
        Cell { start, len }
    }
}

/// A row: the index of its first cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row(pub u32);

/// What is known of the row before the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// Nothing.
    None,
    /// Only the replica identity's columns; the others are NULL in the row but unknown in truth.
    Key(Row),
    /// All of it.
    Full(Row),
}

impl Old {
    /// The row, whatever is known of it.
    #[must_use]
    pub fn row(self) -> Option<Row> {
        match self {
            Old::None => None,
            Old::Key(row) | Old::Full(row) => Some(row),
        }
    }
}

/// One change; its table, transaction and cells are in the batch it came with.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// What happened.
    pub op: Op,
    /// Index into [`Changes::tables`].
    pub table: u32,
    /// Index into [`Changes::transactions`].
    pub transaction: u32,
    /// Ordinal within the transaction.
    pub ordinal: u64,
    /// LSN of the change's own record.
    pub lsn: Lsn,
    /// The row before.
    pub old: Old,
    /// The row after; none for deletes and truncates.
    pub new: Option<Row>,
}

/// What the changes of one transaction share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// LSN of the commit record.
    pub commit: Lsn,
    /// LSN of the commit before it on this stream, 0 if none was seen.
    pub previous_commit: Lsn,
    /// When it committed, in microseconds since the Unix epoch.
    pub committed_at: i64,
    /// Transaction id.
    pub xid: u32,
}

/// A batch of changes in commit order.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The text of all cells.
    arena: Vec<u8>,
    /// The cells of all rows.
    cells: Vec<Cell>,
    /// The changes, oldest first.
    pub list: Vec<Change>,
    /// The table versions they belong to.
    pub tables: Vec<Arc<Table>>,
    /// The transactions they belong to.
    pub transactions: Vec<Transaction>,
}

impl Changes {
    /// An empty batch over text that is already there; cells may point into it.
    #[must_use]
    pub fn over(arena: Vec<u8>) -> Changes {
        Changes { arena, ..Changes::default() }
    }

    /// Gives the batch the read buffer that its cells were pushed for.
    pub fn adopt(&mut self, arena: Vec<u8>) {
        assert!(self.arena.is_empty(), "a batch has one arena");
        self.arena = arena;
    }

    /// No change in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes held, for the queue's bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len()
            + self.cells.len() * size_of::<Cell>()
            + self.list.len() * size_of::<Change>()
    }

    /// The table version of a change.
    #[must_use]
    pub fn table(&self, change: &Change) -> &Arc<Table> {
        &self.tables[change.table as usize]
    }

    /// The transaction of a change.
    #[must_use]
    pub fn transaction(&self, change: &Change) -> &Transaction {
        &self.transactions[change.transaction as usize]
    }

    /// The position of a change.
    #[must_use]
    pub fn position(&self, change: &Change) -> Position {
        Position { commit: self.transaction(change).commit, ordinal: change.ordinal }
    }

    /// The cell of a row's column.
    #[must_use]
    pub fn value(&self, row: Row, column: usize) -> Value<'_> {
        let cell = self.cells[row.0 as usize + column];
        match cell {
            Cell::NULL => Value::Null,
            Cell::UNCHANGED => Value::Unchanged,
            Cell { start, len } => {
                Value::Text(&self.arena[start as usize..start as usize + len as usize])
            }
        }
    }

    /// The cell of a column after a change, for which the old row stands in where it was not sent. An old row
    /// that is only a key does for the columns `in_key`, no others.
    #[must_use]
    pub fn value_after(&self, old: Old, new: Row, column: usize, in_key: bool) -> Value<'_> {
        match (self.value(new, column), old) {
            (Value::Unchanged, Old::Full(old)) => self.value(old, column),
            (Value::Unchanged, Old::Key(old)) if in_key => self.value(old, column),
            (value, _) => value,
        }
    }

    /// The cell of a row's column, to be shared with another row.
    #[must_use]
    pub fn cell(&self, row: Row, column: usize) -> Cell {
        self.cells[row.0 as usize + column]
    }

    /// Lets go of the changes up to a position.
    pub fn pass_over(&mut self, known: Position) {
        let Changes { list, transactions, .. } = self;
        list.retain(|change| {
            let commit = transactions[change.transaction as usize].commit;
            Position { commit, ordinal: change.ordinal } > known
        });
    }

    /// Lets go of table versions that no change belongs to any more.
    pub fn forget_unused_tables(&mut self) {
        let mut places = vec![None; self.tables.len()];
        let mut kept = Vec::new();
        for change in &mut self.list {
            let place = places[change.table as usize].get_or_insert_with(|| {
                kept.push(Arc::clone(&self.tables[change.table as usize]));
                u32::try_from(kept.len() - 1).expect("fewer table versions than rows")
            });
            change.table = *place;
        }
        self.tables = kept;
    }

    /// Interns a table version and gives its index; cheap when it is the one used last.
    pub fn intern_table(&mut self, table: &Arc<Table>) -> u32 {
        let found = self.tables.iter().rposition(|known| Arc::ptr_eq(known, table));
        let index = found.unwrap_or_else(|| {
            self.tables.push(Arc::clone(table));
            self.tables.len() - 1
        });
        u32::try_from(index).expect("fewer table versions than rows")
    }

    /// Adds a transaction and gives its index.
    pub fn push_transaction(&mut self, transaction: Transaction) -> u32 {
        self.transactions.push(transaction);
        u32::try_from(self.transactions.len() - 1).expect("fewer transactions than cells")
    }

    /// Begins a row; the caller then pushes as many cells as its table has columns.
    #[must_use]
    pub fn begin_row(&self) -> Row {
        Row(u32::try_from(self.cells.len()).expect("a batch holds fewer than 2^32 cells"))
    }

    /// Adds a cell to the row begun last.
    pub fn push_cell(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// Adds text to the arena and gives the cell that points to it.
    pub fn push_text(&mut self, text: &[u8]) -> Cell {
        let start = u32::try_from(self.arena.len()).expect("a batch's arena is below 4 GiB");
        self.arena.extend_from_slice(text);
        Cell::text(start, u32::try_from(text.len()).expect("a value is below 4 GiB"))
    }

    /// Adds text that holds many values to the arena and gives its start, for cells that the caller
    /// makes with [`Cell::text`].
    pub fn push_buffer(&mut self, text: &[u8]) -> u32 {
        let start = u32::try_from(self.arena.len()).expect("a batch's arena is below 4 GiB");
        self.arena.extend_from_slice(text);
        start
    }

    /// Lets `write` append text to the arena and gives the cell that points to it.
    pub fn write_text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Cell {
        let start = self.arena.len();
        write(&mut self.arena);
        let len = u32::try_from(self.arena.len() - start).expect("a value is below 4 GiB");
        Cell::text(u32::try_from(start).expect("a batch's arena is below 4 GiB"), len)
    }

    /// Gives a row the values that were not sent with it from the row before.
    pub fn complete(&mut self, row: Row, before: Row, columns: usize) {
        let (row, before) = (row.0 as usize, before.0 as usize);
        for column in 0..columns {
            if self.cells[row + column] == Cell::UNCHANGED {
                self.cells[row + column] = self.cells[before + column];
            }
        }
    }

    /// Replaces the cell of a row's column.
    pub fn set_cell(&mut self, row: Row, column: usize, cell: Cell) {
        self.cells[row.0 as usize + column] = cell;
    }

    /// A new row with a row's key columns and NULL for all others: what [`Old::Key`] holds.
    #[must_use]
    pub fn key_row(&mut self, table: u32, row: Row) -> Row {
        let key_row = self.begin_row();
        let table = &self.tables[table as usize];
        push_key(&mut self.cells, table.columns.len(), table.key(), row);
        key_row
    }

    /// As [`key_row`](Self::key_row) of a table of so many columns, where it is known which of them are
    /// the key: for many rows.
    #[must_use]
    pub fn key_row_of(&mut self, columns: usize, key: &[usize], row: Row) -> Row {
        let key_row = self.begin_row();
        push_key(&mut self.cells, columns, key.iter().copied(), row);
        key_row
    }

    /// A row with the same cells, which are its own from then on.
    #[must_use]
    pub fn copy_row(&mut self, table: u32, row: Row) -> Row {
        let copy = self.begin_row();
        let (start, columns) = (row.0 as usize, self.tables[table as usize].columns.len());
        self.cells.extend_from_within(start..start + columns);
        copy
    }

    /// Whether an update moved its row to another key: readers see a delete of the old key and an
    /// insert of the new one.
    #[must_use]
    pub fn key_changed(&self, change: &Change) -> bool {
        let (Op::Update, Some(old), Some(new)) = (change.op, change.old.row(), change.new) else {
            return false;
        };
        let mut key = self.table(change).key();
        key.any(|column| {
            let after = self.value(new, column);
            after != Value::Unchanged && after != self.value(old, column)
        })
    }

    /// When the newest of the changes committed, rows of a copy aside; microseconds since 1970, 0 if
    /// there is none.
    #[must_use]
    pub fn newest_commit(&self) -> i64 {
        let streamed = self.list.iter().filter(|change| change.op != Op::Read);
        streamed.map(|change| self.transaction(change).committed_at).max().unwrap_or_default()
    }
}

/// Adds the cells of a row with a row's key columns only.
fn push_key(cells: &mut Vec<Cell>, columns: usize, key: impl Iterator<Item = usize>, row: Row) {
    let start = cells.len();
    cells.resize(start + columns, Cell::NULL);
    for column in key {
        cells[start + column] = cells[row.0 as usize + column];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    fn table() -> Arc<Table> {
        let column = |name: &str, key: bool| {
            let column = Column::new(name, ColumnType::Text, "text");
            Column { nullable: !key, key, ..column }
        };
        let columns = vec![column("id", true), column("note", false)];
        Arc::new(Table::new(1, "public".into(), "t".into(), columns, ReplicaIdentity::Default))
    }

    fn push_row(changes: &mut Changes, values: &[&str]) -> Row {
        let row = changes.begin_row();
        for value in values {
            let cell = changes.push_text(value.as_bytes());
            changes.push_cell(cell);
        }
        row
    }

    #[test]
    fn a_rewritten_cell_leaves_its_neighbours_alone() {
        let mut changes = Changes::over(b"1abc".to_vec());
        let row = changes.begin_row();
        changes.push_cell(Cell::text(0, 1));
        changes.push_cell(Cell::text(1, 3));
        let cell = changes.push_text(b"longer than before");
        changes.set_cell(row, 1, cell);
        assert_eq!(changes.value(row, 0), Value::Text(b"1"));
        assert_eq!(changes.value(row, 1), Value::Text(b"longer than before"));
    }

    #[test]
    fn a_key_row_holds_nothing_but_the_key() {
        let mut changes = Changes::default();
        let table = changes.intern_table(&table());
        let row = push_row(&mut changes, &["1", "a"]);
        let key = changes.key_row(table, row);
        assert_eq!(changes.value(key, 0), Value::Text(b"1"));
        assert_eq!(changes.value(key, 1), Value::Null);
        assert_eq!(changes.value(row, 1), Value::Text(b"a"));
    }

    #[test]
    fn only_a_key_column_that_differs_is_a_key_change() {
        let mut changes = Changes::default();
        let table = changes.intern_table(&table());
        let old = push_row(&mut changes, &["1", "a"]);
        let same_key = push_row(&mut changes, &["1", "b"]);
        let other_key = push_row(&mut changes, &["2", "a"]);
        let update = |new| Change {
            op: Op::Update,
            table,
            transaction: 0,
            ordinal: 1,
            lsn: Lsn(1),
            old: Old::Full(old),
            new: Some(new),
        };
        assert!(!changes.key_changed(&update(same_key)));
        assert!(changes.key_changed(&update(other_key)));
    }
}
