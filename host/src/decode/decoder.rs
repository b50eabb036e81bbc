//! Turns the messages of one replication stream into a batch of changes.
//!
//! Sans-I/O: bytes and table definitions come in by method calls. At the first change of a table since the
//! stream described it, the decoder asks for its definition ([`Step::Define`]) and the caller, who can query
//! the catalog, answers with [`Decoder::define`]. Of changes that are passed over nobody needs one.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::message::{Malformed, Message, OldTuple, Relation, Tuple, TupleCell};
use crate::change::{Cell, Change, Changes, Old, Op, Row, Transaction};
use crate::position::{Lsn, Position};
use crate::table::{Table, TableName};

/// A message that does not fit the stream so far, or is no message at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a pgoutput message.
    #[error("malformed pgoutput message")]
    Malformed(#[from] Malformed),
    /// A change of a table the stream never described.
    #[error("the stream changed relation {0} without describing it first")]
    UnknownRelation(u32),
    /// A tuple whose width is not its table's.
    #[error("a row of {table} came with {sent} columns, but the table has {expected}")]
    Width {
        /// Which table.
        table: TableName,
        /// Columns in the tuple.
        sent: usize,
        /// Columns in the table.
        expected: usize,
    },
    /// A change or commit outside a transaction, or a begin inside one.
    #[error("message `{0}` out of place: transactions do not nest")]
    OutOfOrder(&'static str),
}

/// What the caller has to do next.
#[derive(Debug)]
pub enum Step {
    /// Go on.
    Continue,
    /// Look the table up, call [`Decoder::define`], and push the same message again.
    Define(Relation),
    /// A transaction ended; this is where the slot may be confirmed once it is durable.
    Committed(Lsn),
}

/// The stream's state: its tables, and the transaction that is open.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: FxHashMap<u32, Known>,
    open: Option<Open>,
    previous_commit: Lsn,
    /// Changes up to here were delivered by an earlier run and are passed over.
    resume_after: Position,
    /// Until when changes of a table are part of its snapshot, by the name that it had then.
    snapshots: FxHashMap<TableName, Lsn>,
    /// Which names these tables had.
    names: FxHashMap<u32, TableName>,
    /// Tables whose changes are passed over.
    passed_over: FxHashSet<u32>,
}

#[derive(Debug)]
struct Known {
    relation: Relation,
    /// What a description like this was defined as, the last time.
    table: Option<Arc<Table>>,
    /// Whether it was described since.
    is_due: bool,
    /// Changes that commit before this LSN are part of the table's snapshot.
    skip_before: Lsn,
    /// It has another name than when it was copied, or another one's: before any of its changes is passed over its
    /// definition is asked for, since that may speak against a copy.
    renamed: bool,
}

#[derive(Debug)]
struct Open {
    transaction: Transaction,
    /// Index in the batch at hand, once a change of it was pushed.
    index: Option<u32>,
    ordinal: u64,
}

impl Decoder {
    /// A decoder for a stream that begins anew; changes up to `resume_after` are passed over.
    #[must_use]
    pub fn resuming_after(resume_after: Position) -> Decoder {
        Decoder { resume_after, ..Decoder::default() }
    }

    /// Passes over changes of the table that its snapshot already shows.
    pub fn snapshot_taken(&mut self, table: TableName, oid: u32, consistent_at: Lsn) {
        self.names.insert(oid, table.clone());
        self.snapshots.insert(table, consistent_at);
    }

    /// Passes over changes of the table from here on, until a later stream has another snapshot of it.
    pub fn pass_over(&mut self, oid: u32) {
        self.passed_over.insert(oid);
        if let Some(known) = self.tables.get_mut(&oid) {
            (known.skip_before, known.renamed) = (Lsn(u64::MAX), false);
        }
    }

    /// Whether a transaction is open: keepalives inside one say nothing about it.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The transaction that is open.
    #[must_use]
    pub fn transaction(&self) -> Option<Transaction> {
        self.open.as_ref().map(|open| open.transaction)
    }

