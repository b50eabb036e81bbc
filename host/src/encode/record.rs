//! Encoded records: spans of one buffer, ready to be sent.

use std::sync::Arc;

use crate::dead_letter::DeadLetter;
use crate::table::Table;

/// A part of [`Batch::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// More than a batch of one record has around it: its header, lengths, and the headers' names.
const FRAME: usize = 512;

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The partition of its key; without a key any.
    Key,
    /// Every partition of the topic: a truncate has to follow every row before it, and rows are
    /// ordered only within their partition.
    EveryPartition,
}

/// The half of a key-changing update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// A delete or its tombstone; the key the row has now.
    To(Span),
    /// A create; the key the row had.
    From(Span),
}

/// One record of Kafka.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Index into [`Batch::targets`].
    pub target: u32,
    /// Index of the change in the batch it was encoded from.
    pub change: u32,
    /// Where it goes.
    pub destination: Destination,
    /// Key; none for tables without one.
    pub key: Option<Span>,
    /// Value; none for a tombstone.
    pub value: Option<Span>,
    /// Content of the [`ORIGIN`](super::ORIGIN) header.
    pub origin: Span,
    /// Content of the [`EXACT`](super::EXACT) header.
    pub exact: Option<Span>,
    /// The other key of a key-changing update.
    pub moved: Option<Moved>,
}

impl Record {
    /// What the broker counts of the record at most, before compression.
    pub(super) fn bytes(&self) -> usize {
        let moved = self.moved.map(|moved| match moved {
            Moved::To(key) | Moved::From(key) => key,
        });
        let spans = [self.key, self.value, Some(self.origin), self.exact, moved];
        FRAME + spans.into_iter().flatten().map(Span::len).sum::<usize>()
    }
}

/// A table version's topic.
#[derive(Debug, Clone)]
pub struct Target {
    /// The topic.
    pub topic: String,
    /// The table version.
    pub table: Arc<Table>,
}

/// The records of a batch of changes.
#[derive(Debug, Default)]
pub struct Batch {
    /// All text.
    pub bytes: Vec<u8>,
    /// The records, in the order of the changes.
    pub records: Vec<Record>,
    /// The topics they go to.
    pub targets: Vec<Target>,
    /// Changes that could not be encoded.
    pub dead_letters: Vec<DeadLetter>,
    /// Name and digest of the plugins that saw the changes, for the headers; empty without plugins.
    pub plugins: String,
}

impl Batch {
    /// Empties it for the next batch, keeping its memory up to a bound.
    pub fn clear(&mut self, kept_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept_bytes);
        self.records.clear();
        self.targets.clear();
        self.dead_letters.clear();
    }

    /// The bytes of a span.
    #[must_use]
    pub fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// Everything written since `start`.
    pub(super) fn since(&self, start: usize) -> Span {
        let offset = |at| u32::try_from(at).expect("a batch is far below 4 GiB");
        Span { start: offset(start), end: offset(self.bytes.len()) }
    }
}
