//! The way of one change, in order. The only module that knows all stages.
//!
//! ```text
//! direct   1 capture ─ 2 decode ─ 3 transform ──────────────────────────── 6 store ─ 7 ack (slot)
//! leg A    1 capture ─ 2 decode ─ 3 transform ─ 4 encode ─ 5 send ──────────────── ─ 7 ack (slot)
//! leg B    5 receive ─ 4 read records ─ 3 transform ────────────────────── 6 store ─ 7 ack (offsets)
//! ```
//!
//! Stages are joined by queues of a few batches, which are bounded in [bytes](crate::budget) too, so a slow one is
//! felt all the way to the source, and memory does not grow with the backlog. No acknowledgement precedes its store: see
//! [`ack`](crate::ack). What a crash between two steps replays is in `docs/ARCHITECTURE.md`.
//!
//! A stage that ends drops its end of the queues; its neighbours see that and end too. Draining is
//! the same from the front: the first stage stops reading, and each one ends after its input did.
//!
//! The three ways have one shape. Each is a loop of lives: a life connects, goes on where what is durable ends, moves
//! changes until something breaks or the process drains, and gives the plugins back; then it is said why it ended,
//! and another one begins after a pause. In a life the stages before the last run beside it, and end with it.

mod destination;
mod keeper;
mod patience;
mod plugins;
mod producer;
mod receive;
mod remembered;
mod report;
mod send;
mod snapshot_requests;
mod source;
mod stages;
mod telling;
mod transform;

use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::error;

use crate::ack::SlotAck;
use crate::capture;
use crate::config::{Config, Role};
use crate::disposition::Disposition;
use crate::embedded;
use crate::plugin::{self, Stage};
use crate::serve::{ClickHouseError, Context};
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{self, Sink};
use crate::telemetry::logging::chain;
use crate::transport::{self, Pulse};
use destination::Destination;
pub use destination::clickhouse;
use patience::Patience;
use plugins::Plugins;
use report::Report;
use source::Source;
use stages::Stages;
use telling::tell;

/// Batches between two stages. A batch from the stream holds up to half a mebibyte of text.
const QUEUE: usize = 8;

