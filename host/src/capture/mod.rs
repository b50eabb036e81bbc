//! Step 1, `capture`: the replication stream and the snapshot, as PostgreSQL sends them.
//!
//! One thread owns the replication connection. It reads into a buffer, hands the messages in it to
//! the decoder, and gives buffer and changes away as one batch.
//!
//! # Why nothing is lost
//!
//! The server keeps the log from the slot's `confirmed_flush_lsn` on, and that moves only to what
//! [`SlotAck`] says, which only a [`Durable`](crate::ack::Durable) can move. A keepalive's LSN may
//! be confirmed between transactions, because the server sends changes in commit order and has then
//! sent us every transaction that committed before it; inside one it may not.
//!
//! # Why nothing is doubled by a reconnect
//!
//! After a broken connection the server repeats everything from the confirmed LSN on. What already
//! went on to the next stage is known by its position and passed over. Across a restart of the
//! process the position comes from where the changes were delivered to.

mod catalog;
mod columns;
mod connection;
mod error;
mod frames;
mod options;
mod preflight;
mod progress;
mod publication;
mod remarks;
mod slot_monitor;
mod snapshot;
mod source_url;
mod stream;
mod survey;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tracing::{info, warn};

pub use error::Error;
pub use options::{Options, SnapshotMode};
pub use preflight::{Preflight, Slot, same_cluster};
pub use remarks::Remarks;
pub use slot_monitor::watch_slot;
pub use source_url::SourceUrl;
pub use survey::{Survey, survey};

use crate::ack::SlotAck;
use crate::decode::Decoder;
use crate::disposition::Disposition;
use crate::hop::{Hop, LogPoint};
use crate::position::{Lsn, Position};
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::table::TableName;
use crate::telemetry::logging::{Repeated, chain};
use crate::telemetry::metrics::{Metrics, StepLabels};
use connection::Connection;
use stream::Stream;

/// Waits between attempts double from the first to the second of these.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Checks the source's preconditions, creating or completing the publication.
///
/// # Errors
/// [`Error::Precondition`] says what is missing and how to mend it.
pub async fn check(
    url: &SourceUrl,
    options: &Options,
    remarks: &Remarks,
) -> Result<Preflight, Error> {
    let client = catalog::connect(url).await?;
    preflight::check(&client, &options.for_database(url.database()), remarks).await
}

/// Where an earlier run got to.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The last change that was delivered.
    pub position: Position,
    /// The cluster that positions are of.
    pub system: u64,
    /// Tables whose copy is complete, with the LSN it is consistent at.
    pub snapshots: HashMap<TableName, Lsn>,
    /// Whether the slot existed when the pipeline started.
    pub slot_exists: bool,
    /// Whether the destination may hold rows already, so that a copy has to empty it first.
    pub may_hold_rows: bool,
    /// Whether plugins remember what they are shown: a copy that is cut short then ends the capture,
    /// because only its owner can make them forget the first part.
    pub remembers: bool,
}

/// The capture of one source.
#[derive(Debug)]
pub struct Capture {
    /// Where from.
    pub url: SourceUrl,
    /// How.
    pub options: Options,
    /// After what.
    pub resume: Resume,
    /// What may be confirmed.
    pub ack: SlotAck,
    /// When to end.
    pub shutdown: Shutdown,
    /// Whether it moves.
    pub leg: Leg,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// For queries.
    pub runtime: Handle,
    /// What was said of tables.
    pub remarks: Remarks,
    /// Whether plugins remember a part of a copy.
    pub half_copied: bool,
}

