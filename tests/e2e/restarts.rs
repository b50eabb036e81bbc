//! A PostgreSQL that crashes, is shut down and comes back under load, and loses its walsenders: on both routes nothing
//! is lost and nothing doubled.

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Kafka, Postgres, PostgresOptions, PostgresVersion, Tailwater, wait_for, wait_until,
};
use tailwater_tests::{Audit, Emails, each_change_once, wait_equal, wait_sent};

use crate::legs::{DEADLINE, Link};
use crate::outages::RATE;

/// What both routes leave alone.
const EXCLUDE: &str = "exclude = [\"public.audit\", \"public.turns\"]";

#[test]
fn a_source_that_restarts_and_ends_walsenders_under_load_costs_nothing() -> Result<()> {
    let postgres = Postgres::start(PostgresVersion::V18, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    let kafka = Kafka::shared();
    let workload = Runner::start_for_restarts(&source.url(), 17, RATE)?;
    let audit = Audit::install(&source)?;
    let link = Link::plain(kafka, "transaction_interval_ms = 500");
    let (capture, sink) =
        (link.capture(&source, &format!("{EXCLUDE}\nslot = \"over_kafka\""))?, link.sink()?);
    let direct = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n{EXCLUDE}\nslot = \"direct\"\n\n[http]\nlisten = \"{{listen}}\"\n",
        source.url()
    ))?;
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    let mut copying = direct.start()?;
    for process in [&mut capturing, &mut sinking, &mut copying] {
        process.wait_ready(DEADLINE)?;
    }
    wait_sent(&capture, &source)?;
    let mark = audit.mark()?;
    for end in [Postgres::crash, Postgres::stop] {
        end(&postgres)?;
        postgres.restart()?;
        let before = workload.counts();
        wait_until(DEADLINE, "the workload to go on", || workload.counts() != before)?;
        wait_sent(&capture, &source)?;
        copying.wait_ready(DEADLINE)?;
    }
    for _ in 0..2 {
        wait_for(DEADLINE, "a walsender for each route", || {
            let there = source.query("SELECT pid FROM pg_stat_replication")?.len();
            ensure!(there == 2, "there are {there}");
            Ok(())
        })?;
        ensure!(source.kill_walsenders()? > 0, "they ended by themselves");
        wait_sent(&capture, &source)?;
    }
    let counts = workload.stop()?;
    for (tailwater, route) in [(&direct, "direct"), (&sink, "over Kafka")] {
        let rows = wait_equal(&source, &tailwater.http_url(), Emails::Plain, DEADLINE)
            .with_context(|| format!("{route}, {counts:?}\n{}", tailwater.log_tail()))?;
        ensure!(rows > 0, "the workload left no row to compare");
    }
    for (process, tailwater) in
        [(&mut capturing, &capture), (&mut sinking, &sink), (&mut copying, &direct)]
    {
        ensure!(process.is_running()?, "it ended by itself:\n{}", tailwater.log_tail());
    }
    each_change_once(&audit.histories("users", mark)?, &kafka.bootstrap(), &link.topic("users"))
}