    /// Tells the decoder that the next change goes to a new batch.
    pub fn batch_taken(&mut self) {
        if let Some(open) = &mut self.open {
            open.index = None;
        }
    }

    /// What a table of exactly this description was defined as. It is to be looked up all the same: the
    /// server describes a table anew whenever anything of it changed, NOT NULL too, which the
    /// description does not tell.
    #[must_use]
    pub fn known(&self, relation: &Relation) -> Option<Arc<Table>> {
        let known = self.tables.get(&relation.oid).filter(|known| known.relation == *relation)?;
        known.table.clone()
    }

    fn describe(&mut self, relation: Relation) {
        let name = TableName { schema: relation.schema.clone(), name: relation.name.clone() };
        let skip_before = match self.passed_over.contains(&relation.oid) {
            true => Lsn(u64::MAX),
            false => self.snapshots.get(&name).copied().unwrap_or_default(),
        };
        let table = self.known(&relation);
        let renamed = match self.names.get(&relation.oid) {
            Some(copied_as) => *copied_as != name,
            None => self.snapshots.contains_key(&name),
        };
        let known = Known { relation, table, is_due: true, skip_before, renamed };
        self.tables.insert(known.relation.oid, known);
    }

    /// Answers [`Step::Define`].
    pub fn define(&mut self, relation: Relation, table: Arc<Table>) {
        let oid = relation.oid;
        self.describe(relation);
        if let Some(known) = self.tables.get_mut(&oid) {
            (known.table, known.is_due, known.renamed) = (Some(table), false, false);
        }
    }

    /// Takes one pgoutput message. `frame` lies at `offset` in the arena that the batch will get.
    ///
    /// # Errors
    /// [`Error`] if the stream is corrupt; the connection must then be given up.
    pub fn push(
        &mut self,
        frame: &[u8],
        offset: usize,
        lsn: Lsn,
        batch: &mut Changes,
    ) -> Result<Step, Error> {
        let at = At { frame, offset, lsn };
        match Message::parse(frame)? {
            Message::Insert { relation, new } => {
                return self.change(batch, &at, relation, Op::Insert, None, Some(new));
            }
            Message::Update { relation, old, new } => {
                return self.change(batch, &at, relation, Op::Update, old, Some(new));
            }
            Message::Delete { relation, old } => {
                return self.change(batch, &at, relation, Op::Delete, Some(old), None);
            }
            Message::Truncate { relations } => return self.truncate(batch, &at, &relations),
            Message::Begin { commit, committed_at, xid } => {
                self.begin(commit, committed_at, xid)?;
            }
            Message::Commit { commit, end } => return self.commit(commit, end),
            Message::Relation(relation) => self.describe(relation),
            Message::Ignored => {}
        }
        Ok(Step::Continue)
    }

    fn begin(&mut self, commit: Lsn, committed_at: i64, xid: u32) -> Result<(), Error> {
        if self.open.is_some() {
            return Err(Error::OutOfOrder("begin"));
        }
        let previous_commit = self.previous_commit;
        let transaction = Transaction { commit, previous_commit, committed_at, xid };
        self.open = Some(Open { transaction, index: None, ordinal: 0 });
        Ok(())
    }

    fn commit(&mut self, commit: Lsn, end: Lsn) -> Result<Step, Error> {
        let open = self.open.take().ok_or(Error::OutOfOrder("commit"))?;
        if open.transaction.commit != commit {
            return Err(Error::OutOfOrder("commit"));
        }
        self.previous_commit = commit;
        Ok(Step::Committed(end))
    }

    /// All of its tables are to be defined before the first of them is emptied.
    fn truncate(
        &mut self,
        batch: &mut Changes,
        at: &At<'_>,
        relations: &[u32],
    ) -> Result<Step, Error> {
        let open = self.open.as_ref().ok_or(Error::OutOfOrder("change"))?;
        for (relation, ordinal) in relations.iter().zip(open.ordinal + 1..) {
            let known = self.tables.get(relation).ok_or(Error::UnknownRelation(*relation))?;
            let position = Position { commit: open.transaction.commit, ordinal };
            if known.is_due && !known.passes_over(position, self.resume_after) {
                return Ok(Step::Define(known.relation.clone()));
            }
        }
        for relation in relations {
            self.change(batch, at, *relation, Op::Truncate, None, None)?;
        }
        Ok(Step::Continue)
    }

