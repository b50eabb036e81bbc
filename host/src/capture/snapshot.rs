//! The initial copy of tables, from the snapshot that a slot's creation exported: it shows exactly
//! the transactions that committed before the slot's consistent point, and the stream brings
//! exactly those after it.
//!
//! Rows get the position `(consistent point - 1, n)`, below every streamed change. A table is one
//! unit: its completion is recorded by the store together with its last rows, and a copy that was
//! cut short begins anew, with a truncate first, under a new snapshot. Streamed changes that the
//! new snapshot already shows are passed over by the decoder.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, pin_mut};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream};
use tracing::info;

use super::catalog::{self, Before, Published};
use super::error::Error;
use super::preflight::{quote, quote_ident};
use super::progress::Progress;
use super::seen::{self, FORM};
use super::source_url::SourceUrl;
use super::stream::NAP;
use crate::budget::Budget;
use crate::change::{Change, Changes, Old, Op, Transaction};
use crate::decode::copy;
use crate::failpoint;
use crate::hop::{Copied, CopyMark, Hop, LogPoint, SnapshotDone, Snapshots};
use crate::position::Lsn;
use crate::table::{Table, TableName};
use crate::telemetry::metrics::Metrics;

/// Bytes of a batch of rows.
const BATCH_BYTES: usize = 512 * 1024;

/// What is copied, and as of when.
#[derive(Debug)]
pub struct Plan {
    /// The source.
    pub url: SourceUrl,
    /// The exported snapshot's name.
    pub snapshot: String,
    /// Its consistent point.
    pub consistent_at: Lsn,
    /// The publication whose tables they are.
    pub publication: String,
    /// `server_version_num`
    pub server_version: i32,
    /// The tables to copy.
    pub tables: Vec<Published>,
    /// Tables copied at once.
    pub workers: usize,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What may be on its way.
    pub budget: Budget,
}

/// Why a copy ended early.
#[derive(Debug)]
pub enum Stop {
    /// The stage behind is gone; there is nobody to copy for.
    Receiver,
    /// The source failed.
    Source(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Source(error)
    }
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Stop::Source(error.into())
    }
}

/// Why a table is not in a copy.
enum Left {
    /// It is gone.
    Dropped,
    /// It is not any more what the snapshot shows, or the snapshot shows it other than it was described.
    Changed,
    /// The whole copy ends.
    Stop(Stop),
}

impl From<Stop> for Left {
    fn from(stop: Stop) -> Self {
        Left::Stop(stop)
    }
}

impl From<Error> for Left {
    fn from(error: Error) -> Self {
        Left::Stop(Stop::Source(error))
    }
}

/// Of the statements before the first row, which name the table and its columns.
impl From<tokio_postgres::Error> for Left {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => Left::Dropped,
            Some(&SqlState::UNDEFINED_COLUMN) => Left::Changed,
            _ => Left::Stop(error.into()),
        }
    }
}

/// The code for a snapshot that is not there differs from version to version.
fn not_begun(error: tokio_postgres::Error) -> Error {
    match error.code() {
        Some(
            &SqlState::INVALID_PARAMETER_VALUE
            | &SqlState::UNDEFINED_OBJECT
            | &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        ) => Error::SnapshotEnded,
        _ => error.into(),
    }
}

/// What came of the plan's tables. Those that are in neither were dropped meanwhile, or not reached.
#[derive(Debug, Default)]
pub struct Taken {
    /// Copied whole; their ends are with the next stage.
    pub copied: Snapshots,
    /// Not begun, because what is known of them, what the snapshot shows and what they are now differ.
    pub changed: Vec<TableName>,
}

/// Copies the tables of the plan into the pipeline. What came of them is told with an error, too: a table
/// that is complete need not be copied again because the connection broke in the next one.
pub async fn take(plan: Plan, out: mpsc::Sender<Hop<LogPoint>>) -> (Taken, Result<(), Stop>) {
    let progress = Progress::new(&plan.tables);
    let queue: VecDeque<Published> = plan.tables.iter().cloned().collect();
    let (queue, taken) = (Arc::new(Mutex::new(queue)), Arc::<Mutex<Taken>>::default());
    let plan = Arc::new(plan);
    let mut workers = JoinSet::new();
    let (go_on, told) = watch::channel(());
    for _ in 0..plan.workers.clamp(1, plan.tables.len().max(1)) {
        let worker = Worker {
            plan: Arc::clone(&plan),
            queue: Arc::clone(&queue),
            taken: Arc::clone(&taken),
            out: out.clone(),
            progress: progress.clone(),
        };
        let told = told.clone();
        workers.spawn_blocking(move || worker.run_here(told));
    }
    let mut go_on = Some(go_on);
    let mut end = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.expect("a snapshot worker does not panic");
        if ended.is_err() && go_on.take().is_some() {
            // None of them sends anything after they were waited for.
            end = ended;
        }
    }
    progress.finish();
    (std::mem::take(&mut *taken.lock().expect("no panic while held")), end)
}

