//! A clock that steps back, as after a correction by hand or a move to another host: positions order
//! changes, never the time of day.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Kafka, Postgres, PostgresVersion, Scratch, Tailwater, wait_for, workspace_root,
};
use tailwater_tests::{Audit, Record, each_change_once, read_committed, wait_sent};

use crate::legs::{DEADLINE, Link};
use crate::outages::{RATE, recovers};

/// The library that shifts a program's clock, built into the scratch directory.
fn library(scratch: &Scratch) -> Result<String> {
    let library = scratch.join("clock.so").display().to_string();
    let code = workspace_root().join("tests/data/clock.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o", &library]).arg(code);
    ensure!(compiler.status().context("run cc")?.success(), "the clock does not compile");
    Ok(library)
}

/// Sees the machine's clock shifted by what the file `clock` in its directory says.
fn shifted(tailwater: Tailwater, library: &str) -> Result<Tailwater> {
    let clock = tailwater.directory().join("clock");
    std::fs::write(&clock, 0i64.to_ne_bytes())?;
    Ok(tailwater
        .variable("LD_PRELOAD", library)
        .variable("STEPPED_CLOCK", &clock.display().to_string()))
}

/// Shifts the clock of both; returns when records of the capture carry the time it shows.
fn step(both: [&Tailwater; 2], seconds: i64, bootstrap: &str, topic: &str) -> Result<()> {
    for tailwater in both {
        let clock = File::options().write(true).open(tailwater.directory().join("clock"))?;
        // In place: the program has the file mapped.
        clock.write_all_at(&seconds.to_ne_bytes(), 0)?;
    }
    wait_for(DEADLINE, "records of the shifted time", || {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let wanted = i64::try_from(unix)? + seconds;
        let near = |record: &Record| {
            let value: serde_json::Value = serde_json::from_str(record.value.as_deref()?).ok()?;
            Some((value["ts_ms"].as_i64()? / 1000 - wanted).abs() < 600)
        };
        let records = read_committed(bootstrap, topic)?;
        ensure!(
            records.iter().rev().take(100).any(|record| near(record) == Some(true)),
            "none yet"
        );
        Ok(())
    })
}

#[test]
fn a_clock_that_steps_back_under_load_changes_nothing() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let workload = Runner::start(&source.url(), 31, RATE)?;
    let audit = Audit::install(&source)?;
    let link = Link::plain(Kafka::shared(), "");
    let scratch = Scratch::new("clock")?;
    let library = library(&scratch)?;
    let capture = shifted(link.capture(&source, "exclude = [\"public.audit\"]")?, &library)?;
    let sink = shifted(link.sink()?, &library)?;
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    let mark = audit.mark()?;
    let (bootstrap, topic) = (Kafka::shared().bootstrap(), link.topic("users"));
    for seconds in [-3_600, -86_400, 0] {
        step([&capture, &sink], seconds, &bootstrap, &topic)?;
        wait_sent(&capture, &source)?;
    }
    recovers(&source, workload, &sink)?;
    ensure!(capturing.is_running()?, "the capture ended:\n{}", capture.log_tail());
    ensure!(sinking.is_running()?, "the sink ended:\n{}", sink.log_tail());
    each_change_once(&audit.histories("users", mark)?, &bootstrap, &topic)
}
