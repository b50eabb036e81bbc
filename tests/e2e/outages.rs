//! Services that go away, refuse or fall silent under load: the process recovers by itself, nothing
//! is lost and nothing doubled.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Proxy, Tailwater,
    TailwaterProcess, wait_for, wait_until,
};
use tailwater_tests::{Audit, Emails, each_change_once, wait_equal, wait_sent};

use crate::legs::{DEADLINE, Link, behind_proxy, says, serves};
use crate::stops::{PROMISED, SLACK};

pub(crate) const RATE: u64 = 500;

/// So long a broker is away: longer than most of a client's own limits, and as long as it may leave a
/// transaction open.
const OUTAGE: Duration = Duration::from_secs(60);

fn lasts(outage: Duration) -> Result<()> {
    let begun = Instant::now();
    wait_until(outage + DEADLINE, "the outage to last", || begun.elapsed() >= outage)
}

/// The workload ends, and the copy becomes the source.
pub(crate) fn recovers(source: &Database<'_>, workload: Runner, served: &Tailwater) -> Result<()> {
    let counts = workload.stop()?;
    let rows = wait_equal(source, &served.http_url(), Emails::Plain, DEADLINE)
        .with_context(|| format!("{counts:?}\n{}", served.log_tail()))?;
    ensure!(rows > 0, "the workload left no row to compare");
    Ok(())
}

#[test]
fn a_broker_that_crashes_in_the_middle_of_transactions_holds_each_change_once() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let kafka = Kafka::start()?;
    let workload = Runner::start(&source.url(), 11, RATE)?;
    let audit = Audit::install(&source)?;
    let link = Link::plain(&kafka, "transaction_interval_ms = 1000");
    let (capture, sink) = (link.capture(&source, "exclude = [\"public.audit\"]")?, link.sink()?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    let mark = audit.mark()?;
    kafka.crash()?;
    kafka.restart()?;
    wait_sent(&capture, &source)?;
    kafka.crash()?;
    lasts(OUTAGE)?;
    kafka.restart()?;
    recovers(&source, workload, &sink)?;
    ensure!(capturing.is_running()?, "the capture ended:\n{}", capture.log_tail());
    each_change_once(&audit.histories("users", mark)?, &kafka.bootstrap(), &link.topic("users"))
}

#[test]
fn walsenders_that_are_terminated_under_load_cost_nothing() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 12, RATE)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    for _ in 0..5 {
        process.wait_ready(DEADLINE)?;
        wait_for(DEADLINE, "a walsender to terminate", || {
            ensure!(source.kill_walsenders()? > 0, "there is none");
            Ok(())
        })?;
    }
    recovers(&source, workload, &tailwater)
}

#[test]
fn an_embedded_engine_that_is_killed_under_load_comes_back() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 13, RATE)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let log = tailwater.log();
    let engine = log.split("embedded engine process=").nth(1).context("the engine's process")?;
    let engine: i32 = engine.split_whitespace().next().unwrap_or_default().parse()?;
    kill_process(Pid::from_raw(engine).context("a process id")?, Signal::KILL)?;
    recovers(&source, workload, &tailwater)?;
    ensure!(process.is_running()?, "it ended by itself");
    Ok(())
}

