//! What the consumer group has given to this process, and where it is read from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, RebalanceProtocol,
};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset};
use rustc_hash::FxHashMap;

use super::client::Events;
use super::extent::{self, Extents, Lost};
use super::offsets::Next;
use super::starts::{self, Choice, Start, Starts};
use super::{Error, Offsets};

/// How long the broker may take to say where a partition goes on.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the group has given to this member.
pub(super) struct Member {
    pub(super) events: Events,
    /// By topic, partitions with the number of their assignment.
    assigned: Mutex<Assigned>,
    /// Where the group was in each partition when it was given to this member, or has come to since.
    reached: Mutex<FxHashMap<String, FxHashMap<i32, i64>>>,
    /// Where partitions are read from, if plugins remember.
    starts: Option<Starts>,
    /// The group's name.
    group: String,
    /// Where the group starts if it is new.
    start: super::Start,
    /// Why it could not be found out where to read from.
    trouble: Mutex<Option<Error>>,
}

pub(super) type Assigned = FxHashMap<String, FxHashMap<i32, u64>>;

impl Member {
    /// A member that has nothing yet.
    pub(super) fn new(group: String, start: super::Start, starts: Option<Starts>) -> Member {
        starts.iter().for_each(Starts::let_go);
        Member {
            events: Events::default(),
            assigned: Mutex::default(),
            reached: Mutex::default(),
            starts,
            group,
            start,
            trouble: Mutex::default(),
        }
    }

    /// Whether plugins remember.
    pub(super) fn remembers(&self) -> bool {
        self.starts.is_some()
    }

    /// The memory of a partition, if there is one.
    pub(super) fn memory(&self, topic: &str, partition: i32) -> Option<Start> {
        self.starts.as_ref()?.get(topic, partition)
    }

    pub(super) fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn assignment(&self, topic: &str, partition: i32) -> Option<u64> {
        self.assigned().get(topic)?.get(&partition).copied()
    }

