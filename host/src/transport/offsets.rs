//! The point of the sink's leg: how far each partition was read.

use rustc_hash::FxHashMap;

use super::starts::scope;
use crate::hop::{CopyMark, Point};
use crate::plugin::{Delta, Scope};

/// The next offset to read of each partition, by topic, with the assignment it was read under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offsets {
    nexts: FxHashMap<String, FxHashMap<i32, Next>>,
    /// What the plugins remember of the records since the point before.
    remembered: Vec<Delta>,
    /// When the newest commit since the point before was made, in microseconds since 1970; 0 is never.
    newest_commit: i64,
}

/// Where a partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) offset: i64,
    /// Counts the assignments of this consumer, so that what was read before a partition was
    /// taken away is never committed after it came back.
    pub(super) assignment: u64,
    /// With which offset the memory of the partition begins, if plugins remember.
    pub(super) since: Option<i64>,
}

impl Offsets {
    /// Topic, partition and next offset of each partition, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.nexts().map(|(topic, partition, next)| (topic, partition, next.offset))
    }

    /// Topic, partition and where it goes on, of each partition.
    pub(super) fn nexts(&self) -> impl Iterator<Item = (&str, i32, Next)> {
        self.nexts.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, next)| (topic.as_str(), *partition, *next))
        })
    }

    /// Where a partition goes on, if it is one of these.
    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<Next> {
        self.nexts.get(topic)?.get(&partition).copied()
    }

    /// What the memories of the partitions are called, if plugins remember, and the next offset of
    /// each.
    pub fn scopes(&self) -> impl Iterator<Item = (String, i64)> {
        self.nexts().filter_map(|(topic, partition, next)| {
            Some((scope(topic, partition, next.since?), next.offset))
        })
    }

    /// Called for every record, so a topic's name is copied once only.
    pub(super) fn read(&mut self, topic: &str, partition: i32, next: Next) {
        match self.nexts.get_mut(topic) {
            Some(partitions) => _ = partitions.insert(partition, next),
            None => {
                let first = FxHashMap::from_iter([(partition, next)]);
                self.nexts.insert(topic.to_owned(), first);
            }
        }
    }
}

impl Point for Offsets {
    fn merge(&mut self, later: Self) {
        for (topic, partitions) in later.nexts {
            self.nexts.entry(topic).or_default().extend(partitions);
        }
        self.remembered.extend(later.remembered);
        self.newest_commit = self.newest_commit.max(later.newest_commit);
    }

    fn copies(&self) -> &[CopyMark] {
        &[]
    }

    fn scope(&self) -> Scope {
        self.scopes().next().map(|(scope, _)| scope.into()).unwrap_or_default()
    }

    fn assignment(&self) -> u64 {
        self.nexts().map(|(_, _, next)| next.assignment).max().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_offset_of_a_partition_wins() {
        let at = |partition, offset| {
            let mut offsets = Offsets::default();
            offsets.read("t", partition, Next { offset, assignment: 1, since: None });
            offsets
        };
        let mut point = at(0, 5);
        point.merge(at(1, 7));
        point.merge(at(0, 6));
        let mut found: Vec<_> = point.iter().collect();
        found.sort_unstable();
        assert_eq!(found, [("t", 0, 6), ("t", 1, 7)]);
    }
}