/// Why the pipeline ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Step 1 or 2.
    #[error("capture stopped")]
    Capture(#[from] capture::Error),
    /// Step 3.
    #[error("transform stopped")]
    Transform(#[from] plugin::Error),
    /// Step 4 or 5.
    #[error("transport stopped")]
    Transport(#[from] transport::Error),
    /// Step 6.
    #[error("store stopped")]
    Store(#[from] sink::Error),
    /// Step 6 would write into something else.
    #[error(transparent)]
    Foreign(#[from] ClickHouseError),
    /// What plugins remember.
    #[error("the plugins cannot remember")]
    Memory(#[from] plugin::MemoryError),
    /// The embedded engine of step 6.
    #[error("the embedded ClickHouse engine stopped")]
    Embedded(#[from] embedded::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Error::Capture(error) => error.disposition(),
            Error::Transform(error) => error.disposition(),
            Error::Transport(error) => error.disposition(),
            Error::Store(error) => error.disposition(),
            Error::Foreign(error) => error.disposition(),
            Error::Memory(error) => error.disposition(),
            Error::Embedded(error) => error.disposition(),
        }
    }
}

impl Error {
    /// How long to wait at least before another attempt.
    fn least_pause(&self) -> Duration {
        match self {
            Error::Transport(error) => error.least_pause(),
            _ => Duration::ZERO,
        }
    }
}

/// One process's pipeline.
pub struct Pipeline {
    config: Arc<Config>,
    role: Role,
    shutdown: Shutdown,
    report: Report,
    plugins: plugin::Runtime,
    remarks: capture::Remarks,
    /// What is remarked of settings that fit none of its tables is remarked at the first look at the source.
    idle: Once,
}

impl Pipeline {
    /// A pipeline that ends with `shutdown`; nothing starts yet.
    ///
    /// # Errors
    /// The plugin engine cannot be set up.
    pub fn new(config: Config, role: Role, shutdown: Shutdown) -> Result<Pipeline, Error> {
        let plugins = plugin::Runtime::new(plugin::compiled_code())?;
        let plugins = plugins.with_quarantine(config.quarantine());
        let report = Report::new(&config, role);
        let remarks = capture::Remarks::default();
        let (config, idle) = (Arc::new(config), Once::new());
        Ok(Pipeline { config, role, shutdown, report, plugins, remarks, idle })
    }

    /// What the HTTP interface reads.
    #[must_use]
    pub fn context(&self) -> Context {
        self.report.context()
    }

    /// Runs until told to stop, with everything that was read stored and acknowledged, or until
    /// only a person can help.
    ///
    /// # Errors
    /// What that person has to know.
    pub async fn run(self) -> Result<(), Error> {
        self.report.refresh_until_drained(self.shutdown.clone());
        let ended = match (self.role, &self.config.kafka) {
            (Role::Capture, Some(kafka)) => self.capture_to_kafka(kafka).await,
            (Role::Sink, Some(kafka)) => self.kafka_to_clickhouse(kafka).await,
            (Role::All, Some(kafka)) => self.both_legs(kafka).await,
            (_, None) => self.direct().await,
        };
        self.report.snapshot_requests().close();
        self.shutdown.advance(Phase::Drained);
        ended
    }

    /// Directly from PostgreSQL to ClickHouse: the slot is the log.
    async fn direct(&self) -> Result<(), Error> {
        let mut plugins = self.plugins(&[Stage::Capture, Stage::Sink], "capture", &self.slot()?)?;
        let mut patience = self.patience("copy the tables", "captured", "capture");
        let mut watching = None;
        self.report.snapshot_requests().open();
        while let Some(source) = self.source().await? {
            watching.get_or_insert_with(|| self.watch_slot(&source, "stored"));
            let ended = self.direct_once(&source, &mut plugins).await;
            if !self.captures_again(ended, &mut patience).await? {
                break;
            }
        }
        Ok(())
    }

    /// One life of it. Another one follows when a copy was cut short of which plugins remember a part.
    async fn direct_once(&self, source: &Source, plugins: &mut Plugins) -> Result<(), Error> {
        let destination = self.destination(&source.database, &source.options.slot).await?;
        let Some(Destination { sink, engine }) = destination else { return Ok(()) };
        let ended = self.capture_into(sink, source, plugins).await;
        engine.shut_down().await;
        ended
    }

    async fn capture_into(
        &self,
        sink: Sink,
        source: &Source,
        plugins: &mut Plugins,
    ) -> Result<(), Error> {
        let (mut resume, known) = self.resume_after(&sink, source).await?;
        let kept = plugins.resume_capture(source, &mut resume, None)?;
        let (captured, to_transform) = mpsc::channel(QUEUE);
        let (transformed, to_store) = mpsc::channel(QUEUE);
        let (end, ack) = (self.part_until_asked(), SlotAck::default());
        let letters = self.report.dead_letters();
        letters.open_direct(sink.letters(), &captured.downgrade(), plugins.versions());
        let capturing = self.spawn_capture(source, resume, &ack, &end, captured);
        let transforming = plugins.spawn(to_transform, transformed, Some(sink.open_letters()));
        let stages = Stages { first: capturing, transforming, end };
        let (mut tell, telling) =
            tell(sink.records(), known, ack, &stages.end, self.report.metrics());
        let metrics = Arc::clone(self.report.metrics());
        let (mut give, keeping) = self.keep("stored", kept, &stages.end, move |durable| {
            metrics.reached("stored", tell.take(durable));
        });
        let stored = sink.run(to_store, move |stored| give(stored.into())).await;
        let kept = keeping.finish().await;
        let told = telling.finish().await;
        let ended = stages.finish(stored.and(told), plugins).await;
        kept?;
        ended
    }

    /// Both legs in one process, joined by nothing but Kafka: what that has is stored while the source is away.
    async fn both_legs(&self, kafka: &transport::Options) -> Result<(), Error> {
        let (a, b) = tokio::join!(
            self.ending_all(self.capture_to_kafka(kafka)),
            self.ending_all(self.kafka_to_clickhouse(kafka)),
        );
        a.and(b)
    }

    /// One leg cannot go on alone for long: the end of one drains the other.
    async fn ending_all(&self, leg: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        let ended = leg.await;
        if let Err(error) = &ended {
            error!(error = %chain(error), "a leg has ended, and the other one drains");
        }
        self.shutdown.advance(Phase::Draining);
        ended
    }

    /// Leg A: from PostgreSQL to Kafka.
    async fn capture_to_kafka(&self, kafka: &transport::Options) -> Result<(), Error> {
        let mut plugins = self.plugins(&[Stage::Capture], "capture", &self.slot()?)?;
        let mut patience = self.patience("send to kafka", "sent", "send");
        let mut watching = None;
        self.report.snapshot_requests().open();
        while let Some(source) = self.source().await? {
            watching.get_or_insert_with(|| self.watch_slot(&source, "sent"));
            let ended = self.capture_to_kafka_once(kafka, &source, &mut plugins, &patience).await;
            if !self.captures_again(ended, &mut patience).await? {
                break;
            }
        }
        Ok(())
    }

    /// One life of it, with a producer that goes on from Kafka's own checkpoint. Another one follows
    /// whenever Kafka has trouble.
    async fn capture_to_kafka_once(
        &self,
        kafka: &transport::Options,
        source: &Source,
        plugins: &mut Plugins,
        patience: &Patience,
    ) -> Result<(), Error> {
        let (mut producer, mut resume) = self.start_producer(kafka, source).await?;
        let sent = Some(resume.position);
        let kept = plugins.resume_capture(source, &mut resume, sent)?;
        let pulse = Pulse::start(kafka, &source.database, patience.leg().clone())?;
        patience.leg().moving();
        patience.works();
        let (captured, to_transform) = mpsc::channel(QUEUE);
        let (transformed, to_send) = mpsc::channel(QUEUE);
        let (end, ack) = (self.part_until_asked(), SlotAck::default());
        let (letters, head) = (self.report.dead_letters(), captured.downgrade());
        letters.open_sent(kafka, &source.database, &head, plugins.versions());
        let capturing = self.spawn_capture(source, resume, &ack, &end, captured);
        let transforming = plugins.spawn(to_transform, transformed, None);
        let stages = Stages { first: capturing, transforming, end };
        let metrics = Arc::clone(self.report.metrics());
        let (mut give, keeping) = self.keep("sent", kept, &stages.end, move |durable| {
            metrics.reached("sent", ack.advance(durable));
        });
        let runtime = Handle::current();
        let sending = spawn_blocking(move || {
            send::run(&mut producer, to_send, &runtime, |delivered| give(delivered.into()))
        });
        let sent = sending.await.expect("the sender does not panic");
        drop(pulse);
        let kept = keeping.finish().await;
        let ended = stages.finish(sent, plugins).await;
        kept?;
        ended
    }

    /// Leg B: from Kafka to ClickHouse. The database is the one that the settings name, if they name one.
    async fn kafka_to_clickhouse(&self, kafka: &transport::Options) -> Result<(), Error> {
        let database = self.config.source_database().unwrap_or_default();
        let mut plugins = self.plugins(&[Stage::Sink], "sink", &kafka.group(&database))?;
        let mut patience = self.patience("store what Kafka has", "stored", "receive");
        loop {
            let ended = self.kafka_to_clickhouse_once(kafka, &database, &mut plugins).await;
            if !patience.another(ended).await? {
                return Ok(());
            }
        }
    }

    /// One life of it; its receiver begins anew whenever Kafka has trouble, which the store does not notice.
    /// Another one follows when a table was altered while its rows were on their way.
    async fn kafka_to_clickhouse_once(
        &self,
        kafka: &transport::Options,
        database: &str,
        plugins: &mut Plugins,
    ) -> Result<(), Error> {
        let destination = self.destination(database, &kafka.group(database)).await?;
        let Some(Destination { sink, engine }) = destination else { return Ok(()) };
        let ended = self.receive_into(sink, kafka, database, plugins).await;
        engine.shut_down().await;
        ended
    }

    async fn receive_into(
        &self,
        sink: Sink,
        kafka: &transport::Options,
        database: &str,
        plugins: &mut Plugins,
    ) -> Result<(), Error> {
        let (starts, kept) = plugins.resume_sink()?.unzip();
        let (received, to_transform) = mpsc::channel(QUEUE);
        let (transformed, to_store) = mpsc::channel(QUEUE);
        let end = self.shutdown.part();
        let (letters, head) = (self.report.dead_letters(), received.downgrade());
        letters.open_stored(sink.letters(), &head, plugins.versions(), starts.clone());
        let (acknowledge, acknowledged) = std::sync::mpsc::channel();
        let receiver = self.receiver(kafka, database, starts, &end);
        let receiving = spawn_blocking(move || receiver.run(received, &acknowledged));
        let transforming = plugins.spawn(to_transform, transformed, Some(sink.open_letters()));
        let stages = Stages { first: receiving, transforming, end };
        let (mut give, keeping) = self.keep("stored", kept, &stages.end, move |durable| {
            // The receiver outlives the store unless it failed, and then there is none to tell.
            drop(acknowledge.send(durable));
        });
        let stored = sink.run(to_store, move |stored| give(stored.into())).await;
        let kept = keeping.finish().await;
        let ended = stages.finish(stored, plugins).await;
        kept?;
        ended
    }
}
