//! Runs a [`Shop`] against a database in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_postgres::{Client, NoTls};

use super::{Action, SCHEMA, Shop};
use crate::{wait_until, wait_until_async};

/// Users there are before the workload begins.
const FIRST_USERS: usize = 1_000;
/// A transaction has between one and this many statements.
const LARGEST_TRANSACTION: usize = 20;
/// A rate is kept by pausing when ahead of it by this much.
const PACE: Duration = Duration::from_millis(2);
/// A transaction of the workload has ended by then.
const PAUSE_DEADLINE: Duration = Duration::from_secs(30);
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many rows were changed in committed transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users inserted, the first ones included.
    pub inserts: u64,
    /// Users updated in place or given a new key.
    pub updates: u64,
    /// Users deleted.
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

/// Creates the table and its first users in the database at `url`, over a unix socket or plain TCP.
fn prepare(url: &str, shop: &mut Shop) -> Result<u64> {
    runtime()?.block_on(async {
        let client = connect(url).await?;
        client.batch_execute(SCHEMA).await.context("create the shop's table")?;
        client.batch_execute(&shop.insert_many(FIRST_USERS)).await.context("insert users")?;
        Ok(FIRST_USERS as u64)
    })
}

impl Runner {
    /// Creates the table and its first users in the database at `url`, over a unix socket or plain
    /// TCP, and changes `rate` rows a second from then on.
    pub fn start(url: &str, seed: u64, rate: u64) -> Result<Self> {
        let mut shop = Shop::new(seed);
        let shared = Arc::new(Shared::default());
        shared.rate.store(rate, Ordering::Relaxed);
        shared.inserts.store(prepare(url, &mut shop)?, Ordering::Relaxed);
        let sizes = StdRng::seed_from_u64(seed);
        let (url, theirs) = (url.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            runtime()?.block_on(async { run(&connect(&url).await?, shop, sizes, &theirs).await })
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

async fn run(client: &Client, mut shop: Shop, mut sizes: StdRng, shared: &Shared) -> Result<()> {
    let mut pace = Pace::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let size = sizes.random_range(1..=LARGEST_TRANSACTION);
        let mut sql = String::from("BEGIN");
        let mut actions = Vec::with_capacity(size);
        for _ in 0..size {
            let (action, statement) = shop.next_statement();
            actions.push(action);
            sql.push_str("; ");
            sql.push_str(&statement);
        }
        sql.push_str("; COMMIT");
        client.batch_execute(&sql).await.context("run the workload")?;
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

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("connect the workload")?;
    // Ends with the client, and its errors are the client's.
    tokio::spawn(connection);
    Ok(client)
}
