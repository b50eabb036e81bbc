//! `Changes` become Debezium 3.6 records, written straight from the cells.
//!
//! Field for field what Debezium writes with `decimal.handling.mode=string` and JSON without
//! schemas. Where it is wrong or says less, this differs on purpose; `tests/golden.rs` lists every
//! difference and checks that there is no other.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::key::{self, invalid};
use super::plan::Plan;
use super::record::{Batch, Destination, Moved, Record, Span, Target};
use super::value::{self, Kept};
use super::wire::Wire;
use super::{Error, json};
use crate::change::{Change, Changes, Old, Op, Row, Transaction, Value};
use crate::dead_letter::{DeadLetter, Stage};
use crate::table::Table;

/// `source.version`: the version of the format first, because consumers that look at it compare
/// Debezium versions; then who really wrote it.
const VERSION: &str = concat!("3.6.3+tailwater.", env!("CARGO_PKG_VERSION"));

/// What a batch may hold when a value was written: [`Span`] counts in 32 bits, and the rest of a record has
/// room behind it.
const MOST: usize = u32::MAX as usize - (1 << 20);

/// Writes records. Holds what is prepared per table version.
#[derive(Debug)]
pub struct Encoder {
    prefix: String,
    /// The source block up to `"ts_ms":`.
    source_head: Vec<u8>,
    /// `,"db":"…","sequence":"[`
    source_db: Vec<u8>,
    plans: FxHashMap<u64, Arc<Plan>>,
    /// The largest record of a table version's topic, where it is known.
    limits: FxHashMap<u64, usize>,
    source: Source,
    /// The end of every envelope of the batch: `","ts_ms":…,"ts_us":…,"ts_ns":…}`
    written_at: Vec<u8>,
    /// `{"before": …}` members of the exact header, and `{"after": …}`'s.
    exact: [Vec<u8>; 2],
}

/// What the source blocks of a transaction's changes to one table have in common: all but `lsn`,
/// which comes twice.
#[derive(Debug, Default)]
struct Source {
    /// Transaction and table of the batch, and whether it is a copy.
    of: Option<(u32, u32, bool)>,
    /// Up to the first `lsn`.
    head: Vec<u8>,
    /// From the first to the second.
    middle: Vec<u8>,
}

/// Which row of the envelope.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// `before`, all of it known or only the key.
    Before { whole: bool },
    /// `after`; the row before lends the TOASTed values that were not sent.
    After { old: Old },
}

/// One envelope to write.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    op: Op,
    before: Option<(Row, Side)>,
    after: Option<(Row, Side)>,
}

impl Encoder {
    /// An encoder of a database's changes; the prefix is Debezium's `topic.prefix` and becomes
    /// `source.name`, too.
    #[must_use]
    pub fn new(prefix: &str, database: &str) -> Encoder {
        let mut head =
            format!("\"source\":{{\"version\":\"{VERSION}\",\"connector\":\"postgresql\"")
                .into_bytes();
        head.extend_from_slice(b",\"name\":");
        json::write_string(&mut head, prefix.as_bytes());
        head.extend_from_slice(b",\"ts_ms\":");
        let mut db = b",\"db\":".to_vec();
        json::write_string(&mut db, database.as_bytes());
        db.extend_from_slice(b",\"sequence\":\"[");
        Encoder {
            prefix: prefix.to_owned(),
            source_head: head,
            source_db: db,
            plans: FxHashMap::default(),
            limits: FxHashMap::default(),
            source: Source::default(),
            written_at: Vec::new(),
            exact: [Vec::new(), Vec::new()],
        }
    }

    /// Sets the largest record, in bytes before compression, that the topic of a table version
    /// takes; to be called before its first change. A change that would need a larger one becomes a
    /// dead letter.
    pub fn limit(&mut self, fingerprint: u64, bytes: usize) {
        self.limits.insert(fingerprint, bytes);
    }

