//! What users get wrong, and what may be down: one clear sentence with the way out, the right exit
//! code or a patient retry, and no secret in sight.

use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Tailwater,
    TailwaterProcess, free_port, unique_name, wait_for,
};

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const FAILED: i32 = 1;
const USAGE: i32 = 2;

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    Ok(source)
}

/// The run ends by itself with this code and says all of this.
pub(crate) fn ends_with(tailwater: &Tailwater, code: i32, said: &[&str]) -> Result<()> {
    let status = tailwater.run_to_end(DEADLINE)?;
    let log = tailwater.log();
    ensure!(status.code() == Some(code), "it ended with {status}:\n{log}");
    for text in said {
        ensure!(log.contains(text), "`{text}` is not in:\n{log}");
    }
    ensure!(!log.contains("panicked"), "it panicked:\n{log}");
    Ok(())
}

fn config(url: &str, more: &str) -> String {
    format!("[source]\nurl = \"{url}\"\n{more}\n[http]\nlisten = \"{{listen}}\"\n")
}

#[test]
fn a_wrong_password_is_said_and_not_shown() -> Result<()> {
    let source = source()?;
    let url = source.tcp_url();
    let (user, rest) = url.split_once('@').expect("a TCP URL has a user");
    let name = user.rsplit('/').next().and_then(|user| user.split(':').next()).unwrap_or_default();
    let wrong = format!("postgres://{name}:not-the-word@{rest}");
    let tailwater = Tailwater::with_source(&wrong)?;
    let said = ["capture stopped: ", "password", "check user, password and pg_hba.conf"];
    ends_with(&tailwater, FAILED, &said)?;
    ensure!(!tailwater.log().contains("not-the-word"), "the password is in the log");
    Ok(())
}

#[test]
fn wal_level_replica_is_said_with_the_setting() -> Result<()> {
    let options = PostgresOptions { wal_level: "replica".into(), ..PostgresOptions::default() };
    let postgres = Postgres::start(PostgresVersion::V15, options)?;
    let source = postgres.create_database()?;
    let said = ["wal_level is `replica`", "ALTER SYSTEM SET wal_level = 'logical'"];
    ends_with(&Tailwater::with_source(&source.url())?, FAILED, &said)
}

#[test]
fn a_missing_table_is_named() -> Result<()> {
    let source = source()?;
    let text = config(&source.url(), "tables = [\"public.nothing\"]\n");
    ends_with(&Tailwater::with_config(&text)?, FAILED, &["public.nothing", "does not exist"])
}

#[test]
fn a_named_table_without_a_key_is_refused_with_the_way_out() -> Result<()> {
    let source = source()?;
    source.execute("CREATE TABLE keyless (body text)")?;
    let text = config(&source.url(), "tables = [\"public.keyless\"]\n");
    let said = ["public.keyless has no primary key", "REPLICA IDENTITY"];
    ends_with(&Tailwater::with_config(&text)?, FAILED, &said)
}

#[test]
fn a_publication_of_somebody_else_without_tables_is_refused() -> Result<()> {
    let source = source()?;
    source.execute("CREATE PUBLICATION empty")?;
    let text = config(&source.url(), "publication = \"empty\"\n");
    let said = ["publication empty holds no table; run ALTER PUBLICATION", "ADD TABLE"];
    ends_with(&Tailwater::with_config(&text)?, FAILED, &said)
}

#[test]
fn mistakes_in_the_settings_name_file_line_and_what_is_allowed() -> Result<()> {
    let unknown = Tailwater::with_config("[source]\nurl = \"postgres:///x\"\nslots = \"x\"\n")?;
    ends_with(&unknown, USAGE, &["tailwater.toml:3", "unknown key `slots`", "`slot`"])?;
    let variable = Tailwater::with_config("[source]\nurl = \"${NO_SUCH_VARIABLE}\"\n")?;
    ends_with(&variable, USAGE, &["tailwater.toml:2", "NO_SUCH_VARIABLE"])?;
    let missing = Tailwater::with_arguments(["run", "--config", "missing.toml"])?;
    ends_with(&missing, USAGE, &["missing.toml"])?;
    ends_with(&Tailwater::with_arguments(["run"])?, USAGE, &["--source"])
}

#[test]
fn a_file_that_is_no_component_is_refused_at_start() -> Result<()> {
    let source = source()?;
    let plugin = "\n[[plugin]]\nname = \"broken\"\npath = \"broken.wasm\"\n";
    let tailwater = Tailwater::with_config(&(config(&source.url(), "") + plugin))?;
    std::fs::write(
        tailwater.directory().join("broken.wasm"),
        b"\0asm\x01\0\0\0 and then nonsense",
    )?;
    ends_with(
        &tailwater,
        FAILED,
        &["transform stopped: ", "broken.wasm is not a WebAssembly component"],
    )
}

