//! Step 6, `store`: changes become rows of ClickHouse.
//!
//! Every row carries its position as `_version`, so neither the order in which rows arrive nor how
//! often they do changes what the views show: see [`ddl`] for how tables and views say so,
//! [`encode`] for what happens to values that ClickHouse has no place for, and [`toast`] for
//! updates that do not carry all of the row.
//!
//! One batch fills while the one before it is on its way. A batch leaves when the one before is
//! stored, and it is full or that one left [`Options::flush_interval_ms`] ago; so batches are small while
//! ClickHouse keeps up and grow by themselves when it does not. A batch of changes that are
//! [behind](crate::backlog) waits longer, because an insert costs ClickHouse tens of milliseconds
//! however few rows it has. A full batch takes no more hops, which is how the stages before feel it.
//!
//! A table version that is new may alter its table, and rows that were written for the table as it
//! was would not be read right any more. So such a hop waits until everything before it is stored.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::backlog;
use crate::dead_letter::OpenLetters;
use crate::hop::{Hop, Point, SnapshotDone};
use crate::position::Lsn;
use crate::serve::{Leg, Mirrored};
use crate::table::TableName;
use crate::telemetry::logging::Repeated;
use crate::telemetry::metrics::Metrics;

mod absorb;
mod array;
mod batch;
mod block;
mod client;
mod closing;
mod datetime;
mod ddl;
mod decimal;
mod discard;
mod encode;
mod error;
mod letters;
mod names;
mod options;
mod published;
mod pulse;
mod shape;
mod snapshots;
mod toast;
mod types;
mod writer;

pub use discard::{NotDropped, discard};
pub use encode::is_exact;
pub use error::{Cause, Error};
pub use letters::{Chosen, Letters, Summary};
pub use names::{literal, quoted};
pub use options::{Compression, Dedup, Options, TableOptions};
pub use snapshots::Provenance;

use batch::{Batch, Spare};
use block::Encoder;
use client::Client;
use ddl::{Place, on_cluster, own_tables};
use names::Names;
use published::Views;
use writer::Writer;

/// Everything up to the point of the source is stored in ClickHouse. Only this stage builds one.
#[derive(Debug)]
pub struct Stored<P> {
    point: P,
}

impl<P> Stored<P> {
    /// The point that may be acknowledged.
    pub fn into_point(self) -> P {
        self.point
    }
}

/// Whom the sink writes for.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The source database's name, which is the ClickHouse database's too unless that is set.
    pub database: String,
    /// By what the source is told from others: that name, or the prefix of its topics.
    pub source: String,
    /// The pipeline's name; finished snapshots are recorded under it.
    pub pipeline: String,
}

/// Records the source of what is stored.
pub struct Records(Arc<Writer>);

impl Records {
    /// Records where this pipeline's rows come from. One attempt.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn provenance(&self, source: Provenance) -> Result<(), Error> {
        self.0.store_source(source).await
    }
}

/// The ClickHouse sink, connected.
pub struct Sink {
    options: Options,
    writer: Arc<Writer>,
    names: Names,
    encoders: FxHashMap<u64, Arc<Encoder>>,
    views: Views,
}

impl Sink {
    /// Connects, and makes the database and the sink's own tables. One attempt: the error's
    /// disposition says whether another may help. `leg` moves from then on, except while ClickHouse
    /// has trouble.
    ///
    /// # Errors
    ///
    /// The server does not answer, or it refuses.
    ///
    /// # Panics
    ///
    /// The options name no server.
    pub async fn connect(
        options: Options,
        origin: Origin,
        metrics: Arc<Metrics>,
        leg: Leg,
    ) -> Result<Sink, Error> {
        let client = Client::new(&options, &origin.database, &origin.source);
        make_database(&client, &options).await?;
        let writer = Writer {
            client,
            metrics,
            leg,
            failures: Repeated::new("store in ClickHouse"),
            pipeline: origin.pipeline,
            cluster: options.cluster.clone(),
            run: rand::random(),
            concurrent_inserts: options.concurrent_inserts,
            truncated: Default::default(),
            open: OpenLetters::unknown(),
        };
        writer.load_truncates().await?;
        let views = Views::find(&writer.client).await?;
        writer.leg.moving();
        let (writer, names) = (Arc::new(writer), Names::of_views(views.sources()));
        Ok(Sink { options, writer, names, encoders: FxHashMap::default(), views })
    }