    /// What of a list takes the group forward. A process whose memory of a partition is older than what others
    /// stored since reads that again, and would say that the group is there.
    pub(super) fn forward(&self, list: &TopicPartitionList) -> TopicPartitionList {
        let reached = self.reached();
        let mut forward = TopicPartitionList::new();
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let known = reached.get(topic).and_then(|known| known.get(&partition));
            if known.is_some_and(|known| offset_of(&element).is_some_and(|next| next < *known)) {
                continue;
            }
            let added = forward.add_partition_offset(topic, partition, element.offset());
            added.expect("an offset of a list is a valid one");
            if let Some(mut added) = forward.find_partition(topic, partition) {
                added.set_metadata(element.metadata());
            }
        }
        forward
    }

    /// Notes where the group is now. Where it is nowhere any offset takes it forward.
    pub(super) fn note_reached(&self, topic: &str, partition: i32, next: Option<i64>) {
        let mut reached = self.reached();
        let partitions = reached.entry(topic.to_owned()).or_default();
        match next {
            Some(next) => _ = partitions.insert(partition, next),
            None => _ = partitions.remove(&partition),
        }
    }

    /// The same of all partitions of a list.
    pub(super) fn note_committed(&self, list: &TopicPartitionList) {
        for element in list.elements() {
            self.note_reached(element.topic(), element.partition(), offset_of(&element));
        }
    }

    fn reached(&self) -> MutexGuard<'_, FxHashMap<String, FxHashMap<i32, i64>>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With which offset the memory of a partition begins, of which that offset was read: with that
    /// one if there was none.
    pub(super) fn since(&self, topic: &str, partition: i32, offset: i64) -> Option<i64> {
        let starts = self.starts.as_ref()?;
        let begun = Start { next: offset, since: offset };
        let known = starts.get(topic, partition).unwrap_or_else(|| {
            starts.set(topic, partition, begun);
            begun
        });
        Some(known.since)
    }

    /// Why the assignment failed, if it did.
    pub(super) fn take_trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes what goes to the plugins that remember. False: what was read before a partition was taken
    /// away, of which nobody knows whether it is read again; it is not to be handed on.
    pub(super) fn note_handed_on(&self, offsets: &Offsets) -> bool {
        let Some(starts) = &self.starts else { return true };
        let current = |(topic, partition, next): (&str, i32, Next)| {
            self.assignment(topic, partition) == Some(next.assignment)
        };
        let all = offsets.nexts().all(current);
        for (topic, partition, next) in offsets.nexts().filter(|_| all) {
            if let Some(since) = next.since {
                starts.set(topic, partition, Start { next: next.offset, since });
            }
        }
        all
    }

    /// Writes into an assignment where its partitions are read from. Gives what is to be committed at once: where a
    /// group starts at the latest, what it is told of each partition holds although nothing was read yet.
    fn begin(
        &self,
        consumer: &BaseConsumer<Self>,
        assigned: &mut TopicPartitionList,
    ) -> Result<TopicPartitionList, Error> {
        let failed = |error| self.events.error("find out where partitions go on", error);
        let mut begun = TopicPartitionList::new();
        if assigned.count() == 0 {
            return Ok(begun);
        }
        let committed = consumer.committed_offsets(assigned.clone(), PATIENCE).map_err(failed)?;
        let extents = Extents::of(consumer, assigned).map_err(failed)?;
        let knows_nothing = committed.elements().iter().all(|element| offset_of(element).is_none());
        let is_new_group = knows_nothing && self.reached().values().all(FxHashMap::is_empty);
        for element in committed.elements() {
            element.error().map_err(failed)?;
            let (topic, partition) = (element.topic(), element.partition());
            let Some(held) = extents.get(topic, partition) else { continue };
            let next = offset_of(&element);
            // Also where an operator has put it, who can do so only while nobody has the partition. A topic
            // that was made anew has nothing to do with the offsets of the one before.
            self.note_reached(topic, partition, next.filter(|next| *next <= held.1));
            let offset = match self.begin_with_memory(&element, held)? {
                Some(next) => Offset::Offset(next),
                None => {
                    let begin = extent::begin(next, held, self.start, is_new_group);
                    begin.map_err(|lost| self.deleted(topic, partition, lost))?
                }
            };
            assigned.set_partition_offset(topic, partition, offset).map_err(failed)?;
            if next.is_none() && self.start == super::Start::Latest {
                begun.add_partition_offset(topic, partition, offset).map_err(failed)?;
            }
        }
        self.note_committed(&begun);
        Ok(begun)
    }

    /// Where the plugins' memory of a partition ends, if it is to be read from there.
    fn begin_with_memory(
        &self,
        committed: &TopicPartitionListElem<'_>,
        held: (i64, i64),
    ) -> Result<Option<i64>, Error> {
        let Some(starts) = &self.starts else { return Ok(None) };
        let (topic, partition) = (committed.topic(), committed.partition());
        let (here, metadata) = (starts.get(topic, partition), committed.metadata());
        if here.is_none() && starts::told(metadata).is_none() {
            return Ok(None);
        }
        match starts::choose(here, (metadata, offset_of(committed)), held, starts.whole) {
            Choice::Behind(next) => Ok(Some(next)),
            Choice::From(start) => {
                starts.set(topic, partition, start);
                Ok(Some(start.next))
            }
            Choice::Afresh => {
                starts.forget(topic, partition);
                Ok(None)
            }
            Choice::Lost => Err(Error::MemoryLost { topic: topic.to_owned(), partition }),
        }
    }

    /// Why an offset that was to be read next is not there, if the records were deleted.
    pub(super) fn find_deleted(
        &self,
        consumer: &BaseConsumer<Self>,
    ) -> Result<Option<Error>, Error> {
        let failed = |error| self.events.error("find out where partitions go on", error);
        let positions = consumer.position().map_err(failed)?;
        let extents = Extents::of(consumer, &positions).map_err(failed)?;
        let deleted = positions.elements().into_iter().find_map(|element| {
            let (topic, partition) = (element.topic(), element.partition());
            let (first, _) = extents.get(topic, partition)?;
            let Offset::Offset(next) = element.offset() else { return None };
            let lost = Lost { first: next, last: first - 1 };
            (next < first).then(|| self.deleted(topic, partition, lost))
        });
        Ok(deleted)
    }

    fn deleted(&self, topic: &str, partition: i32, Lost { first, last }: Lost) -> Error {
        let (topic, group) = (topic.to_owned(), self.group.clone());
        Error::Deleted { topic, partition, first, last, group }
    }
}

