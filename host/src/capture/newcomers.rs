//! Tables that come while the stream runs: looked for now and then, put into a publication of ours,
//! and their copy prepared, so that the stream ends only for the copy itself.
//!
//! A table that leaves the publication ends the stream too, so that it is durably forgotten that it was copied:
//! when it comes back, nobody can tell what happened to it meanwhile.
//!
//! The copy needs a slot, and to make one may take long: see [`slot`](super::slot). The slot is made
//! after the table is published, so the main slot's stream has every change of the table that the
//! snapshot does not show.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::{Oid, PgLsn};
use tracing::warn;

use super::catalog::{self, Published};
use super::connection::{ANSWER_TIMEOUT, Connection};
use super::error::Error;
use super::options::{Options, SnapshotMode};
use super::outdated::Outdated;
use super::partitions::Partitions;
use super::publication::{self, Since};
use super::remarks::Remarks;
use super::seen::{self, Seen};
use super::slot::{Export, Order};
use super::source_url::SourceUrl;
use crate::failpoint;
use crate::position::Lsn;
use crate::shutdown::{Phase, Shutdown};
use crate::table::TableName;
use crate::telemetry::logging::Repeated;

const INTERVAL: Duration = Duration::from_secs(5);

/// The server goes on with a statement when its client is gone, so it has to end by itself: the first is for a table
/// that somebody has locked, the second is less than [`ANSWER_TIMEOUT`].
const TIMEOUTS: &str = "SET lock_timeout = '3s'; SET statement_timeout = '50s'";

/// What is published, and whether it can be copied. A table that may not be read, or whose rows cannot be told
/// apart, would only end the stream.
const PUBLISHED: &str = "
    SELECT n.nspname::text, c.relname::text, c.oid, {terms},
      has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
      AND NOT row_security_active(c.oid)
      AND (c.relreplident <> 'f' OR EXISTS
           (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary AND x.indimmediate)),
      {form}
    FROM pg_publication_tables p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = $1
    ORDER BY 1, 2";

/// Whether any of these tables is there still.
const EXIST: &str = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = ANY ($1))";

/// Tables with their terms and object ids.
type Known = HashSet<((TableName, i64), Oid)>;

/// A snapshot from which tables can be copied.
#[derive(Debug)]
pub struct Prepared {
    /// The tables that were published before it was taken, and came after the session began, each with
    /// the [terms](catalog::terms).
    pub tables: Vec<(TableName, i64)>,
    /// The snapshot.
    pub export: Export,
    /// What keeps it.
    pub connection: Connection,
}

/// What to look for, and where.
#[derive(Debug, Clone)]
pub struct Search {
    /// The session's server.
    pub url: SourceUrl,
    /// Which tables are wanted.
    pub options: Options,
    /// What was said of tables.
    pub remarks: Remarks,
    /// `server_version_num`
    pub server_version: i32,
    /// Since when tables are in the publication, as the session found it.
    pub since: Since,
    /// Tables whose copies count no more.
    pub outdated: Outdated,
    /// What tables looked like.
    pub seen: Seen,
    /// The partitions as they were at the last look, in whichever session.
    pub partitions: Arc<tokio::sync::Mutex<Partitions>>,
    /// When to end.
    pub shutdown: Shutdown,
}

/// What a look found.
#[derive(Debug, Default)]
struct Looked {
    /// Tables to copy.
    tables: Vec<(TableName, i64)>,
    /// Whether a table that the session began with is not published any more. One that was dropped does not
    /// count: it cannot come back.
    has_left: bool,
}

/// A search that goes on until something was found or this is dropped.
#[derive(Debug)]
pub struct Newcomers {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    found: AtomicBool,
    prepared: Mutex<Option<Result<Option<Prepared>, Error>>>,
    over: AtomicBool,
}

impl Newcomers {
    /// Looks for tables other than those that the session began with.
    #[must_use]
    pub fn look_for(search: Search, known: &[Published], runtime: &Handle) -> Newcomers {
        let shared = Arc::<Shared>::default();
        let known = known.iter().map(|table| {
            let published = (table.name.clone(), table.terms);
            (published, table.relation.oid)
        });
        let known = known.collect();
        let task = runtime.spawn(search.run(known, Arc::clone(&shared)));
        Newcomers { shared, task }
    }

    /// Set once there is something to copy, or nothing is streamed any more.
    #[must_use]
    pub fn found(&self) -> &AtomicBool {
        &self.shared.found
    }

