//! What precedes the stream: the slot, if there is none, and the copies of tables that were never
//! copied whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio_postgres::Client;
use tokio_postgres::types::Oid;
use tracing::{debug, info};

use super::catalog::Published;
use super::connection::Connection;
use super::error::Error;
use super::newcomers::{Prepared, temporary_slot};
use super::options::{Options, SnapshotMode};
use super::preflight::{Preflight, Slot};
use super::rights::may_read;
use super::slot::{Export, Order};
use super::source_url::SourceUrl;
use super::{Capture, Reached, snapshot};
use crate::change::Changes;
use crate::hop::{CopyMark, Hop, LogPoint};
use crate::shutdown::Phase;
use crate::table::TableName;
use crate::telemetry::logging::chain;

/// How long a stream stands still for a snapshot that is newer than a prepared one. The open
/// transactions that the prepared one waited for have ended; new ones may be as long.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The first `server_version_num` whose standbys keep copies of slots.
const FAILOVER: i32 = 170_000;

/// What a session copies with.
pub struct Copy<'a> {
    /// Whose session it is.
    pub capture: &'a Capture,
    /// For queries.
    pub client: &'a Client,
    /// The session's server.
    pub url: &'a SourceUrl,
    /// Where rows go.
    pub out: &'a Sender<Hop<LogPoint>>,
}

/// Whether the slot was there.
enum Ensured {
    There,
    Made(Export),
    /// The process drains, and there is none.
    Drained,
}

