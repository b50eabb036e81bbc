//! Step 6, `store`: changes become rows of ClickHouse.
//!
//! Every row carries its position as `_version`, so neither the order in which rows arrive nor how
//! often they do changes what the views show: see [`ddl`] for how tables and views say so,
//! [`encode`] for what happens to values that ClickHouse has no place for, and [`toast`] for
//! updates that do not carry all of the row.
//!
//! One batch fills while the one before it is on its way. A batch leaves when the one before is
//! stored and it is full or [`Options::flush_interval_ms`] old; so batches are small while
//! ClickHouse keeps up and grow by themselves when it does not. A full batch takes no more hops,
//! which is how the stages before feel it.
//!
//! A table version that is new may alter its table, and rows that were written for the table as it
//! was would not be read right any more. So such a hop waits until everything before it is stored.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::change::Changes;
use crate::dead_letter::OpenLetters;
use crate::hop::{Hop, Point, SnapshotDone};
use crate::serve::{Leg, Mirrored};
use crate::table::{Table, TableName};
use crate::telemetry::logging::Repeated;
use crate::telemetry::metrics::Metrics;

mod array;
mod batch;
mod block;
mod client;
mod closing;
mod datetime;
mod ddl;
mod decimal;
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

pub use encode::is_exact;
pub use error::{Cause, Error};
pub use letters::{Chosen, Letters, Summary};
pub use names::{literal, quoted};
pub use options::{Compression, Dedup, Options, TableOptions};