impl Capture {
    /// Streams into the pipeline until told to stop; reconnects for as long as waiting can help.
    /// Runs on a thread of its own.
    ///
    /// # Errors
    /// What only a person can fix.
    pub fn run(mut self, out: Sender<Hop<LogPoint>>) -> Result<(), Error> {
        let mut wait = BACKOFF.0;
        let failures = Repeated::new("stream from the source");
        loop {
            let before = self.resume.position;
            let error = match self.session(&out, &failures) {
                Ok(None) => return Ok(()),
                Ok(Some(connection)) => {
                    drop(out);
                    self.confirm_last(connection);
                    return Ok(());
                }
                Err(error) if error.disposition() == Disposition::Retry && !self.half_copied => {
                    error
                }
                Err(error) => return Err(error),
            };
            if self.resume.position > before {
                wait = BACKOFF.0;
            }
            failures.failed(&error);
            self.leg.stalled(chain(&error));
            self.metrics.reconnects.get_or_create(&StepLabels { step: "captured" }).inc();
            if self.stopped_within(wait) {
                return Ok(());
            }
            wait = next_wait(wait);
        }
    }

    /// One connection, from preflight to its end. `None` if told to stop before it streamed.
    fn session(
        &mut self,
        out: &Sender<Hop<LogPoint>>,
        failures: &Repeated,
    ) -> Result<Option<Connection>, Error> {
        let runtime = self.runtime.clone();
        let client = runtime.block_on(catalog::connect(&self.url))?;
        let preflight =
            runtime.block_on(preflight::check(&client, &self.options, &self.remarks))?;
        let way_out = "start again to be told how to go on";
        same_cluster(Some(self.resume.system), preflight.system, "this run's data", way_out)?;
        let mut connection = Connection::open(&self.url)?;
        match self.copy_tables(&mut connection, &preflight, out) {
            Ok(()) => {}
            Err(snapshot::Stop::Source(error)) => return Err(error),
            Err(snapshot::Stop::Receiver) => return Err(Error::Abandoned),
        }
        if self.shutdown.phase() != Phase::Running {
            return Ok(None);
        }
        let mut decoder = Decoder::resuming_after(self.resume.position);
        for (table, consistent_at) in &self.resume.snapshots {
            decoder.snapshot_taken(table.clone(), *consistent_at);
        }
        connection.start_copy(&self.start_replication())?;
        info!(slot = %self.options.slot, after = %self.resume.position, "streaming");
        self.leg.moving();
        failures.succeeded();
        let stream = Stream {
            connection,
            client: &client,
            runtime: &runtime,
            out,
            ack: &self.ack,
            shutdown: &self.shutdown,
            leg: &self.leg,
            metrics: &self.metrics,
            linger: Duration::from_millis(self.options.linger_ms),
            silence: Duration::from_secs(self.options.silence_timeout_s.max(1)),
            decoder,
            delivered: &mut self.resume.position,
        };
        stream.run().map(Some)
    }

    /// Creates the slot if it is missing, and copies the tables that were never copied whole.
    fn copy_tables(
        &mut self,
        connection: &mut Connection,
        preflight: &Preflight,
        out: &Sender<Hop<LogPoint>>,
    ) -> Result<(), snapshot::Stop> {
        let fresh = match preflight.slot {
            Some(Slot { confirmed }) => {
                self.ack.start_at(confirmed);
                self.resume.slot_exists = true;
                None
            }
            None if self.resume.slot_exists => return Err(slot_vanished(&self.options).into()),
            None => Some(self.create_slot(connection, &self.options.slot, "")?),
        };
        // A copy that belongs to a slot which is gone is worth nothing: there is a gap after it.
        if fresh.is_some() {
            self.resume.snapshots.clear();
        }
        let known = &self.resume.snapshots;
        let tables: Vec<_> =
            preflight.tables.iter().filter(|t| !known.contains_key(&t.name)).cloned().collect();
        if tables.is_empty() || self.options.snapshot == SnapshotMode::Never {
            self.resume.slot_exists = true;
            return Ok(());
        }
        let truncate_first = fresh.is_none() || self.resume.may_hold_rows;
        let export = match fresh {
            Some(export) => export,
            None => self.create_slot(connection, &self.temporary_slot(), "TEMPORARY")?,
        };
        self.resume.slot_exists = true;
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        let consistent_at = export.consistent_at;
        info!(tables = names.len(), %consistent_at, "copying tables");
        let plan = snapshot::Plan {
            url: self.url.clone(),
            snapshot: export.snapshot,
            consistent_at,
            tables,
            truncate_first,
            workers: self.options.snapshot_workers,
            metrics: Arc::clone(&self.metrics),
        };
        self.half_copied = self.resume.remembers;
        self.copy_unless_stopped(plan, out)?;
        self.half_copied = false;
        self.resume.snapshots.extend(names.into_iter().map(|name| (name, consistent_at)));
        Ok(())
    }

