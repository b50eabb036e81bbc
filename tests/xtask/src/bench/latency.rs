//! Commit to visible in ClickHouse, under a paced load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::wait_until;

use super::cases::slot_prefix;
use super::leg::{Setup, Since, wait_passed};
use super::report::{Line, Report};
use super::shape::Shape;
use super::source::topic_prefix;
use super::{Bed, Options, STOP};
use crate::exposition::{Exposition, Histogram};

/// Rows a second.
const RATES: [u64; 2] = [1_000, 20_000];
/// The load comes in transactions, so many a second.
const TRANSACTIONS_PER_SECOND: u64 = 100;
/// What the first seconds show is the start, not the running.
const WARM_UP: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(60);

impl Bed {
    /// Every rate, over Kafka and direct.
    pub(super) fn latencies(&self, options: &Options, report: &mut Report) -> Result<()> {
        if !options.wants("latency") {
            return Ok(());
        }
        for kafka in [true, false] {
            for rate in RATES {
                report.add(self.latency(kafka, rate, options.latency_seconds)?);
            }
        }
        Ok(())
    }

    fn latency(&self, kafka: bool, rate: u64, seconds: u64) -> Result<Line> {
        let way = if kafka { "kafka" } else { "direct" };
        let source = self.fill(Shape::Inserts, 1_000, &["latency"])?;
        let setup = Setup {
            role: "all",
            slot: source.slot(&slot_prefix("latency")),
            kafka: kafka.then(|| self.topics(topic_prefix("latency"))),
            ..Setup::default()
        };
        let tailwater = setup.prepare(&source, self.binary.clone())?;
        let mut process = tailwater.start()?;
        process.wait_ready(READY)?;
        let visible = || -> Result<Histogram> {
            let text = tailwater.get("/metrics")?.text();
            Ok(Exposition::parse(&text).histogram("tailwater_commit_to_visible_seconds"))
        };
        let session = self.session(source.database.name())?;
        let warm_up = Load::new(1_000_000, rate).run(WARM_UP, |sql| session.execute(sql))?;
        // A group that forms, or a topic that is new to it, takes its time; that is not measured.
        wait_passed(&tailwater, &mut process, "stored", warm_up)?;
        let mut load = Load::new(2_000_000, rate);
        let (before, begin) = (visible()?, Since::now(process.id())?);
        let events = load.run(Duration::from_secs(seconds), |sql| session.execute(sql))?;
        let taken = begin.until(Instant::now(), process.id())?;
        let seen = visible()?.since(&before);
        ensure!(process.terminate(STOP)?.success(), "{}", tailwater.log_tail());
        source.drop_slot(&setup.slot)?;
        let quantile = |share| seen.quantile(share).context("nothing became visible");
        Ok(Line {
            name: format!("latency-{way}-{rate}"),
            events,
            seconds: taken.seconds,
            ratio_to_reference: None,
            used: Some(taken.used),
            latency: Some([quantile(0.5)?, quantile(0.99)?, quantile(1.0)?]),
        })
    }
}

/// Transactions at even distances.
struct Load {
    next: u64,
    rate: u64,
    began: Instant,
    transactions: u64,
}

impl Load {
    /// From now on, with ids from `next`.
    fn new(next: u64, rate: u64) -> Self {
        Self { next, rate, began: Instant::now(), transactions: 0 }
    }

    /// Runs for so long; the rows.
    fn run(&mut self, duration: Duration, execute: impl Fn(&str) -> Result<()>) -> Result<u64> {
        let (end, first) = (Instant::now() + duration, self.next);
        let rows = (self.rate / TRANSACTIONS_PER_SECOND).max(1);
        while Instant::now() < end {
            let due = self.began + self.transactions_take();
            // Late transactions come at once, so that the rate holds.
            let ahead = due.saturating_duration_since(Instant::now());
            if !ahead.is_zero() {
                drop(wait_until(ahead, "the next transaction", || false));
            }
            execute(&Shape::users(self.next, rows))?;
            self.next += rows;
            self.transactions += 1;
        }
        Ok(self.next - first)
    }

    fn transactions_take(&self) -> Duration {
        Duration::from_secs_f64(self.transactions as f64 / TRANSACTIONS_PER_SECOND as f64)
    }
}
