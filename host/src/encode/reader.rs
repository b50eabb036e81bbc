//! Debezium records, ours or Debezium's own, become `Changes` again.
//!
//! Where a record's table version comes from:
//! 1. ours names it in its [`SCHEMA`](super::SCHEMA) header; the schemas topic holds it;
//! 2. Debezium's with inline schemas describes it, see [`inline_schema`];
//! 3. Debezium's without does not: it is inferred from the values, see [`infer`].
//!
//! A record of ours stands at the position in its header. One of Debezium's stands at
//! (`source.lsn`, Kafka offset): the same at every reading, and growing within a partition.
//!
//! A key-changing update comes back as Debezium tells it, a delete and an insert; both halves have
//! the update's position, and different keys.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::json::Scanner;
use super::plan::Field;
use super::wire::Wire;
use super::{EXACT, Error, ORIGIN, infer, inline_schema, json, text};
use crate::change::{Cell, Change, Changes, Old, Op, Row, Transaction};
use crate::dead_letter::{DeadLetter, Stage};
use crate::position::{Lsn, Position};
use crate::table::{ReplicaIdentity, Table};

/// A record as Kafka gave it, with the headers that matter.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// [`ORIGIN`]; only records of ours have one.
    pub origin: Option<&'a [u8]>,
    /// [`EXACT`]
    pub exact: Option<&'a [u8]>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A change was added.
    Change,
    /// A tombstone, a logical message or a transaction marker: nothing to store.
    Ignored,
}

/// A table version, prepared for reading.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) table: Arc<Table>,
    pub(super) fields: Vec<Field>,
}

impl Shape {
    fn of(table: &Arc<Table>) -> Shape {
        let columns = table.columns.iter();
        let fields = columns.map(|column| Field::new(column, Wire::of(&column.kind))).collect();
        Shape { table: Arc::clone(table), fields }
    }

    /// The column of a field's name as JSON has it.
    pub(super) fn index(&self, raw: &[u8]) -> Option<usize> {
        let same = self.fields.iter().position(|field| field.name() == raw);
        same.or_else(|| {
            let mut name = Vec::new();
            let valid = json::unescape(&mut name, raw);
            let mut columns = self.table.columns.iter();
            columns.position(|column| valid && column.name.as_bytes() == name)
        })
    }
}

/// A table that a record of another writer told about.
#[derive(Debug)]
struct Foreign {
    /// The inline schema it came from; empty if it was inferred.
    block: Vec<u8>,
    shape: Arc<Shape>,
}

/// Reads records. Holds what is prepared per table version.
#[derive(Debug, Default)]
pub struct Reader {
    shapes: FxHashMap<u64, Arc<Shape>>,
    foreign: FxHashMap<(String, String), Foreign>,
    /// The last inline schema of a topic, to step over it without scanning it.
    blocks: FxHashMap<String, Vec<u8>>,
}

/// The parts of an envelope, as they are written.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) block: Option<&'a [u8]>,
    pub(super) before: Option<&'a [u8]>,
    pub(super) after: Option<&'a [u8]>,
    op: Option<&'a [u8]>,
    status: bool,
    source: Source<'a>,
}

#[derive(Debug, Default)]
struct Source<'a> {
    schema: Option<&'a [u8]>,
    table: Option<&'a [u8]>,
    lsn: Option<u64>,
    xid: u32,
    committed_at: Option<i64>,
}

impl Reader {
    /// Adds the change of a record to `changes`. `resolve` gives the table version of a
    /// fingerprint, if it is known.
    ///
    /// # Errors
    /// The record is no change that can be read; `changes` has no more changes than before.
    pub fn read(
        &mut self,
        record: &Incoming<'_>,
        resolve: &mut dyn FnMut(u64) -> Option<Arc<Table>>,
        changes: &mut Changes,
    ) -> Result<Outcome, Error> {
        let Some(value) = record.value else { return Ok(Outcome::Ignored) };
        if let Err(error) = std::str::from_utf8(value) {
            return Err(Error::Syntax { at: error.valid_up_to() });
        }
        let block = self.blocks.get(record.topic).map_or(&b""[..], Vec::as_slice);
        let envelope = envelope(value, block)?;
        let op = match (envelope.op, envelope.status) {
            (Some(b"r"), _) => Op::Read,
            (Some(b"c"), _) => Op::Insert,
            (Some(b"u"), _) => Op::Update,
            (Some(b"d"), _) => Op::Delete,
            (Some(b"t"), _) => Op::Truncate,
            (Some(b"m"), _) | (None, true) => return Ok(Outcome::Ignored),
            _ => return Err(Error::Envelope { field: "op" }),
        };
        let (shape, position) = match record.origin {
            Some(origin) => {
                let (position, fingerprint) =
                    parse(origin).ok_or(Error::Header { name: ORIGIN })?;
                (self.known(fingerprint, resolve)?, position)
            }
            None => {
                let shape = self.foreign(record, &envelope)?;
                (shape, foreign_position(record, &envelope.source)?)
            }
        };
        let transaction = transaction(position, &envelope.source, changes);
        let lsn = Lsn(envelope.source.lsn.unwrap_or(position.commit.0));
        let (old, new) = rows(&shape, record, &envelope, op, changes)?;
        let table = changes.intern_table(&shape.table);
        let ordinal = position.ordinal;
        changes.list.push(Change { op, table, transaction, ordinal, lsn, old, new });
        Ok(Outcome::Change)
    }

