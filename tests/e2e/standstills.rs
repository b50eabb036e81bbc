//! What may stand still without an error beside the stream: the disk of the plugins' memory, and the look at
//! the slot. Rows go on meanwhile, it is told, nothing is acknowledged that should not be, and a stop is in time.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{
    Database, Postgres, PostgresVersion, Scratch, Tailwater, wait_for, workspace_root,
};

use crate::legs::{DEADLINE, behind_proxy, serves};
use crate::state::{self, FIRST};
use crate::stops::{PROMISED, tells, tells_within};

/// The library that makes a disk stand still, built into the scratch directory.
fn library(scratch: &Scratch) -> Result<String> {
    let library = scratch.join("disk.so").display().to_string();
    let code = workspace_root().join("tests/data/disk.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o", &library]).arg(code);
    ensure!(compiler.status().context("run cc")?.success(), "the disk does not compile");
    Ok(library)
}

/// Whether the slot was told of anything behind a place in the log.
fn is_told_beyond(source: &Database<'_>, lsn: &str) -> Result<bool> {
    let told = source.query(&format!(
        "SELECT confirmed_flush_lsn > '{lsn}' FROM pg_replication_slots
         WHERE database = current_database()"
    ))?;
    Ok(told == [["t"]])
}

#[test]
fn a_disk_that_takes_nothing_of_the_plugins_memory_is_told_of_and_delays_no_stop() -> Result<()> {
    let (source, scratch) = (state::members()?, Scratch::new("disk")?);
    let stuck = scratch.join("stuck");
    let tailwater = Tailwater::with_config(&state::config(&source, "")?)?
        .variable("LD_PRELOAD", &library(&scratch)?)
        .variable("STUCK_DISK", &stuck.display().to_string());
    state::begin(&source, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    fs::write(&stuck, "")?;
    let kept = source.query("SELECT pg_current_wal_insert_lsn()")?.swap_remove(0).swap_remove(0);
    source.execute("INSERT INTO members VALUES (1, 'a')")?;
    state::serves(&tailwater, &BTreeMap::from([(FIRST, 1), (1, 1)]))?;
    tells(
        &tailwater,
        "capture-memory",
        "what plugins remember has been on its way to the disk for",
    )?;
    source.execute("INSERT INTO members VALUES (2, 'a')")?;
    state::serves(&tailwater, &BTreeMap::from([(FIRST, 1), (1, 1), (2, 1)]))?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    ensure!(!is_told_beyond(&source, &kept)?, "what is not kept was acknowledged");
    let process = tailwater.start()?;
    wait_for(DEADLINE, "the third engine, behind which the memory is opened", || {
        let engines = tailwater.log().matches("embedded engine process=").count();
        ensure!(engines == 3, "{engines} engines were started");
        Ok(())
    })?;
    ensure!(process.terminate(PROMISED)?.success(), "one that begins ended badly");
    fs::remove_file(&stuck)?;
    let mut process = tailwater.start()?;
    source.execute("UPDATE members SET name = 'b' WHERE id = 1")?;
    state::serves(&tailwater, &BTreeMap::from([(FIRST, 1), (1, 2), (2, 1)]))?;
    process.wait_ready(DEADLINE)
}

#[test]
fn a_copy_that_is_under_way_is_told_of() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    let (proxy, tailwater) = behind_proxy(&source, "")?;
    proxy.go_deaf_to(b"COPY (SELECT");
    let process = tailwater.start()?;
    let copies = "tables are copied; the stream goes on after that";
    tells_within(DEADLINE, &tailwater, "capture", copies)?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    Ok(())
}

/// What only the look at the slot asks.
const LOOK: &str = "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)";

#[test]
fn a_look_at_the_slot_that_hangs_is_told_of_while_rows_go_on_and_delays_no_stop() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    let (proxy, tailwater) = behind_proxy(&source, "")?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    proxy.go_deaf_to(LOOK.as_bytes());
    tells_within(DEADLINE, &tailwater, "slot", "the source does not say how slot")?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    source.execute("INSERT INTO notes VALUES (3)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n")?;
    tells_within(DEADLINE, &tailwater, "slot", "the source does not say how slot")?;
    proxy.mend();
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n")
}
