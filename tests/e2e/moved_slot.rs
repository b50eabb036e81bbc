//! A slot that somebody else moved passes over changes that nobody has: that is told, and never silent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresVersion, Tailwater, wait_for,
};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, Link, behind_proxy, says, serves};
use crate::outages::into_url;
use crate::stops::tells;
use crate::storage::UNRECORDED;

const COPIED: &str = "{\"id\":1,\"body\":\"copied\"}\n";
const STREAMED: &str = "{\"id\":2,\"body\":\"streamed\"}\n";
const MISSED: &str = "{\"id\":3,\"body\":\"missed\"}\n";

fn source(version: PostgresVersion) -> Result<Database<'static>> {
    let source = Postgres::shared(version).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied')")?;
    Ok(source)
}

/// Waits until the pipeline's slot is nobody's, and asks something of it.
fn of_idle_slot(source: &Database<'_>, sql: &str) -> Result<()> {
    let slot = format!("tailwater_{}", source.name());
    wait_for(DEADLINE, "the slot to be free", || {
        let sql = sql.replace("{slot}", &slot);
        let done = source.query(&format!(
            "SELECT {sql} FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active"
        ))?;
        ensure!(done.len() == 1, "there is no idle slot");
        Ok(())
    })
}

/// While the capture is away, somebody advances its slot.
fn is_told(source: &Database<'_>, capture: &Tailwater, served: &Tailwater) -> Result<()> {
    let process = capture.start()?;
    serves(served, "notes", COPIED)?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    serves(served, "notes", &format!("{COPIED}{STREAMED}"))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    // As often as one likes: that the slot is where it was left is nothing to tell.
    let mut process = capture.start()?;
    process.wait_ready(DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("INSERT INTO notes VALUES (3, 'missed')")?;
    of_idle_slot(source, "pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")?;
    let said = [
        "somebody moved it, or made it anew, so changes are missing",
        &format!("pg_drop_replication_slot('tailwater_{}')", source.name()),
    ];
    ends_with(capture, FAILED, &said)?;
    of_idle_slot(source, "pg_drop_replication_slot('{slot}')")?;
    // The copies before are worth nothing from the moment on at which there is a new slot.
    let mut dies = capture.start_with(&[("TAILWATER_FAILPOINT", "during_snapshot:1")])?;
    wait_for(DEADLINE, "the death in the copy", || {
        ensure!(!dies.is_running()?, "it still runs");
        Ok(())
    })?;
    let mut process = capture.start()?;
    process.wait_ready(DEADLINE)?;
    serves(served, "notes", &format!("{COPIED}{STREAMED}{MISSED}"))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn a_slot_that_was_advanced_is_told_of_without_a_broker() -> Result<()> {
    let (source, clickhouse) = (source(PostgresVersion::V15)?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    is_told(&source, &tailwater, &tailwater)
}

#[test]
fn a_slot_that_was_advanced_is_told_of_over_kafka() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(ClickHouse::shared())?);
    let mut sinking = sink.start()?;
    sinking.wait_ready(DEADLINE)?;
    is_told(&source, &capture, &sink)
}

#[test]
fn a_slot_that_was_made_anew_between_two_connections_is_told_of() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    let (proxy, tailwater) = behind_proxy(&source, "silence_timeout_s = 6")?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    serves(&tailwater, "notes", &format!("{COPIED}{STREAMED}"))?;
    proxy.go_deaf();
    source.kill_walsenders()?;
    of_idle_slot(&source, "pg_drop_replication_slot('{slot}')")?;
    source.execute("INSERT INTO notes VALUES (3, 'missed')")?;
    let slot = format!("tailwater_{}", source.name());
    source.query(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))?;
    let status = process.wait_exit(Duration::from_secs(60)).context("it goes on")?;
    let log = tailwater.log();
    ensure!(status.code() == Some(FAILED), "it ended with {status}:\n{log}");
    ensure!(log.contains("somebody moved it, or made it anew"), "{log}");
    Ok(())
}