/// Whether a table, or each partition of it, is in the file that it was in when the snapshot was taken: the
/// catalog's table is read as of then, the function looks at it as it is now. The rows of one that was
/// rewritten since are too new for the snapshot, and the stream tells nothing of a rewriting.
const AS_IT_WAS: &str = "
    SELECT coalesce(bool_and(c.relkind <> 'r' OR c.relfilenode = pg_relation_filenode(c.oid)), false)
    FROM pg_class c WHERE c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1))";

struct Worker {
    plan: Arc<Plan>,
    queue: Arc<Mutex<VecDeque<Published>>>,
    taken: Arc<Mutex<Taken>>,
    out: mpsc::Sender<Hop<LogPoint>>,
    progress: Progress,
}

impl Worker {
    /// Runs on this thread alone, the connection too, so that what comes is handed on without waking another one.
    /// Ends early when the sender of `told` is gone.
    fn run_here(self, mut told: watch::Receiver<()>) -> Result<(), Stop> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::from)?;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = told.changed() => Ok(()),
                end = self.run() => end,
            }
        })
    }

    async fn run(self) -> Result<(), Stop> {
        let client = catalog::connect(&self.plan.url).await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.plan.snapshot.replace('\'', "''")
        );
        loop {
            let next = self.queue.lock().expect("no panic while held").pop_front();
            let Some(table) = next else { return Ok(()) };
            // One for each table, so that none stays locked for longer than it takes.
            client.batch_execute(&begin).await.map_err(not_begun)?;
            match self.copy(&client, &table).await {
                Ok(done) => drop(self.taken().copied.insert(table.name, done)),
                Err(Left::Dropped) => {
                    info!(table = %table.name, "the table was dropped before it was copied");
                }
                Err(Left::Changed) => self.taken().changed.push(table.name),
                Err(Left::Stop(stop)) => return Err(stop),
            }
            client.batch_execute("ROLLBACK").await?;
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("no panic while held")
    }

    async fn copy(&self, client: &Client, published: &Published) -> Result<Copied, Left> {
        client.batch_execute(&lock_statement(published)).await?;
        let oid = published.relation.oid;
        if !client.query_one(AS_IT_WAS, &[&oid]).await?.get::<_, bool>(0) {
            return Err(Left::Changed);
        }
        // The snapshot may be hours younger than the look at the catalog: its slot had to wait.
        let (publication, version) = (&self.plan.publication, self.plan.server_version);
        let shape = catalog::shape(client, publication, oid, version).await?;
        if shape.as_ref() != Some(&published.shape) {
            return Err(Left::Changed);
        }
        let sql = format!("SELECT {FORM} FROM pg_class c WHERE c.oid = $1");
        let form = seen::form(&client.query_one(&sql, &[&oid]).await?, 0, self.plan.consistent_at);
        let defined = catalog::define(client, &published.relation, Before::default()).await?;
        let table = defined.table;
        let lines = client.copy_out(&copy_statement(published)).await?;
        let mut rows = Rows::new(Arc::clone(&table), self.plan.consistent_at);
        // Whatever is there from before: a copy that was begun, or one of another way to ClickHouse.
        rows.push_truncate();
        pin_mut!(lines);
        while let Some(line) = next_line(&mut lines).await {
            rows.push_line(&line.map_err(Error::from)?)?;
            if rows.batch.bytes() >= BATCH_BYTES {
                self.send(&mut rows, Vec::new()).await?;
            }
        }
        let count = rows.ordinal;
        let key = table.key().map(|index| table.columns[index].name.clone()).collect();
        let (consistent_at, terms) = (self.plan.consistent_at, published.terms);
        let copied = Copied { consistent_at, oid, terms, key, form };
        let done = SnapshotDone { table: table.full_name(), copied: copied.clone() };
        self.send(&mut rows, vec![CopyMark::Complete(done)]).await?;
        self.progress.table_done(&published.name);
        info!(table = %published.name, rows = count, "copied the table");
        Ok(copied)
    }

    async fn send(&self, rows: &mut Rows, copies: Vec<CopyMark>) -> Result<(), Stop> {
        failpoint::pass("during_snapshot");
        let changes = std::mem::take(&mut rows.batch);
        self.progress.add(&rows.table.full_name(), changes.len());
        self.plan.metrics.count_changes("captured", &changes);
        // Neither confirms the slot nor moves the resume position: only the stream does.
        let point = LogPoint { copies, copying: true, ..LogPoint::default() };
        let room = Some(self.plan.budget.take(changes.bytes()).await);
        let hop = Hop { room, ..Hop::new(changes, point) };
        self.out.send(hop).await.map_err(|_| Stop::Receiver)
    }
}

