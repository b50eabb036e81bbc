//! The embedded engine's process: it may die at any moment, and never outlives its parent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Postgres, PostgresVersion, Tailwater, TailwaterProcess, wait_for, wait_until,
};
use tailwater_tests::{Emails, wait_equal};

use crate::bad_input::{FAILED, ends_with};

const DEADLINE: Duration = Duration::from_secs(90);
const KILLS: usize = 5;
const RATE: u64 = 1_000;

/// The engine's process id, once there is one other than `former`.
fn engine_of(parent: &TailwaterProcess<'_>, former: Option<i32>) -> Result<i32> {
    let parent = parent.id();
    wait_for(DEADLINE, "the engine's process", || {
        let mut children = Vec::new();
        for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
            let list = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            children.extend(list.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
        }
        let engine = children.into_iter().find(|id| is_engine(*id) && Some(*id) != former);
        engine.context("there is none")
    })
}

fn is_engine(id: i32) -> bool {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == b"__clickhouse")
}

fn kill(id: i32) -> Result<()> {
    let id = Pid::from_raw(id).context("a process id is above 0")?;
    kill_process(id, Signal::KILL).context("kill the engine")
}

#[test]
fn an_engine_that_is_killed_under_load_comes_back_and_nothing_is_lost() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 7, RATE)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let mut engine = engine_of(&process, None)?;
    for _ in 0..KILLS {
        kill(engine)?;
        engine = engine_of(&process, Some(engine))?;
        process.wait_ready(DEADLINE)?;
    }
    let counts = workload.stop()?;
    wait_equal(&source, &tailwater.http_url(), Emails::Plain, DEADLINE)
        .with_context(|| format!("{counts:?}\n{}", tailwater.log_tail()))?;
    ensure!(process.is_running()?, "it ended by itself");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn the_engine_dies_with_its_parent_and_lets_go_of_the_data() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let engine = engine_of(&process, None)?;
    process.kill9()?;
    // A zombie that nobody has fetched yet has no command line.
    wait_until(DEADLINE, "the engine to end", || !is_engine(engine))?;
    let mut again = tailwater.start()?;
    again.wait_ready(DEADLINE)?;
    Ok(())
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_way_out() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let first = Tailwater::with_source(&source.url())?;
    let mut process = first.start()?;
    process.wait_ready(DEADLINE)?;
    let other = Postgres::shared(PostgresVersion::V18).create_database()?;
    other.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let data = first.directory().join("data");
    let data = Path::new(&data).to_str().context("a plain path")?;
    let url = other.url();
    let arguments = ["run", "--source", &url, "--listen", "{listen}", "--data", data];
    let second = Tailwater::with_arguments(arguments)?;
    let said = [
        "the embedded ClickHouse engine stopped: ",
        "is used by another process",
        "give this one its own directory in `[embedded] path`",
    ];
    ends_with(&second, FAILED, &said)?;
    ensure!(process.is_running()?, "the first one ended");
    Ok(())
}

/// Within a function the engine looks at no clock.
#[test]
fn a_statement_that_cannot_be_stopped_costs_the_engine_and_no_row() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 11, RATE / 10)?;
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n[http]\nlisten = \"{{listen}}\"\nsql_max_seconds = 1\n",
        source.url()
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let engine = engine_of(&process, None)?;
    let every = "SELECT hasAny(range(700000), range(1000000, 1700000))".replace(' ', "%20");
    let answer = tailwater.get(&format!("/v0/sql?q={every}"))?;
    ensure!(answer.status == 504, "{} {}", answer.status, answer.text());
    engine_of(&process, Some(engine))?;
    process.wait_ready(DEADLINE)?;
    let log = tailwater.log();
    ensure!(log.contains("a statement that reads cannot be stopped; the engine ends"), "{log}");
    let counts = workload.stop()?;
    wait_equal(&source, &tailwater.http_url(), Emails::Plain, DEADLINE)
        .with_context(|| format!("{counts:?}\n{}", tailwater.log_tail()))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