#[test]
fn a_clickhouse_that_refuses_the_user_is_said() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    let url = clickhouse.url();
    let section = format!("\n[clickhouse]\nurl = \"{url}\"\npassword = \"not-the-word\"\n");
    let tailwater = Tailwater::with_config(&(config(&source.url(), "") + &section))?;
    let said = [
        &format!("store stopped: ClickHouse at {url} refuses user"),
        "set clickhouse.user and .password",
    ];
    ends_with(&tailwater, FAILED, &said)
}

#[test]
fn a_source_that_is_down_is_waited_for() -> Result<()> {
    let url = format!("postgres://nobody@127.0.0.1:{}/shop", free_port()?);
    let tailwater = Tailwater::with_source(&url)?;
    let process = tailwater.start()?;
    wait_for(DEADLINE, "the reason in /readyz", || {
        let answer = tailwater.get("/readyz")?;
        let told =
            answer.status == 503 && answer.text().contains("cannot reach the source; check host");
        ensure!(told, "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

#[test]
fn a_slot_in_use_is_said_and_waited_for() -> Result<()> {
    let source = source()?;
    let first = Tailwater::with_source(&source.url())?;
    let mut running = first.start()?;
    running.wait_ready(DEADLINE)?;
    let second = Tailwater::with_source(&source.url())?;
    let waiting = second.start()?;
    wait_for(DEADLINE, "the reason in /readyz", || {
        let answer = second.get("/readyz")?;
        let said = answer.text();
        ensure!(said.contains("another process streams from this slot: stop it"), "{said}");
        ensure!(said.contains(" is active for PID "), "{said}");
        Ok(())
    })?;
    ensure!(waiting.terminate(DEADLINE)?.success(), "the second one ended badly");
    ensure!(running.terminate(DEADLINE)?.success(), "the first one ended badly");
    Ok(())
}

/// The slot is dropped, and the process says so and ends.
pub(crate) fn ends_without_slot(
    source: &Database<'_>,
    slot: &str,
    tailwater: &Tailwater,
    process: TailwaterProcess<'_>,
) -> Result<()> {
    source.execute(&format!(
        "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots
         WHERE slot_name = '{slot}';
         SELECT pg_drop_replication_slot('{slot}')"
    ))?;
    let status = process.wait_exit(DEADLINE)?;
    ensure!(status.code() == Some(FAILED), "it ended with {status}");
    let said = format!("slot {slot} was dropped while it was in use, so changes may be missing");
    ensure!(tailwater.log().contains(&said), "{}", tailwater.log_tail());
    Ok(())
}

#[test]
fn a_slot_that_is_dropped_under_a_running_capture_is_not_made_anew_in_silence() -> Result<()> {
    let source = source()?;
    let slot = unique_name("dropped");
    let tailwater =
        Tailwater::with_config(&config(&source.url(), &format!("slot = \"{slot}\"\n")))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    ends_without_slot(&source, &slot, &tailwater, process)
}

#[test]
fn a_broker_that_is_down_at_start_and_goes_away_is_waited_for() -> Result<()> {
    let source = source()?;
    let kafka = Kafka::start()?;
    kafka.stop()?;
    source.execute("INSERT INTO notes VALUES (1, 'one')")?;
    let kafka_section = format!(
        "\n[kafka]\nbrokers = \"{}\"\nprefix = \"{}\"\npartitions = 2\n",
        kafka.bootstrap(),
        unique_name("down")
    );
    let tailwater = Tailwater::with_config(&(config(&source.url(), "") + &kafka_section))?;
    let mut process = tailwater.start()?;
    wait_for(DEADLINE, "the reason in /readyz", || {
        let answer = tailwater.get("/readyz")?;
        let told = answer.status == 503 && answer.text().contains("is kafka up");
        ensure!(told, "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    kafka.restart()?;
    process.wait_ready(DEADLINE * 2)?;
    serves(&tailwater, "{\"id\":1,\"body\":\"one\"}\n")?;
    kafka.stop()?;
    source.execute("INSERT INTO notes VALUES (2, 'two')")?;
    kafka.restart()?;
    serves(&tailwater, "{\"id\":1,\"body\":\"one\"}\n{\"id\":2,\"body\":\"two\"}\n")?;
    ensure!(process.is_running()?, "it ended by itself");
    Ok(())
}

fn serves(tailwater: &Tailwater, expected: &str) -> Result<()> {
    wait_for(DEADLINE * 2, "the rows in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/notes_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}
