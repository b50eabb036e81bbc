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
mod copy;
mod error;
mod frames;
mod moved;
mod newcomers;
mod options;
mod partitions;
mod preflight;
mod progress;
mod publication;
mod reach;
mod remarks;
mod slot;
mod slot_monitor;
mod snapshot;
mod source_url;
mod stream;
mod survey;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
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
use crate::hop::{Hop, LogPoint, Snapshots};
use crate::position::{Lsn, Position};
use crate::recopy::Recopies;
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::logging::{Repeated, chain};
use crate::telemetry::metrics::{Metrics, StepLabels};
use connection::Connection;
use copy::Copy;
use newcomers::{Newcomers, Prepared, Search};
use partitions::Partitions;
use reach::reach;
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
    let (client, _) = reach(url).await?;
    preflight::check(&client, &options.for_database(url.database()), remarks).await
}

/// Where an earlier run got to.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The last change that was delivered.
    pub position: Position,
    /// The cluster that positions are of.
    pub system: u64,
    /// Tables whose copy is complete.
    pub snapshots: Snapshots,
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
    /// Tables that are to be copied again.
    pub recopies: Recopies,
}

/// Where this run got to. Begins as the [`Resume`], and goes from connection to connection.
#[derive(Debug)]
struct Reached {
    /// The last change that was delivered.
    position: Position,
    /// Tables that were copied.
    snapshots: Snapshots,
    /// Whether there was a slot.
    slot_exists: bool,
    /// Whether plugins remember a part of a copy.
    half_copied: bool,
    /// The partitions that were seen.
    partitions: Arc<tokio::sync::Mutex<Partitions>>,
}

/// How a connection ended in order.
enum End {
    /// The process drains; the connection streams, if it got so far.
    Drained(Option<Connection>),
    /// There are tables to copy before the stream goes on.
    Newcomers(Connection, Prepared),
}

impl Capture {
    /// Streams into the pipeline until told to stop; reconnects for as long as waiting can help.
    /// Runs on a thread of its own.
    ///
    /// # Errors
    /// What only a person can fix.
    pub fn run(self, out: Sender<Hop<LogPoint>>) -> Result<(), Error> {
        let Resume { position, ref snapshots, slot_exists, .. } = self.resume;
        let snapshots = snapshots.clone();
        let (half_copied, partitions) = (false, Arc::default());
        let mut reached = Reached { position, snapshots, slot_exists, half_copied, partitions };
        let mut wait = BACKOFF.0;
        let mut prepared = None;
        let failures = Repeated::new("stream from the source");
        loop {
            let before = reached.position;
            let error = match self.session(&mut reached, prepared.take(), &out, &failures) {
                Ok(End::Drained(connection)) => {
                    drop(out);
                    if let Some(connection) = connection {
                        self.confirm_last(connection);
                    }
                    return Ok(());
                }
                Ok(End::Newcomers(connection, found)) => {
                    end_stream(connection, self.ack.confirmed());
                    prepared = Some(found);
                    wait = BACKOFF.0;
                    continue;
                }
                Err(error) => error,
            };
            if error.disposition() != Disposition::Retry || reached.half_copied {
                return Err(error);
            }
            if reached.position > before {
                wait = BACKOFF.0;
            }
            failures.failed(&error);
            self.leg.stalled(chain(&error));
            self.metrics.reconnects.get_or_create(&StepLabels { step: "captured" }).inc();
            if self.until_draining(tokio::time::sleep(wait)).is_none() {
                return Ok(());
            }
            wait = next_wait(wait);
        }
    }

