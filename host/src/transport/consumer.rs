//! The reading side: a member of a consumer group that commits only what is stored.
//!
//! # Why nothing is lost by a rebalance
//!
//! A batch remembers under which assignment each of its partitions was read. When a partition is
//! taken away, what is still on its way to the store is not committed any more, and the next owner
//! reads it again; ClickHouse knows rows by their version, so they are the same rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::client::Events;
use super::headers::Headers;
use super::member::Member;
use super::offsets::Next;
use super::reach::reach;
use super::schemas::Schemas;
use super::starts::{self, Starts};
use super::topics::Names;
use super::underway::Underway;
use super::{Error, Offsets, Options};
use crate::ack::Durable;
use crate::change::Changes;
use crate::dead_letter::DeadLetter;
use crate::disposition::Disposition;
use crate::encode::{EXACT, Incoming, ORIGIN, Reader};
use crate::hop::{Hop, Point as _};
use crate::telemetry::metrics::Metrics;

/// How long the broker may take to answer at the start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Without a poll for this long the group has to be told that the member still lives; its limit is
/// `max.poll.interval.ms`, five minutes.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether partitions were read beyond what is committed, while records come,
const SETTLE: Duration = Duration::from_secs(5);
/// and when none do: a group that is killed before it has settled behind the last record seems to have missed
/// something once the retention has emptied the partition.
const SETTLE_IDLE: Duration = Duration::from_millis(250);
/// Records that are taken before the clock is looked at again.
const BURST: usize = 64;

/// Reads changes out of Kafka. Blocks; one thread owns it.
pub struct Consumer {
    kafka: BaseConsumer<Member>,
    reader: Reader,
    schemas: Schemas,
    pending: Pending,
    /// How far each partition is stored and not committed.
    stored: Offsets,
    /// Whether a rebalance overtook the last commit.
    outrun: bool,
    underway: Underway,
    settled: Instant,
    options: Options,
    metrics: Arc<Metrics>,
    polled: Instant,
    /// Full because the next record is of another partition.
    ready: Option<Hop<Offsets>>,
}

/// The batch that is being filled.
#[derive(Default)]
struct Pending {
    changes: Changes,
    dead_letters: Vec<DeadLetter>,
    offsets: Offsets,
    bytes: usize,
    since: Option<Instant>,
}