    fn change(
        &mut self,
        batch: &mut Changes,
        at: &At<'_>,
        relation: u32,
        op: Op,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
    ) -> Result<Step, Error> {
        let open = self.open.as_mut().ok_or(Error::OutOfOrder("change"))?;
        let known = self.tables.get(&relation).ok_or(Error::UnknownRelation(relation))?;
        let position = Position { commit: open.transaction.commit, ordinal: open.ordinal + 1 };
        if known.passes_over(position, self.resume_after) {
            open.ordinal = position.ordinal;
            return Ok(Step::Continue);
        }
        let Some(table) = known.table.as_ref().filter(|_| !known.is_due) else {
            return Ok(Step::Define(known.relation.clone()));
        };
        open.ordinal = position.ordinal;
        let old = match old {
            None => Old::None,
            Some(OldTuple::Key(tuple)) => Old::Key(at.push_row(batch, table, tuple)?),
            Some(OldTuple::Full(tuple)) => Old::Full(at.push_row(batch, table, tuple)?),
        };
        let new = new.map(|tuple| at.push_row(batch, table, tuple)).transpose()?;
        if let (Old::Full(old), Some(new)) = (old, new) {
            batch.complete(new, old, table.columns.len());
        }
        let transaction =
            *open.index.get_or_insert_with(|| batch.push_transaction(open.transaction));
        let (table, ordinal) = (batch.intern_table(table), open.ordinal);
        batch.list.push(Change { op, table, transaction, ordinal, lsn: at.lsn, old, new });
        Ok(Step::Continue)
    }
}

impl Known {
    /// Whether an earlier run delivered the change there, or the table's snapshot shows it.
    fn passes_over(&self, position: Position, delivered: Position) -> bool {
        position <= delivered || (position.commit < self.skip_before && !self.renamed)
    }
}

/// Where a frame lies.
struct At<'a> {
    frame: &'a [u8],
    offset: usize,
    lsn: Lsn,
}

