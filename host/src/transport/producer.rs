//! The writing side: records, and with them how far the source has come, in transactions.
//!
//! # Why each change is there exactly once
//!
//! A transaction holds the records of some batches and the checkpoint they reach. A restart begins
//! with `init_transactions`, which ends whatever the producer before had open and shuts that one
//! out, and reads the checkpoint only then. So what is not in the checkpoint was aborted, and what
//! is in it is passed over by the capture.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rustc_hash::FxHashSet;

use super::checkpoint::copy_record;
use super::client::Events;
use super::letters::{CLOSING, Closing};
use super::options::TRANSACTION_LIMIT;
use super::reach::reach;
use super::redriven::Redriven;
use super::topics::{Names, Topics};
use super::{Checkpoint, Delivered, Delivery, Error, Options};
use crate::backlog::{self, Came};
use crate::dead_letter::DeadLetter;
use crate::encode::{
    self as encode, Batch, Destination, Encoder, Moved, NEW_KEY, OLD_KEY, ORIGIN, Record,
};
use crate::hop::{CopyMark, Hop, LogPoint, Point, Redrive};
use crate::position::Position;
use crate::table::{Table, TableName};
use crate::telemetry::metrics::Metrics;

/// How long Kafka may take to begin or to end something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for room in the queue before looking again.
const ROOM: Duration = Duration::from_millis(5);
/// How long to wait for the queue to empty before looking again.
const EMPTY: Duration = Duration::from_millis(1);
/// How long the reports on records may take once one was refused.
const REPORTS: Duration = Duration::from_millis(100);
/// Memory of a batch's text that is kept for the next one.
const KEPT_BYTES: usize = 8 << 20;

/// More than a dead letter takes beside its original.
const LETTER_BYTES: usize = 16 << 10;

const SENT: &str = "sent";

/// Writes changes into Kafka. Blocks; one thread owns it.
pub struct Producer {
    kafka: BaseProducer<Events>,
    delivery: Delivery,
    interval: Duration,
    limit: usize,
    /// How long the broker lets a transaction be open.
    open_limit: Duration,
    /// The largest record that the client takes.
    record_bytes: usize,
    /// What an original may take in a record of the dead letters' topic.
    original_bytes: usize,
    prefix: String,
    names: Names,
    topics: Topics,
    encoder: Encoder,
    batch: Batch,
    /// Table versions whose description this producer has sent.
    described: FxHashSet<u64>,
    pipeline: String,
    checkpoint: Checkpoint,
    /// What was committed before this producer began.
    committed: Position,
    metrics: Arc<Metrics>,
    transaction: Transaction,
}

/// What is sent and not yet committed.
#[derive(Default)]
struct Transaction {
    point: Option<LogPoint>,
    came: Option<Came>,
    /// When the one before ended.
    before: Option<Instant>,
    bytes: usize,
    begun: Option<Begun>,
    redriven: Redriven,
}

/// When a transaction began. The first clock stands while the machine is suspended, the second one may
/// be set.
struct Begun(Instant, SystemTime);

impl Begun {
    fn now() -> Begun {
        Begun(Instant::now(), SystemTime::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed().max(self.1.elapsed().unwrap_or_default())
    }
}

impl Producer {
    /// Shuts out any earlier producer of the pipeline, then reads its checkpoint. One attempt.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub fn start(
        options: &Options,
        database: &str,
        pipeline: &str,
        metrics: Arc<Metrics>,
    ) -> Result<(Producer, Option<Checkpoint>), Error> {
        let prefix = options.prefix(database);
        // Before anything that, refused, would only time out.
        reach(options, PATIENCE)?;
        let names = Names::below(prefix);
        let mut topics = Topics::new(options)?;
        topics.ensure_compacted(&names.checkpoints)?;
        topics.ensure_compacted(&names.schemas)?;
        let dead_letters = topics.ensure_log(&names.dead_letters)?;
        let id = format!("{prefix}.{pipeline}");
        let config = options.producer(&id);
        let record_bytes = config.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        let record_bytes = record_bytes.unwrap_or(usize::MAX);
        let open_limit = config.get("transaction.timeout.ms").and_then(|limit| limit.parse().ok());
        let original_bytes = dead_letters.message_bytes.min(record_bytes);
        let kafka: BaseProducer<Events> =
            config.create_with_context(Events::default()).map_err(Error::Settings)?;
        if options.delivery == Delivery::ExactlyOnce {
            let fenced = kafka.init_transactions(PATIENCE);
            fenced.map_err(|error| kafka.context().error("begin with kafka", error))?;
        }
        let checkpoint = Checkpoint::read(options, &names.checkpoints, pipeline)?;
        let producer = Producer {
            kafka,
            delivery: options.delivery,
            interval: Duration::from_millis(options.transaction_interval_ms),
            limit: options.transaction_bytes,
            open_limit: open_limit.map_or(TRANSACTION_LIMIT, Duration::from_millis),
            record_bytes,
            original_bytes: original_bytes.saturating_sub(LETTER_BYTES),
            prefix: prefix.to_owned(),
            names,
            topics,
            encoder: Encoder::new(prefix, database),
            batch: Batch::default(),
            described: FxHashSet::default(),
            pipeline: pipeline.to_owned(),
            committed: checkpoint.as_ref().map(|known| known.position).unwrap_or_default(),
            checkpoint: checkpoint.clone().unwrap_or_default(),
            metrics,
            transaction: Transaction::default(),
        };
        Ok((producer, checkpoint))
    }