/// It wakes up with a record that it could not write before, of a place that the other one has passed long since.
#[test]
fn a_process_that_slept_while_another_one_had_its_slot_goes_on_behind_it() -> Result<()> {
    let (source, clickhouse) = (source(PostgresVersion::V18)?, ClickHouse::shared());
    let into = || into_url(&clickhouse.url(), clickhouse, &source);
    let (sleeper, other) = (into()?, into()?);
    let records = format!("{}._tailwater_sources", source.name());
    let readonly = |on: u8| {
        clickhouse.query(&format!("ALTER TABLE {records} MODIFY SETTING table_readonly = {on}"))
    };
    let mut asleep = sleeper.start()?;
    asleep.wait_ready(DEADLINE)?;
    serves(&sleeper, "notes", COPIED)?;
    readonly(1)?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    serves(&sleeper, "notes", &format!("{COPIED}{STREAMED}"))?;
    says(&sleeper, UNRECORDED)?;
    tells(&sleeper, "slot-record", "so the slot is not told, and PostgreSQL keeps its log")?;
    let process = Pid::from_raw(i32::try_from(asleep.id())?).context("a process id")?;
    kill_process(process, Signal::STOP)?;
    readonly(0)?;
    wait_for(DEADLINE, "the slot to be let go", || {
        let held =
            "SELECT FROM pg_replication_slots WHERE active AND database = current_database()";
        source.kill_walsenders()?;
        ensure!(source.query(held)?.is_empty(), "it is active");
        Ok(())
    })?;
    let mut awake = other.start()?;
    awake.wait_ready(DEADLINE)?;
    source.execute("DELETE FROM notes WHERE id = 1")?;
    serves(&other, "notes", STREAMED)?;
    ensure!(awake.terminate(DEADLINE)?.success(), "it ended badly");
    kill_process(process, Signal::CONT)?;
    source.execute("INSERT INTO notes VALUES (3, 'missed')")?;
    serves(&sleeper, "notes", &format!("{STREAMED}{MISSED}"))?;
    says(&sleeper, "meanwhile: that is compared with what is stored")?;
    // It writes its records again.
    asleep.wait_ready(DEADLINE)?;
    ensure!(asleep.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

/// The other one has the slot still when it comes back, and is in the right.
#[test]
fn a_process_that_finds_its_slot_in_use_and_moved_leaves_it_to_the_other_one() -> Result<()> {
    let (source, clickhouse) = (source(PostgresVersion::V18)?, ClickHouse::shared());
    let into = || into_url(&clickhouse.url(), clickhouse, &source);
    let (sleeper, other) = (into()?, into()?);
    let asleep = sleeper.start()?;
    serves(&sleeper, "notes", COPIED)?;
    let process = Pid::from_raw(i32::try_from(asleep.id())?).context("a process id")?;
    kill_process(process, Signal::STOP)?;
    source.kill_walsenders()?;
    let mut awake = other.start()?;
    awake.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    serves(&other, "notes", &format!("{COPIED}{STREAMED}"))?;
    kill_process(process, Signal::CONT)?;
    wait_for(DEADLINE, "the slot to be found in use", || {
        let answer = sleeper.get("/readyz")?;
        ensure!(answer.text().contains("another process streams from this slot"));
        Ok(())
    })?;
    ensure!(awake.terminate(DEADLINE)?.success(), "it ended badly");
    let status = asleep.wait_exit(DEADLINE).context("it goes on")?;
    let (log, slot) = (sleeper.log(), format!("tailwater_{}", source.name()));
    let said = format!("another tailwater took over slot {slot} and moved it to ");
    ensure!(status.code() == Some(FAILED) && log.contains(&said), "{status}:\n{log}");
    Ok(())
}

/// As of before the first start: nothing is missing in a slot that somebody prepared.
#[test]
fn a_slot_that_was_made_beforehand_is_used() -> Result<()> {
    let (source, clickhouse) = (source(PostgresVersion::V18)?, ClickHouse::shared());
    source.execute("CREATE PUBLICATION tailwater FOR TABLE notes")?;
    let slot = format!("tailwater_{}", source.name());
    source.query(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    for _ in 0..2 {
        let mut process = tailwater.start()?;
        process.wait_ready(DEADLINE)?;
        serves(&tailwater, "notes", &format!("{COPIED}{STREAMED}"))?;
        ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    }
    Ok(())
}
