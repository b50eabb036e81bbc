//! `cargo xtask demo`: a shop's database under a live workload.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

use anyhow::Result;
use tailwater_test_support::workload::{Counts, Runner};
use tailwater_test_support::{Kafka, Postgres, PostgresOptions, PostgresVersion, wait_until};

use crate::interrupt::Interrupt;
use crate::steps::{self, step};

const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
const SEED: u64 = 2026;
const REFRESH: Duration = Duration::from_millis(500);

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long the workload runs, in seconds.
    #[arg(long, default_value_t = 30)]
    duration: u64,
    /// Without Kafka: straight from the database to ClickHouse.
    #[arg(long)]
    direct: bool,
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Rows changed per second in the shop.
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
}

/// The services that the demo starts, and the workload on them.
struct Shop {
    workload: Runner,
    _kafka: Option<Kafka>,
    postgres: Postgres,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    steps::setup()?;
    let interrupt = Interrupt::install()?;
    let shop = step("starting the services", || start(options))?;
    println!("the shop's database is {}", shop.postgres.url("shop"));
    watch(&shop, Duration::from_secs(options.duration), &interrupt);
    if options.keep {
        println!("everything stays as it is until Ctrl-C");
        wait_until(FOREVER, "Ctrl-C", || interrupt.is_set())?;
    }
    let counts = shop.workload.stop()?;
    println!("the shop changed {} rows", counts.total());
    Ok(())
}

fn start(options: &Options) -> Result<Shop> {
    let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    let kafka = if options.direct { None } else { Some(Kafka::start()?) };
    postgres.execute("postgres", "CREATE DATABASE shop")?;
    let workload = Runner::start(&postgres.url("shop"), SEED, options.rate)?;
    Ok(Shop { workload, _kafka: kafka, postgres })
}

fn watch(shop: &Shop, duration: Duration, interrupt: &Interrupt) {
    let start = Instant::now();
    let mut last = (start, shop.workload.counts());
    while start.elapsed() < duration && !interrupt.is_set() {
        let end = (Instant::now() + REFRESH).min(start + duration);
        let until = end.saturating_duration_since(Instant::now());
        // Either way it is time to look again.
        drop(wait_until(until, "Ctrl-C", || interrupt.is_set()));
        let now = (Instant::now(), shop.workload.counts());
        show(rate(last, now), now.1);
        last = now;
    }
    println!();
}

fn rate(from: (Instant, Counts), to: (Instant, Counts)) -> f64 {
    let seconds = (to.0 - from.0).as_secs_f64();
    (to.1.total() - from.1.total()) as f64 / seconds.max(f64::EPSILON)
}

fn show(rate: f64, counts: Counts) {
    let Counts { inserts, updates, deletes } = counts;
    let line = format!(
        "source {rate:>8.0} rows/s   {inserts} inserts {updates} updates {deletes} deletes"
    );
    if stdout().is_terminal() {
        print!("\r\x1b[K{line}");
    } else {
        println!("{line}");
    }
    // A closed terminal ends the demo by its signal.
    drop(stdout().flush());
}
