//! A stop is done in time, whatever the process waits for, and what it waits for is said.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    ClickHouse, Database, Postgres, PostgresOptions, PostgresVersion, Proxy, Session, Tailwater,
    wait_for,
};

use crate::legs::{DEADLINE, behind_proxy, says, serves};
use crate::outages::{RATE, into_url, into_url_with, metric, recovers};

/// Within which a stop is done, and a leg that stands still is told of.
pub(crate) const PROMISED: Duration = Duration::from_secs(5);
/// What a busy machine may add to the latter.
pub(crate) const SLACK: Duration = Duration::from_secs(5);

const CAPTURED: &str = "tailwater_passed_total{step=\"captured\"}";

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    Ok(source)
}

/// Many that the workload leaves alone.
fn users(count: u32) -> String {
    format!(
        "INSERT INTO users (id, name, email, address) \
         SELECT 1000000 + n, md5(n::text), 'e', repeat(md5(n::text), 10) FROM generate_series(1, {count}) n"
    )
}

/// `/readyz` says in time that this leg, or this step, stands still, and why.
pub(crate) fn tells(tailwater: &Tailwater, name: &str, reason: &str) -> Result<()> {
    tells_within(PROMISED + SLACK, tailwater, name, reason)
}

/// The same of a reason that takes longer to be known, as to a process that begins.
pub(crate) fn tells_within(
    deadline: Duration,
    tailwater: &Tailwater,
    name: &str,
    reason: &str,
) -> Result<()> {
    wait_for(deadline, "the leg and the reason in /readyz", || {
        let answer = tailwater.get("/readyz")?;
        let told: serde_json::Value = serde_json::from_str(&answer.text())?;
        let waiting = told["waiting"].as_array().into_iter().flatten();
        let said =
            waiting.filter(|leg| leg["name"] == name).filter_map(|leg| leg["reason"].as_str());
        let is_told = answer.status == 503 && said.into_iter().any(|said| said.contains(reason));
        ensure!(is_told, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

/// The kernel takes the connection of a server that hangs, and nobody answers.
#[test]
fn a_source_that_hangs_does_not_delay_a_stop() -> Result<()> {
    let hanging = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("postgres://u@127.0.0.1:{}/d", hanging.local_addr()?.port());
    let tailwater = Tailwater::with_source(&url)?;
    let process = tailwater.start()?;
    let (_connection, _) = hanging.accept()?;
    says(&tailwater, "serving")?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn a_slot_that_waits_for_an_open_transaction_says_so_and_does_not_delay_a_stop() -> Result<()> {
    // Elsewhere it might wait for another test's.
    let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    let open = Session::open(&source.url())?;
    open.execute("BEGIN; INSERT INTO notes VALUES (2)")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let process = tailwater.start()?;
    let pid = open.value("SELECT pg_backend_pid()")?.unwrap_or_default();
    let waits = format!("waits for the transaction of process {pid}, open for");
    tells_within(DEADLINE, &tailwater, "capture", &waits)?;
    tells_within(DEADLINE, &tailwater, "capture", " s, to begin after it")?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    let log = tailwater.log();
    let said = log.matches("the slot waits for an open transaction to end").count();
    ensure!(said == 1 && log.contains(&format!("pid={pid}")), "it was said {said} times:\n{log}");
    wait_for(DEADLINE, "the slot to be given up", || {
        let sql = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()";
        let slots = source.query(sql)?;
        ensure!(slots.is_empty(), "{slots:?}");
        Ok(())
    })?;
    let mut process = tailwater.start()?;
    tells_within(DEADLINE, &tailwater, "capture", "waits for the transaction of process")?;
    open.execute("COMMIT")?;
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")
}

/// The first change of a table since a connection began makes the stream ask the catalog.
#[test]
fn a_catalog_that_is_locked_is_told_of_and_does_not_delay_a_stop() -> Result<()> {
    let source = source()?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let locked = Session::open(&source.url())?;
    locked.execute("BEGIN; LOCK TABLE pg_attrdef IN ACCESS EXCLUSIVE MODE")?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    tells(
        &tailwater,
        "capture",
        "the source does not answer what the columns of public.notes are",
    )?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    locked.execute("ROLLBACK")?;
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")
}

/// What cannot be stored now is not acknowledged, and comes again.
#[test]
fn a_clickhouse_that_takes_nothing_does_not_delay_a_stop() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::start()?);
    let tailwater = into_url(&clickhouse.url(), &clickhouse, &source)?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    let read_only = |set| {
        let table = format!("{}.notes_versions", source.name());
        clickhouse.query(&format!("ALTER TABLE {table} MODIFY SETTING table_readonly = {set}"))
    };
    read_only(1)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    tells(&tailwater, "sink", "READ_ONLY")?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    says(&tailwater, "stopped without waiting any longer for what is on its way")?;
    read_only(0)?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")
}

/// Each insert takes a second or two, so that something always moves, and more than six of them are on their way.
#[test]
fn a_clickhouse_that_is_slow_does_not_delay_a_stop() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let workload = Runner::start(&source.url(), 64, RATE)?;
    let clickhouse = ClickHouse::shared();
    let port = clickhouse.url().rsplit(':').next().unwrap_or_default().parse()?;
    let proxy = Proxy::start(port)?;
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let tailwater = into_url_with(&url, clickhouse, &source, "batch_rows = 500")?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    proxy.slow_down(100_000);
    source.execute(&users(30_000))?;
    let stored = || metric(&tailwater, "tailwater_passed_total{step=\"stored\"}");
    let before = stored()?;
    wait_for(DEADLINE, "what comes slowly to be stored", || {
        let (stored, captured) = (stored()?, metric(&tailwater, CAPTURED)?);
        ensure!(stored > before, "nothing yet");
        ensure!(captured > stored + 3_000.0, "{captured} were captured, {stored} stored");
        Ok(())
    })?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    says(&tailwater, "stopped without waiting any longer for what is on its way")?;
    proxy.slow_down(0);
    let _process = tailwater.start()?;
    recovers(&source, workload, &tailwater)
}

#[test]
fn a_copy_of_the_tables_that_is_under_way_does_not_delay_a_stop() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 65, RATE)?;
    source.execute(&users(20_000))?;
    let (proxy, tailwater) = behind_proxy(&source, "")?;
    // Takes the copy half a minute.
    proxy.slow_down(300_000);
    let process = tailwater.start()?;
    wait_for(DEADLINE, "the first rows of the copy", || {
        let captured = metric(&tailwater, CAPTURED)?;
        ensure!(captured > 0.0, "none yet");
        Ok(())
    })?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    ensure!(!tailwater.log().contains("copied the table"), "it was over:\n{}", tailwater.log());
    proxy.slow_down(0);
    let _process = tailwater.start()?;
    recovers(&source, workload, &tailwater)
}

/// ClickHouse delays inserts into a table of many parts, and answers whoever asks whether it is there.
#[test]
fn an_insert_that_hangs_is_told_of() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::start()?);
    let tailwater = into_url(&clickhouse.url(), &clickhouse, &source)?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    let table = format!("{}.notes_versions", source.name());
    clickhouse.query(&format!("SYSTEM STOP MERGES {table}"))?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    clickhouse.query(&format!(
        "ALTER TABLE {table} MODIFY SETTING parts_to_delay_insert = 1, max_delay_to_insert = 60,
         min_delay_to_insert_ms = 60000"
    ))?;
    source.execute("INSERT INTO notes VALUES (3)")?;
    tells(&tailwater, "stored", "changes wait for the step `stored`, and none has passed it for")
}
