//! The rows of one table version on their way: a prepared encoder, and what it has written.
//!
//! A row is the source's columns in order, then `_version`, `_deleted`, `_commit_time`, `_exact`.
//! An update whose new key differs is two rows of one version: a deletion under the old key and a
//! live row under the new one.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ddl::{META, Place, StoredColumn};
use super::encode::{Codec, Fit, write_string, write_varint};
use super::names::quoted;
use super::types::read_varint;
use crate::change::{Change, Changes, Old, Op, Row, Value};
use crate::dead_letter::{DeadLetter, Stage};
use crate::position::Position;
use crate::table::{ColumnType, Table};

/// Writes the rows of one table version.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) table: Arc<Table>,
    pub(super) place: Place,
    /// The columns as they are in ClickHouse, in source order.
    pub(super) stored: Vec<StoredColumn>,
    /// `INSERT INTO … FORMAT RowBinaryWithNamesAndTypes`
    pub(super) insert: String,
    /// What goes before the rows: with it ClickHouse refuses rows that were written for the table
    /// as it was, instead of reading something else in them.
    pub(super) header: Bytes,
    codecs: Vec<Codec>,
    key: Vec<usize>,
}

/// Rows in RowBinary.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
    /// Positions of the first and the last row.
    pub(super) span: Option<(Position, Position)>,
}

impl Rows {
    /// Counts a row whose bytes are already there.
    pub(super) fn count(&mut self, position: Position) {
        self.count += 1;
        let first = self.span.map_or(position, |(first, _)| first);
        self.span = Some((first, position));
    }
}

/// The exact text of values that their columns cannot hold, by column.
pub(super) type Exact = Vec<(String, Option<Vec<u8>>)>;

/// A row some of whose cells may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    bytes: Vec<u8>,
    ranges: Vec<Option<Range<usize>>>,
    exact: Exact,
}

/// A live row with TOASTed values that were not sent; an older version of the row has them.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) position: Position,
    pub(super) commit_time: i64,
    pub(super) cells: Cells,
    /// The key under which the older version stands, in RowBinary.
    pub(super) lookup: Vec<u8>,
    /// The row's own key.
    pub(super) key: Vec<u8>,
    /// What becomes of the change if there is none.
    pub(super) letter: Box<DeadLetter>,
}

/// A table version's rows of one batch, as long as no other version of the table came in between.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) encoder: Arc<Encoder>,
    pub(super) rows: Rows,
    /// Deletions that may be stored only after the rows set aside: they are what a replay takes
    /// for the sign that the moved row is there.
    pub(super) late: Rows,
    pub(super) aside: Vec<Aside>,
    /// Bytes held in `aside`.
    pub(super) aside_bytes: usize,
    /// Changes by operation.
    pub(super) counts: [u64; 5],
}

impl Block {
    pub(super) fn new(encoder: Arc<Encoder>, buffer: Vec<u8>) -> Block {
        Block {
            encoder,
            rows: Rows { bytes: buffer, ..Rows::default() },
            late: Rows::default(),
            aside: Vec::new(),
            aside_bytes: 0,
            counts: [0; 5],
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes.len() + self.late.bytes.len() + self.aside_bytes
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows.count + self.late.count + self.aside.len()
    }

    /// Whether all its rows are copied ones, so that no two are of one row.
    pub(super) fn is_copied(&self) -> bool {
        self.counts[Op::Read as usize] == self.row_count() as u64
    }

    /// Adds a change of any kind but a truncate; the error is why it is a dead letter.
    pub(super) fn push(&mut self, changes: &Changes, change: &Change) -> Result<(), String> {
        let encoder = Arc::clone(&self.encoder);
        let (rows, late) = (self.rows.bytes.len(), self.late.bytes.len());
        let pushed = encoder.encode(self, changes, change);
        if pushed.is_err() {
            self.rows.bytes.truncate(rows);
            self.late.bytes.truncate(late);
        }
        pushed
    }
}

/// What the sink adds to a row.
struct Meta {
    position: Position,
    deleted: bool,
    commit_time: i64,
}

impl Encoder {
    pub(super) fn new(table: Arc<Table>, place: Place, stored: Vec<StoredColumn>) -> Encoder {
        let sources = table.columns.iter();
        let codecs = stored.iter().zip(sources);
        let codecs = codecs.map(|(stored, source)| Codec::of(&stored.ty, source)).collect();
        let names = stored.iter().map(|column| quoted(&column.name));
        let names: Vec<_> = names.chain(META.iter().map(|(name, _)| (*name).to_owned())).collect();
        let insert = format!(
            "INSERT INTO {} ({}) FORMAT RowBinaryWithNamesAndTypes",
            place.versions(),
            names.join(", ")
        );
        let (header, key) = (header(&stored).into(), table.key().collect());
        Encoder { table, place, stored, insert, header, codecs, key }
    }

