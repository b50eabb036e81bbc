//! What moves from stage to stage: changes, and the point of their source that may be
//! acknowledged once they are durable.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::budget::Room;
use crate::change::Changes;
use crate::dead_letter::{DeadLetter, Passed};
use crate::plugin::{Delta, Scope};
use crate::position::{Lsn, Position};
use crate::table::TableName;

/// A batch on its way. The point stands for everything up to and including these changes.
#[derive(Debug)]
pub struct Hop<P> {
    /// The changes; may be empty when only the point moved.
    pub changes: Changes,
    /// What earlier stages set aside out of these changes; stored with them.
    pub dead_letters: Vec<DeadLetter>,
    /// What passed the plugins, if dead letters of it may be open.
    pub passed: Vec<Passed>,
    /// Which plugin versions have seen them: `name@digest`, separated by commas.
    pub plugins: Arc<str>,
    /// What may be acknowledged once they are durable.
    pub point: P,
    /// Set if these changes are dead letters that are driven through again.
    pub redrive: Option<Redrive>,
    /// What the batch takes of the leg's [`Budget`](crate::budget::Budget), until the last stage has taken it in.
    pub room: Option<Room>,
}

/// Dead letters on their way through again. What they become has the positions they always had, so
/// it neither overtakes a newer version of its row nor counts twice.
#[derive(Debug)]
pub struct Redrive {
    /// The letters, all of one plugin, or of no plugin at all, and of one scope.
    pub letters: Vec<DeadLetter>,
    /// What each is called where it is stored.
    pub ids: Vec<String>,
    /// They are only closed, and run through nothing.
    pub dropped: bool,
    /// The part of the source whose memory the plugins have of them.
    pub scope: Scope,
    /// Told, once what they became is durable and they are closed.
    pub done: oneshot::Sender<Outcome>,
}

/// What came of letters that were driven through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Ids of those that are no letters any more.
    pub closed: Vec<String>,
    /// How many of them failed again, at the same place or behind it.
    pub failed: usize,
}

impl Redrive {
    /// What came of them, given what failed on the way. A letter that failed again at the same place is
    /// the same letter; one that failed elsewhere is closed, and another one took its place.
    #[must_use]
    pub fn outcome(&self, failed: &[DeadLetter]) -> Outcome {
        let again = |letter: &DeadLetter| failed.iter().any(|new| new.is_again(letter));
        let pairs = self.ids.iter().zip(&self.letters);
        let closed = pairs.filter(|(_, letter)| !again(letter)).map(|(id, _)| id.clone());
        let fails = |letter: &&DeadLetter| failed.iter().any(|new| new.position == letter.position);
        Outcome { closed: closed.collect(), failed: self.letters.iter().filter(fails).count() }
    }
}

impl<P> Hop<P> {
    /// A batch that no plugin has seen yet, and that takes no room.
    pub fn new(changes: Changes, point: P) -> Hop<P> {
        Hop {
            changes,
            dead_letters: Vec::new(),
            passed: Vec::new(),
            plugins: Arc::default(),
            point,
            redrive: None,
            room: None,
        }
    }
}

/// A place in a source that can be acknowledged.
pub trait Point: Send + 'static {
    /// Takes in the point of the batch after this one.
    fn merge(&mut self, later: Self);

    /// What became of copies of tables up to here, in order; the store records it before it reports success.
    fn copies(&self) -> &[CopyMark];

    /// The part of the source that the batch is of.
    fn scope(&self) -> Scope;

    /// Grows when the source was given to this process anew: who had it before may have read on.
    fn assignment(&self) -> u64;

    /// Takes along what the plugins remember of the batch.
    fn remember(&mut self, deltas: Vec<Delta>);

    /// Gives what the plugins remember of everything up to here.
    fn take_remembered(&mut self) -> Vec<Delta>;

    /// Notes the time of the newest commit up to here, in microseconds since 1970; 0 is none.
    fn note_commit(&mut self, time: i64);

    /// The time of the newest commit since the point before; 0 if there was none.
    fn newest_commit(&self) -> i64;
}

/// A table whose snapshot is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDone {
    /// Which table.
    pub table: TableName,
    /// As what it was copied.
    #[serde(flatten)]
    pub copied: Copied,
}

/// What becomes of a table's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyMark {
    /// It is complete, once everything before this is durable; or it was, and its table looks otherwise now.
    Complete(SnapshotDone),
    /// The one that was complete is worth nothing any more, which has to be durable before the first change of
    /// another one: half of that must not be taken for a whole.
    Withdrawn(TableName),
}

impl CopyMark {
    /// The table.
    #[must_use]
    pub fn table(&self) -> &TableName {
        match self {
            CopyMark::Complete(done) => &done.table,
            CopyMark::Withdrawn(table) => table,
        }
    }

