//! Each half of a way over Kafka stops in time under load, also while the broker hangs or is away; what it gives
//! up by that is there once it goes on.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{ClickHouse, Kafka, Postgres, PostgresVersion, TailwaterProcess};
use tailwater_tests::{Audit, each_change_once, wait_sent};

use crate::bad_input::ends_without_slot;
use crate::legs::{DEADLINE, Link};
use crate::outages::{RATE, recovers};
use crate::stops::{PROMISED, tells};

/// What happens to the broker before the stop, and is undone after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    Hangs,
    Away,
}

impl Trouble {
    fn begin(self, kafka: &Kafka) -> Result<()> {
        match self {
            Trouble::Nothing => Ok(()),
            Trouble::Hangs => signal(kafka, Signal::STOP),
            Trouble::Away => kafka.crash(),
        }
    }

    fn end(self, kafka: &Kafka) -> Result<()> {
        match self {
            Trouble::Nothing => Ok(()),
            Trouble::Hangs => signal(kafka, Signal::CONT),
            Trouble::Away => kafka.restart(),
        }
    }
}

fn signal(kafka: &Kafka, signal: Signal) -> Result<()> {
    let id = kafka.process_id().context("the broker runs")?;
    let id = Pid::from_raw(i32::try_from(id)?).context("a process id")?;
    Ok(kill_process(id, signal)?)
}

fn stops(process: TailwaterProcess<'_>) -> Result<()> {
    let status = process.terminate(PROMISED)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn both_stop_and_go_on(trouble: Trouble, seed: u64) -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let kafka = Kafka::start()?;
    let workload = Runner::start(&source.url(), seed, RATE)?;
    let audit = Audit::install(&source)?;
    let link = Link::plain(&kafka, "");
    let (capture, sink) = (link.capture(&source, "exclude = [\"public.audit\"]")?, link.sink()?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    let mark = audit.mark()?;
    trouble.begin(&kafka)?;
    if trouble != Trouble::Nothing {
        tells(&capture, "send", "")?;
        tells(&sink, "receive", "")?;
    }
    stops(capturing).context("the capture")?;
    stops(sinking).context("the sink")?;
    if trouble != Trouble::Nothing {
        // Those that find the broker so do not get far.
        let (capturing, sinking) = (capture.start()?, sink.start()?);
        tells(&capture, "send", "")?;
        tells(&sink, "receive", "")?;
        stops(capturing).context("a capture that begins")?;
        stops(sinking).context("a sink that begins")?;
    }
    trouble.end(&kafka)?;
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    recovers(&source, workload, &sink)?;
    stops(capturing).context("the capture that went on")?;
    stops(sinking).context("the sink that went on")?;
    each_change_once(&audit.histories("users", mark)?, &kafka.bootstrap(), &link.topic("users"))
}

#[test]
fn a_capture_and_a_sink_under_load_stop_in_time() -> Result<()> {
    both_stop_and_go_on(Trouble::Nothing, 61)
}

#[test]
fn a_broker_that_hangs_does_not_delay_a_stop() -> Result<()> {
    both_stop_and_go_on(Trouble::Hangs, 62)
}

#[test]
fn a_broker_that_is_away_does_not_delay_a_stop() -> Result<()> {
    both_stop_and_go_on(Trouble::Away, 63)
}

#[test]
fn a_leg_that_fails_for_good_ends_the_process_though_the_other_one_cannot_drain() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    let clickhouse = ClickHouse::start()?;
    let all = Link::plain(Kafka::shared(), "").both(&source, &clickhouse)?;
    let mut process = all.start()?;
    process.wait_ready(DEADLINE)?;
    clickhouse.crash()?;
    source.execute("INSERT INTO notes VALUES (1, 'on its way')")?;
    tells(&all, "sink", "")?;
    let slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()";
    let slot = &source.query(slots)?[0][0];
    ends_without_slot(&source, slot, &all, process)
}