    fn known(
        &mut self,
        fingerprint: u64,
        resolve: &mut dyn FnMut(u64) -> Option<Arc<Table>>,
    ) -> Result<Arc<Shape>, Error> {
        if let Some(shape) = self.shapes.get(&fingerprint) {
            return Ok(Arc::clone(shape));
        }
        let table = resolve(fingerprint).ok_or(Error::UnknownSchema { fingerprint })?;
        let shape = Arc::new(Shape::of(&table));
        self.shapes.insert(fingerprint, Arc::clone(&shape));
        Ok(shape)
    }

    /// The shape of another writer's record; a new one when its columns are not those known.
    fn foreign(
        &mut self,
        record: &Incoming<'_>,
        envelope: &Envelope<'_>,
    ) -> Result<Arc<Shape>, Error> {
        let name = |raw: Option<&[u8]>, field| {
            let mut name = Vec::new();
            let valid = json::unescape(&mut name, raw.ok_or(Error::Envelope { field })?);
            let name = String::from_utf8(name).ok().filter(|name| valid && !name.is_empty());
            name.ok_or(Error::Envelope { field })
        };
        let schema = name(envelope.source.schema, "source.schema")?;
        let table = name(envelope.source.table, "source.table")?;
        let id = (schema, table);
        let known = self.foreign.get(&id);
        let block = envelope.block.unwrap_or_default();
        let shape = match known {
            Some(known) if !block.is_empty() && known.block == block => {
                return Ok(Arc::clone(&known.shape));
            }
            _ if !block.is_empty() => {
                self.blocks.insert(record.topic.to_owned(), block.to_vec());
                Arc::new(inline_schema::shape(&id, block, record.key)?)
            }
            known => {
                let known = known.map(|known| &known.shape);
                match infer::shape(&id, known.map(Arc::as_ref), envelope, record.key)? {
                    Some(shape) => Arc::new(shape),
                    None => return known.map(Arc::clone).ok_or(Error::Envelope { field: "after" }),
                }
            }
        };
        self.foreign.insert(id, Foreign { block: block.to_vec(), shape: Arc::clone(&shape) });
        Ok(shape)
    }
}

/// Takes an envelope apart; `block` is the inline schema to expect.
fn envelope<'a>(value: &'a [u8], block: &[u8]) -> Result<Envelope<'a>, Error> {
    let mut scanner = Scanner::new(value);
    let mut envelope = Envelope::default();
    if !scanner.enter(b'{') {
        return Err(scanner.error());
    }
    members(&mut scanner, block, &mut envelope)?;
    scanner.end()?;
    Ok(envelope)
}

fn members<'a>(
    scanner: &mut Scanner<'a>,
    block: &[u8],
    envelope: &mut Envelope<'a>,
) -> Result<(), Error> {
    while let Some(name) = scanner.field()? {
        match name {
            b"before" => envelope.before = object(scanner.value()?),
            b"after" => envelope.after = object(scanner.value()?),
            b"op" => envelope.op = Some(scanner.string()?),
            b"source" if scanner.enter(b'{') => envelope.source = source(scanner)?,
            b"schema" => envelope.block = object(scanner.expected(block)?),
            b"payload" if scanner.enter(b'{') => members(scanner, &[], envelope)?,
            b"status" => {
                envelope.status = true;
                scanner.value()?;
            }
            _ => _ = scanner.value()?,
        }
    }
    Ok(())
}

fn object(token: &[u8]) -> Option<&[u8]> {
    token.starts_with(b"{").then_some(token)
}