impl Consumer {
    /// Joins the group. One attempt. With `starts` every batch is of one partition, and partitions are
    /// read from where the plugins' memory of them ends.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub fn start(
        options: &Options,
        database: &str,
        starts: Option<Starts>,
        metrics: Arc<Metrics>,
    ) -> Result<Consumer, Error> {
        // A refused login would only time out later.
        reach(options, PATIENCE)?;
        let prefix = options.prefix(database);
        let literal = escaped(prefix);
        let own = Names::below(prefix).all().map(|name| format!("^{}$", escaped(name))).join(",");
        let config = options.consumer(&options.group(database), &[("topic.blacklist", &own)]);
        let group = config.get("group.id").unwrap_or_default().to_owned();
        let member = Member::new(group, options.start, starts);
        let kafka: BaseConsumer<Member> =
            config.create_with_context(member).map_err(Error::Settings)?;
        let sorted = |error| kafka.context().events.error("reach kafka", error);
        let topics = options.topics.clone().unwrap_or_else(|| format!(r"^{literal}\..+"));
        kafka.subscribe(&[topics.as_str()]).map_err(sorted)?;
        Ok(Consumer {
            kafka,
            reader: Reader::default(),
            schemas: Schemas::of(Names::below(prefix).schemas, options),
            pending: Pending::default(),
            stored: Offsets::default(),
            outrun: false,
            underway: Underway::default(),
            settled: Instant::now(),
            options: options.clone(),
            metrics,
            polled: Instant::now(),
            ready: None,
        })
    }

    /// The next batch: full, or as old as batches may get; nothing if no record came in time.
    /// Records that cannot be read are set aside, and block nothing.
    ///
    /// # Errors
    /// What librdkafka does not mend by itself.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Hop<Offsets>>, Error> {
        if self.outrun {
            self.commit_stored()?;
        }
        if self.settled.elapsed() >= SETTLE {
            self.settle()?;
        }
        if let Some(ready) = self.ready.take() {
            return Ok(Some(ready));
        }
        let give_up = Instant::now() + timeout;
        let interval = Duration::from_millis(self.options.batch_interval_ms);
        loop {
            self.polled = Instant::now();
            let until = self.pending.since.map_or(give_up, |since| since + interval);
            let mut wait = until.saturating_duration_since(self.polled);
            if wait.is_zero() {
                let taken = self.take();
                if taken.is_none() && self.settled.elapsed() >= SETTLE_IDLE {
                    self.settle()?;
                }
                return Ok(taken);
            }
            // After the first, those that are there are taken without asking the clock for each.
            for _ in 0..BURST {
                if !self.poll(wait)? {
                    break;
                }
                wait = Duration::ZERO;
                if let Some(ready) = self.ready.take() {
                    return Ok(Some(ready));
                }
                if self.pending.changes.len() >= self.options.batch_rows
                    || self.pending.bytes >= self.options.batch_bytes
                {
                    return Ok(self.take());
                }
            }
        }
    }

    /// Keeps the membership while there is no room for another batch.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub fn idle(&mut self) -> Result<(), Error> {
        if self.polled.elapsed() < SILENCE {
            return Ok(());
        }
        let sorted = |error| self.kafka.context().events.error("pause", error);
        let assigned = self.kafka.assignment().map_err(sorted)?;
        self.kafka.pause(&assigned).map_err(sorted)?;
        self.polled = Instant::now();
        let polled = self.poll(Duration::ZERO);
        let sorted = |error| self.kafka.context().events.error("resume", error);
        self.kafka.resume(&assigned).map_err(sorted)?;
        polled.map(drop)
    }

    /// Commits what is stored, of the partitions that are still the same member's. What a rebalance
    /// overtakes is sent again by [`next`](Self::next). The broker's answer is waited for: of a
    /// commit in the background that fails, librdkafka tells nobody but its log.
    ///
    /// # Errors
    /// What librdkafka does not mend by itself.
    pub fn commit(&mut self, stored: Durable<Offsets>) -> Result<(), Error> {
        self.stored.merge(stored.into_point());
        self.commit_stored()
    }

    fn commit_stored(&mut self) -> Result<(), Error> {
        let list = self.assigned_of(&self.stored)?;
        self.outrun = false;
        if list.count() > 0 {
            match self.commit_list(&list)? {
                true => self.stored = Offsets::default(),
                false => self.outrun = true,
            }
        }
        Ok(())
    }

    /// Commits what was read beyond the records, once all of those are stored: Kafka's own marks.
    ///
    /// # Errors
    /// What librdkafka does not mend by itself.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.settled = Instant::now();
        let member = self.kafka.context();
        let sorted = |error| member.events.error("commit offsets", error);
        let positions = self.kafka.position().map_err(sorted)?;
        let passed = self.underway.passed(&positions, &self.pending.offsets, member);
        if passed.count() > 0 {
            self.commit_list(&passed)?;
        }
        Ok(())
    }

    /// Whether it was in time, before a rebalance. The group never goes back.
    fn commit_list(&mut self, list: &TopicPartitionList) -> Result<bool, Error> {
        let member = self.kafka.context();
        let forward = member.forward(list);
        let committed = match forward.count() {
            0 => Ok(()),
            _ => self.kafka.commit(&forward, CommitMode::Sync),
        };
        match committed {
            Ok(()) => {
                member.note_committed(&forward);
                self.underway.commit(list);
                Ok(true)
            }
            Err(error) if is_outrun(&error) => Ok(false),
            Err(error) => Err(member.events.error("commit offsets", error)),
        }
    }

    /// What of the offsets is of partitions that this member has had since it read them.
    fn assigned_of(&self, offsets: &Offsets) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        let assigned = self.kafka.context().assigned();
        for (topic, partition, next) in offsets.nexts() {
            let current = assigned.get(topic).and_then(|partitions| partitions.get(&partition));
            // Where plugins remember, a partition goes on where this process left it.
            let same = current.is_some() && next.since.is_some();
            if current == Some(&next.assignment) || same {
                let offset = Offset::Offset(next.offset);
                let added = list.add_partition_offset(topic, partition, offset);
                added.map_err(|error| Error::new("commit offsets", error))?;
                if let (Some(since), Some(mut element)) =
                    (next.since, list.find_partition(topic, partition))
                {
                    element.set_metadata(starts::metadata(since));
                }
            }
        }
        Ok(list)
    }

    /// Takes in one record, if one comes in time; whether one came.
    fn poll(&mut self, timeout: Duration) -> Result<bool, Error> {
        let polled = self.kafka.poll(whole_milliseconds(timeout));
        if let Some(error) = self.kafka.context().take_trouble() {
            return Err(error);
        }
        match polled {
            None => Ok(false),
            Some(Ok(message)) => {
                let record = incoming(&message);
                let (topic, partition) = (record.topic, record.partition);
                let member = self.kafka.context();
                let Some(assignment) = member.assignment(topic, partition) else { return Ok(true) };
                let since = member.since(topic, partition, record.offset);
                let full = since.is_some() && self.pending.is_of_another(topic, partition);
                let full = full.then(|| std::mem::take(&mut self.pending));
                let next = Next { offset: record.offset + 1, assignment, since };
                let Consumer { reader, schemas, pending, .. } = self;
                take_in(&record, next, reader, schemas, pending)?;
                // Not before: with an error this consumer ends, and what is noted as handed on is not read
                // again.
                if let Some(full) = full {
                    self.ready = hand_on(full, member, &mut self.underway, &self.metrics);
                }
                Ok(true)
            }
            Some(Err(error)) if is_out_of_range(&error) => Err(self.out_of_range(error)),
            Some(Err(error)) => {
                let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
                let error = self.kafka.context().events.error("receive from kafka", error);
                match error.disposition() {
                    // This consumer reads nothing any more.
                    _ if is_fatal => Err(error),
                    // librdkafka connects again by itself.
                    Disposition::Retry => Ok(false),
                    Disposition::Halt | Disposition::DeadLetter => Err(error),
                }
            }
        }
    }

    /// An offset is not there: its record was deleted, or the topic is another one, as the next consumer
    /// will find out. This one would not go on with the partition.
    fn out_of_range(&self, error: KafkaError) -> Error {
        let member = self.kafka.context();
        match member.find_deleted(&self.kafka) {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => member.events.error("read on where it was", error),
        }
    }

    fn take(&mut self) -> Option<Hop<Offsets>> {
        let pending = std::mem::take(&mut self.pending);
        hand_on(pending, self.kafka.context(), &mut self.underway, &self.metrics)
    }
}