    /// Says of which cluster and timeline the positions are; every checkpoint does from now on.
    pub fn of_cluster(&mut self, system: u64, timeline: u32) {
        (self.checkpoint.system, self.checkpoint.timeline) = (system, timeline);
    }

    /// The slot is gone, and with it the meaning of the checkpoint: writes an empty one.
    ///
    /// # Errors
    /// As [`Producer::commit`].
    pub fn forget_snapshots(&mut self) -> Result<(), Error> {
        let Checkpoint { system, timeline, .. } = self.checkpoint;
        let empty = Checkpoint { system, timeline, ..Checkpoint::default() };
        let known = std::mem::replace(&mut self.checkpoint, empty).snapshots;
        self.committed = Position::default();
        let tables: Vec<TableName> = known.into_iter().map(|done| done.table).collect();
        // There is no source position behind this commit, so nobody may be told of one.
        self.forget_snapshots_of(&tables)
    }

    /// Takes back that the snapshots of these tables are complete: they are to be taken again.
    ///
    /// # Errors
    /// As [`Producer::commit`].
    pub fn forget_snapshots_of(&mut self, tables: &[TableName]) -> Result<(), Error> {
        let copies: Vec<_> = tables.iter().cloned().map(CopyMark::Withdrawn).collect();
        self.withdraw(&copies)?;
        self.transaction.point = Some(LogPoint { copies, ..LogPoint::default() });
        // Nothing is delivered by this that somebody could be told of.
        self.commit().map(drop)
    }

