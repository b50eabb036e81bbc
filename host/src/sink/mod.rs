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

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::change::Changes;
use crate::dead_letter::DeadLetter;
use crate::hop::{Hop, Point, SnapshotDone};
use crate::position::Lsn;
use crate::table::{Table, TableName};
use crate::telemetry::metrics::Metrics;

mod array;
mod batch;
mod block;
mod client;
mod datetime;
mod ddl;
mod decimal;
mod encode;
mod error;
mod names;
mod options;
mod shape;
mod toast;
mod types;
mod writer;

pub use error::Error;
pub use names::{literal, quoted};
pub use options::{Compression, Dedup, Options, TableOptions};

use batch::{Batch, Spare};
use block::Encoder;
use client::Client;
use ddl::{Place, on_cluster, own_tables};
use names::{Names, OWN_PREFIX};
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

/// A hop, and what was set aside on its way here; both are durable before its point is reported.
#[derive(Debug)]
pub struct Delivery<P> {
    /// The changes and their point.
    pub hop: Hop<P>,
    /// Changes that a stage before gave up on.
    pub dead_letters: Vec<DeadLetter>,
}

impl<P> From<Hop<P>> for Delivery<P> {
    fn from(hop: Hop<P>) -> Self {
        Delivery { hop, dead_letters: Vec::new() }
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
}

impl Sink {
    /// Connects, and makes the database and the sink's own tables. One attempt: the error's
    /// disposition says whether another may help.
    ///
    /// # Errors
    ///
    /// No server is named, it does not answer, or it refuses.
    pub async fn connect(
        options: Options,
        origin: Origin,
        metrics: Arc<Metrics>,
    ) -> Result<Sink, Error> {
        let client = Client::new(&options, &origin.database)?;
        let (database, cluster) = (client.database().to_owned(), options.cluster.as_deref());
        let create =
            format!("CREATE DATABASE IF NOT EXISTS {}{}", quoted(&database), on_cluster(cluster));
        client.execute(&format!("create the database `{database}`"), &create).await?;
        for sql in own_tables(&database, cluster) {
            client.execute("create the sink's own tables", &sql).await?;
        }
        let writer = Writer {
            client,
            metrics,
            pipeline: origin.pipeline,
            concurrent_inserts: options.concurrent_inserts,
            truncated: Default::default(),
        };
        writer.load_truncates().await?;
        let names = Names::default();
        Ok(Sink { options, writer: Arc::new(writer), names, encoders: FxHashMap::default() })
    }

    /// The ClickHouse database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.writer.client.database()
    }

    /// The snapshots whose rows are all stored, and whose tables are still there.
    ///
    /// # Errors
    ///
    /// ClickHouse does not answer or refuses.
    pub async fn completed_snapshots(&self) -> Result<Vec<SnapshotDone>, Error> {
        #[derive(Deserialize)]
        struct Found {
            schema: String,
            name: String,
            at: String,
        }
        let sql = format!(
            "SELECT source_schema AS schema, source_table AS name, \
             toString(max(consistent_at)) AS at FROM {} WHERE pipeline = {} GROUP BY schema, name",
            self.writer.client.table(&format!("{OWN_PREFIX}snapshots")),
            literal(&self.writer.pipeline),
        );
        let found = self.writer.client.rows::<Found>("read snapshots", &sql).await?;
        let present = self.present_tables().await?;
        let done = found.into_iter().filter_map(|Found { schema, name, at }| {
            let table = TableName { schema, name };
            let consistent_at = Lsn(at.parse().ok()?);
            let home = self.place(&table).versions_name();
            present.contains(&home).then_some(SnapshotDone { table, consistent_at })
        });
        Ok(done.collect())
    }