/// The next line. When all are used up that have come, the server gets a moment to send some more: it wakes a reader
/// that sleeps for every few of them, which costs both sides more than the lines do.
async fn next_line(
    lines: &mut Pin<&mut CopyOutStream>,
) -> Option<Result<Bytes, tokio_postgres::Error>> {
    if let Some(line) = lines.next().now_or_never() {
        return line;
    }
    // The connection is read on this thread too.
    tokio::task::yield_now().await;
    if let Some(line) = lines.next().now_or_never() {
        return line;
    }
    std::thread::sleep(NAP);
    lines.next().await
}

/// The rows of one table on their way.
struct Rows {
    table: Arc<Table>,
    transaction: Transaction,
    ordinal: u64,
    batch: Changes,
}

impl Rows {
    fn new(table: Arc<Table>, consistent_at: Lsn) -> Rows {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let transaction = Transaction {
            commit: Lsn(consistent_at.0.saturating_sub(1)),
            previous_commit: Lsn(0),
            committed_at: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            xid: 0,
        };
        Rows { table, transaction, ordinal: 0, batch: Changes::default() }
    }

    fn push_truncate(&mut self) {
        self.push(Op::Truncate, None);
    }

    fn push_line(&mut self, line: &[u8]) -> Result<(), Error> {
        let columns = self.table.columns.len();
        let row = copy::push_row(line, columns, &mut self.batch)
            .map_err(|source| Error::Snapshot { table: self.table.full_name(), source })?;
        self.ordinal += 1;
        self.push(Op::Read, Some(row));
        Ok(())
    }

    fn push(&mut self, op: Op, new: Option<crate::change::Row>) {
        if self.batch.transactions.is_empty() {
            self.batch.push_transaction(self.transaction);
        }
        let table = self.batch.intern_table(&self.table);
        self.batch.list.push(Change {
            op,
            table,
            transaction: 0,
            ordinal: self.ordinal,
            lsn: Lsn(self.transaction.commit.0),
            old: Old::None,
            new,
        });
    }
}

fn lock_statement(table: &Published) -> String {
    format!("LOCK TABLE {}{} IN ACCESS SHARE MODE", only(table), quote(&table.name))
}

fn copy_statement(table: &Published) -> String {
    let columns = table.relation.columns.iter();
    let columns = columns.map(|column| quote_ident(&column.name)).collect::<Vec<_>>().join(", ");
    let filter = table.filter.as_ref().map_or_else(String::new, |sql| format!(" WHERE {sql}"));
    let (only, name) = (only(table), quote(&table.name));
    format!("COPY (SELECT {columns} FROM {only}{name}{filter}) TO STDOUT")
}

/// Children of plain inheritance are tables of their own; partitions belong to their root.
fn only(table: &Published) -> &'static str {
    if table.partitioned { "" } else { "ONLY " }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    #[test]
    fn rows_of_a_copy_stand_behind_its_truncate_and_below_every_change_that_it_does_not_show() {
        let column = Column {
            name: "id".into(),
            kind: ColumnType::Int4,
            type_name: "integer".into(),
            nullable: false,
            key: true,
            default: None,
            number: None,
            missing: None,
        };
        let identity = ReplicaIdentity::Default;
        let table = Table::new(1, "public".into(), "t".into(), vec![column], identity);
        let consistent_at = Lsn(0x100);
        let mut rows = Rows::new(Arc::new(table), consistent_at);
        rows.push_truncate();
        rows.push_line(b"1\n").unwrap();
        rows.push_line(b"2\n").unwrap();
        let batch = &rows.batch;
        let positions: Vec<_> = batch.list.iter().map(|change| batch.position(change)).collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        // The first transaction that the copy does not show may commit right at the consistent point.
        let first_change = Position { commit: consistent_at, ordinal: 1 };
        assert!(positions.iter().all(|position| *position < first_change), "{positions:?}");
    }
}
