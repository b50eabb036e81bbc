//! Debezium records, ours or Debezium's own, become `Changes` again.
//!
//! Where a record's table version comes from:
//! 1. ours names it in its [`ORIGIN`](super::ORIGIN) header, behind the position; the schemas topic holds
//!    it;
//! 2. Debezium's with inline schemas describes it, see [`inline_schema`];
//! 3. Debezium's without does not: it is inferred from the values, see [`infer`].
//!
//! A record of ours stands at the position in its header, one of Debezium's where [`foreign_position`]
//! says.
//!
//! A key-changing update comes back as Debezium tells it, a delete and an insert; both halves have
//! the update's position, and different keys.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustc_hash::FxHashMap;

use super::json::Scanner;
use super::plan::Field;
use super::rows::Rows;
use super::source::Source;
use super::wire::Wire;
use super::{Error, ORIGIN, infer, inline_schema, json};
use crate::change::{Change, Changes, Old, Op, Row, Transaction};
use crate::dead_letter::{DeadLetter, Stage};
use crate::position::{Lsn, Position};
use crate::table::{ReplicaIdentity, Table};

/// Offsets are far below 2^48, and partitions below 2^16.
const PARTITION_SHIFT: u32 = 48;

/// A record as Kafka gave it, with the headers that matter.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
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
    source: Source,
}

/// The parts of an envelope, as they are written.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) block: Option<&'a [u8]>,
    /// The rows, unless they were read at once.
    pub(super) before: Option<&'a [u8]>,
    pub(super) after: Option<&'a [u8]>,
    op: Option<&'a [u8]>,
    status: bool,
    source: bool,
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
        if let Err(error) = simdutf8::compat::from_utf8(value) {
            return Err(Error::Syntax { at: error.valid_up_to() });
        }
        if let Some(origin) = record.origin {
            return self.read_own(origin, record, value, resolve, changes);
        }
        let block = self.blocks.get(record.topic).map_or(&b""[..], Vec::as_slice);
        let envelope = envelope(value, block, &mut self.source, None)?;
        let Some(op) = envelope.op()? else { return Ok(Outcome::Ignored) };
        let is_truncate = op == Op::Truncate;
        let shape = if is_truncate { self.emptied()? } else { self.foreign(record, &envelope)? };
        let position = foreign_position(record, &self.source, op)?;
        if is_truncate {
            return add(&shape, position, &self.source, (op, Old::None, None), changes);
        }
        // Debezium tells the whole row before an update only if the log has it.
        let mut rows = Rows::new(&shape, (value, record.exact), op == Op::Update, changes);
        if let Some(before) = envelope.before {
            rows.before(&mut Scanner::new(before))?;
        }
        if let Some(after) = envelope.after {
            rows.after(&mut Scanner::new(after))?;
        }
        let (old, new) = (rows.old, rows.new);
        add(&shape, position, &self.source, (op, old, new), changes)
    }

    /// Reads a record of ours. Its table version is known before its value is, so that the value is gone
    /// through once.
    fn read_own(
        &mut self,
        origin: &[u8],
        record: &Incoming<'_>,
        value: &[u8],
        resolve: &mut dyn FnMut(u64) -> Option<Arc<Table>>,
        changes: &mut Changes,
    ) -> Result<Outcome, Error> {
        let (position, fingerprint) = parse(origin).ok_or(Error::Header { name: ORIGIN })?;
        let shape = self.known(fingerprint, resolve)?;
        let whole = shape.table.identity == ReplicaIdentity::Full;
        let mut rows = Rows::new(&shape, (value, record.exact), whole, changes);
        let envelope = envelope(value, &[], &mut self.source, Some(&mut rows))?;
        let (old, new) = (rows.old, rows.new);
        let Some(op) = envelope.op()? else { return Ok(Outcome::Ignored) };
        add(&shape, position, &self.source, (op, old, new), changes)
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

    /// The table that another writer's record is of.
    fn foreign_name(&self) -> Result<(String, String), Error> {
        let name = |raw: &[u8], field| {
            let mut name = Vec::new();
            let valid = json::unescape(&mut name, raw);
            let name = String::from_utf8(name).ok().filter(|name| valid && !name.is_empty());
            name.ok_or(Error::Envelope { field })
        };
        Ok((name(&self.source.schema, "source.schema")?, name(&self.source.table, "source.table")?))
    }

    /// The shape that another writer's truncate is of. It has no key and no row, so it tells nothing of the
    /// columns: where no row was read before it, the table has none.
    fn emptied(&self) -> Result<Arc<Shape>, Error> {
        let id = self.foreign_name()?;
        let known = self.foreign.get(&id).map(|known| Arc::clone(&known.shape));
        Ok(known.unwrap_or_else(|| {
            let (schema, name) = id;
            let table = Table::new(0, schema, name, Vec::new(), ReplicaIdentity::Default);
            Arc::new(Shape::of(&Arc::new(table)))
        }))
    }

    /// The shape of another writer's record; a new one when its columns are not those known.
    fn foreign(
        &mut self,
        record: &Incoming<'_>,
        envelope: &Envelope<'_>,
    ) -> Result<Arc<Shape>, Error> {
        let id = self.foreign_name()?;
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

impl Envelope<'_> {
    /// What happened to the row; none if it is not about one.
    fn op(&self) -> Result<Option<Op>, Error> {
        match (self.op, self.status) {
            (Some(b"r"), _) => Ok(Some(Op::Read)),
            (Some(b"c"), _) => Ok(Some(Op::Insert)),
            (Some(b"u"), _) => Ok(Some(Op::Update)),
            (Some(b"d"), _) => Ok(Some(Op::Delete)),
            (Some(b"t"), _) => Ok(Some(Op::Truncate)),
            (Some(b"m"), _) | (None, true) => Ok(None),
            _ => Err(Error::Envelope { field: "op" }),
        }
    }
}

/// Takes an envelope apart; `block` is the inline schema to expect, and `rows` reads the rows at once.
fn envelope<'a>(
    value: &'a [u8],
    block: &[u8],
    source: &mut Source,
    rows: Option<&mut Rows<'_>>,
) -> Result<Envelope<'a>, Error> {
    let mut scanner = Scanner::new(value);
    let mut envelope = Envelope::default();
    if !scanner.enter(b'{') {
        return Err(scanner.error());
    }
    members(&mut scanner, Some(block), &mut envelope, source, rows)?;
    scanner.end()?;
    if !envelope.source {
        source.clear();
    }
    Ok(envelope)
}

