//! What precedes the stream: the slot, if there is none, and the copies of tables that were never
//! copied whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio_postgres::Client;
use tracing::{debug, info};

use super::catalog::Published;
use super::connection::Connection;
use super::error::Error;
use super::newcomers::{Prepared, temporary_slot};
use super::options::{Options, SnapshotMode};
use super::preflight::{Preflight, Slot};
use super::slot::{Export, Order};
use super::source_url::SourceUrl;
use super::{Capture, Reached, snapshot};
use crate::hop::{Hop, LogPoint};
use crate::shutdown::Phase;
use crate::table::TableName;
use crate::telemetry::logging::chain;

/// How long a stream stands still for a snapshot that is newer than a prepared one. The open
/// transactions that the prepared one waited for have ended; new ones may be as long.
const AT_ONCE: Duration = Duration::from_secs(2);

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
        let Capture { options, resume, ack, leg, .. } = self.capture;
        let fresh = match preflight.slot {
            Some(Slot { confirmed }) => {
                ack.start_at(confirmed);
                reached.slot_exists = true;
                None
            }
            None if reached.slot_exists => return Err(slot_vanished(options).into()),
            None => {
                let Some(export) = self.make_slot(&options.slot, false, connection)? else {
                    return Ok(());
                };
                // A copy that belongs to a slot which is gone is worth nothing: there is a gap
                // after it.
                reached.snapshots.clear();
                reached.slot_exists = true;
                ack.start_at(export.consistent_at);
                Some(export)
            }
        };
        let tables = self.not_copied(reached, preflight);
        if tables.is_empty() || options.snapshot == SnapshotMode::Never {
            return Ok(());
        }
        leg.stalled("tables are copied; the stream goes on after that");
        let truncate_first = fresh.is_none() || resume.may_hold_rows;
        // What was published after the snapshot has changes that neither it nor the stream shows.
        let prepared = prepared.filter(|Prepared { tables: of, export, .. }| {
            let shows = |table: &Published| {
                of.contains(&table.name)
                    && export.consistent_at >= preflight.since.of(table.relation.oid)
            };
            tables.iter().all(shows)
        });
        let (export, _kept) = match (fresh, prepared) {
            (Some(export), _) => (export, None),
            (None, Some(prepared)) => {
                // There may be no slot to spare for another one.
                let now = self.snapshot_of_now(&prepared.tables).unwrap_or_else(|error| {
                    debug!(error = %chain(&error), "the copy is of the snapshot that was prepared");
                    None
                });
                let Prepared { export, connection, .. } = now.unwrap_or(prepared);
                (export, Some(connection))
            }
            (None, None) => {
                let name = temporary_slot(&options.slot);
                match self.make_slot(&name, true, connection)? {
                    Some(export) => (export, None),
                    None => return Ok(()),
                }
            }
        };
        self.take(reached, export, tables, truncate_first)
    }

    /// The published tables of which no copy is complete. One of before the table was published is
    /// worth nothing: it was not for a while, or is another one of that name.
    fn not_copied(&self, reached: &Reached, preflight: &Preflight) -> Vec<Published> {
        let is_copied = |table: &&Published| {
            let oid = table.relation.oid;
            reached.snapshots.get(&table.name).is_some_and(|copied| {
                copied.consistent_at >= preflight.since.of(oid) && [0, oid].contains(&copied.oid)
            })
        };
        preflight.tables.iter().filter(|table| !is_copied(table)).cloned().collect()
    }

    fn take(
        &self,
        reached: &mut Reached,
        export: Export,
        tables: Vec<Published>,
        truncate_first: bool,
    ) -> Result<(), snapshot::Stop> {
        let Capture { options, resume, metrics, .. } = self.capture;
        let consistent_at = export.consistent_at;
        info!(tables = tables.len(), %consistent_at, "copying tables");
        let plan = snapshot::Plan {
            url: self.url.clone(),
            snapshot: export.snapshot,
            consistent_at,
            tables,
            truncate_first,
            workers: options.snapshot_workers,
            metrics: Arc::clone(metrics),
        };
        reached.half_copied = resume.remembers;
        // One that is cut short by the shutdown is not recorded, so it is taken anew next time.
        let taken = self.capture.until_draining(snapshot::take(plan, self.out.clone()));
        let snapshot::Taken { copied, changed } =
            taken.unwrap_or(Ok(snapshot::Taken::default()))?;
        reached.snapshots.extend(copied);
        reached.half_copied = false;
        if !changed.is_empty() {
            let tables = changed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::Changed { tables }.into());
        }
        Ok(())
    }

    /// A snapshot of now, in place of one that was prepared while the stream went on: of that one the
    /// stream has shown newer rows meanwhile, behind which the copy would stand in a topic. Nothing if the
    /// server does not make one at once.
    fn snapshot_of_now(&self, tables: &[TableName]) -> Result<Option<Prepared>, Error> {
        let Capture { options, runtime, shutdown, .. } = self.capture;
        let Some(opened) = self.capture.open(self.url) else { return Ok(None) };
        let (mut connection, begun) = (opened?, Instant::now());
        let name = temporary_slot(&options.slot);
        let order = Order { name: &name, temporary: true, client: self.client, runtime, leg: None };
        let export = order.carry_out(&mut connection, || {
            shutdown.phase() == Phase::Running && begun.elapsed() < AT_ONCE
        })?;
        Ok(export.map(|export| Prepared { tables: tables.to_vec(), export, connection }))
    }

    fn make_slot(
        &self,
        name: &str,
        temporary: bool,
        connection: &mut Connection,
    ) -> Result<Option<Export>, Error> {
        let Capture { runtime, leg, shutdown, .. } = self.capture;
        let order = Order { name, temporary, client: self.client, runtime, leg: Some(leg) };
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