    /// Whether a column has become of another type, as the encoder of a later table version tells.
    pub(super) fn is_outdated_by(&self, later: &Encoder) -> bool {
        let same = |a: &StoredColumn, b: &StoredColumn| a.name != b.name || a.ty == b.ty;
        let fits = |column| later.stored.iter().all(|other| same(column, other));
        self.place.plan.view == later.place.plan.view && !self.stored.iter().all(fits)
    }

    /// Names and types of the key's columns.
    pub(super) fn key_columns(&self) -> impl Iterator<Item = &StoredColumn> {
        self.key.iter().map(|index| &self.stored[*index])
    }

    fn encode(&self, block: &mut Block, changes: &Changes, change: &Change) -> Result<(), String> {
        let meta = |deleted| Meta {
            position: changes.position(change),
            deleted,
            commit_time: changes.transaction(change).committed_at,
        };
        if self.key.is_empty() && matches!(change.op, Op::Update | Op::Delete) {
            return Err("its table has no key to find the row by; add a primary key".into());
        }
        let Some(new) = change.new else {
            let old = change.old.row().ok_or("it has neither an old row nor a new one")?;
            return self.write_deletion(&mut block.rows, changes, old, &meta(true));
        };
        match self.moved_from(changes, change, new)? {
            Some(old) => self.write_moved(block, changes, change, (old, new), &meta),
            None => self.write_live(block, changes, change, new, &meta(false)),
        }
    }

    /// The old row, if its key is another one to ClickHouse too: PostgreSQL may print one number in
    /// two ways, and a deletion must never have its own row's key and version.
    fn moved_from(
        &self,
        changes: &Changes,
        change: &Change,
        new: Row,
    ) -> Result<Option<Row>, String> {
        let Some(old) = change.old.row().filter(|_| changes.key_changed(change)) else {
            return Ok(None);
        };
        let before = self.encoded_key(changes, Old::None, old)?;
        Ok((before != self.encoded_key(changes, change.old, new)?).then_some(old))
    }

    fn write_moved(
        &self,
        block: &mut Block,
        changes: &Changes,
        change: &Change,
        (old, new): (Row, Row),
        meta: &impl Fn(bool) -> Meta,
    ) -> Result<(), String> {
        let waiting = block.aside.len();
        let before = block.rows.count;
        self.write_live(block, changes, change, new, &meta(false))?;
        let rows = match block.aside.len() > waiting {
            true => &mut block.late,
            false => &mut block.rows,
        };
        let deleted = self.write_deletion(rows, changes, old, &meta(true));
        if deleted.is_err() {
            block.rows.count = before;
            block.aside.truncate(waiting);
        }
        deleted
    }

    fn write_live(
        &self,
        block: &mut Block,
        changes: &Changes,
        change: &Change,
        new: Row,
        meta: &Meta,
    ) -> Result<(), String> {
        let out = &mut block.rows.bytes;
        let start = out.len();
        let mut exact = Vec::new();
        for index in 0..self.codecs.len() {
            let value = changes.value_after(change.old, new, index, self.stored[index].key);
            if value == Value::Unchanged {
                out.truncate(start);
                return self.set_aside(block, changes, change, new, meta);
            }
            self.write_cell(index, value, out, &mut exact)?;
        }
        let exact = exact.iter().map(|(index, text)| (self.stored[*index].name.as_str(), *text));
        write_meta(meta, exact, out);
        block.rows.count(meta.position);
        Ok(())
    }

    fn write_deletion(
        &self,
        rows: &mut Rows,
        changes: &Changes,
        old: Row,
        meta: &Meta,
    ) -> Result<(), String> {
        for index in 0..self.codecs.len() {
            match self.stored[index].key {
                true => {
                    let value = changes.value(old, index);
                    self.write_cell(index, value, &mut rows.bytes, &mut Vec::new())?;
                }
                false => self.codecs[index].write_default(&mut rows.bytes),
            }
        }
        write_meta(meta, std::iter::empty(), &mut rows.bytes);
        rows.count(meta.position);
        Ok(())
    }