/// A connection that is open and silent is told of within five seconds, and given up after
/// `silence_timeout_s`.
#[test]
fn a_source_that_falls_silent_is_noticed_in_bounded_time() -> Result<()> {
    let settings = vec![("wal_sender_timeout".to_owned(), "4s".to_owned())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = Postgres::start(PostgresVersion::V15, options)?;
    let source = postgres.create_database()?;
    let workload = Runner::start(&source.url(), 14, RATE)?;
    let (proxy, tailwater) = behind_proxy(&source, "silence_timeout_s = 12")?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    proxy.go_deaf();
    let deaf = Instant::now();
    wait_for(DEADLINE, "/readyz to say that the source is silent", || {
        let answer = tailwater.get("/readyz")?;
        ensure!(answer.text().contains("the source is silent"), "{}", answer.text());
        Ok(())
    })?;
    ensure!(deaf.elapsed() < Duration::from_secs(6), "it took {:?}", deaf.elapsed());
    says(&tailwater, "the source was silent for 12s; taking the connection for dead")?;
    recovers(&source, workload, &tailwater)?;
    ensure!(process.is_running()?, "it ended by itself");
    Ok(())
}

/// A connection that the network has forgotten is told of within five seconds, and an insert on it is given up
/// after `silence_timeout_s`.
#[test]
fn a_clickhouse_that_falls_silent_is_noticed_in_bounded_time_and_loses_nothing() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let clickhouse = ClickHouse::shared();
    let port = clickhouse.url().rsplit_once(':').context("find the port")?.1.parse()?;
    let proxy = Proxy::start(port)?;
    let workload = Runner::start(&source.url(), 17, RATE)?;
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n\n[clickhouse]\nurl = \"http://127.0.0.1:{}\"\nuser = \"{}\"\n\
         password = \"{}\"\nsilence_timeout_s = 6\n\n[http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        proxy.port(),
        clickhouse.user(),
        clickhouse.password(),
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the first rows", || {
        clickhouse.query(&format!("SELECT 1 FROM {}.users_versions LIMIT 1", source.name()))
    })?;
    proxy.go_deaf();
    // A question on a connection that is open gets no answer; one on a new connection does, and then it is the
    // insert that stands still.
    let told = ["ClickHouse does not answer within", "changes wait for the step `stored`"];
    wait_for(PROMISED + SLACK, "/readyz to say that nothing is stored", || {
        let answer = tailwater.get("/readyz")?;
        let is_told = told.iter().any(|reason| answer.text().contains(reason));
        ensure!(answer.status == 503 && is_told, "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    says(&tailwater, "failed, trying again what=\"store in ClickHouse\"")?;
    process.wait_ready(DEADLINE)?;
    recovers(&source, workload, &tailwater)?;
    ensure!(process.is_running()?, "it ended by itself");
    Ok(())
}

/// Directly into a server of the test's own.
fn into(clickhouse: &ClickHouse, source: &Database<'_>) -> Result<Tailwater> {
    into_url(&clickhouse.url(), clickhouse, source)
}

/// The same by another way to it.
pub(crate) fn into_url(
    url: &str,
    clickhouse: &ClickHouse,
    source: &Database<'_>,
) -> Result<Tailwater> {
    into_url_with(url, clickhouse, source, "")
}

/// With further lines of `[clickhouse]`.
pub(crate) fn into_url_with(
    url: &str,
    clickhouse: &ClickHouse,
    source: &Database<'_>,
    more: &str,
) -> Result<Tailwater> {
    Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n\n[clickhouse]\nurl = \"{url}\"\nuser = \"{}\"\npassword = \"{}\"\n{more}\n\n\
         [http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        clickhouse.user(),
        clickhouse.password(),
    ))
}

pub(crate) fn metric(tailwater: &Tailwater, name: &str) -> Result<f64> {
    let metrics = tailwater.get("/metrics")?.text();
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("find {name}"))?.parse()?)
}

/// The most memory that a process has had in use, in bytes.
fn peak(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.context("find the peak")?.trim().trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? << 10)
}

/// A process never had more in use than so many MiB.
pub(crate) fn stays_below(mebibytes: u64, process: &TailwaterProcess<'_>) -> Result<()> {
    let peak = peak(process.id())? >> 20;
    ensure!(peak < mebibytes, "at its peak it had {peak} MiB of memory in use");
    Ok(())
}

const BYTES_BEHIND: &str = "tailwater_lag_bytes{step=\"stored\"}";

/// A backlog that builds up from `hindered` to `helped` is held by the slot and not by the memory, and
/// is stored in the end.
pub(crate) fn lags_without_growing(
    source: &Database<'_>,
    workload: Runner,
    tailwater: &Tailwater,
    hindered: impl FnOnce() -> Result<()>,
    helped: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    // Before that there is nothing to tell a lag from.
    wait_for(DEADLINE, "a change to be stored", || metric(tailwater, BYTES_BEHIND))?;
    hindered()?;
    // In many transactions: one alone lags by nothing as soon as a part of it is stored.
    source.execute(
        "DO $$ BEGIN FOR part IN 1..60 LOOP
             INSERT INTO users (id, name, email, address)
             SELECT 1000000 + n, md5(n::text) || repeat('n', 200), 'e', md5(n::text) || repeat('a', 200)
             FROM generate_series(part * 1000, part * 1000 + 999) n;
             COMMIT;
         END LOOP; END $$",
    )?;
    wait_for(DEADLINE, "the slot's lag to show", || {
        let lag = metric(tailwater, "tailwater_slot_retained_bytes")?;
        ensure!(lag > 15e6, "{lag} bytes are retained");
        let lag = metric(tailwater, BYTES_BEHIND)?;
        ensure!(lag > 15e6, "{lag} bytes are not stored");
        let lag = metric(tailwater, "tailwater_lag_seconds{step=\"stored\"}")?;
        ensure!(lag > 3.0, "what waits is {lag} s old");
        Ok(())
    })?;
    source.execute("DELETE FROM users WHERE id > 1000000 AND id % 10 > 0")?;
    helped()?;
    recovers(source, workload, tailwater)?;
    ensure!(process.is_running()?, "it ended by itself:\n{}", tailwater.log_tail());
    stays_below(130, &process)
}

