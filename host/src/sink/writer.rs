//! Storing a batch: retried until it is stored, or until only a person can help.
//!
//! Blocks of one table go one after the other, because an update set aside may need a row of the
//! table version before its own; different tables go at the same time. A block's token is made
//! from its content, so a block that was stored although its answer got lost is not stored twice. It
//! is made from the run, too: what a mutation took away must not be kept out when it comes again.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustc_hash::{FxHashMap, FxHasher};
use serde::Deserialize;
use tokio::time::sleep;

use super::batch::Batch;
use super::block::{Block, Encoder, Rows};
use super::client::{Client, Insert};
use super::encode::write_string;
use super::error::Error;
use super::letters::Letters;
use super::names::{OWN_PREFIX, literal};
use super::options::Dedup;
use super::snapshots::Provenance;
use super::toast::Filler;
use super::{shape, snapshots};
use crate::backoff::Backoff;
use crate::dead_letter::{DeadLetter, OpenLetters, Stage};
use crate::disposition::Disposition;
use crate::failpoint;
use crate::hop::{CopyMark, SnapshotDone};
use crate::position::{Lsn, commit_of};
use crate::serve::Leg;
use crate::table::TableName;
use crate::telemetry::logging::Repeated;
use crate::telemetry::metrics::{ChangeLabels, Metrics, StepLabels};

const STORED: StepLabels = StepLabels { step: "stored" };
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Bytes of copied rows from which on there are many such blocks, which ClickHouse merges soon.
const LARGE: usize = 4 << 20;

/// Attempts something until it works, or fails in a way that another attempt will not change.
macro_rules! until_done {
    ($writer:expr, $attempt:expr) => {{
        let mut attempts = crate::sink::writer::Attempts::new(&$writer);
        loop {
            match attempts.after($attempt.await).await {
                Ok(None) => (),
                Ok(Some(done)) => break Ok(done),
                Err(error) => break Err(error),
            }
        }
    }};
}
pub(super) use until_done;

/// The attempts at one thing. The log is told by what all of them share, so that a server that is away
/// is one trouble, however many statements wait for it.
pub(super) struct Attempts<'a> {
    writer: &'a Writer,
    backoff: Backoff,
    failed: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(writer: &'a Writer) -> Attempts<'a> {
        Attempts { writer, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), failed: false }
    }

    /// Gives a result on, or waits before the next attempt.
    pub(super) async fn after<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        let error = match result {
            Ok(done) => {
                if self.failed {
                    self.writer.failures.succeeded();
                }
                return Ok(Some(done));
            }
            Err(error) if error.disposition() == Disposition::Retry => error,
            Err(error) => return Err(error),
        };
        // Without the task, of which there are as many as tables.
        let cause = std::error::Error::source(&error).unwrap_or(&error);
        self.writer.failures.failed(cause);
        self.writer.leg.stalled(error.sentence());
        self.writer.metrics.reconnects.get_or_create(&STORED).inc();
        self.failed = true;
        let pause = self.backoff.pause(&mut rand::rng());
        sleep(pause).await;
        Ok(None)
    }
}

/// What all flushes share.
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leg: Leg,
    pub(super) failures: Repeated,
    pub(super) pipeline: String,
    pub(super) cluster: Option<String>,
    /// Tells this run's insert tokens from every other's.
    pub(super) run: u64,
    pub(super) concurrent_inserts: usize,
    /// The version of each table's last truncate, by view.
    pub(super) truncated: Mutex<FxHashMap<String, u128>>,
    pub(super) open: OpenLetters,
}

impl Writer {
    /// Stores all of a batch.
    pub(super) async fn store(&self, batch: &mut Batch) -> Result<(), Error> {
        self.withdraw_copies(&batch.copies).await?;
        self.store_truncates(batch).await?;
        let mut tables: BTreeMap<String, Vec<&mut Block>> = BTreeMap::new();
        for block in &mut batch.blocks {
            tables.entry(block.encoder.place.versions_name()).or_default().push(block);
        }
        let mut stores = Vec::with_capacity(tables.len());
        for blocks in tables.into_values() {
            stores.push(self.store_table(blocks));
        }
        let mut stores = stream::iter(stores).buffer_unordered(self.concurrent_inserts.max(1));
        while let Some(unfilled) = stores.next().await {
            batch.dead_letters.extend(unfilled?);
        }
        drop(stores);
        self.store_dead_letters(&batch.dead_letters).await?;
        self.close_redriven(batch).await?;
        self.close_passed(&batch.passed).await?;
        self.store_snapshots(&batch.copies).await?;
        self.leg.moving();
        self.observe(batch);
        Ok(())
    }

    /// One block after the other: rows set aside find what those before them hold.
    async fn store_table(&self, blocks: Vec<&mut Block>) -> Result<Vec<DeadLetter>, Error> {
        let mut dead_letters = Vec::new();
        for block in blocks {
            dead_letters.extend(self.store_block(block).await?);
        }
        Ok(dead_letters)
    }