    /// What was found: no copy where a table has left the publication; or [`Error::Unpublished`].
    #[must_use]
    pub fn take(&self) -> Option<Result<Option<Prepared>, Error>> {
        self.shared.prepared.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Shared {
    fn found(&self, found: Result<Option<Prepared>, Error>) {
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        self.found.store(true, Ordering::Release);
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.task.abort();
    }
}

impl Search {
    async fn run(self, known: Known, shared: Arc<Shared>) {
        let unseen = Repeated::new("look for new tables");
        let failures = Repeated::new("prepare the copy of new tables");
        let (mut client, mut wait) = (None, Duration::ZERO);
        loop {
            let end = self.shutdown.reached(Phase::Draining);
            if timeout(wait, end).await.is_ok() {
                return;
            }
            wait = INTERVAL;
            let (open, Looked { tables, has_left }) =
                match timeout(ANSWER_TIMEOUT, self.look(client.take(), &known)).await {
                    Ok(Ok(looked)) => looked,
                    Ok(Err(error @ Error::Unpublished { .. })) => {
                        return shared.found(Err(error));
                    }
                    Ok(Err(error)) => {
                        unseen.failed(&error);
                        continue;
                    }
                    Err(_) => {
                        unseen.failed(&Error::Silent(ANSWER_TIMEOUT));
                        continue;
                    }
                };
            unseen.succeeded();
            if has_left {
                return shared.found(Ok(None));
            }
            if !tables.is_empty() {
                match self.prepare(tables, &open, &shared).await {
                    Ok(Some(prepared)) => {
                        failures.succeeded();
                        return shared.found(Ok(Some(prepared)));
                    }
                    Ok(None) => return,
                    Err(error) => drop(failures.failed(&error)),
                }
            }
            client = Some(open);
        }
    }

    /// Completes the publication, and looks what is in it.
    async fn look(
        &self,
        client: Option<Arc<Client>>,
        known: &Known,
    ) -> Result<(Arc<Client>, Looked), Error> {
        let client = match client {
            Some(open) => open,
            None => {
                let client = catalog::connect(&self.url).await?;
                client.batch_execute(TIMEOUTS).await?;
                Arc::new(client)
            }
        };
        let since = publication::complete(&client, &self.options, &self.remarks).await?;
        self.partitions.lock().await.look(&client, &self.options.publication).await?;
        let mut looked = Looked::default();
        if self.options.snapshot == SnapshotMode::Never {
            return Ok((client, looked));
        }
        let mut missing: HashSet<Oid> = known.iter().map(|(_, oid)| *oid).collect();
        let sql = PUBLISHED.replace("{terms}", &catalog::terms(self.server_version));
        let sql = sql.replace("{form}", seen::FORM);
        let rows = client.query(&sql, &[&self.options.publication]).await?;
        // After the look, which shows nothing that commits later. What it lacks of before only makes it older.
        let end: PgLsn = client.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await?.get(0);
        let mut published = HashSet::new();
        for row in rows {
            let name = TableName { schema: row.get(0), name: row.get(1) };
            let (table, usable) = (((name, row.get(3)), row.get(2)), row.get(4));
            missing.remove(&table.1);
            published.insert(table.1);
            let form = seen::form(&row, 5, Lsn(end.into()));
            if self.seen.look(table.1, form, &self.outdated) {
                let name = &table.0.0;
                warn!(table = %name, "rewritten by a change of its columns; it will be copied again");
            }
            let again = self.outdated.has(table.1) || since.of(table.1) > self.since.of(table.1);
            if usable && (again || !known.contains(&table)) {
                looked.tables.push(table.0);
            }
        }
        self.seen.keep(&published);
        if !missing.is_empty() {
            let missing: Vec<Oid> = missing.into_iter().collect();
            looked.has_left = client.query_one(EXIST, &[&missing]).await?.get(0);
        }
        Ok((client, looked))
    }

    /// Takes a snapshot on a thread, since it may have to wait; nothing if nobody wants it any more.
    async fn prepare(
        &self,
        tables: Vec<(TableName, i64)>,
        client: &Arc<Client>,
        shared: &Arc<Shared>,
    ) -> Result<Option<Prepared>, Error> {
        let (search, client, shared) = (self.clone(), Arc::clone(client), Arc::clone(shared));
        let runtime = Handle::current();
        let (give, given) = oneshot::channel();
        std::thread::spawn(move || {
            let order = Order {
                name: &temporary_slot(&search.options.slot),
                temporary: true,
                failover: false,
                client: &client,
                runtime: &runtime,
                leg: None,
            };
            let goes_on = || {
                search.shutdown.phase() == Phase::Running && !shared.over.load(Ordering::Acquire)
            };
            let prepared = Connection::open(&search.url).and_then(|mut connection| {
                let export = order.carry_out(&mut connection, goes_on)?;
                failpoint::pass("after_prepare");
                Ok(export.map(|export| Prepared { tables, export, connection }))
            });
            // Nobody takes it if the session ended meanwhile.
            drop(give.send(prepared));
        });
        given.await.expect("the thread gives what came of it")
    }
}

/// A name that no slot has: one of an attempt before may still be on its way out.
#[must_use]
pub fn temporary_slot(slot: &str) -> String {
    static ATTEMPT: AtomicU32 = AtomicU32::new(0);
    let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed);
    let tail = format!("_copy_{}_{attempt}", std::process::id());
    let keep = slot.len().min(63 - tail.len());
    format!("{}{tail}", slot.get(..keep).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_temporary_slot_has_a_name_of_its_own_that_fits() {
        let (first, second) = (temporary_slot(&"s".repeat(63)), temporary_slot(&"s".repeat(63)));
        assert_ne!(first, second);
        assert!(first.len() <= 63 && first.starts_with("sss"), "{first}");
    }
}