    /// One connection, from preflight to its end.
    fn session(
        &self,
        reached: &mut Reached,
        prepared: Option<Prepared>,
        out: &Sender<Hop<LogPoint>>,
        failures: &Repeated,
    ) -> Result<End, Error> {
        let look = async {
            let (client, url) = reach(&self.url).await?;
            let found = preflight::check(&client, &self.options, &self.remarks).await?;
            Ok::<_, Error>((client, url, found))
        };
        let Some(looked) = self.until_draining(look) else { return Ok(End::Drained(None)) };
        let (client, url, preflight) = looked?;
        let way_out = "start again to be told how to go on";
        same_cluster(Some(self.resume.system), preflight.system, "this run's data", way_out)?;
        let Some(opened) = self.open(&url) else { return Ok(End::Drained(None)) };
        let mut connection = opened?;
        self.recopies.copies();
        let mut copy = Copy { capture: self, client: &client, url: &url, out };
        match copy.tables(reached, &mut connection, &preflight, prepared) {
            Ok(()) => {}
            Err(snapshot::Stop::Source(error)) => return Err(error),
            Err(snapshot::Stop::Receiver) => return Err(Error::Abandoned),
        }
        if self.shutdown.phase() != Phase::Running {
            return Ok(End::Drained(None));
        }
        connection.start_copy(&self.start_replication())?;
        info!(slot = %self.options.slot, after = %reached.position, "streaming");
        self.leg.moving();
        failures.succeeded();
        let copied = reached.snapshots.keys();
        self.recopies.streams(copied.filter(|_| self.options.snapshot == SnapshotMode::Initial));
        let newcomers = self.look_for_newcomers(url, &preflight, reached);
        let stream = Stream {
            connection,
            client: &client,
            runtime: &self.runtime,
            out,
            ack: &self.ack,
            shutdown: &self.shutdown,
            pause: newcomers.found(),
            leg: &self.leg,
            metrics: &self.metrics,
            linger: Duration::from_millis(self.options.linger_ms),
            silence: Duration::from_secs(self.options.silence_timeout_s.max(1)),
            whole_moves: self.options.over_kafka,
            decoder: self.decoder(reached),
            copied: &reached.snapshots,
            delivered: &mut reached.position,
        };
        let connection = stream.run()?;
        match newcomers.take() {
            Some(found) if self.shutdown.phase() == Phase::Running => {
                Ok(End::Newcomers(connection, found))
            }
            _ => Ok(End::Drained(Some(connection))),
        }
    }

    fn decoder(&self, reached: &Reached) -> Decoder {
        let mut decoder = Decoder::resuming_after(reached.position);
        for (table, copied) in &reached.snapshots {
            decoder.snapshot_taken(table.clone(), copied.consistent_at);
        }
        decoder
    }

    fn look_for_newcomers(
        &self,
        url: SourceUrl,
        found: &Preflight,
        reached: &Reached,
    ) -> Newcomers {
        let search = Search {
            url,
            options: self.options.clone(),
            remarks: self.remarks.clone(),
            since: found.since.clone(),
            partitions: Arc::clone(&reached.partitions),
            shutdown: self.shutdown.clone(),
        };
        Newcomers::look_for(search, &found.tables, &self.runtime)
    }

    /// Waits for it, unless the process drains first.
    fn until_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => Some(done),
                () = self.shutdown.reached(Phase::Draining) => None,
            }
        })
    }

    /// Opens the replication connection on a thread, since a server may hang.
    fn open(&self, url: &SourceUrl) -> Option<Result<Connection, Error>> {
        let (give, opened) = oneshot::channel();
        let url = url.clone();
        std::thread::spawn(move || drop(give.send(Connection::open(&url))));
        self.until_draining(async { opened.await.expect("the thread gives what came of it") })
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
    fn confirm_last(&self, connection: Connection) {
        self.runtime.block_on(self.shutdown.reached(Phase::Drained));
        let confirmed = self.ack.confirmed();
        if end_stream(connection, confirmed) {
            info!(%confirmed, "confirmed to the slot");
        }
    }
}

/// Ends the stream in order, which frees the slot; whether the server took the confirmation.
fn end_stream(mut connection: Connection, confirmed: Lsn) -> bool {
    let update = stream::status_update(confirmed, confirmed, false);
    match connection.write_copy(&update).and_then(|()| connection.end_copy()) {
        Ok(()) => true,
        Err(error) => {
            warn!(
                error = %chain(&error),
                "the last confirmation did not reach the source; it will repeat a little"
            );
            false
        }
    }
}

/// Doubles the wait up to the cap, less up to a quarter so that many clients spread out.
fn next_wait(wait: Duration) -> Duration {
    let doubled = (wait * 2).min(BACKOFF.1);
    doubled.mul_f64(rand::rng().random_range(0.75..=1.0))
}