impl At<'_> {
    /// Pushes the row's cells as slices of the arena that the frame lies in.
    #[inline]
    fn push_row(&self, batch: &mut Changes, table: &Table, tuple: Tuple<'_>) -> Result<Row, Error> {
        let (sent, expected) = (usize::from(tuple.columns), table.columns.len());
        if sent != expected {
            return Err(Error::Width { table: table.full_name(), sent, expected });
        }
        let row = batch.begin_row();
        for cell in tuple.cells() {
            batch.push_cell(match cell {
                TupleCell::Null => Cell::NULL,
                TupleCell::Unchanged => Cell::UNCHANGED,
                TupleCell::Text(text) => self.slice(text),
            });
        }
        Ok(row)
    }

    fn slice(&self, text: &[u8]) -> Cell {
        let start = self.offset + (text.as_ptr().addr() - self.frame.as_ptr().addr());
        let narrow = |n| u32::try_from(n).expect("the reader bounds a batch's arena below 4 GiB");
        Cell::text(narrow(start), narrow(text.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::RelationColumn;
    use super::super::message::tests::insert;
    use super::*;
    use crate::change::Value;
    use crate::table::{Column, ColumnType, ReplicaIdentity};
    use crate::telemetry::logging::chain;

    fn relation(columns: &[&str]) -> Relation {
        let column = |name: &&str| RelationColumn {
            identity: *name == "id",
            name: (*name).into(),
            type_oid: 25,
            type_modifier: -1,
        };
        Relation {
            oid: 7,
            schema: "public".into(),
            name: "t".into(),
            identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn table(relation: &Relation) -> Arc<Table> {
        let column = |column: &RelationColumn| {
            let text = Column::new(column.name.clone(), ColumnType::Text, "text");
            Column { key: column.identity, ..text }
        };
        let columns = relation.columns.iter().map(column).collect();
        Arc::new(Table::new(7, "public".into(), "t".into(), columns, relation.identity))
    }

    fn begin(commit: u64) -> Vec<u8> {
        [&b"B"[..], &commit.to_be_bytes(), &0i64.to_be_bytes(), &1u32.to_be_bytes()].concat()
    }

    fn commit(commit: u64, end: u64) -> Vec<u8> {
        let (commit, end) = (commit.to_be_bytes(), end.to_be_bytes());
        [&b"C\0"[..], &commit, &end, &0i64.to_be_bytes()].concat()
    }

    /// Feeds messages through one arena, as the stream does.
    struct Feed {
        decoder: Decoder,
        arena: Vec<u8>,
        batch: Changes,
    }

    impl Feed {
        fn new(mut decoder: Decoder) -> Feed {
            let relation = relation(&["id", "note"]);
            let table = table(&relation);
            decoder.define(relation, table);
            Feed { decoder, arena: vec![0xAA; 3], batch: Changes::default() }
        }

        fn push(&mut self, frame: &[u8]) -> Result<Step, Error> {
            let offset = self.arena.len();
            self.arena.extend_from_slice(frame);
            self.decoder.push(frame, offset, Lsn(1), &mut self.batch)
        }

        fn transaction(&mut self, at: u64, rows: &[&str]) {
            self.push(&begin(at)).unwrap();
            for row in rows {
                self.push(&insert(7, &[Some(row.as_bytes()), None])).unwrap();
            }
            assert!(matches!(self.push(&commit(at, at + 8)), Ok(Step::Committed(_))));
        }

        fn ids(mut self) -> Vec<(String, String)> {
            self.batch.adopt(self.arena);
            let batch = &self.batch;
            let id = |change: &Change| match batch.value(change.new.unwrap(), 0) {
                Value::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            };
            batch.list.iter().map(|c| (batch.position(c).to_string(), id(c))).collect()
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
    }

    #[test]
    fn changes_are_positioned_by_commit_and_ordinal() {
        let mut feed = Feed::new(Decoder::default());
        feed.transaction(0x100, &["a", "b"]);
        feed.transaction(0x200, &["c"]);
        assert_eq!(feed.ids(), pairs(&[("0/100:1", "a"), ("0/100:2", "b"), ("0/200:1", "c")]));
    }

    #[test]
    fn a_restart_inside_a_transaction_goes_on_after_the_last_delivered_change() {
        let delivered = Position { commit: Lsn(0x200), ordinal: 1 };
        let mut feed = Feed::new(Decoder::resuming_after(delivered));
        feed.transaction(0x100, &["a"]);
        feed.transaction(0x200, &["b", "c"]);
        assert_eq!(feed.ids(), pairs(&[("0/200:2", "c")]));
    }

    #[test]
    fn changes_a_snapshot_shows_are_passed_over() {
        let mut decoder = Decoder::default();
        let name = TableName { schema: "public".into(), name: "t".into() };
        decoder.snapshot_taken(name, 7, Lsn(0x200));
        let mut feed = Feed::new(decoder);
        feed.transaction(0x1FF, &["seen by the snapshot"]);
        feed.transaction(0x200, &["after it"]);
        assert_eq!(feed.ids(), pairs(&[("0/200:1", "after it")]));
    }

    #[test]
    fn every_description_asks_for_the_catalog_and_only_the_same_one_is_known() {
        let mut feed = Feed::new(Decoder::default());
        let described = |name: &str| {
            let columns = format!("\0\x01\x01{name}\0\0\0\0\x19");
            [&b"R\0\0\0\x07public\0t\0d"[..], columns.as_bytes(), &[0xFF; 4]].concat()
        };
        let row = insert(7, &[Some(b"a")]);
        feed.push(&begin(0x100)).unwrap();
        for (name, is_known) in [("id", false), ("id", true), ("other", false)] {
            assert!(matches!(feed.push(&described(name)), Ok(Step::Continue)));
            let Ok(Step::Define(asked)) = feed.push(&row) else { panic!("{name}") };
            assert_eq!(asked.columns[0].name, name);
            assert_eq!(feed.decoder.known(&asked).is_some(), is_known, "{name}");
            let table = table(&asked);
            feed.decoder.define(asked, table);
            assert!(matches!(feed.push(&row), Ok(Step::Continue)));
        }
        assert_eq!(feed.ids(), pairs(&[("0/100:1", "a"), ("0/100:2", "a"), ("0/100:3", "a")]));
    }

    #[test]
    fn a_table_whose_changes_are_passed_over_is_not_asked_for() {
        let mut decoder = Decoder::default();
        let name = TableName { schema: "public".into(), name: "t".into() };
        decoder.snapshot_taken(name, 7, Lsn(0x200));
        let mut feed = Feed::new(decoder);
        feed.decoder.describe(relation(&["id", "note"]));
        feed.transaction(0x1FF, &["seen by the snapshot"]);
        feed.push(&begin(0x200)).unwrap();
        let emptied = [&b"T"[..], &1u32.to_be_bytes(), &[0], &7u32.to_be_bytes()].concat();
        assert!(matches!(feed.push(&emptied), Ok(Step::Define(_))), "the first after it");
        assert!(feed.batch.is_empty());
    }

    #[test]
    fn a_table_of_another_name_is_asked_for_before_it_is_passed_over() {
        for oid in [8, 7] {
            let mut decoder = Decoder::default();
            let name = if oid == 7 { "other" } else { "t" };
            let name = TableName { schema: "public".into(), name: name.into() };
            decoder.snapshot_taken(name, oid, Lsn(0x200));
            let mut feed = Feed::new(decoder);
            let described = relation(&["id", "note"]);
            feed.decoder.describe(described.clone());
            feed.push(&begin(0x100)).unwrap();
            let row = insert(7, &[Some(b"a"), None]);
            assert!(matches!(feed.push(&row), Ok(Step::Define(_))), "{oid}");
            let table = table(&described);
            feed.decoder.define(described, table);
            assert!(matches!(feed.push(&row), Ok(Step::Continue)));
            assert_eq!(feed.batch.is_empty(), oid == 8, "passed over by its name");
        }
    }

    #[test]
    fn of_a_table_that_is_to_be_copied_again_nothing_is_taken_any_more() {
        let mut feed = Feed::new(Decoder::default());
        feed.transaction(0x100, &["a"]);
        feed.decoder.pass_over(7);
        feed.transaction(0x200, &["b"]);
        feed.decoder.describe(relation(&["id", "other"]));
        feed.transaction(0x300, &["c"]);
        assert_eq!(feed.ids(), pairs(&[("0/100:1", "a")]));
    }

    #[test]
    fn a_row_of_another_width_is_an_error() {
        let mut feed = Feed::new(Decoder::default());
        feed.push(&begin(0x100)).unwrap();
        let error = feed.push(&insert(7, &[None])).unwrap_err().to_string();
        assert_eq!(error, "a row of public.t came with 1 columns, but the table has 2");
    }

    #[test]
    fn a_change_outside_a_transaction_is_an_error() {
        let mut feed = Feed::new(Decoder::default());
        assert!(matches!(feed.push(&insert(7, &[None, None])), Err(Error::OutOfOrder(_))));
        let error = feed.push(&commit(1, 2)).unwrap_err().to_string();
        assert!(error.ends_with("` out of place: transactions do not nest"), "{error}");
    }

    #[test]
    fn what_is_no_message_of_this_stream_is_said() {
        let mut feed = Feed::new(Decoder::default());
        feed.push(&begin(0x100)).unwrap();
        for (message, wanted) in [
            (&b"I\0\0\0\x07X"[..], "malformed pgoutput message: message `I` holds the unknown"),
            (&insert(8, &[None]), "the stream changed relation 8 without describing it first"),
        ] {
            let error = chain(&feed.push(message).unwrap_err());
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