    /// Makes the tables and views of these table versions before any row comes, so that a name
    /// clash or a table of another shape shows at start.
    ///
    /// # Errors
    ///
    /// See [`Error`]; trouble that may pass is retried inside.
    pub async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), Error> {
        for table in tables {
            self.names.claim(&self.place(&table.full_name()).plan.view, &table.full_name())?;
        }
        for table in tables {
            self.encoder(table).await?;
        }
        Ok(())
    }

    /// Stores what comes in, and reports each point once everything up to it is stored. Ends when
    /// the input does and the rest is stored.
    ///
    /// # Errors
    ///
    /// Only what a person must put right; nothing of the batch in question was reported.
    pub async fn run<P: Point>(
        mut self,
        mut input: mpsc::Receiver<Delivery<P>>,
        mut on_stored: impl FnMut(Stored<P>) + Send,
    ) -> Result<(), Error> {
        let mut filling = Batch::default();
        let mut points = Points { filling: None, flying: None };
        let mut spare = Spare::default();
        let mut flight: JoinSet<Result<Batch, Error>> = JoinSet::new();
        let mut open = true;
        loop {
            let due = self.due(&filling, open);
            let idle = flight.is_empty();
            if idle && due.is_some_and(|due| due <= Instant::now()) {
                points.flying = points.filling.take();
                flight.spawn(store(Arc::clone(&self.writer), std::mem::take(&mut filling)));
                continue;
            }
            if idle && !open && due.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(done) = flight.join_next() => {
                    self.recycle(done.expect("a flush does not panic")?, &mut spare);
                    points.flying.take().into_iter().for_each(|point| on_stored(Stored { point }));
                }
                received = input.recv(), if open && !self.is_full(&filling) => match received {
                    Some(delivery) => {
                        filling.snapshots.extend_from_slice(delivery.hop.point.snapshots());
                        points.take_in(delivery.hop.point);
                        let changes = delivery.hop.changes;
                        self.absorb(&changes, delivery.dead_letters, &mut filling, &mut spare)
                            .await?;
                    }
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if idle && due.is_some() => {}
            }
        }
    }

    async fn absorb(
        &mut self,
        changes: &Changes,
        dead_letters: Vec<DeadLetter>,
        filling: &mut Batch,
        spare: &mut Spare,
    ) -> Result<(), Error> {
        let mut encoders = Vec::with_capacity(changes.tables.len());
        for table in &changes.tables {
            encoders.push(self.encoder(table).await?);
        }
        filling.since.get_or_insert_with(Instant::now);
        filling.dead_letters.extend(dead_letters);
        filling.add(changes, &encoders, spare);
        Ok(())
    }

    async fn encoder(&mut self, table: &Arc<Table>) -> Result<Arc<Encoder>, Error> {
        if let Some(known) = self.encoders.get(&table.fingerprint) {
            return Ok(Arc::clone(known));
        }
        let place = self.place(&table.full_name());
        self.names.claim(&place.plan.view, &table.full_name())?;
        let ensure = || shape::ensure(&self.writer.client, &place, table);
        let columns = until_done!(self.writer, "prepare a table", ensure())?;
        tracing::info!(table = %table.full_name(), view = place.plan.view, "prepared a table");
        let encoder = Arc::new(Encoder::new(Arc::clone(table), place, columns));
        self.encoders.insert(table.fingerprint, Arc::clone(&encoder));
        Ok(encoder)
    }

    fn place(&self, table: &TableName) -> Place {
        Place { database: self.database().to_owned(), plan: self.options.plan(table) }
    }

    async fn present_tables(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Found {
            name: String,
        }
        let database = literal(self.database());
        let sql = format!("SELECT name FROM system.tables WHERE database = {database}");
        let found = self.writer.client.rows::<Found>("look up tables", &sql).await?;
        Ok(found.into_iter().map(|found| found.name).collect())
    }

    fn is_full(&self, batch: &Batch) -> bool {
        batch.rows() >= self.options.batch_rows || batch.bytes() >= self.options.batch_bytes
    }

    /// When the batch should leave; `None` while there is nothing to report.
    fn due(&self, batch: &Batch, open: bool) -> Option<Instant> {
        let since = batch.since?;
        let leaves_at_once = !open || batch.holds_nothing() || self.is_full(batch);
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
