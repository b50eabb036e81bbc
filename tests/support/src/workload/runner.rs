//! Runs a [`Shop`], alone or with [`Kinds`] beside it, against a database in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::line::{Line, TURNS, connect};
use super::{Action, KINDS_SCHEMA, Kinds, SCHEMA, Shop};
use crate::{wait_until, wait_until_async};

/// Users there are before the workload begins.
const FIRST_USERS: usize = 1_000;
/// A transaction has between one and this many statements.
const LARGEST_TRANSACTION: usize = 20;
/// One statement in so many is for the tables of other kinds, if they are there.
const KINDS_TURN: u32 = 5;
/// A rate is kept by pausing when ahead of it by this much.
const PACE: Duration = Duration::from_millis(2);
/// A transaction of the workload has ended by then.
const PAUSE_DEADLINE: Duration = Duration::from_secs(30);
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many rows were changed in committed transactions, of users unless there are other tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows inserted, the first users included.
    pub inserts: u64,
    /// Rows updated in place or given a new key.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
}

impl Counts {
    /// All changes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.inserts + self.updates + self.deletes
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    pause: AtomicBool,
    paused: AtomicBool,
    rate: AtomicU64,
    inserts: AtomicU64,
    updates: AtomicU64,
    deletes: AtomicU64,
}

/// A running workload; dropping it stops it.
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What is run.
struct Load {
    shop: Shop,
    kinds: Option<Kinds>,
    /// Whose statement is next.
    turns: StdRng,
}

impl Load {
    /// Creates the tables and their first rows in the database at `url`, over a unix socket or plain TCP;
    /// how many users there are.
    fn prepare(&mut self, url: &str, restarts: bool) -> Result<u64> {
        runtime()?.block_on(async {
            let client = connect(url).await?;
            client.batch_execute(SCHEMA).await.context("create the shop's table")?;
            let users = self.shop.insert_many(FIRST_USERS);
            client.batch_execute(&users).await.context("insert users")?;
            if restarts {
                client.batch_execute(TURNS).await.context("create the table of turns")?;
            }
            if let Some(kinds) = &mut self.kinds {
                client.batch_execute(KINDS_SCHEMA).await.context("create the other tables")?;
                let rows = kinds.first_rows().join("; ");
                client.batch_execute(&rows).await.context("insert the first rows")?;
            }
            Ok(FIRST_USERS as u64)
        })
    }

    /// And what it does to a row, or to some; nothing if it empties a table.
    fn next_statement(&mut self) -> (Option<Action>, String) {
        if let Some(kinds) =
            self.kinds.as_mut().filter(|_| self.turns.random_range(0..KINDS_TURN) == 0)
        {
            return kinds.next_statement();
        }
        let (action, sql) = self.shop.next_statement();
        (Some(action), sql)
    }
}

impl Runner {
    /// Creates the table and its first users in the database at `url`, over a unix socket or plain
    /// TCP, and changes `rate` rows a second from then on.
    pub fn start(url: &str, seed: u64, rate: u64) -> Result<Self> {
        Self::run(url, seed, rate, None, false)
    }

    /// [`start`](Self::start) for a server that goes away and comes back: each transaction also moves the number in
    /// the one row of `public.turns`, by which it is known of each whether it was committed. Only then is it counted,
    /// and what was not is done again.
    pub fn start_for_restarts(url: &str, seed: u64, rate: u64) -> Result<Self> {
        Self::run(url, seed, rate, None, true)
    }

    /// [`start`](Self::start) with the tables of other kinds beside the shop's, which are changed in the same
    /// transactions and count for the rate; a statement that changes several rows counts once.
    pub fn start_with_kinds(url: &str, seed: u64, rate: u64) -> Result<Self> {
        Self::run(url, seed, rate, Some(Kinds::new(seed)), false)
    }

    fn run(url: &str, seed: u64, rate: u64, kinds: Option<Kinds>, restarts: bool) -> Result<Self> {
        let turns = StdRng::seed_from_u64(seed);
        let mut load = Load { shop: Shop::new(seed), kinds, turns };
        let shared = Arc::new(Shared::default());
        shared.rate.store(rate, Ordering::Relaxed);
        shared.inserts.store(load.prepare(url, restarts)?, Ordering::Relaxed);
        let sizes = StdRng::seed_from_u64(seed);
        let (url, theirs) = (url.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            runtime()?.block_on(async {
                run(&mut Line::open(&url, restarts).await?, load, sizes, &theirs).await
            })
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What is committed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            inserts: self.shared.inserts.load(Ordering::Relaxed),
            updates: self.shared.updates.load(Ordering::Relaxed),
            deletes: self.shared.deletes.load(Ordering::Relaxed),
        }
    }

    /// Changes the rate, in rows a second.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Pauses after the running transaction, and returns once nothing changes any more; an error if
    /// the workload had ended with one before.
    pub fn pause(&self) -> Result<Counts> {
        self.shared.pause.store(true, Ordering::SeqCst);
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        wait_until(PAUSE_DEADLINE, "the workload to pause", || {
            self.shared.paused.load(Ordering::SeqCst) || ended()
        })?;
        ensure!(!ended(), "the workload has ended: stop it to learn why");
        Ok(self.counts())
    }

    /// Goes on after a [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.shared.pause.store(false, Ordering::SeqCst);
        wait_until(PAUSE_DEADLINE, "the workload to go on", || {
            !self.shared.paused.load(Ordering::SeqCst)
        })
    }

    /// Ends the workload after the running transaction; an error if it had ended with one before.
    pub fn stop(mut self) -> Result<Counts> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a workload is stopped once")?;
        thread.join().map_err(|_| anyhow!("the workload panicked"))??;
        Ok(self.counts())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn run(line: &mut Line, mut load: Load, mut sizes: StdRng, shared: &Shared) -> Result<()> {
    let mut pace = Pace::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let size = sizes.random_range(1..=LARGEST_TRANSACTION);
        let mut sql = String::new();
        let mut actions = Vec::with_capacity(size);
        for _ in 0..size {
            let (action, statement) = load.next_statement();
            actions.extend(action);
            sql.push_str(&statement);
            sql.push_str("; ");
        }
        line.commit(&sql).await.context("run the workload")?;
        for action in actions {
            shared.count(action);
        }
        pace.keep(size, shared.rate.load(Ordering::Relaxed)).await;
        if shared.pause.load(Ordering::SeqCst) {
            shared.wait_resumed().await?;
            pace = Pace::new();
        }
    }
    Ok(())
}

impl Shared {
    async fn wait_resumed(&self) -> Result<()> {
        self.paused.store(true, Ordering::SeqCst);
        let resumed = wait_until_async(FOREVER, "the workload to be resumed", async || {
            !self.pause.load(Ordering::SeqCst) || self.stop.load(Ordering::SeqCst)
        });
        resumed.await?;
        self.paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn count(&self, action: Action) {
        let counter = match action {
            Action::Insert => &self.inserts,
            Action::Update | Action::Rekey => &self.updates,
            Action::Delete => &self.deletes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// When the next rows are due, at a rate that may change.
struct Pace {
    due: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { due: Instant::now() }
    }

    async fn keep(&mut self, rows: usize, rate: u64) {
        self.due += Duration::from_secs_f64(rows as f64 / rate.max(1) as f64);
        let now = Instant::now();
        if self.due > now + PACE {
            tokio::time::sleep(self.due - now).await;
        } else if self.due + Duration::from_secs(1) < now {
            // What the database could not keep up with is not made up for in a burst.
            self.due = now;
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