    /// Encodes a batch and hands it to Kafka; nobody sees it before [`Producer::commit`].
    ///
    /// # Errors
    /// Kafka's; this producer is then of no more use.
    pub fn send(&mut self, hop: Hop<LogPoint>) -> Result<(), Error> {
        let Hop { mut changes, mut dead_letters, plugins, point, redrive, .. } = hop;
        if redrive.is_none() && !point.copying && self.committed > Position::default() {
            // Plugins that remember are shown again what Kafka has, to remember it again.
            changes.pass_over(self.committed);
            dead_letters.retain(|letter| letter.position > self.committed);
        }
        Came::more(&mut self.transaction.came, Instant::now());
        self.withdraw(&point.copies)?;
        match &mut self.transaction.point {
            Some(earlier) => earlier.merge(point),
            none => *none = Some(point),
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.plugins.clear();
        batch.plugins.push_str(&plugins);
        self.prepare(&changes.tables)?;
        let now = nanoseconds();
        self.encoder.encode(&changes, now, &mut batch);
        for letter in dead_letters.iter().chain(&batch.dead_letters) {
            self.set_aside(letter)?;
        }
        if let Some(redrive) = redrive {
            dead_letters.extend_from_slice(&batch.dead_letters);
            self.close(redrive, &dead_letters)?;
        }
        self.metrics.count_dead_letters(SENT, batch.dead_letters.len());
        self.send_records(&batch, now / 1_000_000)?;
        self.transaction.bytes += batch.bytes.len();
        self.metrics.count_changes(SENT, &changes);
        batch.clear(KEPT_BYTES);
        self.batch = batch;
        Ok(())
    }

    /// Whether what was sent and not yet committed is [behind](crate::backlog).
    #[must_use]
    pub fn is_behind(&self, now: SystemTime) -> bool {
        let newest = self.transaction.point.as_ref().map(Point::newest_commit);
        backlog::is_behind(newest.unwrap_or_default(), now)
    }

    /// When the transaction should be committed; none while there is nothing to commit.
    #[must_use]
    pub fn deadline(&self, is_behind: bool) -> Option<Instant> {
        let Transaction { came, before, .. } = self.transaction;
        let patience = backlog::patience(self.interval, is_behind);
        came.map(|came| came.due(before, patience))
    }

    /// Whether the transaction is old or large enough.
    #[must_use]
    pub fn is_due(&self, now: Instant, is_behind: bool) -> bool {
        let old = self.deadline(is_behind).is_some_and(|deadline| deadline <= now);
        self.transaction.bytes >= self.limit || old
    }

    /// Commits what was sent together with the checkpoint it reaches; the proof of it, or nothing
    /// if nothing was sent.
    ///
    /// # Errors
    /// Kafka's; nothing of the transaction counts, and this producer is of no more use.
    pub fn commit(&mut self) -> Result<Option<Delivered<LogPoint>>, Error> {
        let Some(point) = self.transaction.point.take() else { return Ok(None) };
        self.checkpoint.advance(&point);
        if self.delivery == Delivery::AtLeastOnce {
            // The checkpoint must not be there before what it stands for.
            self.flush()?;
        }
        let topic = self.names.checkpoints.clone();
        let pipeline = self.pipeline.clone();
        for done in CopyMark::complete(&point.copies) {
            let (key, text) = copy_record(&pipeline, &done.table, Some(done));
            self.enqueue(record(&topic, key.as_bytes(), text.as_deref()))?;
        }
        let text = self.checkpoint.position_record();
        self.enqueue(record(&topic, pipeline.as_bytes(), Some(&text)))?;
        match self.delivery {
            Delivery::AtLeastOnce => self.flush()?,
            Delivery::ExactlyOnce => {
                self.flush()?;
                let committed = self.kafka.commit_transaction(PATIENCE);
                committed.map_err(|error| self.error("commit to kafka", error))?;
                self.delivered()?;
            }
        }
        let next = Transaction { before: Some(Instant::now()), ..Transaction::default() };
        let done = std::mem::replace(&mut self.transaction, next);
        done.redriven.tell();
        Ok(Some(Delivered { point }))
    }

    /// Withdraws copies ahead of the records that come with it. Without transactions the broker has that
    /// before it has any of them.
    fn withdraw(&mut self, copies: &[CopyMark]) -> Result<(), Error> {
        if copies.is_empty() {
            return Ok(());
        }
        let (topic, pipeline) = (self.names.checkpoints.clone(), self.pipeline.clone());
        for table in CopyMark::withdrawn(copies) {
            let (key, none) = copy_record(&pipeline, table, None);
            self.enqueue(record(&topic, key.as_bytes(), none.as_deref()))?;
        }
        match self.delivery {
            Delivery::AtLeastOnce => self.flush(),
            Delivery::ExactlyOnce => Ok(()),
        }
    }

    /// `now` in milliseconds, given so that the client need not ask the clock for each record.
    fn send_records(&mut self, batch: &Batch, now: i64) -> Result<(), Error> {
        for target in &batch.targets {
            self.topics.of_table(&target.topic)?;
        }
        for record in &batch.records {
            let target = record.target as usize;
            let topic = &batch.targets[target].topic;
            match record.destination {
                Destination::Key => {
                    self.send_record(batch, record, (topic, None), now)?;
                }
                Destination::EveryPartition => {
                    // Rows have long gone to partitions that were added since.
                    let partitions = self.topics.partitions_now(topic, self.kafka.client())?;
                    for partition in 0..partitions {
                        let partition = Some(partition);
                        self.send_record(batch, record, (topic, partition), now)?;
                    }
                }
            }
        }
        self.kafka.poll(Duration::ZERO);
        Ok(())
    }

    fn send_record(
        &mut self,
        batch: &Batch,
        record: &Record,
        (topic, partition): (&str, Option<i32>),
        now: i64,
    ) -> Result<(), Error> {
        let mut to = BaseRecord::<[u8], [u8]>::to(topic);
        (to.key, to.payload) =
            (record.key.map(|key| batch.span(key)), record.value.map(|value| batch.span(value)));
        to.partition = partition;
        to.timestamp = Some(now);
        to.headers = Some(headers(batch, record));
        self.enqueue(to)
    }

    /// Makes sure of the topics of table versions that are new, learns what they take, and tells readers
    /// what the versions are; all before their first records.
    fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), Error> {
        let described = &mut self.described;
        let new = tables.iter().filter(|table| described.insert(table.fingerprint));
        let new: Vec<_> =
            new.map(|table| (table, encode::topic_name(&self.prefix, table))).collect();
        let own = |topic: &String| self.names.all().contains(&topic.as_str());
        if let Some((table, topic)) = new.iter().find(|(_, topic)| own(topic)) {
            return Err(Error::OwnTopic { table: table.full_name(), topic: topic.clone() });
        }
        let names: Vec<&str> = new.iter().map(|(_, topic)| topic.as_str()).collect();
        let topics = self.topics.of_tables(&names)?;
        for ((table, _), topic) in new.iter().zip(topics) {
            self.encoder.limit(table.fingerprint, topic.message_bytes.min(self.record_bytes));
            let key = format!("{:016x}", table.fingerprint);
            let text = serde_json::to_vec(&***table).expect("a table is plain data");
            let topic = self.names.schemas.clone();
            self.enqueue(record(&topic, key.as_bytes(), Some(&text)))?;
        }
        Ok(())
    }