    /// Writes the records of a batch, appended to `batch`, so that its memory can be reused.
    ///
    /// `now` is the time of writing in nanoseconds since the Unix epoch (`ts_ns`). A change that
    /// cannot be written becomes a dead letter of the batch and leaves no record.
    pub fn encode(&mut self, changes: &Changes, now: i64, batch: &mut Batch) {
        let targets: Vec<(u32, Arc<Plan>)> =
            changes.tables.iter().map(|table| self.target(table, batch)).collect();
        self.write_at(now);
        self.source.of = None;
        for (index, change) in changes.list.iter().enumerate() {
            let (target, plan) = &targets[change.table as usize];
            let (bytes, records) = (batch.bytes.len(), batch.records.len());
            let index = u32::try_from(index).expect("a batch has fewer than 2^32 changes");
            let mut writing =
                Writing { encoder: self, plan, changes, change, record: (*target, index), batch };
            if let Err(error) = writing.change().and_then(|()| writing.fits(records)) {
                batch.bytes.truncate(bytes);
                batch.records.truncate(records);
                let reason = error.to_string();
                let letter = DeadLetter::new(changes, change, Stage::Encode, None, reason);
                batch.dead_letters.push(letter);
            }
        }
    }

    /// `now` in nanoseconds since the Unix epoch.
    fn write_at(&mut self, now: i64) {
        let out = &mut self.written_at;
        out.clear();
        out.extend_from_slice(b"\",\"ts_ms\":");
        json::write_int(out, now.div_euclid(1_000_000));
        out.extend_from_slice(b",\"ts_us\":");
        json::write_int(out, now.div_euclid(1000));
        out.extend_from_slice(b",\"ts_ns\":");
        json::write_int(out, now);
        out.push(b'}');
    }

    fn target(&mut self, table: &Arc<Table>, batch: &mut Batch) -> (u32, Arc<Plan>) {
        let prefix = &self.prefix;
        let limit = self.limits.get(&table.fingerprint).copied().unwrap_or(usize::MAX);
        let plan = self.plans.entry(table.fingerprint);
        let plan = Arc::clone(plan.or_insert_with(|| Arc::new(Plan::new(prefix, table, limit))));
        let known = batch.targets.iter();
        let found = known.clone().position(|t| t.table.fingerprint == table.fingerprint);
        let index = found.unwrap_or_else(|| {
            batch.targets.push(Target { topic: plan.topic.clone(), table: Arc::clone(table) });
            batch.targets.len() - 1
        });
        (u32::try_from(index).expect("fewer tables than changes"), plan)
    }
}

/// One change on its way into a batch.
#[derive(Debug)]
struct Writing<'a> {
    encoder: &'a mut Encoder,
    plan: &'a Plan,
    changes: &'a Changes,
    change: &'a Change,
    /// Target and change of the records.
    record: (u32, u32),
    batch: &'a mut Batch,
}