fn source<'a>(scanner: &mut Scanner<'a>) -> Result<Source<'a>, Error> {
    fn parsed<T: std::str::FromStr>(token: &[u8]) -> Option<T> {
        std::str::from_utf8(token).ok()?.parse().ok()
    }
    let mut source = Source::default();
    while let Some(name) = scanner.field()? {
        let token = scanner.value()?;
        let string = || token.strip_prefix(b"\"")?.strip_suffix(b"\"");
        match name {
            b"schema" => source.schema = string(),
            b"table" => source.table = string(),
            b"lsn" => source.lsn = parsed(token),
            b"txId" => source.xid = parsed(token).unwrap_or(0),
            b"ts_us" => source.committed_at = parsed(token),
            b"ts_ms" if source.committed_at.is_none() => {
                source.committed_at = parsed(token).map(|ms: i64| ms.saturating_mul(1000));
            }
            _ => {}
        }
    }
    Ok(source)
}

/// Position and fingerprint of an origin.
fn parse(origin: &[u8]) -> Option<(Position, u64)> {
    let mut words = std::str::from_utf8(origin).ok()?.split(' ');
    let position = words.next()?.parse().ok()?;
    let fingerprint = u64::from_str_radix(words.next()?, 16).ok()?;
    Some((position, fingerprint))
}

/// Another writer's record stands where its change does, and within that in the topic's order.
fn foreign_position(record: &Incoming<'_>, source: &Source<'_>) -> Result<Position, Error> {
    let commit = Lsn(source.lsn.ok_or(Error::Envelope { field: "source.lsn" })?);
    Ok(Position { commit, ordinal: u64::try_from(record.offset).unwrap_or(0) })
}

fn transaction(position: Position, source: &Source<'_>, changes: &mut Changes) -> u32 {
    let transaction = Transaction {
        commit: position.commit,
        previous_commit: Lsn(0),
        committed_at: source.committed_at.unwrap_or(0),
        xid: source.xid,
    };
    match changes.transactions.last() {
        Some(last) if *last == transaction => {
            u32::try_from(changes.transactions.len() - 1).expect("fewer transactions than cells")
        }
        _ => changes.push_transaction(transaction),
    }
}

fn rows(
    shape: &Shape,
    record: &Incoming<'_>,
    envelope: &Envelope<'_>,
    op: Op,
    changes: &mut Changes,
) -> Result<(Old, Option<Row>), Error> {
    let exact = |side: &[u8]| {
        let Some(header) = record.exact else { return Ok(None) };
        text::member(header, side).map_or(Ok(None), |token| Ok(Some(token)))
    };
    // Debezium tells the whole row before an update only if the log has it.
    let whole = match record.origin {
        Some(_) => shape.table.identity == ReplicaIdentity::Full,
        None => op == Op::Update,
    };
    let old = match envelope.before {
        Some(before) if whole => Old::Full(row(shape, before, exact(b"before")?, true, changes)?),
        Some(before) => Old::Key(row(shape, before, exact(b"before")?, false, changes)?),
        None => Old::None,
    };
    let new = match envelope.after {
        Some(after) => Some(row(shape, after, exact(b"after")?, true, changes)?),
        None => None,
    };
    match op {
        Op::Read | Op::Insert | Op::Update if new.is_none() => {
            Err(Error::Envelope { field: "after" })
        }
        Op::Delete if old == Old::None => Err(Error::Envelope { field: "before" }),
        _ => Ok((old, new)),
    }
}

/// Reads a row; all of it, or only its key columns.
fn row(
    shape: &Shape,
    token: &[u8],
    exact: Option<&[u8]>,
    whole: bool,
    changes: &mut Changes,
) -> Result<Row, Error> {
    let row = changes.begin_row();
    for _ in &shape.fields {
        changes.push_cell(Cell::NULL);
    }
    let mut scanner = Scanner::new(token);
    if !scanner.enter(b'{') {
        return Err(scanner.error());
    }
    let mut expected = 0;
    while scanner.more(b'}')? {
        let index = match shape.fields.get(expected) {
            Some(field) if scanner.eat(&field.fragment) => expected,
            _ => named(shape, scanner.name()?)?,
        };
        expected = index + 1;
        let token = scanner.value()?;
        let field = &shape.fields[index];
        if token != b"null" && (whole || field.key) {
            let cell = cell(shape, index, token, changes)?;
            changes.set_cell(row, index, cell);
        }
    }
    if let Some(exact) = exact {
        overwrite(shape, row, exact, whole, changes)?;
    }
    Ok(row)
}

