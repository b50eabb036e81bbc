//! `cargo xtask endurance`: minutes of a load that comes and goes, with everything watched that
//! could grow. The lines are drawn, and the command fails if one of them is not flat.

mod chart;
mod load;
mod sample;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{
    Kafka, Postgres, PostgresVersion, Session, Tailwater, TailwaterProcess, wait_for, workload,
};

use self::load::Load;
use self::sample::{Sample, Watched};
use crate::interrupt::Interrupt;
use crate::steps::{self, Profile, step};

/// A sample this often.
const EVERY: Duration = Duration::from_secs(2);
/// Until everything that was written is in the copy.
const DEADLINE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
/// The class that lists transactions.
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";

/// How long, and where the picture goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Minutes of load
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Draw the lines into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    steps::setup()?;
    let binary = steps::binary(Profile::Release)?;
    let kafka = step("starting Apache Kafka", Kafka::start)?;
    let postgres = step("starting PostgreSQL 18", || {
        Postgres::start(PostgresVersion::V18, tailwater_test_support::PostgresOptions::default())
    })?;
    let source = postgres.create_database()?;
    let session = Session::open(&source.url())?;
    session.execute(workload::SCHEMA)?;
    let tailwater = Tailwater::of_binary(binary, ["run", "--config", "tailwater.toml"])?;
    let cache = tailwater_test_support::cache::directory()?.display().to_string();
    let tailwater = tailwater.variable("TAILWATER_CACHE", &cache);
    tailwater.set_config(&format!(
        "[source]\nurl = \"{}\"\n\n[kafka]\nbrokers = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        kafka.bootstrap()
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;

    let duration = Duration::from_secs(60 * options.minutes);
    let ended = Arc::new(AtomicBool::new(false));
    let load = Load::start(session, Arc::clone(&ended));
    let samples = step("watching", || watch(&tailwater, &process, &load, duration, &interrupt));
    ended.store(true, Ordering::Relaxed);
    let rows = load.join()?;
    let samples = samples?;
    if let Some(file) = &options.svg {
        fs::write(file, chart::draw(&samples))
            .with_context(|| format!("write {}", file.display()))?;
        println!("drawn as {}", file.display());
    }
    same_count(&tailwater, &Session::open(&source.url())?)?;
    ensure!(process.is_running()?, "it ended by itself: {}", tailwater.log_tail());
    ensure!(process.terminate(STOP)?.success(), "{}", tailwater.log_tail());
    no_open_transaction(&kafka)?;
    println!("{rows} changes written");
    verdict(&samples)
}

fn watch(
    tailwater: &Tailwater,
    process: &TailwaterProcess<'_>,
    load: &Load,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<Vec<Sample>> {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while begun.elapsed() < duration && !interrupt.wait(EVERY) {
        samples.push(Sample::take(tailwater, process.id(), load.rate(), begun.elapsed())?);
    }
    interrupt.check()?;
    Ok(samples)
}

/// The copy holds as many rows as the source, once it has caught up.
fn same_count(tailwater: &Tailwater, source: &Session) -> Result<()> {
    let rows = source.value("SELECT count(*) FROM users")?.context("count the rows")?;
    wait_for(DEADLINE, "the copy to have all rows", || {
        let answer = tailwater.get("/v0/sql?q=SELECT%20count()%20AS%20n%20FROM%20users")?;
        let answer: serde_json::Value = serde_json::from_str(&answer.text())?;
        let copied = answer["data"][0]["n"].to_string();
        ensure!(copied.trim_matches('"') == rows, "{copied} of {rows} rows are there");
        Ok(())
    })
}

/// Kafka knows of no transaction that somebody began and nobody ended.
fn no_open_transaction(kafka: &Kafka) -> Result<()> {
    let brokers = kafka.bootstrap();
    let text = kafka.tool(TRANSACTIONS, ["--bootstrap-server", &brokers, "list"])?;
    let open = text.lines().filter(|line| line.contains("Ongoing")).count();
    ensure!(open == 0, "{open} transactions were left open:\n{text}");
    Ok(())
}

/// Prints each line's level early and late; fails if one rose.
fn verdict(samples: &[Sample]) -> Result<()> {
    let mut risen = Vec::new();
    println!("{:<28}{:>10}{:>10}{:>10}", "", "half-way", "at end", "highest");
    for watched in Watched::ALL {
        let level = |from: usize, to: usize| {
            let len = samples.len();
            watched.median(&samples[len * from / 4..len * to / 4])
        };
        let (early, late) = (level(1, 2), level(3, 4));
        let highest = samples.iter().map(|sample| watched.of(sample)).fold(0.0, f64::max);
        println!("{:<28}{early:>10.0}{late:>10.0}{highest:>10.0}", watched.title());
        if late > early * 1.1 + watched.slack() {
            risen.push(watched.title());
        }
    }
    ensure!(risen.is_empty(), "not flat: {}", risen.join(", "));
    Ok(())
}