    fn write_cell<'a>(
        &self,
        index: usize,
        value: Value<'a>,
        out: &mut Vec<u8>,
        exact: &mut Vec<(usize, Option<&'a [u8]>)>,
    ) -> Result<(), String> {
        let column = &self.stored[index];
        let value = match value {
            Value::Text(text) if column.key => {
                Value::Text(key_text(&self.table.columns[index].kind, text))
            }
            value => value,
        };
        let (fit, text) = match value {
            Value::Text(text) => match self.codecs[index].write(text, out) {
                Ok(fit) => (fit, Some(text)),
                Err(_) => {
                    let source = &self.table.columns[index].type_name;
                    return Err(format!("its column `{}` is no {source}", column.shown));
                }
            },
            Value::Null => (self.codecs[index].write_null(out), None),
            Value::Unchanged => return Err(format!("its key `{}` was not sent", column.shown)),
        };
        match (fit, column.key) {
            (Fit::Exact, _) => (),
            (Fit::Nearest, false) => exact.push((index, text)),
            (Fit::Nearest, true) => {
                let (name, ty) = (&column.shown, &column.ty);
                return Err(format!("its key `{name}` has a value that {ty} cannot tell apart"));
            }
        }
        Ok(())
    }

    fn set_aside(
        &self,
        block: &mut Block,
        changes: &Changes,
        change: &Change,
        new: Row,
        meta: &Meta,
    ) -> Result<(), String> {
        let mut cells = Cells::default();
        let mut exact = Vec::new();
        for index in 0..self.codecs.len() {
            let value = changes.value_after(change.old, new, index, self.stored[index].key);
            let start = cells.bytes.len();
            if value == Value::Unchanged && !self.stored[index].key {
                cells.ranges.push(None);
                continue;
            }
            self.write_cell(index, value, &mut cells.bytes, &mut exact)?;
            cells.ranges.push(Some(start..cells.bytes.len()));
        }
        let owned = exact
            .iter()
            .map(|(index, text)| (self.stored[*index].name.clone(), text.map(<[u8]>::to_vec)));
        cells.exact = owned.collect();
        let key = self.key_of(&cells);
        let lookup = match self.moved_from(changes, change, new)? {
            Some(old) => self.encoded_key(changes, Old::None, old)?,
            None => key.clone(),
        };
        let reason = "a value was not sent and no stored version of the row has it".to_owned();
        let letter = DeadLetter::new(changes, change, Stage::Store, None, reason);
        block.aside_bytes += cells.bytes.len() + letter.original.len() + 2 * key.len();
        block.aside.push(Aside {
            position: meta.position,
            commit_time: meta.commit_time,
            cells,
            lookup,
            key,
            letter: Box::new(letter),
        });
        Ok(())
    }

    fn encoded_key(&self, changes: &Changes, old: Old, row: Row) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for index in &self.key {
            let value = changes.value_after(old, row, *index, true);
            self.write_cell(*index, value, &mut out, &mut Vec::new())?;
        }
        Ok(out)
    }

    /// The key of a row that has all of it.
    pub(super) fn key_of(&self, cells: &Cells) -> Vec<u8> {
        self.key.iter().filter_map(|index| cells.cell(*index)).flatten().copied().collect()
    }

