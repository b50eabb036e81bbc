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

mod alignment;
mod catalog;
mod columns;
mod connection;
mod copy;
mod descriptions;
mod error;
mod frames;
mod history;
mod moved;
mod newcomers;
mod options;
mod outdated;
mod partitions;
mod preflight;
mod progress;
mod publication;
mod reach;
mod remarks;
mod rights;
mod seen;
mod slot;
mod slot_monitor;
mod snapshot;
mod source_url;
mod stream;
mod survey;
mod tls;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tracing::{info, warn};

pub use error::Error;
pub use history::{Delivered, Log, Place};
pub use options::{Options, SnapshotMode};
pub use preflight::{Preflight, Slot, same_cluster};
pub use remarks::Remarks;
pub use slot_monitor::watch_slot;
pub use source_url::SourceUrl;
pub use survey::{Survey, survey};

use crate::ack::SlotAck;
use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::decode::Decoder;
use crate::disposition::Disposition;
use crate::hop::{Hop, LogPoint, Snapshots};
use crate::position::{Lsn, Position};
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::snapshot_requests::SnapshotRequests;
use crate::table::TableName;
use crate::telemetry::logging::{Repeated, chain};
use crate::telemetry::metrics::{Metrics, StepLabels};
use catalog::Published;
use connection::Connection;
use copy::Copy;
use newcomers::{Newcomers, Prepared, Search};
use outdated::Outdated;
use partitions::Partitions;
use publication::Since;
use reach::reach;
use seen::Seen;
use stream::Stream;

/// The SQLSTATE of something that is not there.
const UNDEFINED_OBJECT: &str = "42704";

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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
    preflight::check(&client, &options.for_database(url.database()), remarks, false).await
}

/// Whether a table that was copied could be copied again: a copy that is asked for and refused later would end
/// the capture.
///
/// # Errors
/// Why it cannot be read.
pub async fn may_copy(url: &SourceUrl, table: &TableName) -> Result<(), Error> {
    let (client, _) = reach(url).await?;
    rights::may_read(&client, &[table]).await
}

/// Where an earlier run got to.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The last change that was delivered.
    pub position: Position,
    /// The cluster that positions are of.
    pub system: u64,
    /// Its timeline.
    pub timeline: u32,
    /// The farthest that the slot may have been told; none where nothing was delivered.
    pub confirmed: Option<Lsn>,
    /// Tables whose copy is complete.
    pub snapshots: Snapshots,
    /// Tables of which that is recorded one hop on, whether or not the copy still counts.
    pub recorded: HashSet<TableName>,
    /// Whether the slot existed when the pipeline started.
    pub slot_exists: bool,
    /// Whether plugins remember what they are shown: a copy that is cut short then ends the capture,
    /// because only its owner can make them forget the first part.
    pub remembers: bool,
}

/// The capture of one source.
#[derive(Debug)]
pub struct Capture {
    /// The source's address.
    pub url: SourceUrl,
    /// The `[source]` section.
    pub options: Options,
    /// Where the run before this one ended.
    pub resume: Resume,
    /// How far the source may be told that its log is no longer wanted.
    pub ack: SlotAck,
    /// Draining it ends the capture.
    pub shutdown: Shutdown,
    /// Its entry in `/readyz`.
    pub leg: Leg,
    /// Counters of what is captured.
    pub metrics: Arc<Metrics>,
    /// Runs queries beside the stream.
    pub runtime: Handle,
    /// What was said of tables already, so that it is said once.
    pub remarks: Remarks,
    /// Requests for tables to be copied again.
    pub snapshot_requests: SnapshotRequests,
    /// What may be on its way to the last stage.
    pub budget: Budget,
}

/// Where this run got to. Begins as the [`Resume`], and goes from connection to connection.
#[derive(Debug)]
struct Reached {
    /// The last change that was delivered.
    position: Position,
    /// Tables that were copied.
    snapshots: Snapshots,
    /// Tables of which that is recorded one hop on, or will be once what was sent on is durable.
    recorded: HashSet<TableName>,
    /// Whether there was a slot.
    slot_exists: bool,
    /// Whether there was a stream.
    streamed: bool,
    /// Whether the slot was in use since: another process may have it, or the server has not noticed yet that
    /// our own connection is gone.
    contested: bool,
    /// Whether plugins remember a part of a copy.
    half_copied: bool,
    /// Tables whose copies count no more.
    outdated: Outdated,
    /// What tables looked like.
    seen: Seen,
    /// The partitions that were seen.
    partitions: Arc<tokio::sync::Mutex<Partitions>>,
}

impl Reached {
    /// As of when a table was copied whole. A copy of before the table was published is worth nothing: it
    /// was not for a while, or is another one of that name. Nor is one that other terms were for.
    fn copied(&self, table: &Published, since: &Since) -> Option<Lsn> {
        let (copied, oid) = (self.snapshots.get(&table.name)?, table.relation.oid);
        let holds = !self.outdated.has(oid)
            && copied.consistent_at >= since.of(oid)
            && copied.oid == oid
            && copied.terms == table.terms;
        holds.then_some(copied.consistent_at)
    }
}

/// How a connection ended in order.
enum End {
    /// The process drains; the connection streams, if it got so far.
    Drained(Option<Connection>),
    /// There are tables to copy before the stream goes on, or copies to withdraw.
    Tables(Connection, Option<Prepared>),
}

