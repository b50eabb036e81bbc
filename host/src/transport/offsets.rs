//! The point of the sink's leg: how far each partition was read.

use rustc_hash::FxHashMap;

use crate::hop::{Point, SnapshotDone};

/// The next offset to read of each partition, by topic, with the assignment it was read under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offsets(FxHashMap<String, FxHashMap<i32, Next>>);

/// Where a partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) offset: i64,
    /// Counts the assignments of this consumer, so that what was read before a partition was
    /// taken away is never committed after it came back.
    pub(super) assignment: u64,
}

impl Offsets {
    /// Nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Topic, partition and next offset of each partition, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.nexts().map(|(topic, partition, next)| (topic, partition, next.offset))
    }

    /// Topic, partition and where it goes on, of each partition.
    pub(super) fn nexts(&self) -> impl Iterator<Item = (&str, i32, Next)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, next)| (topic.as_str(), *partition, *next))
        })
    }

    /// Called for every record, so a topic's name is copied once only.
    pub(super) fn read(&mut self, topic: &str, partition: i32, next: Next) {
        match self.0.get_mut(topic) {
            Some(partitions) => _ = partitions.insert(partition, next),
            None => _ = self.0.insert(topic.to_owned(), FxHashMap::from_iter([(partition, next)])),
        }
    }
}

impl Point for Offsets {
    fn merge(&mut self, later: Self) {
        for (topic, partitions) in later.0 {
            self.0.entry(topic).or_default().extend(partitions);
        }
    }

    fn snapshots(&self) -> &[SnapshotDone] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_offset_of_a_partition_wins() {
        let at = |partition, offset| {
            let mut offsets = Offsets::default();
            offsets.read("t", partition, Next { offset, assignment: 1 });
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