    /// Reads the next row out of RowBinary: its cells, version and whether it is a deletion. Only
    /// the columns in `present` are in it, all of them if that is `None`.
    pub(super) fn read<'a>(
        &self,
        bytes: &'a [u8],
        present: Option<&[usize]>,
    ) -> Option<(StoredRow, &'a [u8])> {
        let mut ranges = vec![None; self.stored.len()];
        let mut at = 0;
        for (index, column) in self.stored.iter().enumerate() {
            if present.is_some_and(|present| !present.contains(&index)) {
                continue;
            }
            let end = at + column.ty.span(bytes.get(at..)?)?;
            ranges[index] = Some(at..end);
            at = end;
        }
        let cells = bytes.get(..at)?.to_vec();
        let version = u128::from_le_bytes(bytes.get(at..at + 16)?.try_into().ok()?);
        let deleted = *bytes.get(at + 16)? != 0;
        let (exact, rest) = read_exact(bytes.get(at + 25..)?)?;
        let cells = Cells { bytes: cells, ranges, exact };
        Some((StoredRow { version, deleted, cells }, rest))
    }

    /// Writes a row set aside, its gaps filled from an older version; false if that has gaps too.
    pub(super) fn write_filled(&self, aside: &Aside, older: &Cells, rows: &mut Rows) -> bool {
        let start = rows.bytes.len();
        for index in 0..self.codecs.len() {
            let Some(cell) = aside.cells.cell(index).or_else(|| older.cell(index)) else {
                rows.bytes.truncate(start);
                return false;
            };
            rows.bytes.extend_from_slice(cell);
        }
        let was_gap = |name: &str| {
            let index = self.stored.iter().position(|column| column.name == name);
            index.is_some_and(|index| aside.cells.cell(index).is_none())
        };
        let inherited = older.exact.iter().filter(|(name, _)| was_gap(name));
        let exact: Vec<_> = aside.cells.exact.iter().chain(inherited).collect();
        let exact = exact.iter().map(|(name, text)| (name.as_str(), text.as_deref()));
        let (position, commit_time) = (aside.position, aside.commit_time);
        write_meta(&Meta { position, deleted: false, commit_time }, exact, &mut rows.bytes);
        rows.count(position);
        true
    }
}

/// A row that is stored, or about to be.
#[derive(Debug, Clone)]
pub(super) struct StoredRow {
    pub(super) version: u128,
    pub(super) deleted: bool,
    pub(super) cells: Cells,
}

impl Cells {
    fn cell(&self, index: usize) -> Option<&[u8]> {
        let range = self.ranges.get(index)?.clone()?;
        self.bytes.get(range)
    }

    /// Columns whose values were not sent.
    pub(super) fn gaps(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().enumerate().filter(|(_, range)| range.is_none()).map(|(index, _)| index)
    }
}

/// A key's value as ClickHouse tells keys apart: it takes the two zeros of a float for one, as PostgreSQL does.
fn key_text<'a>(kind: &ColumnType, text: &'a [u8]) -> &'a [u8] {
    match (kind, text) {
        (ColumnType::Float4 | ColumnType::Float8, b"-0") => b"0",
        _ => text,
    }
}

/// Names and types of all columns.
fn header(stored: &[StoredColumn]) -> Vec<u8> {
    let own = stored.iter().map(|column| (column.name.as_str(), column.ty.to_string()));
    let meta = META.iter().map(|(name, ty)| (*name, (*ty).to_owned()));
    let columns: Vec<_> = own.chain(meta).collect();
    let mut out = Vec::new();
    write_varint(columns.len() as u64, &mut out);
    columns.iter().for_each(|(name, _)| write_string(name.as_bytes(), &mut out));
    columns.iter().for_each(|(_, ty)| write_string(ty.as_bytes(), &mut out));
    out
}

fn write_meta<'a>(
    meta: &Meta,
    exact: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&meta.position.version().to_le_bytes());
    out.push(meta.deleted.into());
    out.extend_from_slice(&meta.commit_time.to_le_bytes());
    write_varint(exact.len() as u64, out);
    for (name, text) in exact {
        write_string(name.as_bytes(), out);
        match text {
            None => out.push(1),
            Some(text) => {
                out.push(0);
                write_string(text, out);
            }
        }
    }
}

fn read_exact(bytes: &[u8]) -> Option<(Exact, &[u8])> {
    let (count, mut at) = read_varint(bytes)?;
    let mut exact = Vec::new();
    for _ in 0..count {
        let (name, length) = read_string(bytes.get(at..)?)?;
        at += length;
        let value = match bytes.get(at)? {
            0 => {
                let (value, length) = read_string(bytes.get(at + 1..)?)?;
                at += length;
                Some(value)
            }
            _ => None,
        };
        at += 1;
        exact.push((String::from_utf8(name).ok()?, value));
    }
    Some((exact, bytes.get(at..)?))
}

/// A `String` and its length in RowBinary.
fn read_string(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (length, prefix) = read_varint(bytes)?;
    let end = prefix.checked_add(usize::try_from(length).ok()?)?;
    Some((bytes.get(prefix..end)?.to_vec(), end))
}