impl Writing<'_> {
    fn change(&mut self) -> Result<(), Error> {
        let change = self.change;
        let origin = self.origin();
        let before = change
            .old
            .row()
            .map(|row| (row, Side::Before { whole: matches!(change.old, Old::Full(_)) }));
        let after = change.new.map(|row| (row, Side::After { old: change.old }));
        match change.op {
            Op::Delete => self.delete(origin, before, None),
            Op::Truncate => {
                let value = self.envelope(Envelope { op: Op::Truncate, before: None, after: None });
                let record = self.blank(origin, None, Some(value?));
                self.push(Record { destination: Destination::EveryPartition, ..record });
                Ok(())
            }
            Op::Update if self.changes.key_changed(change) => self.moved(origin, before, after),
            // Only the key of a row whose key did not change says nothing that `after` does not.
            Op::Update if matches!(change.old, Old::Full(_)) => {
                self.put(origin, Envelope { op: Op::Update, before, after }, None)
            }
            Op::Read | Op::Insert | Op::Update => {
                self.put(origin, Envelope { op: change.op, before: None, after }, None)
            }
        }
    }

    /// Whether the topic takes every record of the change, which are those from `first` on.
    fn fits(&self, first: usize) -> Result<(), Error> {
        let sizes = self.batch.records[first..].iter().map(Record::bytes);
        let (bytes, limit) = (sizes.max().unwrap_or(0), self.plan.record_bytes);
        if bytes > limit { Err(self.too_large(bytes)) } else { Ok(()) }
    }

    /// A record with a row after.
    fn put(&mut self, origin: Span, envelope: Envelope, moved: Option<Moved>) -> Result<(), Error> {
        let key = self.key(envelope.after.map(|(row, _)| row), self.change.old)?;
        let value = self.envelope(envelope)?;
        let exact = self.exact();
        let record = self.blank(origin, key, Some(value));
        self.push(Record { exact, moved, ..record });
        Ok(())
    }

    /// A delete and its tombstone.
    fn delete(
        &mut self,
        origin: Span,
        before: Option<(Row, Side)>,
        moved: Option<Moved>,
    ) -> Result<(), Error> {
        let key = self.key(before.map(|(row, _)| row), Old::None)?;
        let value = self.envelope(Envelope { op: Op::Delete, before, after: None })?;
        let exact = self.exact();
        let record = self.blank(origin, key, Some(value));
        self.push(Record { exact, moved, ..record });
        if key.is_some() {
            self.push(Record { value: None, moved, ..record });
        }
        Ok(())
    }

    /// An update to another key: a delete of the old one, then a create of the new one.
    fn moved(
        &mut self,
        origin: Span,
        before: Option<(Row, Side)>,
        after: Option<(Row, Side)>,
    ) -> Result<(), Error> {
        let new_key = self.key(self.change.new, self.change.old)?;
        self.delete(origin, before, new_key.map(Moved::To))?;
        let old_key = self.key(self.change.old.row(), Old::None)?;
        let create = Envelope { op: Op::Insert, before: None, after };
        self.put(origin, create, old_key.map(Moved::From))
    }

    fn blank(&self, origin: Span, key: Option<Span>, value: Option<Span>) -> Record {
        let (target, change) = self.record;
        let destination = Destination::Key;
        Record { target, change, destination, key, value, origin, exact: None, moved: None }
    }

    fn push(&mut self, record: Record) {
        self.batch.records.push(record);
    }

    fn origin(&mut self) -> Span {
        let Batch { bytes, plugins, .. } = &mut *self.batch;
        let start = bytes.len();
        self.changes.position(self.change).write(bytes);
        bytes.extend_from_slice(&self.plan.version);
        if !plugins.is_empty() {
            bytes.push(b' ');
            bytes.extend_from_slice(plugins.as_bytes());
        }
        self.batch.since(start)
    }

    /// The key of a row, for which the `old` one stands in where it was not sent.
    fn key(&mut self, row: Option<Row>, old: Old) -> Result<Option<Span>, Error> {
        let (Some(row), true) = (row, self.plan.keyed) else { return Ok(None) };
        let start = self.batch.bytes.len();
        key::write(self.plan, self.changes, (old, row), &mut self.batch.bytes)?;
        self.room_after(start, 0)?;
        Ok(Some(self.batch.since(start)))
    }

    fn envelope(&mut self, envelope: Envelope) -> Result<Span, Error> {
        let start = self.batch.bytes.len();
        for exact in &mut self.encoder.exact {
            exact.clear();
        }
        self.batch.bytes.extend_from_slice(b"{\"before\":");
        self.row(envelope.before, start)?;
        self.batch.bytes.extend_from_slice(b",\"after\":");
        self.row(envelope.after, start)?;
        self.batch.bytes.push(b',');
        self.source();
        self.tail(envelope.op);
        Ok(self.batch.since(start))
    }

    /// Writes a row of the envelope that began at `start`.
    fn row(&mut self, row: Option<(Row, Side)>, start: usize) -> Result<(), Error> {
        let Some((row, side)) = row else {
            self.batch.bytes.extend_from_slice(b"null");
            return Ok(());
        };
        let mut open = b'{';
        for index in 0..self.plan.fields.len() {
            self.batch.bytes.push(open);
            open = b',';
            self.batch.bytes.extend_from_slice(&self.plan.fields[index].fragment);
            self.cell(row, side, index)?;
            self.room_after(start, self.encoder.exact.iter().map(Vec::len).sum())?;
        }
        self.batch.bytes.push(b'}');
        Ok(())
    }

    fn cell(&mut self, row: Row, side: Side, index: usize) -> Result<(), Error> {
        let (plan, changes) = (self.plan, self.changes);
        let field = &plan.fields[index];
        let value = match side {
            Side::After { old } => changes.value_after(old, row, index, field.key),
            Side::Before { .. } => changes.value(row, index),
        };
        if value == Value::Null && !field.key && matches!(side, Side::Before { whole: false }) {
            self.batch.bytes.extend_from_slice(&field.fill);
            return Ok(());
        }
        let out = &mut self.batch.bytes;
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Unchanged => out.extend_from_slice(&field.unavailable),
            // Text is not shorter in a record than here, so it need not be written to be known as too large.
            Value::Text(text) if text.len() > plan.record_bytes && field.wire == Wire::Text => {
                return Err(self.too_large(text.len()));
            }
            Value::Text(text) => match value::write(&field.wire, text, out) {
                Some(Kept::Whole) => {}
                Some(Kept::Partly) => self.keep_exactly(side, index, text),
                None => return Err(invalid(self.plan, index)),
            },
        }
        Ok(())
    }

    /// Whether the topic may take what was written from `start` on and aside, and a batch hold it: what is far
    /// too large is not written to its end.
    fn room_after(&self, start: usize, aside: usize) -> Result<(), Error> {
        let end = self.batch.bytes.len() + aside;
        let bytes = end - start;
        if bytes > self.plan.record_bytes || end > MOST {
            return Err(self.too_large(bytes));
        }
        Ok(())
    }

    #[cold]
    fn too_large(&self, bytes: usize) -> Error {
        let (topic, limit) = (self.plan.topic.clone(), self.plan.record_bytes);
        Error::TooLarge { bytes, topic, limit }
    }

    #[cold]
    fn keep_exactly(&mut self, side: Side, index: usize, text: &[u8]) {
        let out = &mut self.encoder.exact[usize::from(matches!(side, Side::After { .. }))];
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.extend_from_slice(&self.plan.fields[index].fragment);
        json::write_string(out, text);
    }

    /// The exact header of the envelope written last.
    fn exact(&mut self) -> Option<Span> {
        let [before, after] = &self.encoder.exact;
        if before.is_empty() && after.is_empty() {
            return None;
        }
        let start = self.batch.bytes.len();
        let mut open = b'{';
        for (name, members) in [("\"before\":", before), ("\"after\":", after)] {
            if !members.is_empty() {
                self.batch.bytes.push(open);
                open = b',';
                self.batch.bytes.extend_from_slice(name.as_bytes());
                self.batch.bytes.extend_from_slice(members);
                self.batch.bytes.push(b'}');
            }
        }
        self.batch.bytes.push(b'}');
        Some(self.batch.since(start))
    }

    fn source(&mut self) {
        let of = (self.change.transaction, self.record.0, self.change.op == Op::Read);
        if self.encoder.source.of != Some(of) {
            self.begin_source(of.2);
            self.encoder.source.of = Some(of);
        }
        let (out, mut digits) = (&mut self.batch.bytes, itoa::Buffer::new());
        let lsn = digits.format(self.change.lsn.0).as_bytes();
        let Source { head, middle, .. } = &self.encoder.source;
        for part in [head, lsn, middle, lsn, SOURCE_END] {
            out.extend_from_slice(part);
        }
    }

    /// Writes what the next source blocks have in common.
    fn begin_source(&mut self, snapshot: bool) {
        let Transaction { previous_commit, committed_at, xid, .. } =
            *self.changes.transaction(self.change);
        let Encoder { source, source_head, source_db, .. } = &mut *self.encoder;
        let out = &mut source.head;
        out.clear();
        out.extend_from_slice(source_head);
        json::write_int(out, committed_at.div_euclid(1000));
        out.extend_from_slice(if snapshot { SNAPSHOT_TRUE } else { SNAPSHOT_FALSE });
        out.extend_from_slice(source_db);
        if previous_commit.0 == 0 {
            out.extend_from_slice(b"null");
        } else {
            out.extend_from_slice(b"\\\"");
            write_unsigned(out, previous_commit.0);
            out.extend_from_slice(b"\\\"");
        }
        out.extend_from_slice(b",\\\"");
        let out = &mut source.middle;
        out.clear();
        out.extend_from_slice(b"\\\"]\",\"ts_us\":");
        json::write_int(out, committed_at);
        out.extend_from_slice(b",\"ts_ns\":");
        json::write_int(out, committed_at.saturating_mul(1000));
        out.push(b',');
        out.extend_from_slice(&self.plan.source);
        write_unsigned(out, u64::from(xid));
        out.extend_from_slice(b",\"lsn\":");
    }

    fn tail(&mut self, op: Op) {
        let out = &mut self.batch.bytes;
        out.extend_from_slice(op.code().as_bytes());
        out.extend_from_slice(&self.encoder.written_at);
    }
}

