//! The way of one change, in order. The only module that knows all stages.
//!
//! ```text
//! direct   1 capture ─ 2 decode ─ 3 transform ──────────────────────────── 6 store ─ 7 ack (slot)
//! leg A    1 capture ─ 2 decode ─ 3 transform ─ 4 encode ─ 5 send ──────────────── ─ 7 ack (slot)
//! leg B    5 receive ─ 4 read records ─ 3 transform ────────────────────── 6 store ─ 7 ack (offsets)
//! ```
//!
//! Stages are joined by queues of a few batches, so a slow one is felt all the way to the source,
//! and memory does not grow with the backlog. No acknowledgement precedes its store: see
//! [`ack`](crate::ack). What a crash between two steps replays is in `docs/ARCHITECTURE.md`.
//!
//! A stage that ends drops its end of the queues; its neighbours see that and end too. Draining is
//! the same from the front: the first stage stops reading, and each one ends after its input did.

mod again;
mod destination;
mod keeper;
mod patience;
mod receive;
mod received;
mod remembered;
mod report;
mod send;
mod source;
mod transform;

use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::ack::{Durable, SlotAck};
use crate::capture::{self, Capture, Resume};
use crate::config::{Config, Role};
use crate::disposition::Disposition;
use crate::embedded;
use crate::failpoint;
use crate::hop::{Hop, LogPoint, Point};
use crate::plugin::{self, Stage, Store};
use crate::serve::{Context, Leg};
use crate::shutdown::{Phase, Shutdown};
use crate::sink;
use crate::transport::{self, Producer, Pulse};
use keeper::{Give, keep};
use patience::Patience;
use remembered::resume_capture;
use report::Report;
use source::Source;
use transform::Transform;

/// Batches between two stages. A batch from the stream holds up to half a mebibyte of text.
const QUEUE: usize = 8;

/// Why plugins that run on a thread for one life of a leg are there for the next one.
const GIVEN_BACK: &str = "every life of a leg gives the plugins back";

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
    /// What is remarked of the plugins' `tables` is remarked at the first look at the source.
    patterns: Once,
}