#[test]
fn a_clickhouse_that_is_away_makes_the_slot_lag_and_not_the_memory_grow() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let clickhouse = ClickHouse::start()?;
    let workload = Runner::start(&source.url(), 15, RATE)?;
    let tailwater = into(&clickhouse, &source)?;
    let (away, back) = (|| clickhouse.crash(), || clickhouse.restart());
    lags_without_growing(&source, workload, &tailwater, away, back)
}

/// Each is a batch of its own, of which the queues would hold many.
#[test]
fn large_rows_wait_in_the_slot_and_not_in_memory_while_clickhouse_is_away() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    let clickhouse = ClickHouse::start()?;
    let tailwater = into(&clickhouse, &source)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (0, 'small')")?;
    serves(&tailwater, "notes", "{\"id\":0,\"body\":\"small\"}\n")?;
    let before = peak(process.id())?;
    clickhouse.crash()?;
    source.execute(
        "INSERT INTO notes SELECT n, repeat('0123456789abcdef', 3 << 19) FROM generate_series(1, 30) n",
    )?;
    wait_for(DEADLINE, "all stages to stand", || {
        let lag = metric(&tailwater, "tailwater_lag_seconds{step=\"stored\"}")?;
        ensure!(lag > 8.0, "what waits is {lag} s old");
        Ok(())
    })?;
    clickhouse.restart()?;
    wait_for(DEADLINE, "the rows", || {
        let sql =
            format!("SELECT count(), min(length(body)) FROM {}.notes WHERE id > 0", source.name());
        let found = clickhouse.query(&sql)?;
        ensure!(found == "30\t25165824\n", "{found}");
        Ok(())
    })?;
    let grown = peak(process.id())?.saturating_sub(before);
    println!("grown by {} MiB", grown >> 20);
    // Of 24 MiB each, the row that is stored, the next one, and their copies on the way: five were seen.
    ensure!(grown < 200 << 20, "the memory grew by {grown} bytes");
    ensure!(process.is_running()?, "it ended by itself:\n{}", tailwater.log_tail());
    Ok(())
}

#[test]
fn a_clickhouse_that_refuses_inserts_for_too_many_parts_is_waited_for() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let clickhouse = ClickHouse::start()?;
    let workload = Runner::start(&source.url(), 16, RATE)?;
    let tailwater = into(&clickhouse, &source)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let table = format!("{}.users_versions", source.name());
    wait_for(DEADLINE, "the table", || {
        clickhouse.query(&format!("SELECT 1 FROM {table} LIMIT 1"))
    })?;
    clickhouse.query(&format!("ALTER TABLE {table} MODIFY SETTING parts_to_throw_insert = 1"))?;
    wait_for(DEADLINE, "/readyz to say why", || {
        let answer = tailwater.get("/readyz")?;
        ensure!(answer.status == 503, "{} {}", answer.status, answer.text());
        ensure!(answer.text().contains("TOO_MANY_PARTS"), "{}", answer.text());
        Ok(())
    })?;
    clickhouse.query(&format!("ALTER TABLE {table} RESET SETTING parts_to_throw_insert"))?;
    recovers(&source, workload, &tailwater)?;
    ensure!(process.is_running()?, "it ended by itself");
    Ok(())
}

#[test]
fn a_sink_over_kafka_says_how_late_it_is_while_clickhouse_is_away() -> Result<()> {
    const LATE: &str = "tailwater_lag_seconds{step=\"stored\"}";
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::start()?);
    let link = Link::plain(kafka, "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(&clickhouse)?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    let late = |what: &str, is: fn(f64) -> bool| {
        wait_for(DEADLINE, what, || {
            let late = metric(&sink, LATE)?;
            ensure!(is(late), "{late} s\n{}", sink.log_tail());
            Ok(())
        })
    };
    source.execute("INSERT INTO notes VALUES (1, 'before')")?;
    late("the first row", |late| late < 10.0)?;
    clickhouse.crash()?;
    source.execute("INSERT INTO notes VALUES (2, 'meanwhile')")?;
    late("the lag to grow", |late| late > 12.0)?;
    clickhouse.restart()?;
    source.execute("INSERT INTO notes VALUES (3, 'after')")?;
    late("the lag to be gone", |late| late < 10.0)?;
    // Its progress is counted in offsets, so no LSN is made up for it.
    let status: serde_json::Value = serde_json::from_str(&sink.get("/v0/status")?.text())?;
    ensure!(status["steps"]["stored"]["lag_bytes"].is_null(), "{status}");
    ensure!(!sink.get("/metrics")?.text().contains("tailwater_lag_bytes{"), "a lag in bytes");
    let sent = metric(&capture, "tailwater_lag_bytes{step=\"sent\"}")?;
    ensure!(sent < 10e6, "{sent} bytes are not sent");
    Ok(())
}