impl Copy<'_> {
    /// Creates the slot if it is missing, and copies the tables that were never copied whole, from
    /// the snapshot that was prepared if it will do. Less, if the process drains meanwhile.
    ///
    /// # Errors
    /// [`snapshot::Stop`]; tables that were not reported done will be copied again.
    pub fn tables(
        &mut self,
        reached: &mut Reached,
        connection: &mut Connection,
        preflight: &Preflight,
        prepared: Option<Prepared>,
    ) -> Result<(), snapshot::Stop> {
        let Capture { options, leg, .. } = self.capture;
        let fresh = match self.ensure_slot(reached, connection, preflight)? {
            Ensured::There => None,
            Ensured::Made(export) => Some(export),
            Ensured::Drained => return Ok(()),
        };
        if options.snapshot == SnapshotMode::Never || !self.withdraw(reached, preflight)? {
            return Ok(());
        }
        let tables = self.not_copied(reached, preflight);
        if tables.is_empty() {
            return Ok(());
        }
        let names: Vec<&TableName> = tables.iter().map(|table| &table.name).collect();
        self.capture.runtime.block_on(may_read(self.client, &names))?;
        leg.stalled("tables are copied; the stream goes on after that");
        // What was published after the snapshot has changes that neither it nor the stream shows.
        let prepared = prepared.filter(|Prepared { tables: of, export, .. }| {
            let shows = |table: &Published| {
                of.iter().any(|(name, terms)| *name == table.name && *terms == table.terms)
                    && export.consistent_at >= preflight.since.of(table.relation.oid)
            };
            tables.iter().all(shows)
        });
        let Some((export, _kept)) = self.choose_snapshot(fresh, prepared, connection)? else {
            return Ok(());
        };
        self.take(reached, export, tables, preflight.server_version)
    }

    /// Makes the slot if it is missing and never was there.
    fn ensure_slot(
        &self,
        reached: &mut Reached,
        connection: &mut Connection,
        preflight: &Preflight,
    ) -> Result<Ensured, Error> {
        let Capture { options, ack, .. } = self.capture;
        if let Some(Slot { confirmed }) = preflight.slot {
            self.capture.slot_is_ours(confirmed, reached, preflight)?;
            ack.start_at(confirmed);
            reached.slot_exists = true;
            return Ok(Ensured::There);
        }
        if reached.slot_exists {
            return Err(slot_vanished(options));
        }
        let failover = preflight.server_version >= FAILOVER;
        let Some(export) = self.make_slot(&options.slot, false, failover, connection)? else {
            return Ok(Ensured::Drained);
        };
        // A copy that belongs to a slot which is gone is worth nothing: there is a gap after it.
        reached.snapshots.clear();
        reached.slot_exists = true;
        ack.start_at(export.consistent_at);
        Ok(Ensured::Made(export))
    }

    /// The snapshot to copy from, with the connection that keeps it if that is not the stream's: that of a slot
    /// which was just made, else of this moment where one was prepared, else that one, else a new one.
    fn choose_snapshot(
        &self,
        fresh: Option<Export>,
        prepared: Option<Prepared>,
        connection: &mut Connection,
    ) -> Result<Option<(Export, Option<Connection>)>, Error> {
        if let Some(export) = fresh {
            return Ok(Some((export, None)));
        }
        let Some(prepared) = prepared else {
            let name = temporary_slot(&self.capture.options.slot);
            let made = self.make_slot(&name, true, false, connection)?;
            return Ok(made.map(|export| (export, None)));
        };
        // There may be no slot to spare for another one.
        let now = self.snapshot_of_now(&prepared.tables).unwrap_or_else(|error| {
            debug!(error = %chain(&error), "the copy is of the snapshot that was prepared");
            None
        });
        let Prepared { export, connection, .. } = now.unwrap_or(prepared);
        Ok(Some((export, Some(connection))))
    }

    /// The published tables of which no copy is complete.
    fn not_copied(&self, reached: &Reached, preflight: &Preflight) -> Vec<Published> {
        let is_copied = |table: &&Published| reached.copied(table, &preflight.since).is_some();
        preflight.tables.iter().filter(|table| !is_copied(table)).cloned().collect()
    }

    /// Says ahead of everything else which copies count no more: those of tables that are to be copied again, of
    /// which the next copy may stay half, and those of tables that are there and not published, of whose changes
    /// from now on nobody is told. Otherwise they would count again if what speaks against them went away. False
    /// if the process drains first.
    fn withdraw(
        &self,
        reached: &mut Reached,
        preflight: &Preflight,
    ) -> Result<bool, snapshot::Stop> {
        let mut withdrawn = self.left(reached, preflight)?;
        for table in &preflight.tables {
            let counts = reached.copied(table, &preflight.since).is_some();
            if reached.recorded.contains(&table.name) && !counts {
                withdrawn.push(table.name.clone());
            }
        }
        if withdrawn.is_empty() {
            return Ok(true);
        }
        let copies = withdrawn.iter().cloned().map(CopyMark::Withdrawn).collect();
        let point = LogPoint { copies, copying: true, ..LogPoint::default() };
        let sent = self.out.send(Hop::new(Changes::default(), point));
        let Some(sent) = self.capture.until_draining(sent) else { return Ok(false) };
        sent.map_err(|_| snapshot::Stop::Receiver)?;
        let names: Vec<String> = withdrawn.iter().map(ToString::to_string).collect();
        info!(tables = names.join(", "), "copies of tables do not count any more");
        for table in &withdrawn {
            reached.recorded.remove(table);
            reached.snapshots.remove(table);
        }
        Ok(true)
    }

    /// The tables that were copied, are there still, and are not published. What the log has of a table that was
    /// dropped is read by what is known of its copy.
    fn left(&self, reached: &Reached, preflight: &Preflight) -> Result<Vec<TableName>, Error> {
        const THERE: &str = "SELECT oid FROM pg_class WHERE oid = ANY ($1)";
        let published: HashSet<&TableName> =
            preflight.tables.iter().map(|table| &table.name).collect();
        let copied = reached.snapshots.iter().filter(|(table, _)| !published.contains(table));
        let copied: HashMap<Oid, &TableName> =
            copied.map(|(table, copied)| (copied.oid, table)).collect();
        if copied.is_empty() {
            return Ok(Vec::new());
        }
        let oids: Vec<Oid> = copied.keys().copied().collect();
        let there = self.capture.runtime.block_on(self.client.query(THERE, &[&oids]))?;
        Ok(there.iter().filter_map(|row| copied.get(&row.get(0)).copied().cloned()).collect())
    }

    fn take(
        &self,
        reached: &mut Reached,
        export: Export,
        tables: Vec<Published>,
        server_version: i32,
    ) -> Result<(), snapshot::Stop> {
        let Capture { options, resume, metrics, budget, .. } = self.capture;
        let consistent_at = export.consistent_at;
        info!(tables = tables.len(), %consistent_at, "copying tables");
        reached.recorded.extend(tables.iter().map(|table| table.name.clone()));
        let plan = snapshot::Plan {
            url: self.url.clone(),
            snapshot: export.snapshot,
            consistent_at,
            publication: options.publication.clone(),
            server_version,
            tables,
            workers: options.snapshot_workers,
            metrics: Arc::clone(metrics),
            budget: budget.clone(),
        };
        reached.half_copied = resume.remembers;
        // One that is cut short by the shutdown is not recorded, so it is taken anew next time.
        let taken = self.capture.until_draining(snapshot::take(plan, self.out.clone()));
        let (snapshot::Taken { copied, changed }, end) =
            taken.unwrap_or_else(|| (snapshot::Taken::default(), Ok(())));
        for copied in copied.values() {
            reached.outdated.copied(copied.oid);
            reached.seen.begin(copied.oid, copied.form.clone());
        }
        reached.snapshots.extend(copied);
        end?;
        reached.half_copied = false;
        if !changed.is_empty() {
            let mut tables: Vec<String> = changed.iter().map(ToString::to_string).collect();
            // Several are copied at a time, and any may be the first to be found changed.
            tables.sort();
            return Err(Error::Changed { tables: tables.join(", ") }.into());
        }
        Ok(())
    }

    /// A snapshot of now, in place of one that was prepared while the stream went on: of that one the
    /// stream has shown newer rows meanwhile, behind which the copy would stand in a topic. Nothing if the
    /// server does not make one at once.
    fn snapshot_of_now(&self, tables: &[(TableName, i64)]) -> Result<Option<Prepared>, Error> {
        let Capture { options, runtime, shutdown, .. } = self.capture;
        let Some(opened) = self.capture.open(self.url) else { return Ok(None) };
        let (mut connection, begun) = (opened?, Instant::now());
        let name = temporary_slot(&options.slot);
        let client = self.client;
        let order =
            Order { name: &name, temporary: true, failover: false, client, runtime, leg: None };
        let export = order.carry_out(&mut connection, || {
            shutdown.phase() == Phase::Running && begun.elapsed() < AT_ONCE
        })?;
        Ok(export.map(|export| Prepared { tables: tables.to_vec(), export, connection }))
    }

    fn make_slot(
        &self,
        name: &str,
        temporary: bool,
        failover: bool,
        connection: &mut Connection,
    ) -> Result<Option<Export>, Error> {
        let Capture { runtime, leg, shutdown, .. } = self.capture;
        let client = self.client;
        let order = Order { name, temporary, failover, client, runtime, leg: Some(leg) };
        order.carry_out(connection, || shutdown.phase() == Phase::Running)
    }
}

fn slot_vanished(options: &Options) -> Error {
    Error::Precondition(format!(
        "slot {} was dropped while it was in use, so changes may be missing; start again: every \
         table is then copied anew",
        options.slot
    ))
}
