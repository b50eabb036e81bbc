//! What one flush stores: rows by table version, truncates, dead letters, and what to
//! record beside them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::block::{Block, Encoder};
use crate::backlog::Came;
use crate::change::{Change, Changes, Op};
use crate::dead_letter::{DeadLetter, Passed, Stage};
use crate::hop::{CopyMark, Redrive};

/// Buffers kept for the batches after this one.
const SPARE_BUFFERS: usize = 8;

/// A truncate of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Truncate {
    pub(super) encoder: Arc<Encoder>,
    pub(super) version: u128,
}

impl PartialEq for Encoder {
    fn eq(&self, other: &Encoder) -> bool {
        self.table.fingerprint == other.table.fingerprint
    }
}

impl Eq for Encoder {}

/// A batch that fills, or is on its way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Those of one table in the order in which their rows came.
    pub(super) blocks: Vec<Block>,
    pub(super) truncates: Vec<Truncate>,
    pub(super) dead_letters: Vec<DeadLetter>,
    /// What passed plugins, of which letters may be open.
    pub(super) passed: Vec<Passed>,
    /// Dead letters that came through again.
    pub(super) redrives: Vec<Redrive>,
    /// What becomes of copies with it.
    pub(super) copies: Vec<CopyMark>,
    /// When the transactions inside committed, snapshots aside; microseconds since 1970.
    pub(super) committed: Vec<i64>,
    /// When it came.
    pub(super) came: Option<Came>,
}

impl Batch {
    pub(super) fn bytes(&self) -> usize {
        let letters = self.dead_letters.iter().map(|letter| letter.original.len() + 256);
        self.blocks.iter().map(Block::bytes).sum::<usize>() + letters.sum::<usize>()
    }

    pub(super) fn rows(&self) -> usize {
        self.blocks.iter().map(Block::row_count).sum()
    }

    /// Whether it is of copies of tables that go on after it: nobody waits for one of these rows in particular.
    pub(super) fn is_of_copies(&self) -> bool {
        let copied = self.blocks.iter().any(|block| block.counts[Op::Read as usize] > 0);
        copied && self.committed.is_empty() && self.copies.is_empty()
    }

    /// Whether only the point moved: nothing has to be stored.
    pub(super) fn holds_nothing(&self) -> bool {
        let nothing_else = self.truncates.is_empty() && self.copies.is_empty();
        let nothing_else = nothing_else && self.redrives.is_empty() && self.passed.is_empty();
        self.rows() == 0 && self.dead_letters.is_empty() && nothing_else
    }

    /// Takes in changes; `encoders` has one for each of their tables.
    pub(super) fn add(&mut self, changes: &Changes, encoders: &[Arc<Encoder>], spare: &mut Spare) {
        let mut transaction = None;
        let mut current = None;
        for change in &changes.list {
            let block = match current {
                Some((table, block)) if table == change.table => block,
                _ => self.block(&encoders[change.table as usize], spare),
            };
            current = Some((change.table, block));
            self.add_change(changes, change, block);
            if change.op != Op::Read && transaction != Some(change.transaction) {
                transaction = Some(change.transaction);
                self.committed.push(changes.transaction(change).committed_at);
            }
        }
    }

    fn add_change(&mut self, changes: &Changes, change: &Change, block: usize) {
        let block = &mut self.blocks[block];
        if change.op == Op::Truncate {
            let encoder = Arc::clone(&block.encoder);
            let version = changes.position(change).version();
            self.truncates.push(Truncate { encoder, version });
        } else if let Err(reason) = block.push(changes, change) {
            let letter = DeadLetter::new(changes, change, Stage::Store, None, reason);
            self.dead_letters.push(letter);
            return;
        }
        block.counts[change.op as usize] += 1;
    }

    /// The block that takes the next row. A version that the table had before is another block once more:
    /// rows of one key stay in order, whichever version they are of.
    fn block(&mut self, encoder: &Arc<Encoder>, spare: &mut Spare) -> usize {
        let view = &encoder.place.plan.view;
        let newest = self.blocks.iter().rposition(|block| block.encoder.place.plan.view == *view);
        let known = newest.filter(|newest| Arc::ptr_eq(&self.blocks[*newest].encoder, encoder));
        known.unwrap_or_else(|| {
            self.blocks.push(Block::new(Arc::clone(encoder), spare.take()));
            self.blocks.len() - 1
        })
    }

    /// The newest truncate inside, by view.
    pub(super) fn newest_truncates(&self) -> FxHashMap<&str, &Truncate> {
        let mut newest: FxHashMap<&str, &Truncate> = FxHashMap::default();
        for truncate in &self.truncates {
            let slot = newest.entry(&truncate.encoder.place.plan.view).or_insert(truncate);
            if slot.version < truncate.version {
                *slot = truncate;
            }
        }
        newest
    }
}

/// Buffers that have grown already.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Vec<u8>>);

impl Spare {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps a buffer unless it is far larger than a batch should be.
    pub(super) fn put(&mut self, mut buffer: Vec<u8>, most: usize) {
        if self.0.len() < SPARE_BUFFERS && buffer.capacity() <= 2 * most {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::{Copied, SnapshotDone};
    use crate::sink::ddl::Place;
    use crate::sink::options::Options;
    use crate::table::{ReplicaIdentity, Table, TableName};

    #[test]
    fn a_batch_is_of_copies_until_one_is_complete_or_a_change_of_the_stream_comes() {
        let table = TableName { schema: "public".into(), name: "users".into() };
        let (plan, copied) = (Options::default().plan(&table), Copied::default());
        let place = Place { database: "shop".into(), plan };
        let (schema, name) = (table.schema.clone(), table.name.clone());
        let of = Table::new(1, schema, name, Vec::new(), ReplicaIdentity::Default);
        let encoder = Arc::new(Encoder::new(Arc::new(of), place, Vec::new()));
        let mut batch = Batch::default();
        assert!(!batch.is_of_copies());
        batch.blocks.push(Block::new(encoder, Vec::new()));
        assert!(!batch.is_of_copies());
        batch.blocks[0].counts[Op::Read as usize] = 1;
        assert!(batch.is_of_copies());
        batch.copies.push(CopyMark::Complete(SnapshotDone { table, copied }));
        assert!(!batch.is_of_copies());
        batch.copies.clear();
        batch.committed.push(1);
        assert!(!batch.is_of_copies());
    }
}
