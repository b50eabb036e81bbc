//! What the consumer group has given to this process, and where it is read from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer as _, ConsumerContext, Rebalance, RebalanceProtocol,
};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use rustc_hash::FxHashMap;

use super::client::Events;
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
    /// Where partitions are read from, if plugins remember.
    starts: Option<Starts>,
    /// Why it could not be found out where to read from.
    trouble: Mutex<Option<Error>>,
}

pub(super) type Assigned = FxHashMap<String, FxHashMap<i32, u64>>;

impl Member {
    /// A member that has nothing yet.
    pub(super) fn new(starts: Option<Starts>) -> Member {
        let (events, assigned) = (Events::default(), Mutex::default());
        starts.iter().for_each(Starts::let_go);
        Member { events, assigned, starts, trouble: Mutex::default() }
    }

    pub(super) fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn assignment(&self, topic: &str, partition: i32) -> Option<u64> {
        self.assigned().get(topic)?.get(&partition).copied()
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

    /// Writes into an assignment where its partitions are read from.
    fn begin_with_memory(
        &self,
        consumer: &BaseConsumer<Self>,
        starts: &Starts,
        assigned: &mut TopicPartitionList,
    ) -> Result<(), Error> {
        let failed = |error| self.events.error("find out where partitions go on", error);
        let committed = consumer.committed_offsets(assigned.clone(), PATIENCE).map_err(failed)?;
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let (here, told) = (starts.get(topic, partition), starts::told(element.metadata()));
            if here.is_none() && told.is_none() {
                continue;
            }
            let held = consumer.fetch_watermarks(topic, partition, PATIENCE).map_err(failed)?;
            match starts::choose(here, told, held, starts.whole) {
                Choice::From(start) => {
                    let offset = Offset::Offset(start.next);
                    assigned.set_partition_offset(topic, partition, offset).map_err(failed)?;
                    starts.set(topic, partition, start);
                }
                Choice::Afresh => starts.forget(topic, partition),
                Choice::Lost => {
                    return Err(Error::MemoryLost { topic: topic.to_owned(), partition });
                }
            }
        }
        Ok(())
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
        if let (true, Some(starts)) = (given, &self.starts)
            && let Err(error) = self.begin_with_memory(consumer, starts, list)
        {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
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
        if let Err(error) = done {
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