    async fn store_block(&self, block: &mut Block) -> Result<Vec<DeadLetter>, Error> {
        let mut dead_letters = Vec::new();
        if !block.aside.is_empty() {
            dead_letters = self.store_filled(block).await?;
        }
        let encoder = Arc::clone(&block.encoder);
        let as_it_is = block.is_copied() && block.rows.bytes.len() >= LARGE;
        self.insert_rows(&encoder, &mut block.rows, as_it_is).await?;
        self.insert_rows(&encoder, &mut block.late, false).await?;
        Ok(dead_letters)
    }

    async fn store_filled(&self, block: &mut Block) -> Result<Vec<DeadLetter>, Error> {
        let encoder = Arc::clone(&block.encoder);
        let mut dead_letters = Vec::new();
        let mut filler = Filler::new(&self.client, block);
        while let Some(mut filled) = until_done!(self, filler.fill_next())? {
            dead_letters.append(&mut filled.dead_letters);
            self.insert_rows(&encoder, &mut filled.rows, false).await?;
        }
        Ok(dead_letters)
    }

    async fn insert_rows(
        &self,
        encoder: &Encoder,
        rows: &mut Rows,
        as_it_is: bool,
    ) -> Result<(), Error> {
        let Some((first, last)) = rows.span else {
            return Ok(());
        };
        let body = Bytes::from(std::mem::take(&mut rows.bytes));
        let (run, count, digest) = (self.run, rows.count, digest(&body));
        let token = format!("{run:016x}-{first}-{last}-{count}-{digest:016x}");
        let task = format!("insert into `{}`", encoder.place.versions_name());
        failpoint::pass("before_store");
        let insert = Insert { task: &task, sql: &encoder.insert, token: Some(&token), as_it_is };
        let insert = || self.client.insert(&insert, &encoder.header, &body);
        let mut done = until_done!(self, insert());
        if done.as_ref().is_err_and(Error::doubts_shape) {
            if !self.still_fits(encoder).await? {
                return Err(Error::Altered { name: encoder.place.versions_name() });
            }
            done = until_done!(self, insert());
        }
        done?;
        failpoint::pass("after_store");
        if body.is_unique() {
            rows.bytes = Vec::from(body);
        }
        Ok(())
    }

    /// Whether the table, brought into shape again, has the columns the rows were written for.
    async fn still_fits(&self, encoder: &Encoder) -> Result<bool, Error> {
        let ensure = || shape::ensure(&self.client, &encoder.place, &encoder.table);
        let columns = until_done!(self, ensure())?.columns;
        let types = columns.iter().zip(&encoder.stored);
        Ok(columns.len() == encoder.stored.len() && types.into_iter().all(|(a, b)| a.ty == b.ty))
    }

    async fn store_truncates(&self, batch: &Batch) -> Result<(), Error> {
        for (view, truncate) in batch.newest_truncates() {
            if self.truncates().get(view).is_some_and(|known| *known >= truncate.version) {
                continue;
            }
            let mut row = Vec::new();
            write_string(view.as_bytes(), &mut row);
            row.extend_from_slice(&truncate.version.to_le_bytes());
            self.insert_own("truncates", "name, version", row.into()).await?;
            self.truncates().insert(view.to_owned(), truncate.version);
            let place = &truncate.encoder.place;
            if place.plan.dedup == Dedup::Replacing {
                // The view leaves these rows out already; this gives their space back.
                // A plain number of that size would be read as a float.
                let condition =
                    format!("DELETE WHERE _version < toUInt128('{}')", truncate.version);
                let sql = place.alter_versions(&[condition]);
                let task = "clean up after a truncate";
                until_done!(self, self.client.execute(task, &sql))?;
            }
        }
        Ok(())
    }

