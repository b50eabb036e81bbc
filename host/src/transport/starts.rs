//! Where partitions are read from when plugins remember: where their memory of the partition ends.
//!
//! Memory is kept by each process for itself. A partition that comes to a process which has had it
//! before is read from where that process left it; what others stored since is read again, to be
//! remembered again, and stored as the same versions. One that never had it reads from where the
//! partition's memory began, which the members of the group tell each other beside the offsets
//! that they commit. So a memory is always that of all records between two offsets, whoever made
//! it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

/// What the metadata of a committed offset begins with.
const SINCE: &str = "tailwater-since=";

/// The memory of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Up to which offset it goes, that one not included.
    pub(super) next: i64,
    /// With which offset it begins.
    pub(super) since: i64,
}

/// The memories of this process, by topic and partition. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Starts {
    known: Arc<Mutex<FxHashMap<String, FxHashMap<i32, Start>>>>,
    /// Partitions that the group has given to this process.
    held: Arc<Mutex<FxHashSet<(String, i32)>>>,
    /// Whether a memory without its beginning is worth nothing.
    pub(super) whole: bool,
}

/// What a memory of a partition is called.
pub(super) fn scope(topic: &str, partition: i32, since: i64) -> String {
    format!("{topic}/{partition}@{since}")
}

fn parse(scope: &str) -> Option<(&str, i32, i64)> {
    let (place, since) = scope.rsplit_once('@')?;
    let (topic, partition) = place.rsplit_once('/')?;
    Some((topic, partition.parse().ok()?, since.parse().ok()?))
}

impl Starts {
    /// What is known by scope; of a partition's several memories the one that began last counts.
    #[must_use]
    pub fn of(progress: &BTreeMap<String, String>, whole: bool) -> Starts {
        let starts = Starts { known: Arc::default(), held: Arc::default(), whole };
        for (scope, next) in progress {
            let Some((topic, partition, since)) = parse(scope) else { continue };
            let Ok(next) = next.parse() else { continue };
            if starts.get(topic, partition).is_none_or(|known| known.since < since) {
                starts.set(topic, partition, Start { next, since });
            }
        }
        starts
    }

    /// Whether a scope is one of these memories.
    #[must_use]
    pub fn knows(&self, scope: &str) -> bool {
        let known = |(topic, partition, since)| {
            self.get(topic, partition).is_some_and(|start| start.since == since)
        };
        parse(scope).is_some_and(known)
    }

    /// What the memory is called now that goes on with that one's partition; none if another process
    /// has the partition.
    #[must_use]
    pub fn current(&self, memory: &str) -> Option<String> {
        let (topic, partition, _) = parse(memory)?;
        let is_held = self.held().contains(&(topic.to_owned(), partition));
        let start = self.get(topic, partition).filter(|_| is_held)?;
        Some(scope(topic, partition, start.since))
    }

    /// The group has given a partition to this process, or has taken it away.
    pub(super) fn hold(&self, topic: &str, partition: i32, given: bool) {
        let partition = (topic.to_owned(), partition);
        let mut held = self.held();
        if given {
            held.insert(partition)
        } else {
            held.remove(&partition)
        };
    }

    /// This process has no partition any more.
    pub(super) fn let_go(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, FxHashSet<(String, i32)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<Start> {
        self.known().get(topic)?.get(&partition).copied()
    }

    pub(super) fn set(&self, topic: &str, partition: i32, start: Start) {
        self.known().entry(topic.to_owned()).or_default().insert(partition, start);
    }

    pub(super) fn forget(&self, topic: &str, partition: i32) {
        self.known().entry(topic.to_owned()).or_default().remove(&partition);
    }

    fn known(&self) -> MutexGuard<'_, FxHashMap<String, FxHashMap<i32, Start>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is committed beside an offset.
pub(super) fn metadata(since: i64) -> String {
    format!("{SINCE}{since}")
}

/// With which offset the memory of a partition begins, as its last owner told.
pub(super) fn told(metadata: &str) -> Option<i64> {
    metadata.strip_prefix(SINCE)?.parse().ok()
}

/// How to go on with a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Read from there.
    From(Start),
    /// Begin a memory with what is read first.
    Afresh,
    /// A memory is wanted that nobody has, and whose records are gone.
    Lost,
}

/// Chooses between the memory here, and the one that the last owner tells of; the topic still holds the
/// offsets from `held.0` to `held.1`.
pub(super) fn choose(
    here: Option<Start>,
    told: Option<i64>,
    held: (i64, i64),
    whole: bool,
) -> Choice {
    let held = |offset: i64| held.0 <= offset && offset <= held.1;
    let begun = told.filter(|since| held(*since)).map(|since| Start { next: since, since });
    match here.filter(|start| held(start.next)).or(begun) {
        Some(start) => Choice::From(start),
        None if whole && (here.is_some() || told.is_some()) => Choice::Lost,
        None => Choice::Afresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Start = Start { next: 50, since: 10 };

    #[test]
    fn a_partition_is_read_from_where_its_memory_here_ends() {
        assert_eq!(choose(Some(HERE), Some(10), (0, 100), true), Choice::From(HERE));
        assert_eq!(choose(Some(HERE), None, (50, 50), true), Choice::From(HERE));
    }

    #[test]
    fn a_partition_without_memory_here_is_read_from_where_its_memory_began() {
        let begun = Choice::From(Start { next: 10, since: 10 });
        assert_eq!(choose(None, Some(10), (0, 100), true), begun);
        assert_eq!(choose(Some(HERE), Some(60), (55, 100), true), {
            Choice::From(Start { next: 60, since: 60 })
        });
    }

    #[test]
    fn a_memory_whose_records_are_gone_is_begun_afresh_or_missed() {
        assert_eq!(choose(None, Some(10), (11, 100), false), Choice::Afresh);
        assert_eq!(choose(None, Some(10), (11, 100), true), Choice::Lost);
        assert_eq!(choose(Some(HERE), None, (0, 49), true), Choice::Lost, "a topic made anew");
        assert_eq!(choose(None, None, (11, 100), true), Choice::Afresh, "there was none");
    }

    #[test]
    fn of_several_memories_of_a_partition_the_youngest_counts() {
        let line = |scope: &str, next: &str| (scope.to_owned(), next.to_owned());
        let lines = [line("a.b/3@10", "90"), line("a.b/3@60", "70"), line("a.b/4@0", "1")];
        let starts = Starts::of(&lines.into(), false);
        assert_eq!(starts.get("a.b", 3), Some(Start { next: 70, since: 60 }));
        assert!(starts.knows("a.b/3@60") && !starts.knows("a.b/3@10") && starts.knows("a.b/4@0"));
        assert_eq!(starts.current("a.b/3@10"), None, "the partition is with nobody");
        starts.hold("a.b", 3, true);
        assert_eq!(starts.current("a.b/3@10").as_deref(), Some("a.b/3@60"));
        starts.hold("a.b", 3, false);
        assert_eq!(starts.current("a.b/3@10"), None);
        assert_eq!(told(&metadata(7)), Some(7));
        assert_eq!(told("somebody else's"), None);
    }
}