impl Pipeline {
    /// A pipeline that ends with `shutdown`; nothing starts yet.
    ///
    /// # Errors
    /// The plugin engine cannot be set up.
    pub fn new(config: Config, role: Role, shutdown: Shutdown) -> Result<Pipeline, Error> {
        let plugins = plugin::Runtime::new(plugin::compiled_code())?;
        let report = Report::new(&config, role);
        let remarks = capture::Remarks::default();
        let (config, patterns) = (Arc::new(config), Once::new());
        Ok(Pipeline { config, role, shutdown, report, plugins, remarks, patterns })
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
            (Role::Sink, Some(kafka)) => self.kafka_to_clickhouse(kafka, None).await,
            (Role::All, Some(kafka)) => self.both_legs(kafka).await,
            (_, None) => self.direct().await,
        };
        self.report.recopies().close();
        self.shutdown.advance(Phase::Drained);
        ended
    }

    /// PostgreSQL to ClickHouse: the slot is the log.
    async fn direct(&self) -> Result<(), Error> {
        let mut transform = Some(self.transform(&[Stage::Capture, Stage::Sink])?);
        let leg = self.report.leg("capture");
        let mut patience = Patience::new("copy the tables", "captured", &self.shutdown);
        let mut watching = None;
        self.report.recopies().open();
        while let Some(source) = self.source().await? {
            watching.get_or_insert_with(|| self.watch_slot(&source, "stored"));
            let ended = self.store_once(&source, &mut transform).await;
            if ended.is_ok() && self.goes_on_copying() {
                continue;
            }
            if !patience.another(ended, &leg, self.report.metrics()).await? {
                break;
            }
        }
        Ok(())
    }

    /// One life of a capture that stores; another one follows when a copy was cut short of which
    /// plugins remember a part. The plugins are given back.
    async fn store_once(
        &self,
        source: &Source,
        plugins: &mut Option<Transform>,
    ) -> Result<(), Error> {
        let Some(destination) = self.destination(&source.database, &source.options.slot).await?
        else {
            return Ok(());
        };
        let destination = destination.of_cluster(source).await?;
        if !source.slot_exists {
            destination.sink.forget_snapshots().await?;
        }
        let snapshots = destination.completed_snapshots().await?;
        let snapshots = destination.forget_asked(snapshots, self.report.recopies()).await?;
        let mut resume = Resume {
            system: source.system,
            snapshots,
            slot_exists: source.slot_exists,
            may_hold_rows: true,
            ..Resume::default()
        };
        let ack = SlotAck::default();
        let transform = plugins.as_mut().expect(GIVEN_BACK);
        let store = self.open_memory(transform, "capture", &source.options.slot)?;
        let kept = resume_capture(store.as_ref(), transform, source, &mut resume, None)?;
        let transform = plugins.take().expect(GIVEN_BACK);
        let end = self.part_until_asked();
        let (captured, to_transform) = mpsc::channel(QUEUE);
        let (transformed, to_store) = mpsc::channel(QUEUE);
        let (letters, open) = (destination.sink.letters(), destination.sink.open_letters());
        let head = captured.downgrade();
        self.report.dead_letters().open_direct(letters, &head, transform.versions());
        let capture = self.spawn_capture(source, resume, &ack, &end, captured);
        let transforming = transform.spawn(to_transform, transformed, Some(open));
        let metrics = Arc::clone(self.report.metrics());
        let (give, keeping) = keep(kept, &end, move |durable| {
            failpoint::pass("before_slot_advance");
            metrics.reached("stored", ack.advance(durable));
        });
        let mut give = self.timed("stored", give);
        let stored = destination.sink.run(to_store, move |stored| give(stored.into())).await;
        let kept = keeping.finish().await;
        // Whatever ended the store ends the stages before it.
        end.advance(Phase::Drained);
        let (transform, transformed) = transforming.await.expect("the transform does not panic");
        *plugins = Some(transform);
        let captured = capture.await.expect("the capture does not panic");
        destination.engine.shut_down().await;
        kept?;
        first_cause(captured, transformed, stored)
    }

    /// Both legs in one process, joined by nothing but Kafka.
    async fn both_legs(&self, kafka: &transport::Options) -> Result<(), Error> {
        let Some(source) = self.source().await? else { return Ok(()) };
        let database = source.database;
        let (a, b) = tokio::join!(
            self.ending_all(self.capture_to_kafka(kafka)),
            self.ending_all(self.kafka_to_clickhouse(kafka, Some(database))),
        );
        a.and(b)
    }

    /// One leg cannot go on alone for long: the end of one drains the other.
    async fn ending_all(&self, leg: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        let ended = leg.await;
        self.shutdown.advance(Phase::Draining);
        ended
    }

    /// Leg A, started over from Kafka's own checkpoint whenever Kafka has trouble.
    async fn capture_to_kafka(&self, kafka: &transport::Options) -> Result<(), Error> {
        let ack = SlotAck::default();
        let mut transform = self.transform(&[Stage::Capture])?;
        let (mut store, mut watching) = (None, None);
        let leg = self.report.leg("send");
        let mut patience = Patience::new("send to kafka", "sent", &self.shutdown);
        self.report.recopies().open();
        while let Some(source) = self.source().await? {
            watching.get_or_insert_with(|| self.watch_slot(&source, "sent"));
            if store.is_none() {
                store = self.open_memory(&transform, "capture", &source.options.slot)?;
            }
            let way = (&leg, &patience);
            let (back, ended) =
                self.send_once(kafka, &source, transform, store.as_ref(), &ack, way).await;
            transform = back;
            if ended.is_ok() && self.goes_on_copying() {
                continue;
            }
            if !patience.another(ended, &leg, self.report.metrics()).await? {
                break;
            }
        }
        Ok(())
    }

    /// One life of a producer, with a capture that resumes after what it had committed.
    async fn send_once(
        &self,
        kafka: &transport::Options,
        source: &Source,
        mut transform: Transform,
        store: Option<&Arc<Store>>,
        ack: &SlotAck,
        (leg, patience): (&Leg, &Patience),
    ) -> (Transform, Result<(), Error>) {
        let started = self.start_producer(kafka, source).await;
        let (mut producer, mut resume) = match started {
            Ok(started) => started,
            Err(error) => return (transform, Err(error)),
        };
        let sent = Some(resume.position);
        let kept = match resume_capture(store, &mut transform, source, &mut resume, sent) {
            Ok(kept) => kept,
            Err(error) => return (transform, Err(error)),
        };
        let pulse = match Pulse::start(kafka, &source.database, leg.clone()) {
            Ok(pulse) => pulse,
            Err(error) => return (transform, Err(error.into())),
        };
        leg.moving();
        patience.works();
        let end = self.part_until_asked();
        let (captured, to_transform) = mpsc::channel(QUEUE);
        let (transformed, to_send) = mpsc::channel(QUEUE);
        let head = captured.downgrade();
        let (letters, plugins) = (self.report.dead_letters(), transform.versions());
        letters.open_sent(kafka, &source.database, &head, plugins);
        let capture = self.spawn_capture(source, resume, ack, &end, captured);
        let transforming = transform.spawn(to_transform, transformed, None);
        let (ack, metrics) = (ack.clone(), Arc::clone(self.report.metrics()));
        let (give, keeping) = keep(kept, &end, move |durable| {
            metrics.reached("sent", ack.advance(durable));
        });
        let mut give = self.timed("sent", give);
        let runtime = Handle::current();
        let sending = spawn_blocking(move || {
            send::run(&mut producer, to_send, &runtime, |delivered| give(delivered.into()))
        });
        let sent = sending.await.expect("the sender does not panic");
        drop(pulse);
        let kept = keeping.finish().await;
        // Whatever ended the sender ends the stages before it.
        end.advance(Phase::Drained);
        let (transform, transformed) = transforming.await.expect("the transform does not panic");
        let captured = capture.await.expect("the capture does not panic");
        let ended = kept.map_err(Error::from).and(first_cause(captured, transformed, sent));
        (transform, ended)
    }

    async fn start_producer(
        &self,
        kafka: &transport::Options,
        source: &Source,
    ) -> Result<(Producer, Resume), Error> {
        let (kafka, database) = (kafka.clone(), source.database.clone());
        let (pipeline, slot_exists) = (source.options.slot.clone(), source.slot_exists);
        let system = source.system;
        let metrics = Arc::clone(self.report.metrics());
        let recopies = self.report.recopies().clone();
        let starting = spawn_blocking(move || -> Result<_, Error> {
            let (mut producer, checkpoint) =
                Producer::start(&kafka, &database, &pipeline, metrics)?;
            let known = checkpoint.as_ref().and_then(|checkpoint| checkpoint.system);
            let prefix = kafka.prefix(&database);
            let stored = format!("the topics below `{prefix}`");
            let way_out = "to copy this one, name a new prefix with [kafka] prefix and a new \
                           database with [clickhouse] database";
            capture::same_cluster(known, system, &stored, way_out)?;
            producer.of_cluster(system);
            let may_hold_rows = checkpoint.is_some();
            if !slot_exists && may_hold_rows {
                producer.forget_snapshots()?;
            }
            let mut kept = checkpoint.filter(|_| slot_exists).unwrap_or_default();
            again::forget_asked(&mut producer, &mut kept.snapshots, &recopies)?;
            let resume = Resume {
                remembers: false,
                position: kept.position,
                system,
                snapshots: kept.snapshots.into_iter().map(|s| (s.table, s.copied)).collect(),
                slot_exists,
                may_hold_rows,
            };
            Ok((producer, resume))
        });
        starting.await.expect("starting a producer does not panic")
    }

    fn transform(&self, stages: &[Stage]) -> Result<Transform, Error> {
        let metrics = self.report.metrics();
        let transform = Transform::load(&self.plugins, &self.config.plugin, stages, metrics)?;
        self.report.plugins(stages, transform.versions());
        Ok(transform)
    }

    fn spawn_capture(
        &self,
        source: &Source,
        resume: Resume,
        ack: &SlotAck,
        end: &Shutdown,
        out: mpsc::Sender<Hop<LogPoint>>,
    ) -> JoinHandle<Result<(), capture::Error>> {
        let capture = Capture {
            url: source.url.clone(),
            options: source.options.clone(),
            resume,
            ack: ack.clone(),
            shutdown: end.clone(),
            leg: self.report.leg("capture"),
            metrics: Arc::clone(self.report.metrics()),
            runtime: Handle::current(),
            remarks: self.remarks.clone(),
            recopies: self.report.recopies().clone(),
        };
        spawn_blocking(move || capture.run(out))
    }

    /// Keeps the metrics of the slot and of the source's position true until the process drains, whether
    /// or not the `step` that moves the slot has begun.
    fn watch_slot(&self, source: &Source, step: &'static str) -> JoinHandle<()> {
        if let Some(confirmed) = source.confirmed {
            self.report.metrics().reached(step, confirmed);
        }
        tokio::spawn(capture::watch_slot(
            source.url.clone(),
            source.options.slot.clone(),
            self.report.leg("slot"),
            Arc::clone(self.report.metrics()),
            self.shutdown.clone(),
        ))
    }

    /// Notes how late a step is before it gives on what is durable.
    fn timed<P: Point>(
        &self,
        step: &'static str,
        mut give: Give<P>,
    ) -> impl FnMut(Durable<P>) + Send + use<P> {
        let metrics = Arc::clone(self.report.metrics());
        move |durable| {
            metrics.passed_by(step, durable.point().newest_commit());
            give(durable);
        }
    }
}

/// The error that came first: a stage that found its neighbour gone has nothing of its own to say.
fn first_cause<E: Into<Error>>(
    captured: Result<(), capture::Error>,
    transformed: Result<(), plugin::Error>,
    last: Result<(), E>,
) -> Result<(), Error> {
    last.map_err(Into::into)?;
    transformed?;
    match captured {
        Ok(()) | Err(capture::Error::Abandoned) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