    async fn store_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for letter in letters {
            rows.extend_from_slice(&letter.position.version().to_le_bytes());
            let stage = serde_json::to_value(letter.stage).expect("a plain enum");
            let plugin = letter.plugin.as_ref();
            let replay = letter.replay.as_ref().map(serde_json::to_string).transpose();
            let replay = replay.expect("it has only plain fields").unwrap_or_default();
            for text in [
                letter.position.to_string().as_str(),
                &letter.table,
                &letter.op,
                stage.as_str().expect("a plain enum"),
                plugin.map_or("", |plugin| &plugin.name),
                plugin.map_or("", |plugin| &plugin.digest),
                &letter.reason,
                &letter.original,
                letter.backtrace.as_deref().unwrap_or_default(),
                &replay,
            ] {
                write_string(text.as_bytes(), &mut rows);
            }
        }
        let columns = "version, position, source_table, op, stage, plugin, plugin_digest, reason, \
                       original, backtrace, replay";
        self.insert_own("dead_letters", columns, rows.into()).await?;
        // The others were counted where they were made.
        let made_here = letters.iter().filter(|letter| letter.stage == Stage::Store).count();
        self.metrics.count_dead_letters(STORED.step, made_here);
        tracing::warn!(count = letters.len(), "set changes aside as dead letters");
        Ok(())
    }

    pub(super) fn letters(&self) -> Letters {
        Letters::new(self.client.clone())
    }

    /// Removes the letters whose changes are stored now, and says how many failed again. Dying before
    /// this leaves them to be driven through once more, which changes nothing.
    async fn close_redriven(&self, batch: &mut Batch) -> Result<(), Error> {
        let failed = &batch.dead_letters;
        let letters = self.letters();
        for redrive in batch.redrives.drain(..) {
            failpoint::pass("before_redriven");
            let outcome = redrive.outcome(failed);
            until_done!(self, letters.remove(&outcome.closed))?;
            // Who asked may have gone.
            redrive.done.send(outcome).ok();
        }
        Ok(())
    }

    /// Before the truncates that other copies begin with.
    async fn withdraw_copies(&self, copies: &[CopyMark]) -> Result<(), Error> {
        let tables: Vec<&TableName> = CopyMark::withdrawn(copies).collect();
        if tables.is_empty() {
            return Ok(());
        }
        until_done!(self, self.forget_snapshots(Some(&tables)))
    }

    /// Takes back that snapshots are complete, those of these tables or all of the pipeline.
    pub(super) async fn forget_snapshots(
        &self,
        tables: Option<&[&TableName]>,
    ) -> Result<(), Error> {
        snapshots::forget(&self.client, &self.pipeline, self.cluster.as_deref(), tables).await
    }

    async fn store_snapshots(&self, copies: &[CopyMark]) -> Result<(), Error> {
        let done: Vec<&SnapshotDone> = CopyMark::complete(copies).collect();
        if done.is_empty() {
            return Ok(());
        }
        let (columns, rows) = snapshots::rows(&self.pipeline, &done);
        self.insert_own("snapshots", columns, rows).await
    }

    /// Records the source, in one attempt.
    pub(super) async fn store_source(&self, source: Provenance) -> Result<(), Error> {
        let (columns, row) = snapshots::source_row(&self.pipeline, source);
        self.insert_own_once("sources", columns, &row).await
    }

    /// The own tables drop repeated rows by themselves, and a record taken back may come again.
    async fn insert_own(&self, name: &str, columns: &str, rows: Bytes) -> Result<(), Error> {
        until_done!(self, self.insert_own_once(name, columns, &rows))
    }

    async fn insert_own_once(&self, name: &str, columns: &str, rows: &Bytes) -> Result<(), Error> {
        let name = format!("{OWN_PREFIX}{name}");
        let sql = format!("INSERT INTO {} ({columns}) FORMAT RowBinary", self.client.table(&name));
        let task = format!("insert into `{name}`");
        let insert = Insert { task: &task, sql: &sql, token: None, as_it_is: false };
        self.client.insert(&insert, &Bytes::new(), rows).await
    }

    /// Reads the last truncates at start.
    pub(super) async fn load_truncates(&self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Last {
            name: String,
            version: String,
        }
        let sql = format!(
            "SELECT name, toString(max(version)) AS version FROM {} GROUP BY name",
            self.client.table(&format!("{OWN_PREFIX}truncates")),
        );
        for Last { name, version } in self.client.rows("read truncates", &sql).await? {
            let version = version.parse().map_err(|_| Error::Answer {
                task: "read truncates".into(),
                detail: literal(&version),
            })?;
            self.truncates().insert(name, version);
        }
        Ok(())
    }

    /// The commit of the newest truncate of these views.
    pub(super) fn newest_truncate<'a>(&self, views: impl Iterator<Item = &'a str>) -> Lsn {
        let truncates = self.truncates();
        let newest = views.filter_map(|view| truncates.get(view)).max().copied();
        commit_of(newest.unwrap_or_default())
    }

    /// The version of each table's last truncate, by view.
    pub(super) fn truncates(&self) -> std::sync::MutexGuard<'_, FxHashMap<String, u128>> {
        self.truncated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, batch: &Batch) {
        const OPS: [&str; 5] = ["read", "insert", "update", "delete", "truncate"];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = |micros: i64| {
            now.as_secs_f64() - Duration::from_micros(micros.max(0).unsigned_abs()).as_secs_f64()
        };
        for committed in &batch.committed {
            self.metrics.visible_seconds.observe(age(*committed).max(0.0));
        }
        let mut rows = 0u64;
        for block in &batch.blocks {
            let table = block.encoder.table.full_name().to_string();
            for (op, count) in OPS.into_iter().zip(block.counts).filter(|(_, count)| *count > 0) {
                let labels = ChangeLabels { step: "stored", table: table.clone(), op };
                self.metrics.changes.get_or_create(&labels).inc_by(count);
                rows += count;
            }
        }
        self.metrics.passed.get_or_create(&STORED).inc_by(rows);
        if rows > 0 {
            let rows = u32::try_from(rows).unwrap_or(u32::MAX);
            self.metrics.batch_rows.get_or_create(&STORED).observe(rows.into());
        }
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}
