//! Where partitions are read from when plugins remember: where their memory of the partition ends.
//!
//! Memory is kept by each process for itself. A partition that comes to a process which has had it
//! before is read from where that process left it; what others stored since is read again, to be
//! remembered again, and stored as the same versions. One that never had it reads from where the
//! partition's memory began, which the members of the group tell each other beside the offsets
//! that they commit. So a memory is always that of all records between two offsets, whoever made
//! it. Behind the last record of a partition are Kafka's marks, which outlive it; who commits an offset behind
//! them says with which record the memory ended then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

/// What the metadata of a committed offset begins with.
const SINCE: &str = "tailwater-since=";
/// What follows, where the offset is behind all records that the memory is of.
const RECORDS: &str = " records=";

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

/// What is committed beside an offset behind which Kafka's own marks are all that was read: of which memory
/// they are.
pub(super) fn metadata_behind(start: Start) -> String {
    format!("{}{RECORDS}{}", metadata(start.since), start.next)
}

/// With which offset the memory of a partition begins, as its last owner told.
pub(super) fn told(metadata: &str) -> Option<i64> {
    let since = metadata.strip_prefix(SINCE)?;
    since.split_once(RECORDS).map_or(since, |(since, _)| since).parse().ok()
}

/// The memory behind which nothing but marks was read, up to the committed offset.
pub(super) fn told_behind(metadata: &str) -> Option<Start> {
    let (since, next) = metadata.strip_prefix(SINCE)?.split_once(RECORDS)?;
    Some(Start { since: since.parse().ok()?, next: next.parse().ok()? })
}

/// How to go on with a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Read from there.
    From(Start),
    /// Read from that offset on: between the end of the memory here and there are no records.
    Behind(i64),
    /// Begin a memory with what is read first.
    Afresh,
    /// A memory is wanted that nobody has, and whose records are gone.
    Lost,
}

/// Chooses between the memory here, and the one that the last owner tells of beside the offset that he
/// committed; the topic still holds the offsets from `held.0` to `held.1`. A retention takes the records
/// before the marks of their transactions, so the memory may end before what is held and miss nothing.
pub(super) fn choose(
    here: Option<Start>,
    (metadata, committed): (&str, Option<i64>),
    held: (i64, i64),
    whole: bool,
) -> Choice {
    let held = |offset: i64| held.0 <= offset && offset <= held.1;
    let told = told(metadata);
    let begun = told.filter(|since| held(*since)).map(|since| Start { next: since, since });
    let is_behind = here.is_some() && told_behind(metadata) == here;
    let behind = committed.filter(|next| is_behind && held(*next)).map(Choice::Behind);
    let from_here = here.filter(|start| held(start.next)).map(Choice::From);
    match from_here.or(behind).or(begun.map(Choice::From)) {
        Some(choice) => choice,
        None if whole && (here.is_some() || told.is_some()) => Choice::Lost,
        None => Choice::Afresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Start = Start { next: 50, since: 10 };
    const NOTHING: (&str, Option<i64>) = ("", None);

    /// As the last owner told it, with offsets that do not matter.
    fn choose_told(here: Option<Start>, since: i64, held: (i64, i64), whole: bool) -> Choice {
        choose(here, (&metadata(since), Some(90)), held, whole)
    }

    #[test]
    fn a_partition_is_read_from_where_its_memory_here_ends() {
        assert_eq!(choose_told(Some(HERE), 10, (0, 100), true), Choice::From(HERE));
        assert_eq!(choose(Some(HERE), NOTHING, (50, 50), true), Choice::From(HERE));
    }

    #[test]
    fn a_partition_without_memory_here_is_read_from_where_its_memory_began() {
        let begun = Choice::From(Start { next: 10, since: 10 });
        assert_eq!(choose_told(None, 10, (0, 100), true), begun);
        assert_eq!(choose_told(Some(HERE), 60, (55, 100), true), {
            Choice::From(Start { next: 60, since: 60 })
        });
    }

    #[test]
    fn a_memory_whose_records_are_gone_is_begun_afresh_or_missed() {
        assert_eq!(choose_told(None, 10, (11, 100), false), Choice::Afresh);
        assert_eq!(choose_told(None, 10, (11, 100), true), Choice::Lost);
        assert_eq!(choose(Some(HERE), NOTHING, (0, 49), true), Choice::Lost, "a topic made anew");
        assert_eq!(choose(None, NOTHING, (11, 100), true), Choice::Afresh, "there was none");
    }

    #[test]
    fn a_memory_behind_which_only_marks_were_read_goes_on_where_the_records_are_gone() {
        let behind = metadata_behind(HERE);
        assert_eq!((told(&behind), told_behind(&behind)), (Some(10), Some(HERE)));
        assert_eq!(told_behind(&metadata(10)), None);
        let chosen = |held| choose(Some(HERE), (&behind, Some(51)), held, true);
        assert_eq!(chosen((51, 51)), Choice::Behind(51));
        assert_eq!(chosen((0, 60)), Choice::From(HERE), "all is there");
        assert_eq!(chosen((55, 60)), Choice::Lost);
        let other = Start { next: 49, ..HERE };
        assert_eq!(choose(Some(other), (&behind, Some(51)), (51, 51), true), Choice::Lost);
        assert_eq!(choose(None, (&behind, Some(51)), (51, 51), true), Choice::Lost);
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