const SNAPSHOT_TRUE: &[u8] = b",\"snapshot\":\"true\"";
const SNAPSHOT_FALSE: &[u8] = b",\"snapshot\":\"false\"";
/// What follows the second `lsn`, up to the letter of `op`.
const SOURCE_END: &[u8] =
    b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null},\"transaction\":null,\"op\":\"";

fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Cell;
    use crate::position::Lsn;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    /// The insert of a row of such texts, as records that may be so large.
    fn encoded(texts: &[&str], limit: usize) -> Batch {
        let column = |index| Column::new(format!("c{index}"), ColumnType::Text, "text");
        let columns = (0..texts.len()).map(column).collect();
        let identity = ReplicaIdentity::Nothing;
        let table = Arc::new(Table::new(7, "public".into(), "t".into(), columns, identity));
        let mut changes = Changes::default();
        let row = changes.begin_row();
        let cells: Vec<Cell> =
            texts.iter().map(|text| changes.push_text(text.as_bytes())).collect();
        cells.into_iter().for_each(|cell| changes.push_cell(cell));
        let (commit, previous_commit) = (Lsn(2), Lsn(1));
        let transaction = Transaction { commit, previous_commit, committed_at: 0, xid: 3 };
        let transaction = changes.push_transaction(transaction);
        let change = Change {
            op: Op::Insert,
            table: changes.intern_table(&table),
            transaction,
            ordinal: 1,
            lsn: Lsn(2),
            old: Old::None,
            new: Some(row),
        };
        changes.list.push(change);
        let (mut encoder, mut batch) = (Encoder::new("shop", "shop"), Batch::default());
        encoder.limit(table.fingerprint, limit);
        encoder.encode(&changes, 0, &mut batch);
        batch
    }

    #[test]
    fn a_row_that_is_far_too_large_is_set_aside_before_all_of_it_is_written() {
        let controls = "\u{1}".repeat(1000);
        let row = vec![controls.as_str(); 1000];
        let batch = encoded(&row, 10_000);
        assert!(batch.records.is_empty() && batch.bytes.is_empty());
        assert!(batch.bytes.capacity() < 100_000, "{}", batch.bytes.capacity());
        let reason = &batch.dead_letters[0].reason;
        assert!(reason.starts_with("a record of at least 12"), "{reason}");
        let long = "a".repeat(1_000_000);
        let batch = encoded(&["a", &long], 999_999);
        assert!(batch.bytes.capacity() < 100_000, "{}", batch.bytes.capacity());
        let reason = &batch.dead_letters[0].reason;
        assert!(reason.starts_with("a record of at least 1000000 bytes is larger"), "{reason}");
        assert_eq!(encoded(&["a", &long], 1_002_000).records.len(), 1);
    }
}
