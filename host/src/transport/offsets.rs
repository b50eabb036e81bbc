//! The point of the sink's leg: how far each partition was read.

use std::collections::BTreeMap;

use crate::hop::{Point, SnapshotDone};

/// The next offset to read of each partition, with the assignment it was read under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offsets(pub(super) BTreeMap<(String, i32), Next>);

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

    /// Topic, partition and next offset of each partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0.iter().map(|((topic, partition), next)| (topic.as_str(), *partition, next.offset))
    }

    pub(super) fn read(&mut self, topic: &str, partition: i32, next: Next) {
        match self.0.iter_mut().find(|((t, p), _)| *p == partition && t == topic) {
            Some((_, known)) => *known = next,
            None => _ = self.0.insert((topic.to_owned(), partition), next),
        }
    }
}

impl Point for Offsets {
    fn merge(&mut self, later: Self) {
        self.0.extend(later.0);
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
        assert_eq!(point.iter().collect::<Vec<_>>(), [("t", 0, 6), ("t", 1, 7)]);
    }
}