/// Not less than the duration: the client waits in whole milliseconds, and spins through the rest.
fn whole_milliseconds(duration: Duration) -> Duration {
    let rounded_up = duration + Duration::from_micros(999);
    Duration::from_millis(u64::try_from(rounded_up.as_millis()).unwrap_or(u64::MAX))
}

impl Pending {
    fn is_of_another(&self, topic: &str, partition: i32) -> bool {
        self.offsets.iter().any(|(known, of, _)| (known, of) != (topic, partition))
    }
}

/// Makes a batch of what is pending, if there is anything and its partition is still the member's.
fn hand_on(
    pending: Pending,
    member: &Member,
    underway: &mut Underway,
    metrics: &Metrics,
) -> Option<Hop<Offsets>> {
    pending.since?;
    let Pending { changes, dead_letters, offsets, .. } = pending;
    if !member.note_handed_on(&offsets) {
        return None;
    }
    underway.hand_on(&offsets);
    metrics.count_changes("consumed", &changes);
    metrics.count_dead_letters("consumed", dead_letters.len());
    Some(Hop { dead_letters, ..Hop::new(changes, offsets) })
}

/// What matters of a message, each part asked for once: the client makes a topic's name and a header anew every time.
fn incoming<'a>(message: &'a BorrowedMessage<'_>) -> Incoming<'a> {
    let (mut origin, mut exact) = (None, None);
    for (name, value) in Headers::of(message) {
        if name == ORIGIN.as_bytes() {
            origin = origin.or(value);
        } else if name == EXACT.as_bytes() {
            exact = exact.or(value);
        }
    }
    Incoming {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key(),
        value: message.payload(),
        origin,
        exact,
    }
}

fn take_in(
    record: &Incoming<'_>,
    next: Next,
    reader: &mut Reader,
    schemas: &mut Schemas,
    pending: &mut Pending,
) -> Result<(), Error> {
    let mut trouble = None;
    let mut resolve = |fingerprint| {
        schemas.resolve(fingerprint).unwrap_or_else(|error| {
            trouble = Some(error);
            None
        })
    };
    let before = pending.changes.bytes();
    let read = reader.read(record, &mut resolve, &mut pending.changes);
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    if let Err(error) = read {
        pending.dead_letters.push(record.dead_letter(&error));
    }
    pending.offsets.read(record.topic, record.partition, next);
    // A number of a few bytes may be written out with thousands of zeros.
    let value = record.value.map_or(0, <[u8]>::len);
    pending.bytes += value.max(pending.changes.bytes() - before);
    pending.since.get_or_insert_with(Instant::now);
    Ok(())
}

fn is_out_of_range(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}

/// Whether a commit came too late, after a rebalance: the next owner reads the records again.
fn is_outrun(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::RebalanceInProgress
                | Code::NoOffset
                | Code::AssignmentLost
        )
    )
}

/// Whether librdkafka can read topics by this pattern or name. A client says so that knows no broker.
#[must_use]
pub fn is_pattern(topics: &str) -> bool {
    let mut config = ClientConfig::new();
    let client = config.set("group.id", "nobody").create_with_context(Events::default());
    client.is_ok_and(|client: BaseConsumer<Events>| client.subscribe(&[topics]).is_ok())
}

/// A name as a regular expression that matches only it.
fn escaped(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() && c != '_' && c != '-' {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_only_itself() {
        assert_eq!(escaped("shop.v1"), r"shop\.v1");
        assert_eq!(escaped("shop-eu_1"), "shop-eu_1");
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_none() {
        for topics in [r"^shop\..+", "^shop[.](a|b)$", "shop.public.users"] {
            assert!(is_pattern(topics), "{topics}");
        }
        for topics in ["^shop(", "^shop[", "^*", ""] {
            assert!(!is_pattern(topics), "{topics}");
        }
    }

    #[test]
    fn the_client_is_asked_for_whole_milliseconds_and_not_less_than_wanted() {
        for (wanted, asked) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (19_870, 20)] {
            let rounded = whole_milliseconds(Duration::from_micros(wanted));
            assert_eq!(rounded, Duration::from_millis(asked), "{wanted}");
        }
    }
}