use batch::{Batch, Spare};
use block::Encoder;
use client::Client;
use ddl::{Place, on_cluster, own_tables};
use names::Names;
use published::Views;
use writer::{Writer, until_done};

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
    /// The pipeline's name; finished snapshots are recorded under it.
    pub pipeline: String,
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
        let client = Client::new(&options, &origin.database);
        make_database(&client, &options).await?;
        let writer = Writer {
            client,
            metrics,
            leg,
            failures: Repeated::new("store in ClickHouse"),
            pipeline: origin.pipeline,
            run: rand::random(),
            concurrent_inserts: options.concurrent_inserts,
            truncated: Default::default(),
            open: OpenLetters::unknown(),
        };
        writer.load_truncates().await?;
        let views = Views::find(&writer.client).await?;
        writer.leg.moving();
        let (writer, names) = (Arc::new(writer), Names::default());
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

    /// Takes back that any snapshot of this pipeline is complete: its slot is gone, so changes
    /// since then may be missing.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn forget_snapshots(&self) -> Result<(), Error> {
        let cluster = self.options.cluster.as_deref();
        snapshots::forget(&self.writer.client, &self.writer.pipeline, cluster, None).await
    }

    /// Takes back that the snapshot of this table is complete: it is to be taken again.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn forget_snapshot(&self, table: &TableName) -> Result<(), Error> {
        let cluster = self.options.cluster.as_deref();
        snapshots::forget(&self.writer.client, &self.writer.pipeline, cluster, Some(table)).await
    }

    /// The cluster that this pipeline's rows came from, if any did.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn source_cluster(&self) -> Result<Option<u64>, Error> {
        snapshots::cluster(&self.writer.client, &self.writer.pipeline).await
    }

    /// Records the cluster that this pipeline's rows come from.
    ///
    /// # Errors
    ///
    /// See [`Error`]; trouble that may pass is retried inside.
    pub async fn record_source_cluster(&self, system: u64) -> Result<(), Error> {
        self.writer.store_cluster(system).await
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
        loop {
            let idle = flight.is_empty();
            if let Some(hop) = held.take_if(|_| idle && filling.since.is_none()) {
                let point = self.absorb(hop, &mut filling, &mut spare).await?;
                points.take_in(point);
            }
            let takes_more = open && held.is_none();
            let due = self.due(&filling, takes_more);
            if idle && due.is_some_and(|due| due <= Instant::now()) {
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
                () = sleep_until(due.unwrap_or_else(Instant::now)), if idle && due.is_some() => {}
            }
        }
    }

    async fn absorb<P: Point>(
        &mut self,
        hop: Hop<P>,
        filling: &mut Batch,
        spare: &mut Spare,
    ) -> Result<P, Error> {
        for table in &hop.changes.tables {
            self.encoder(table).await?;
        }
        // Again, because a later version may have altered the table for which an earlier one writes.
        let mut encoders = Vec::with_capacity(hop.changes.tables.len());
        for table in &hop.changes.tables {
            encoders.push(self.encoder(table).await?);
        }
        self.show_newer(&hop.changes, &encoders).await?;
        filling.since.get_or_insert_with(Instant::now);
        filling.snapshots.extend_from_slice(hop.point.snapshots());
        filling.dead_letters.extend(hop.dead_letters);
        filling.passed.extend(hop.passed);
        let redriven = hop.redrive.is_some();
        filling.redrives.extend(hop.redrive);
        let committed = filling.committed.len();
        filling.add(&hop.changes, &encoders, spare);
        if redriven {
            // They say nothing of how long a change takes.
            filling.committed.truncate(committed);
        }
        Ok(hop.point)
    }

    fn knows_tables(&self, changes: &Changes) -> bool {
        changes.tables.iter().all(|table| self.encoders.contains_key(&table.fingerprint))
    }

    async fn encoder(&mut self, table: &Arc<Table>) -> Result<Arc<Encoder>, Error> {
        if let Some(known) = self.encoders.get(&table.fingerprint) {
            return Ok(Arc::clone(known));
        }
        let place = self.place(&table.full_name());
        self.names.claim(&place.plan.view, &table.full_name())?;
        let ensure = || shape::ensure(&self.writer.client, &place, table);
        let columns = until_done!(self.writer, ensure())?;
        tracing::info!(table = %table.full_name(), view = place.plan.view, "prepared a table");
        let encoder = Arc::new(Encoder::new(Arc::clone(table), place, columns));
        self.encoders.retain(|_, known| !known.is_outdated_by(&encoder));
        self.encoders.insert(table.fingerprint, Arc::clone(&encoder));
        Ok(encoder)
    }

    /// Moves the views to the table versions of these changes, if they are newer.
    async fn show_newer(
        &mut self,
        changes: &Changes,
        encoders: &[Arc<Encoder>],
    ) -> Result<(), Error> {
        let first =
            |table: usize| changes.list.iter().find(|change| change.table as usize == table);
        for (table, encoder) in encoders.iter().enumerate() {
            if !self.views.is_due(encoder, u128::MAX) {
                continue;
            }
            let Some(first) = first(table) else { continue };
            let version = changes.position(first).version();
            if self.views.is_due(encoder, version) {
                self.show(encoder, version).await?;
                self.publish().await?;
            }
        }
        Ok(())
    }

    async fn show(&self, encoder: &Encoder, version: u128) -> Result<(), Error> {
        let show = || self.views.show(&self.writer.client, encoder, version);
        until_done!(self.writer, show())
    }

    /// Tells what can be queried now.
    async fn publish(&mut self) -> Result<(), Error> {
        let client = &self.writer.client;
        until_done!(self.writer, self.views.refresh(client))?;
        self.writer.leg.moving();
        Ok(())
    }

    fn place(&self, table: &TableName) -> Place {
        Place { database: self.database().to_owned(), plan: self.options.plan(table) }
    }

    fn is_full(&self, batch: &Batch) -> bool {
        batch.rows() >= self.options.batch_rows || batch.bytes() >= self.options.batch_bytes
    }

    /// When the batch should leave; `None` while there is nothing to report.
    fn due(&self, batch: &Batch, takes_more: bool) -> Option<Instant> {
        let since = batch.since?;
        let leaves_at_once = !takes_more || batch.holds_nothing() || self.is_full(batch);
        Some(match leaves_at_once {
            true => since,
            false => since + Duration::from_millis(self.options.flush_interval_ms),
        })
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
}

async fn store(writer: Arc<Writer>, mut batch: Batch) -> Result<Batch, Error> {
    writer.store(&mut batch).await?;
    Ok(batch)
}