    /// The copies that are complete after all of these, of tables in the order in which they were.
    pub fn complete(marks: &[CopyMark]) -> impl Iterator<Item = &SnapshotDone> {
        let last: HashMap<&TableName, usize> =
            (0..).zip(marks).map(|(index, mark)| (mark.table(), index)).collect();
        (0..).zip(marks).filter_map(move |(index, mark)| match mark {
            CopyMark::Complete(done) if last[mark.table()] == index => Some(done),
            CopyMark::Complete(_) | CopyMark::Withdrawn(_) => None,
        })
    }

    /// The tables whose copy is withdrawn.
    pub fn withdrawn(marks: &[CopyMark]) -> impl Iterator<Item = &TableName> {
        marks.iter().filter_map(|mark| match mark {
            CopyMark::Withdrawn(table) => Some(table),
            CopyMark::Complete(_) => None,
        })
    }
}

/// What was copied, and as of when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Copied {
    /// The snapshot shows every transaction that committed before this LSN and none after it, so
    /// streamed changes of the table with a smaller commit LSN are skipped.
    pub consistent_at: Lsn,
    /// Which table had the name then, `pg_class.oid`.
    pub oid: u32,
    /// On which terms it was published, as a hash.
    pub terms: i64,
    /// The names of its key's columns, which the stream does not tell of a table with full identity.
    pub key: Vec<String>,
    /// What it looked like then, or at the last look that the stream is behind. Nothing in records from before this
    /// was kept.
    #[serde(default)]
    pub form: Form,
}

/// What a table looked like in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Form {
    /// A transaction that commits at this LSN or later found the table so, or changed since.
    pub at: Lsn,
    /// The file that it is in, or those of its partitions: the object id of each, and `pg_class.relfilenode`.
    pub files: Vec<(u32, u32)>,
    /// Its columns in the order of their numbers, without those that were dropped.
    pub columns: Vec<FormColumn>,
    /// No column with this number or a lower one came later: the highest that one ever had, as far as is told.
    pub last: i16,
}

/// A column of it, as a row of five in text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i16, String, u32, i32, bool)", into = "(i16, String, u32, i32, bool)")]
pub struct FormColumn {
    /// `pg_attribute.attnum`
    pub number: i16,
    /// Its name.
    pub name: String,
    /// The type's object id and modifier.
    pub type_of: (u32, i32),
    /// Whether it is computed.
    pub generated: bool,
}

impl From<(i16, String, u32, i32, bool)> for FormColumn {
    fn from((number, name, oid, modifier, generated): (i16, String, u32, i32, bool)) -> FormColumn {
        FormColumn { number, name, type_of: (oid, modifier), generated }
    }
}

impl From<FormColumn> for (i16, String, u32, i32, bool) {
    fn from(column: FormColumn) -> Self {
        let FormColumn { number, name, type_of: (oid, modifier), generated } = column;
        (number, name, oid, modifier, generated)
    }
}

/// The tables that were copied whole, by name.
pub type Snapshots = HashMap<TableName, Copied>;

/// The point of the capture leg.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPoint {
    /// What the slot may be told: the end of the last transaction that is wholly inside, or a
    /// keepalive's LSN after it.
    pub confirm: Lsn,
    /// The last change inside; a restart skips everything up to it.
    pub position: Position,
    /// What became of copies since the point before, in order.
    pub copies: Vec<CopyMark>,
    /// Whether tables are being copied: a start could not go on from here, it would copy them again,
    /// from the first row.
    pub copying: bool,
    /// What the plugins remember of the changes since the point before.
    pub remembered: Vec<Delta>,
    /// When the newest commit since the point before was made, in microseconds since 1970; 0 is never.
    pub newest_commit: i64,
}

impl LogPoint {
    /// Whether tables are being copied after this point. One that says nothing of a place in the log,
    /// as that of dead letters driven through again, changes nothing.
    #[must_use]
    pub fn copying_after(&self, before: bool) -> bool {
        let streamed = self.confirm > Lsn(0) || self.position > Position::default();
        self.copying || (before && !streamed)
    }
}

impl Point for LogPoint {
    fn merge(&mut self, later: Self) {
        self.confirm = self.confirm.max(later.confirm);
        self.position = self.position.max(later.position);
        self.copying = later.copying_after(self.copying);
        self.copies.extend(later.copies);
        self.remembered.extend(later.remembered);
        self.newest_commit = self.newest_commit.max(later.newest_commit);
    }

    fn copies(&self) -> &[CopyMark] {
        &self.copies
    }

    fn scope(&self) -> Scope {
        Scope::default()
    }

    fn assignment(&self) -> u64 {
        0
    }

    fn remember(&mut self, deltas: Vec<Delta>) {
        self.remembered.extend(deltas);
    }

    fn take_remembered(&mut self) -> Vec<Delta> {
        std::mem::take(&mut self.remembered)
    }

    fn note_commit(&mut self, time: i64) {
        self.newest_commit = self.newest_commit.max(time);
    }

    fn newest_commit(&self) -> i64 {
        self.newest_commit
    }
}
