//! SIGKILL at random moments under load, at least twenty times a run: nothing lost, nothing doubled,
//! order per key kept. The seed is printed; set `TAILWATER_TEST_SEED` to repeat one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Kafka, Postgres, PostgresVersion, Tailwater, unique_name, wait_until,
};
use tailwater_tests::{Audit, Emails, each_change_once, wait_equal, wait_sent};

const KILLS: usize = 20;
const RATE: u64 = 1_500;
const DEADLINE: Duration = Duration::from_secs(120);

#[expect(clippy::print_stdout, reason = "the seed is what a failure is repeated with")]
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("TAILWATER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("TAILWATER_TEST_SEED={seed}");
    seed
}

/// Starts and kills the process, each time after a random while.
fn kill_at_random(kills: usize, tailwater: &Tailwater, random: &mut StdRng) -> Result<()> {
    for kill in 0..kills {
        let mut process = tailwater.start()?;
        // Every third life ends before it could get going, the others under load.
        let life = Duration::from_millis(match kill % 3 {
            0 => random.random_range(10..600),
            _ => random.random_range(600..2_000),
        });
        let born = Instant::now();
        wait_until(DEADLINE, "the moment to kill", || born.elapsed() >= life)?;
        ensure!(process.is_running()?, "it ended by itself:\n{}", tailwater.log());
        process.kill9()?;
    }
    Ok(())
}

#[test]
fn killed_under_load_the_direct_copy_stays_exact() -> Result<()> {
    let seed = seed();
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), seed, RATE)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    kill_at_random(KILLS, &tailwater, &mut StdRng::seed_from_u64(seed))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let counts = workload.stop()?;
    let rows = wait_equal(&source, &tailwater.http_url(), Emails::Plain, DEADLINE)
        .with_context(|| format!("seed {seed}, {counts:?}"))?;
    ensure!(rows > 0, "the workload left no row to compare");
    Ok(())
}

#[test]
fn killed_under_load_kafka_holds_each_change_exactly_once() -> Result<()> {
    let seed = seed();
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let kafka = Kafka::shared();
    let workload = Runner::start(&source.url(), seed, RATE)?;
    let audit = Audit::install(&source)?;
    let prefix = unique_name("kill");
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\nexclude = [\"public.audit\"]\n\n\
         [kafka]\nbrokers = \"{}\"\nprefix = \"{prefix}\"\npartitions = 3\n\n\
         [http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        kafka.bootstrap(),
    ))?;
    let mut random = StdRng::seed_from_u64(seed);
    kill_at_random(KILLS / 4, &tailwater, &mut random)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_sent(&tailwater, &source)?;
    let mark = audit.mark()?;
    process.kill9()?;
    kill_at_random(KILLS, &tailwater, &mut random)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let counts = workload.stop()?;
    let context = || format!("seed {seed}, {counts:?}");
    wait_equal(&source, &tailwater.http_url(), Emails::Plain, DEADLINE).with_context(context)?;
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    let topic = format!("{prefix}.public.users");
    each_change_once(&audit.histories("users", mark)?, &kafka.bootstrap(), &topic)
        .with_context(context)
}