impl Capture {
    /// Streams into the pipeline until told to stop; reconnects for as long as waiting can help.
    /// Runs on a thread of its own.
    ///
    /// # Errors
    /// What only a person can fix.
    pub fn run(self, out: Sender<Hop<LogPoint>>) -> Result<(), Error> {
        let Resume { position, slot_exists, .. } = self.resume;
        let mut reached = Reached {
            position,
            snapshots: self.resume.snapshots.clone(),
            recorded: self.resume.recorded.clone(),
            slot_exists,
            streamed: false,
            contested: false,
            half_copied: false,
            outdated: Outdated::default(),
            seen: Seen::recorded(&self.resume.snapshots),
            partitions: Arc::default(),
        };
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
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
                Ok(End::Tables(connection, found)) => {
                    end_stream(connection, self.ack.confirmed());
                    prepared = found;
                    backoff.reset();
                    continue;
                }
                Err(error) => error,
            };
            reached.contested |= reached.streamed && error.is_slot_in_use();
            let begins_anew = reached.half_copied || reached.is_outdated_by(&error);
            if error.disposition() != Disposition::Retry || begins_anew {
                return Err(error);
            }
            if reached.position > before {
                backoff.reset();
            }
            failures.failed(&error);
            self.leg.stalled(chain(&error));
            self.metrics.reconnects.get_or_create(&StepLabels { step: "captured" }).inc();
            let pause = backoff.pause(&mut rand::rng());
            if self.until_draining(tokio::time::sleep(pause)).is_none() {
                return Ok(());
            }
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
            let in_use = reached.slot_exists;
            let found = preflight::check(&client, &self.options, &self.remarks, in_use).await?;
            Ok::<_, Error>((client, url, found))
        };
        let Some(looked) = self.until_draining(look) else { return Ok(End::Drained(None)) };
        let (client, url, preflight) = looked?;
        let way_out = "start again to be told how to go on";
        same_cluster(Some(self.resume.system), preflight.system, "this run's data", way_out)?;
        self.same_log(reached, &preflight, way_out)?;
        let Some(opened) = self.open(&url) else { return Ok(End::Drained(None)) };
        let mut connection = opened?;
        self.snapshot_requests.copies();
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
        (reached.streamed, reached.contested) = (true, false);
        failures.succeeded();
        let copied = reached.snapshots.keys();
        self.snapshot_requests
            .streams(copied.filter(|_| self.options.snapshot == SnapshotMode::Initial));
        let newcomers = self.look_for_newcomers(url, &preflight, reached);
        let stream = Stream {
            connection,
            client: &client,
            runtime: &self.runtime,
            out,
            budget: &self.budget,
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
            outdated: &reached.outdated,
            may_copy: self.options.snapshot == SnapshotMode::Initial,
            seen: &reached.seen,
            forms: HashMap::new(),
            delivered: &mut reached.position,
        };
        let connection = stream.run().map_err(|error| match error.code() {
            // Of the objects that a stream needs only the publication has that code.
            Some(UNDEFINED_OBJECT) => Error::unpublished(&self.options),
            _ => error,
        })?;
        match newcomers.take() {
            Some(found) if self.shutdown.phase() == Phase::Running => {
                Ok(End::Tables(connection, found?))
            }
            _ => Ok(End::Drained(Some(connection))),
        }
    }

    fn decoder(&self, reached: &Reached) -> Decoder {
        let mut decoder = Decoder::resuming_after(reached.position);
        for (table, copied) in &reached.snapshots {
            decoder.snapshot_taken(table.clone(), copied.oid, copied.consistent_at);
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
            server_version: found.server_version,
            since: found.since.clone(),
            outdated: reached.outdated.clone(),
            seen: reached.seen.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::message::Relation;
    use crate::hop::Copied;
    use crate::table::ReplicaIdentity;

    const OID: u32 = 16_385;

    fn published() -> Published {
        let (schema, name) = ("public".to_owned(), "notes".to_owned());
        let identity = ReplicaIdentity::Default;
        let relation = Relation { oid: OID, schema, name, identity, columns: Vec::new() };
        Published {
            name: TableName { schema: "public".into(), name: "notes".into() },
            relation,
            filter: None,
            estimated_rows: 0,
            has_key: true,
            partitioned: false,
            hides_rows: false,
            whole: true,
            shape: String::new(),
            terms: 7,
        }
    }

    fn holds(copied: Copied, since: &str) -> bool {
        let table = published();
        let reached = Reached {
            position: Position::default(),
            snapshots: [(table.name.clone(), copied)].into(),
            recorded: HashSet::default(),
            slot_exists: true,
            streamed: false,
            contested: false,
            half_copied: false,
            outdated: Outdated::default(),
            seen: Seen::default(),
            partitions: Arc::default(),
        };
        reached.copied(&table, &Since::parse(since).expect("a comment of ours")).is_some()
    }

    #[test]
    fn a_copy_holds_for_its_table_on_its_terms_since_it_was_published() {
        let since = "managed by tailwater since 0/10 16385@0/30";
        let copied =
            |at, oid, terms| Copied { consistent_at: Lsn(at), oid, terms, ..Copied::default() };
        assert!(holds(copied(0x30, OID, 7), since));
        assert!(!holds(copied(0x2F, OID, 7), since), "it was not published for a while");
        assert!(!holds(copied(0x30, OID - 1, 7), since), "another table of that name");
        assert!(!holds(copied(0x30, OID, 8), since), "on other terms");
    }
}