    /// A copy that is cut short by the shutdown is not recorded, so it is taken anew next time.
    fn copy_unless_stopped(
        &self,
        plan: snapshot::Plan,
        out: &Sender<Hop<LogPoint>>,
    ) -> Result<(), snapshot::Stop> {
        self.runtime.block_on(async {
            tokio::select! {
                taken = snapshot::take(plan, out.clone()) => taken,
                () = self.shutdown.reached(Phase::Draining) => Ok(()),
            }
        })
    }

    /// Creates a slot; its snapshot stays exported until the connection's next command.
    fn create_slot(
        &self,
        connection: &mut Connection,
        name: &str,
        temporary: &str,
    ) -> Result<Export, Error> {
        info!(slot = name, "creating a slot; this waits for the transactions that are open now");
        connection.set_timeout(SLOT_TIMEOUT)?;
        let command = format!(
            "CREATE_REPLICATION_SLOT {} {temporary} LOGICAL pgoutput EXPORT_SNAPSHOT",
            preflight::quote_ident(name)
        );
        let row = connection.query_row(&command)?;
        let text = |index: usize| row.get(index).cloned().flatten();
        let parsed = text(1).and_then(|lsn| lsn.parse().ok()).zip(text(2));
        let (consistent_at, snapshot) = parsed.ok_or(Error::Protocol('D'))?;
        Ok(Export { consistent_at, snapshot })
    }

    fn temporary_slot(&self) -> String {
        let tail = format!("_copy_{}", std::process::id());
        let keep = self.options.slot.len().min(63 - tail.len());
        format!("{}{tail}", self.options.slot.get(..keep).unwrap_or_default())
    }

    fn start_replication(&self) -> String {
        format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{}')",
            preflight::quote_ident(&self.options.slot),
            self.ack.confirmed(),
            preflight::quote_ident(&self.options.publication).replace('\'', "''"),
        )
    }

    /// Waits until what was sent on is acknowledged, and tells the server.
    fn confirm_last(&self, mut connection: Connection) {
        self.runtime.block_on(self.shutdown.reached(Phase::Drained));
        let confirmed = self.ack.confirmed();
        let update = stream::status_update(confirmed, confirmed, false);
        match connection.write_copy(&update).and_then(|()| connection.end_copy()) {
            Ok(()) => info!(%confirmed, "confirmed to the slot"),
            Err(error) => warn!(
                error = %chain(&error),
                "the last confirmation did not reach the source; it will repeat a little"
            ),
        }
    }

    fn stopped_within(&self, wait: Duration) -> bool {
        let stop = tokio::time::timeout(wait, self.shutdown.reached(Phase::Draining));
        self.runtime.block_on(async { stop.await.is_ok() })
    }
}

/// Long, because a slot's creation waits for every open transaction to end.
const SLOT_TIMEOUT: Duration = Duration::from_secs(3600);

/// An exported snapshot.
struct Export {
    consistent_at: Lsn,
    snapshot: String,
}

fn slot_vanished(options: &Options) -> Error {
    Error::Precondition(format!(
        "slot {} was dropped while it was in use, so changes may be missing; start again: every \
         table is then copied anew",
        options.slot
    ))
}

/// Doubles the wait up to the cap, less up to a quarter so that many clients spread out.
fn next_wait(wait: Duration) -> Duration {
    let doubled = (wait * 2).min(BACKOFF.1);
    doubled.mul_f64(rand::rng().random_range(0.75..=1.0))
}