fn offset_of(element: &TopicPartitionListElem<'_>) -> Option<i64> {
    match element.offset() {
        Offset::Offset(next) => Some(next),
        _ => None,
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.events.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        ClientContext::error(&self.events, error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let given = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let begun = match given {
            true => self.begin(consumer, list).unwrap_or_else(|error| {
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                TopicPartitionList::new()
            }),
            false => TopicPartitionList::new(),
        };
        let rebalance = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => Rebalance::Revoke(list),
            _ => Rebalance::Error(KafkaError::Rebalance(code.into())),
        };
        self.pre_rebalance(consumer, &rebalance);
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match (given, cooperative) {
            (true, true) => consumer.incremental_assign(list),
            (true, false) => consumer.assign(list),
            (false, true) => consumer.incremental_unassign(list),
            (false, false) => consumer.unassign(),
        };
        let committed = match begun.count() {
            0 => Ok(()),
            _ => consumer.commit(&begun, CommitMode::Async),
        };
        if let Err(error) = done.and(committed) {
            tracing::warn!(%error, "the assignment of the consumer group could not be taken");
        }
    }

    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        /// Counts the assignments of all consumers of the process.
        static ASSIGNMENTS: AtomicU64 = AtomicU64::new(1);
        let (list, given) = match rebalance {
            Rebalance::Assign(list) => (list, true),
            Rebalance::Revoke(list) => (list, false),
            Rebalance::Error(error) => {
                tracing::warn!(%error, "the consumer group could not be rebalanced");
                return;
            }
        };
        let number = ASSIGNMENTS.fetch_add(1, Ordering::Relaxed);
        let mut assigned = self.assigned();
        for element in list.elements() {
            let partitions = assigned.entry(element.topic().to_owned()).or_default();
            match given {
                true => _ = partitions.insert(element.partition(), number),
                false => _ = partitions.remove(&element.partition()),
            }
            if let Some(starts) = &self.starts {
                starts.hold(element.topic(), element.partition(), given);
            }
        }
        let partitions: usize = assigned.values().map(FxHashMap::len).sum();
        tracing::info!(partitions, "partitions assigned");
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Start as From;
    use super::*;

    const TOPIC: &str = "shop.public.users";

    /// What goes to plugins that remember is read by nobody again, so it has to be whole.
    #[test]
    fn what_was_read_before_a_partition_was_taken_away_is_not_handed_on_to_plugins_that_remember() {
        let known = [(starts::scope(TOPIC, 0, 0), "5".to_owned())].into();
        let starts = Starts::of(&known, true);
        let member = Member::new("group".into(), From::Earliest, Some(starts.clone()));
        let read = |offset, assignment| {
            let mut offsets = Offsets::default();
            offsets.read(TOPIC, 0, Next { offset, assignment, since: Some(0) });
            offsets
        };
        let begins_at = || starts.get(TOPIC, 0).map(|start| start.next);
        let assign = |assignment| {
            member.assigned().entry(TOPIC.into()).or_default().insert(0, assignment);
        };
        assert!(!member.note_handed_on(&read(7, 1)), "the partition is not this member's");
        assign(1);
        assert!(member.note_handed_on(&read(7, 1)));
        assert_eq!(begins_at(), Some(7));
        assign(2);
        assert!(!member.note_handed_on(&read(9, 1)), "it came back, and is read from 7 on again");
        assert_eq!(begins_at(), Some(7));
        assert!(member.note_handed_on(&read(8, 2)));
    }

    /// As when others have stored up to 100 what a memory here, that ends with 50, is to be made whole with.
    #[test]
    fn what_is_read_again_for_a_memory_does_not_take_the_group_back() {
        let member = Member::new("group".into(), From::Earliest, None);
        let list = |next| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(TOPIC, 0, Offset::Offset(next)).unwrap();
            list.find_partition(TOPIC, 0).unwrap().set_metadata(starts::metadata(10));
            list
        };
        let forward = |next| member.forward(&list(next)) == list(next);
        let said = |next| {
            let forward = member.forward(&list(next));
            forward.find_partition(TOPIC, 0).map(|element| element.metadata().to_owned())
        };
        assert!(forward(51), "the group is nowhere");
        member.note_reached(TOPIC, 0, Some(100));
        assert_eq!((member.forward(&list(51)).count(), member.forward(&list(99)).count()), (0, 0));
        assert_eq!(said(100), Some(starts::metadata(10)), "the memory is this one's from now on");
        member.note_committed(&list(120));
        assert_eq!(member.forward(&list(101)).count(), 0);
        member.note_reached(TOPIC, 0, Some(30));
        assert!(forward(51), "an operator has moved it");
        member.note_reached(TOPIC, 0, None);
        assert!(forward(1), "the topic is another one");
    }
}