    /// The ClickHouse database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.writer.client.database()
    }

    /// The dead letters that are stored.
    #[must_use]
    pub fn letters(&self) -> Letters {
        Letters::new(self.writer.client.clone())
    }

    /// Which changes may have open letters here.
    #[must_use]
    pub fn open_letters(&self) -> OpenLetters {
        self.writer.open.clone()
    }

    /// The tables that can be queried, those of earlier runs included.
    #[must_use]
    pub fn mirrored(&self) -> watch::Receiver<Vec<Mirrored>> {
        self.views.subscribe()
    }

    /// The snapshots whose rows are all stored, and whose tables are still there.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn completed_snapshots(&self) -> Result<Vec<SnapshotDone>, Error> {
        let home = |table: &TableName| self.place(table).versions_name();
        snapshots::completed(&self.writer.client, &self.writer.pipeline, home).await
    }

    /// The tables of which a snapshot is recorded as complete, whatever became of them since.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn recorded_snapshots(&self) -> Result<Vec<TableName>, Error> {
        let recorded = snapshots::recorded(&self.writer.client, &self.writer.pipeline).await?;
        Ok(recorded.into_iter().map(|done| done.table).collect())
    }

    /// Takes back that any snapshot of this pipeline is complete: its slot is gone, so changes
    /// since then may be missing.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn forget_snapshots(&self) -> Result<(), Error> {
        self.writer.forget_snapshots(None).await
    }

    /// Takes back that the snapshot of this table is complete: it is to be taken again.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn forget_snapshot(&self, table: &TableName) -> Result<(), Error> {
        self.writer.forget_snapshots(Some(&[table])).await
    }

    /// The source that this pipeline's rows came from, if any did.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn provenance(&self) -> Result<Option<Provenance>, Error> {
        snapshots::provenance(&self.writer.client, &self.writer.pipeline).await
    }

    /// What records it, while the sink runs too.
    #[must_use]
    pub fn records(&self) -> Records {
        Records(Arc::clone(&self.writer))
    }

    /// The greatest commit after this one of which these tables have rows or a truncate; this one if there is none.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn newest_commit(
        &self,
        tables: impl Iterator<Item = &TableName>,
        known: Lsn,
    ) -> Result<Lsn, Error> {
        let places: Vec<Place> = tables.map(|table| self.place(table)).collect();
        let versions = places.iter().map(Place::versions_name);
        let rows = snapshots::newest_commit(&self.writer.client, versions, known).await?;
        Ok(rows.max(self.writer.newest_truncate(places.iter().map(|place| &*place.plan.view))))
    }

    /// Stores what comes in, and reports each point once everything up to it is stored. Ends when
    /// the input does and the rest is stored.
    ///
    /// # Errors
    ///
    /// Only what a person must put right; nothing of the batch in question was reported.
    pub async fn run<P: Point>(
        mut self,
        input: mpsc::Receiver<Hop<P>>,
        on_stored: impl FnMut(Stored<P>) + Send,
    ) -> Result<(), Error> {
        let (client, leg) = (self.writer.client.clone(), self.writer.leg.clone());
        let ended = tokio::select! {
            ended = self.store_all(input, on_stored) => ended,
            () = pulse::watch(client, leg) => unreachable!("it never ends"),
        };
        ended.inspect_err(|error| self.writer.leg.stalled(error.sentence()))
    }

    async fn store_all<P: Point>(
        &mut self,
        mut input: mpsc::Receiver<Hop<P>>,
        mut on_stored: impl FnMut(Stored<P>) + Send,
    ) -> Result<(), Error> {
        let mut filling = Batch::default();
        let mut points = Points { filling: None, flying: None };
        let mut spare = Spare::default();
        let mut flight: JoinSet<Result<Batch, Error>> = JoinSet::new();
        let mut held: Option<Hop<P>> = None;
        let mut open = true;
        let mut left: Option<Instant> = None;
        loop {
            let idle = flight.is_empty();
            if let Some(hop) = held.take_if(|_| idle && filling.came.is_none()) {
                let point = self.absorb(hop, &mut filling, &mut spare).await?;
                points.take_in(point);
            }
            let takes_more = open && held.is_none();
            let is_behind = filling.is_of_copies()
                || backlog::is_behind(points.newest_commit(), SystemTime::now());
            let due = self.due(&filling, left, takes_more, is_behind);
            if idle && due.is_some_and(|due| due <= Instant::now()) {
                left = Some(Instant::now());
                points.flying = points.filling.take();
                flight.spawn(store(Arc::clone(&self.writer), std::mem::take(&mut filling)));
                continue;
            }
            if idle && !takes_more && due.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(done) = flight.join_next() => {
                    self.recycle(done.expect("a flush does not panic")?, &mut spare);
                    points.flying.take().into_iter().for_each(|point| on_stored(Stored { point }));
                }
                received = input.recv(), if takes_more && !self.is_full(&filling) => match received {
                    Some(hop) if !self.knows_tables(&hop.changes) => held = Some(hop),
                    Some(hop) => {
                        let point = self.absorb(hop, &mut filling, &mut spare).await?;
                        points.take_in(point);
                    }
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if idle && due.is_some() => {}
            }
        }
    }

    fn is_full(&self, batch: &Batch) -> bool {
        batch.rows() >= self.options.batch_rows || batch.bytes() >= self.options.batch_bytes
    }

    /// When the batch should leave, if the one before `left` then; `None` while there is nothing to report.
    fn due(
        &self,
        batch: &Batch,
        left: Option<Instant>,
        takes_more: bool,
        is_behind: bool,
    ) -> Option<Instant> {
        let came = batch.came?;
        if !takes_more || batch.holds_nothing() || self.is_full(batch) {
            return Some(Instant::now());
        }
        let interval = Duration::from_millis(self.options.flush_interval_ms);
        Some(came.due(left, backlog::patience(interval, is_behind)))
    }

    fn recycle(&self, batch: Batch, spare: &mut Spare) {
        for block in batch.blocks {
            spare.put(block.rows.bytes, self.options.batch_bytes);
        }
    }
}