/// The members of an envelope that may have an inline schema around it, or of one inside of that.
fn members<'a>(
    scanner: &mut Scanner<'a>,
    block: Option<&[u8]>,
    envelope: &mut Envelope<'a>,
    source: &mut Source,
    mut rows: Option<&mut Rows<'_>>,
) -> Result<(), Error> {
    while let Some(name) = scanner.field()? {
        match (name, &mut rows) {
            (b"before", Some(rows)) => rows.before(scanner)?,
            (b"before", None) => envelope.before = object(scanner.value()?),
            (b"after", Some(rows)) => rows.after(scanner)?,
            (b"after", None) => envelope.after = object(scanner.value()?),
            (b"op", _) => envelope.op = Some(scanner.string()?),
            (b"source", _) => {
                envelope.source = true;
                source.read(scanner)?;
            }
            (b"schema", _) => {
                envelope.block = object(scanner.expected(block.unwrap_or_default())?);
            }
            (b"payload", _) if block.is_some() && scanner.enter(b'{') => {
                members(scanner, None, envelope, source, rows.as_deref_mut())?;
            }
            (b"status", _) => {
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

/// Position and fingerprint of an origin.
fn parse(origin: &[u8]) -> Option<(Position, u64)> {
    let mut words = origin.split(|byte| *byte == b' ').map(str::from_utf8);
    let position = words.next()?.ok()?.parse().ok()?;
    let fingerprint = u64::from_str_radix(words.next()?.ok()?, 16).ok()?;
    Some((position, fingerprint))
}

/// Where another writer's record stands: the same at every reading, and for the changes of a row in the
/// order of their commits.
///
/// Its commit is not told, only the change's own LSN and, in `source.sequence`, the end of the commit before
/// its transaction's; it committed behind both. The greater one stands for it. That never goes down in the
/// order in which Debezium reads the log, and lies behind every commit of which a snapshot has seen the
/// rows, also where the change itself was in the log before the snapshot began. It is the same whatever the
/// partition, and in a topic that was deleted and made again, where an offset would say nothing.
///
/// Not told by this are changes from before a snapshot whose transaction is the first that Debezium sees
/// commit after it: then the commit before is from before the snapshot too, or there is none, and the
/// row is shown as the snapshot read it until it changes again.
///
/// A truncate stands at its own LSN. It locks its table, so that every row of other transactions is before
/// or behind that, and what its own transaction writes afterwards is behind.
///
/// Records that stand at one place otherwise, such as all rows of a snapshot, are told apart by partition and
/// offset: without a key nothing else does.
fn foreign_position(record: &Incoming<'_>, source: &Source, op: Op) -> Result<Position, Error> {
    let lsn = source.lsn.ok_or(Error::Envelope { field: "source.lsn" })?;
    let commit = match op {
        Op::Truncate => lsn,
        Op::Read | Op::Insert | Op::Update | Op::Delete => {
            lsn.max(source.previous_commit.unwrap_or_default())
        }
    };
    let partition = u64::try_from(record.partition).unwrap_or(0) << PARTITION_SHIFT;
    let offset = u64::try_from(record.offset).unwrap_or(0);
    Ok(Position { commit: Lsn(commit), ordinal: partition | offset })
}

/// Adds a change whose rows are there, if it has those that it needs.
fn add(
    shape: &Shape,
    position: Position,
    source: &Source,
    (op, old, new): (Op, Old, Option<Row>),
    changes: &mut Changes,
) -> Result<Outcome, Error> {
    // What another writer tells beside it is no row of such a change.
    let (old, new) = match op {
        Op::Read | Op::Insert | Op::Update if new.is_none() => {
            return Err(Error::Envelope { field: "after" });
        }
        Op::Read | Op::Insert | Op::Update => (old, new),
        Op::Delete if old == Old::None => return Err(Error::Envelope { field: "before" }),
        Op::Delete => (old, None),
        Op::Truncate => (Old::None, None),
    };
    let transaction = transaction(position, source, changes);
    let lsn = Lsn(source.lsn.unwrap_or(position.commit.0));
    let table = changes.intern_table(&shape.table);
    let ordinal = position.ordinal;
    changes.list.push(Change { op, table, transaction, ordinal, lsn, old, new });
    Ok(Outcome::Change)
}

fn transaction(position: Position, source: &Source, changes: &mut Changes) -> u32 {
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

impl Incoming<'_> {
    /// Sets a record aside that could not be read, with its bytes as they are: as text, or in base64 after
    /// `base64:` if they are none. Without a position of its own it has its partition and offset.
    #[must_use]
    pub fn dead_letter(&self, error: &Error) -> DeadLetter {
        let header = self.origin.and_then(parse).map(|(position, _)| position);
        let (commit, ordinal) = (u64::try_from(self.partition), u64::try_from(self.offset));
        let (commit, ordinal) = (Lsn(commit.unwrap_or(0)), ordinal.unwrap_or(0));
        let kept = |bytes: &[u8]| match str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("base64:{}", BASE64.encode(bytes)),
        };
        DeadLetter {
            position: header.unwrap_or(Position { commit, ordinal }),
            table: self.topic.to_owned(),
            op: "?".to_owned(),
            stage: Stage::Encode,
            plugin: None,
            reason: error.to_string(),
            original: self.value.map(kept).unwrap_or_default(),
            backtrace: None,
            part: None,
            replay: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Value;
    use crate::encode::UNAVAILABLE;
    use crate::table::{Column, ColumnType};

    /// `public.users (id integer primary key)`
    fn users() -> Arc<Table> {
        let id = Column::new("id", ColumnType::Int4, "integer");
        let id = Column { nullable: false, key: true, ..id };
        let (schema, name) = ("public".to_owned(), "users".to_owned());
        Arc::new(Table::new(7, schema, name, vec![id], ReplicaIdentity::Default))
    }

    /// Why a record is set aside.
    fn reason(value: &str, origin: Option<&str>) -> String {
        let record = Incoming {
            topic: "shop.public.users",
            partition: 0,
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

    /// Without schemas, so that it cannot be told from the column's type what stands for such a value.
    #[test]
    fn a_value_that_debezium_did_not_send_is_none_whatever_its_type() {
        let source = r#"{"schema":"public","table":"t","lsn":16}"#;
        let bytes: Vec<String> = UNAVAILABLE.bytes().map(|b| b.to_string()).collect();
        let unsent = format!(
            r#""text":"{0}","bytes":"{1}","list":["{0}"],"numbers":[{2}],"number":"{0}""#,
            UNAVAILABLE,
            BASE64.encode(UNAVAILABLE),
            bytes.join(",")
        );
        let sent = r#""text":"a","bytes":"AP8=","list":["b"],"numbers":[1,2],"number":1.5"#;
        let (mut reader, mut changes) = (Reader::default(), Changes::default());
        for (offset, (op, row)) in (0..).zip([("c", sent), ("u", unsent.as_str())]) {
            let value = format!(r#"{{"after":{{"id":1,{row}}},"source":{source},"op":"{op}"}}"#);
            let record = Incoming {
                topic: "shop.public.t",
                partition: 0,
                offset,
                key: Some(br#"{"id":1}"#),
                value: Some(value.as_bytes()),
                origin: None,
                exact: None,
            };
            assert_eq!(reader.read(&record, &mut |_| None, &mut changes), Ok(Outcome::Change));
        }
        assert_eq!(changes.list[0].table, changes.list[1].table, "no type changed");
        let update = changes.list[1].new.expect("a new row");
        assert_eq!(changes.value(update, 0), Value::Text(b"1"));
        for column in 1..6 {
            assert_eq!(changes.value(update, column), Value::Unchanged, "{column}");
        }
    }

    /// Where a record of Debezium's stands, by its operation, partition, offset, LSN and the commit before.
    fn stands(
        op: &str,
        (partition, offset): (i32, i64),
        lsn: u64,
        previous_commit: Option<u64>,
    ) -> u128 {
        let sequence = previous_commit.map_or("null".to_owned(), |lsn| format!("\\\"{lsn}\\\""));
        let value = format!(
            r#"{{"before":{{"id":1}},"after":{{"id":1}},"op":"{op}",
                "source":{{"schema":"public","table":"t","lsn":{lsn},"sequence":"[{sequence},null]"}}}}"#
        );
        let record = Incoming {
            topic: "shop.public.t",
            partition,
            offset,
            key: None,
            value: Some(value.as_bytes()),
            origin: None,
            exact: None,
        };
        let mut changes = Changes::default();
        let read = Reader::default().read(&record, &mut |_| None, &mut changes);
        assert_eq!(read, Ok(Outcome::Change), "{value}");
        changes.position(&changes.list[0]).version()
    }

    #[test]
    fn records_of_one_lsn_stand_apart_in_every_partition() {
        let places = (0..3).flat_map(|partition| (0..3).map(move |offset| (partition, offset)));
        let mut versions: Vec<_> = places.map(|place| stands("r", place, 100, None)).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 9);
        assert_eq!(stands("r", (0, 7), 100, None), 100 << 64 | 7);
    }

    #[test]
    fn what_commits_after_a_snapshot_is_newer_than_its_rows_wherever_it_was_in_the_log() {
        let snapshot = stands("r", (0, 9), 100, None);
        // Within a topic that was made again, and in a partition that was added.
        for place in [(0, 0), (7, 0)] {
            assert!(stands("u", place, 90, Some(110)) > snapshot);
            assert!(stands("u", place, 115, Some(110)) > stands("u", (0, 12), 90, Some(110)));
            assert!(stands("d", place, 130, Some(120)) > stands("u", (0, 13), 115, Some(110)));
        }
        assert!(
            stands("u", (0, 10), 90, Some(80)) < snapshot,
            "so it committed before the snapshot"
        );
    }

    #[test]
    fn a_truncate_is_before_the_rows_that_its_transaction_writes_afterwards() {
        let truncate = stands("t", (3, 50), 90, Some(110));
        assert!(stands("c", (0, 0), 95, Some(110)) > truncate);
        assert!(stands("c", (0, 0), 80, Some(70)) < truncate);
    }

    #[test]
    fn a_record_that_would_become_far_larger_than_it_is_is_set_aside() {
        let numbers = r#"{"type":"array","items":{"type":"struct","name":"io.debezium.data.VariableScaleDecimal"}"#;
        let fields: Vec<String> =
            (0..4).map(|n| format!(r#"{numbers},"field":"c{n}"}}"#)).collect();
        let list = vec![r#"{"scale":-16383,"value":"AQ=="}"#; 400].join(",");
        let read = |columns: usize| {
            let row: Vec<String> = (0..columns).map(|n| format!("\"c{n}\":[{list}]")).collect();
            let value = format!(
                r#"{{"schema":{{"fields":[{{"field":"after","fields":[{}]}}]}},
                    "payload":{{"after":{{{}}},"source":{{"schema":"s","table":"t","lsn":1}},"op":"c"}}}}"#,
                fields.join(","),
                row.join(",")
            );
            let record = Incoming {
                topic: "shop.s.t",
                partition: 0,
                offset: 0,
                key: None,
                value: Some(value.as_bytes()),
                origin: None,
                exact: None,
            };
            let mut changes = Changes::default();
            Reader::default().read(&record, &mut |_| None, &mut changes)
        };
        assert_eq!(read(2), Ok(Outcome::Change), "12 MB from 25 KB");
        let (column, type_name) = ("c2".to_owned(), "numeric[]".to_owned());
        assert_eq!(read(4), Err(Error::Value { column, type_name }));
    }

    #[test]
    fn a_truncate_has_no_row_and_a_delete_no_new_one_whatever_is_told_of_them() {
        let row = "{\"id\":1}";
        for (op, has_old) in [("d", true), ("t", false)] {
            let value = format!("{{\"before\":{row},\"after\":{row},\"op\":\"{op}\"}}");
            let record = Incoming {
                topic: "shop.public.users",
                partition: 0,
                offset: 3,
                key: None,
                value: Some(value.as_bytes()),
                origin: Some(b"0/10:1 0000000000000001"),
                exact: None,
            };
            let mut changes = Changes::default();
            let read = Reader::default().read(&record, &mut |_| Some(users()), &mut changes);
            assert_eq!(read, Ok(Outcome::Change), "{op}");
            let change = changes.list[0];
            assert_eq!((change.old.row().is_some(), change.new), (has_old, None), "{op}");
        }
    }

    #[test]
    fn a_record_that_is_no_change_is_set_aside_with_the_reason() {
        let ours = Some("0/10:1 0000000000000001");
        let insert = |after: &str| format!("{{\"op\":\"c\",\"after\":{after}}}");
        let cases = [
            ("{\"op\":".to_owned(), ours, "not JSON from byte 6 on"),
            ("{\"id\":1}".to_owned(), None, "the envelope has no usable `op`; let Debezium write"),
            (
                format!("{}1{}", "{\"payload\":".repeat(100_000), "}".repeat(100_000)),
                None,
                "the envelope has no usable `op`; let Debezium write",
            ),
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