fn named(shape: &Shape, raw: &[u8]) -> Result<usize, Error> {
    shape.index(raw).ok_or_else(|| Error::UnknownField {
        field: String::from_utf8_lossy(raw).into_owned(),
        table: shape.table.full_name().to_string(),
    })
}

fn cell(shape: &Shape, index: usize, token: &[u8], changes: &mut Changes) -> Result<Cell, Error> {
    let field = &shape.fields[index];
    if token == field.unavailable {
        return Ok(Cell::UNCHANGED);
    }
    let mut valid = false;
    let cell = changes.write_text(|arena| valid = text::read(&field.wire, token, arena));
    if valid {
        return Ok(cell);
    }
    let column = &shape.table.columns[index];
    Err(Error::Value { column: column.name.clone(), type_name: column.type_name.clone() })
}

/// Puts the exact texts in place of what their Debezium form kept of them.
fn overwrite(
    shape: &Shape,
    row: Row,
    exact: &[u8],
    whole: bool,
    changes: &mut Changes,
) -> Result<(), Error> {
    let mut scanner = Scanner::new(exact);
    if !scanner.enter(b'{') {
        return Err(Error::Header { name: EXACT });
    }
    while let Some(name) = scanner.field()? {
        let index = named(shape, name)?;
        let content = json::string_content(scanner.value()?);
        let content = content.ok_or(Error::Header { name: EXACT })?;
        if whole || shape.fields[index].key {
            let cell = changes.push_text(&content);
            changes.set_cell(row, index, cell);
        }
    }
    Ok(())
}

impl Incoming<'_> {
    /// Sets a record aside that could not be read, with its bytes as they are.
    #[must_use]
    pub fn dead_letter(&self, error: &Error) -> DeadLetter {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = self.origin.and_then(parse).map(|(position, _)| position);
        let offset = u64::try_from(self.offset).unwrap_or(0);
        DeadLetter {
            position: header.unwrap_or(Position { commit: Lsn(0), ordinal: offset }),
            table: self.topic.to_owned(),
            op: "?".to_owned(),
            stage: Stage::Encode,
            plugin: None,
            reason: error.to_string(),
            original: self.value.map(lossy).unwrap_or_default(),
            backtrace: None,
            part: None,
            replay: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnType};

    /// `public.users (id integer primary key)`
    fn users() -> Arc<Table> {
        let id = Column {
            name: "id".to_owned(),
            kind: ColumnType::Int4,
            type_name: "integer".to_owned(),
            nullable: false,
            key: true,
            default: None,
        };
        let (schema, name) = ("public".to_owned(), "users".to_owned());
        Arc::new(Table::new(7, schema, name, vec![id], ReplicaIdentity::Default))
    }

    /// Why a record is set aside.
    fn reason(value: &str, origin: Option<&str>) -> String {
        let record = Incoming {
            topic: "shop.public.users",
            offset: 3,
            key: None,
            value: Some(value.as_bytes()),
            origin: origin.map(str::as_bytes),
            exact: None,
        };
        let (mut changes, table) = (Changes::default(), users());
        let mut resolve = |fingerprint| (fingerprint == 1).then(|| Arc::clone(&table));
        let read = Reader::default().read(&record, &mut resolve, &mut changes);
        let error = read.expect_err(value);
        assert!(changes.is_empty(), "{value}");
        record.dead_letter(&error).reason
    }

    #[test]
    fn a_record_that_is_no_change_is_set_aside_with_the_reason() {
        let ours = Some("0/10:1 0000000000000001");
        let insert = |after: &str| format!("{{\"op\":\"c\",\"after\":{after}}}");
        let cases = [
            ("{\"op\":".to_owned(), ours, "not JSON from byte 6 on"),
            ("{\"id\":1}".to_owned(), None, "the envelope has no usable `op`; let Debezium write"),
            (
                insert("{\"id\":1}"),
                Some("0/10"),
                "header tailwater.origin is not as Tailwater writes it",
            ),
            (
                insert("{\"id\":1}"),
                None,
                "the envelope has no usable `source.schema`; let Debezium",
            ),
            (
                insert("{\"id\":1}"),
                Some("0/10:1 0000000000000002"),
                "schema 0000000000000002 is not in the schemas topic; was the topic deleted",
            ),
            (insert("{\"no\":1}"), ours, "field no is not a column of public.users"),
            (
                insert("{\"id\":\"x\"}"),
                ours,
                "column id holds no valid integer; was its type changed",
            ),
        ];
        for (value, origin, wanted) in cases {
            let said = reason(&value, origin);
            assert!(said.starts_with(wanted), "{value}: {said}");
        }
    }
}