async fn make_database(client: &Client, options: &Options) -> Result<(), Error> {
    let (database, cluster) = (client.database(), options.cluster.as_deref());
    let found = client.has_database().await.map_err(|error| match error.is_login() {
        true => Error::Login {
            url: options.url.clone().unwrap_or_default(),
            user: options.user.clone(),
        },
        false => error,
    })?;
    if !found {
        let (name, cluster) = (quoted(database), on_cluster(cluster));
        let create = format!("CREATE DATABASE IF NOT EXISTS {name}{cluster}");
        client.execute(&format!("create the database `{database}`"), &create).await?;
    }
    for sql in own_tables(database, cluster) {
        client.execute("create the sink's own tables", &sql).await?;
    }
    Ok(())
}

/// The points of the two batches that are under way.
struct Points<P> {
    filling: Option<P>,
    flying: Option<P>,
}

impl<P: Point> Points<P> {
    fn take_in(&mut self, later: P) {
        match &mut self.filling {
            Some(earlier) => earlier.merge(later),
            none => *none = Some(later),
        }
    }

    /// Of the batch that fills; 0 if there is none.
    fn newest_commit(&self) -> i64 {
        self.filling.as_ref().map(P::newest_commit).unwrap_or_default()
    }
}

async fn store(writer: Arc<Writer>, mut batch: Batch) -> Result<Batch, Error> {
    writer.store(&mut batch).await?;
    Ok(batch)
}