    fn set_aside(&mut self, letter: &DeadLetter) -> Result<(), Error> {
        let topic = self.names.dead_letters.clone();
        for part in letter.parts(self.original_bytes) {
            let text = serde_json::to_vec(&part).expect("a dead letter is plain data");
            self.enqueue(record(&topic, part.table.as_bytes(), Some(&text)))?;
        }
        Ok(())
    }

    /// Closes letters that come through with this transaction.
    fn close(&mut self, redrive: Redrive, failed: &[DeadLetter]) -> Result<(), Error> {
        let topic = self.names.dead_letters.clone();
        for closed in self.transaction.redriven.take_in(redrive, failed) {
            let text = serde_json::to_vec(&Closing { closed }).expect("a closing is plain data");
            self.enqueue(record(&topic, CLOSING, Some(&text)))?;
        }
        Ok(())
    }

    /// Puts a record into Kafka's queue, waiting for room.
    fn enqueue(&mut self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Error> {
        if self.delivery == Delivery::ExactlyOnce && self.transaction.begun.is_none() {
            let begun = self.kafka.begin_transaction();
            begun.map_err(|error| self.error("begin a transaction", error))?;
            self.transaction.begun = Some(Begun::now());
        }
        let mut record = record;
        loop {
            match self.kafka.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => record = back,
                    _ => return Err(self.error("send to kafka", error)),
                },
            }
            self.delivered()?;
            self.rest(ROOM);
        }
    }

    /// Waits until the broker has everything. The client's own `flush` looks only every 100 ms,
    /// and its commit would call that.
    fn flush(&self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.kafka.flush(Duration::ZERO) {
            let waiting = error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut);
            if !waiting || Instant::now() >= deadline {
                return Err(self.error("send to kafka", error));
            }
            self.rest(EMPTY);
        }
        self.delivered()
    }

    /// Lets the client work for a while, and hears what it tells. Its own `poll` with a timeout spins
    /// through the last millisecond: it waits in whole ones and asks again for what is left.
    fn rest(&self, pause: Duration) {
        thread::sleep(pause);
        self.kafka.poll(Duration::ZERO);
    }

    /// Whether everything so far could be delivered.
    fn delivered(&self) -> Result<(), Error> {
        match self.kafka.context().undelivered() {
            Some(error) => Err(self.error("send to kafka", error)),
            None => Ok(()),
        }
    }

    /// Sorts an error. When the broker gave up on a transaction it shuts its producer out as if another
    /// had taken over. A new one is then as safe as a new process: whoever has the slot goes first.
    fn error(&self, action: &'static str, error: KafkaError) -> Error {
        let error = self.sorted(action, error);
        let begun = self.transaction.begun.as_ref();
        let outlived = begun.is_some_and(|begun| begun.elapsed() >= self.open_limit);
        match error {
            Error::Fenced if outlived => Error::Outlived { limit: self.open_limit },
            error => error,
        }
    }

    /// Sorts an error, which says little by itself: why a record was refused comes with the report on
    /// it, a moment later, that somebody took over is a state of the client, and for a topic that was
    /// deleted librdkafka waits until it times out.
    fn sorted(&self, action: &'static str, error: KafkaError) -> Error {
        self.kafka.poll(REPORTS);
        let fatal = self.kafka.client().fatal_error();
        let fatal = fatal.map(|(code, _)| Error::new(action, KafkaError::Global(code)));
        if let Some(fenced @ Error::Fenced) = fatal {
            return fenced;
        }
        match self.kafka.context().error(action, error) {
            error @ Error::Broker { .. } => match self.topics.gone() {
                Some(topic) => Error::Gone { action, topic },
                None => error,
            },
            definite => definite,
        }
    }
}

fn record<'a>(
    topic: &'a str,
    key: &'a [u8],
    value: Option<&'a [u8]>,
) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(key);
    record.payload = value;
    record
}

fn headers(batch: &Batch, record: &Record) -> OwnedHeaders {
    let with = |headers: OwnedHeaders, key, value: &[u8]| {
        headers.insert(Header { key, value: Some(value) })
    };
    let mut headers = with(OwnedHeaders::new_with_capacity(1), ORIGIN, batch.span(record.origin));
    if let Some(exact) = record.exact {
        headers = with(headers, encode::EXACT, batch.span(exact));
    }
    match record.moved {
        Some(Moved::To(key)) => with(headers, NEW_KEY, batch.span(key)),
        Some(Moved::From(key)) => with(headers, OLD_KEY, batch.span(key)),
        None => headers,
    }
}

/// Since the Unix epoch.
fn nanoseconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
