//! As a service: it says which leg stands still, stops when told, and is soon back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresOptions, PostgresVersion, SASL_PASSWORD,
    Tailwater, TailwaterProcess, answer_everything, unique_name, wait_for,
};
use tailwater_tests::{Emails, read_committed, wait_equal, wait_sent};

use crate::kafka::login;
use crate::legs::Link;

const DEADLINE: Duration = Duration::from_secs(60);
/// A request over a connection on which nothing comes is given up after this, and not after a minute.
const GIVES_UP: &str = "\"socket.timeout.ms\" = 10000\n";
/// Within which a leg that stands still has to be told, and within which a stop is done.
const PROMISED: Duration = Duration::from_secs(5);
/// A start is at its first row in one second, or two. What takes so long on a busy machine hangs.
const HANGS: Duration = Duration::from_secs(10);

fn notes(source: &Database<'_>) -> Result<()> {
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")
}

fn serves(tailwater: &Tailwater, deadline: Duration, lines: usize) -> Result<()> {
    wait_for(deadline, "the rows", || {
        let answer = tailwater.get("/v0/pipes/notes_snapshot.ndjson")?;
        let served = answer.status == 200 && answer.text().lines().count() == lines;
        ensure!(served, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

/// `/readyz` turns to 503 in time and names the leg.
fn tells(tailwater: &Tailwater, leg: &str) -> Result<()> {
    wait_for(PROMISED, "the leg in /readyz", || {
        let answer = tailwater.get("/readyz")?;
        let named = answer.status == 503 && answer.text().contains(&format!("\"name\":\"{leg}\""));
        ensure!(named, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

fn with_server(source: &Database<'_>, clickhouse: &ClickHouse) -> Result<Tailwater> {
    Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n\n[clickhouse]\nurl = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\n\
         database = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        clickhouse.url(),
        clickhouse.user(),
        clickhouse.password(),
        unique_name("service"),
    ))
}

#[test]
fn a_leg_that_stands_still_is_named_in_time_even_without_traffic() -> Result<()> {
    let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    notes(&source)?;
    let clickhouse = ClickHouse::start()?;
    let tailwater = with_server(&source, &clickhouse)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let engine = i32::try_from(clickhouse.process_id().context("find ClickHouse")?)?;
    let engine = Pid::from_raw(engine).context("a process id")?;
    kill_process(engine, Signal::STOP)?;
    let told = tells(&tailwater, "sink");
    let reason = tailwater.get("/readyz").map(|answer| answer.text());
    kill_process(engine, Signal::CONT)?;
    told?;
    let reason = reason?;
    ensure!(reason.contains("ClickHouse does not answer within 3s"), "{reason}");
    process.wait_ready(PROMISED)?;
    clickhouse.crash()?;
    tells(&tailwater, "sink")?;
    clickhouse.restart()?;
    process.wait_ready(PROMISED)?;
    postgres.crash()?;
    tells(&tailwater, "capture")?;
    postgres.restart()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    serves(&tailwater, DEADLINE, 1)
}

#[test]
fn what_kafka_has_is_stored_while_the_source_is_away() -> Result<()> {
    let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    notes(&source)?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    let link = Link::plain(Kafka::shared(), "");
    let capture = link.capture(&source, "")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    postgres.crash()?;
    let clickhouse = ClickHouse::start()?;
    let both = link.both(&source, &clickhouse)?;
    let mut process = both.start()?;
    serves(&both, DEADLINE, 1)?;
    tells(&both, "capture")?;
    postgres.restart()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&both, DEADLINE, 2)
}

/// Silent is worse than gone: connections stay open, and nobody answers on them. That is the broker first,
/// and then the network, which forgets the connections.
#[test]
fn a_broker_that_falls_silent_is_named_in_time_even_without_traffic() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    notes(&source)?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    let (kafka, proxy) = Kafka::start_behind_proxy()?;
    let link = Link::over(
        &kafka.sasl_bootstrap(),
        &format!("{}{GIVES_UP}", login("PLAIN", SASL_PASSWORD)),
    );
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    serves(&sink, DEADLINE, 1)?;
    let broker = i32::try_from(kafka.process_id().context("find the broker")?)?;
    let broker = Pid::from_raw(broker).context("a process id")?;
    kill_process(broker, Signal::STOP)?;
    let told = tells(&capture, "send").and_then(|()| tells(&sink, "receive"));
    let reason = capture.get("/readyz").map(|answer| answer.text());
    kill_process(broker, Signal::CONT)?;
    told?;
    let reason = reason?;
    ensure!(reason.contains("kafka does not answer; look at the network"), "{reason}");
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&sink, DEADLINE, 2)?;
    proxy.go_deaf();
    source.execute("INSERT INTO notes VALUES (3)")?;
    tells(&capture, "send")?;
    tells(&sink, "receive")?;
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (4)")?;
    serves(&sink, DEADLINE, 4)?;
    let mut rows = read_committed(&kafka.bootstrap(), &link.topic("notes"))?;
    // A truncate, with which a copy begins, has none.
    rows.retain(|record| record.key.is_some());
    ensure!(rows.len() == 4, "each row is there once: {rows:?}");
    Ok(())
}

#[test]
fn a_stop_under_load_is_done_in_time_and_loses_nothing() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 11, 1_000)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    workload.stop()?;
    wait_equal(&source, &tailwater.http_url(), Emails::Plain, DEADLINE)?;
    Ok(())
}

/// One that takes every statement would have the rows vanish.
#[test]
fn another_server_in_the_place_of_clickhouse_gets_no_rows_and_is_told_of() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    notes(&source)?;
    let nothing = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n[clickhouse]\nurl = \"http://{}\"\n\
         [clickhouse.tables.\"public.note\"]\n[http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        answer_everything(nothing)?,
    ))?;
    let _process = tailwater.start()?;
    wait_for(DEADLINE, "the reason in /readyz", || {
        let answer = tailwater.get("/readyz")?;
        let told = answer.text().contains("is not ClickHouse, or a proxy that does not reach it");
        ensure!(answer.status == 503 && told, "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    let log = tailwater.log();
    ensure!(!log.contains("copied the table"), "{log}");
    let idle = "none of the source's tables has the name of a section in [clickhouse.tables]";
    ensure!(log.matches(idle).count() == 1 && log.contains("public.note"), "{log}");
    Ok(())
}

/// From the start of the process to the row that was written meanwhile.
fn time_to_row<'a>(
    tailwater: &'a Tailwater,
    rows: usize,
) -> Result<(TailwaterProcess<'a>, Duration)> {
    let start = Instant::now();
    let process = tailwater.start()?;
    serves(tailwater, DEADLINE, rows)?;
    Ok((process, start.elapsed()))
}

#[test]
fn a_restart_goes_on_where_it_was() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    notes(&source)?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let (process, first) = time_to_row(&tailwater, 1)?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    source.execute("INSERT INTO notes VALUES (2)")?;
    let (process, resumed) = time_to_row(&tailwater, 2)?;
    process.kill9()?;
    source.execute("INSERT INTO notes VALUES (3)")?;
    let (_process, after_a_kill) = time_to_row(&tailwater, 3)?;
    let all = [first, resumed, after_a_kill];
    println!("first event, resumed, after a kill: {all:?}");
    ensure!(all.into_iter().max() < Some(HANGS), "{all:?}:\n{}", tailwater.log());
    Ok(())
}

#[test]
fn a_repeated_failure_is_logged_once_and_says_when_it_is_over() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    notes(&source)?;
    let others = ["a", "b", "c", "d"];
    for table in others {
        source.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY)"))?;
        source.execute(&format!("INSERT INTO {table} VALUES (0)"))?;
    }
    let clickhouse = ClickHouse::start()?;
    let tailwater = with_server(&source, &clickhouse)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the tables to be known", || {
        let log = tailwater.log();
        ensure!(log.matches("copied the table").count() == 5, "{log}");
        Ok(())
    })?;
    clickhouse.crash()?;
    // All of one batch, so that they are written at the same time.
    let insert = |table: &str| format!("INSERT INTO {table} VALUES (1); ");
    source.execute(&format!(
        "BEGIN; {} {} COMMIT",
        insert("notes"),
        others.map(insert).concat()
    ))?;
    tells(&tailwater, "sink")?;
    // The pauses between attempts begin at 50 ms: by then there were many.
    let reconnects = || -> Result<f64> {
        let metrics = tailwater.get("/metrics")?.text();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("tailwater_reconnects_total") && line.contains("stored"));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default())
    };
    wait_for(DEADLINE, "several attempts", || {
        ensure!(reconnects()? >= 4.0, "{} attempts", reconnects()?);
        Ok(())
    })?;
    clickhouse.restart()?;
    serves(&tailwater, DEADLINE, 1)?;
    let log = tailwater.log();
    let failed = "failed, trying again what=\"store in ClickHouse\" error=";
    let errors: Vec<_> =
        log.split(failed).skip(1).map(|rest| rest.split("attempts=").next()).collect();
    let different: BTreeSet<_> = errors.iter().collect();
    // Open connections end, and then nobody listens.
    ensure!((1..=3).contains(&errors.len()) && errors.len() == different.len(), "{log}");
    ensure!(log.matches("works again what=\"store in ClickHouse\"").count() == 1, "{log}");
    ensure!(process.is_running()?, "it ended");
    Ok(())
}

/// Every attempt has clients of its own, and each of these fails to connect.
#[test]
fn a_broker_that_is_away_is_told_of_once_and_not_by_every_client() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    notes(&source)?;
    let kafka = Kafka::start()?;
    let link = Link::plain(&kafka, "");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    kafka.stop()?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    let _sinking = sink.start()?;
    tells(&capture, "send")?;
    wait_for(DEADLINE, "several attempts", || {
        let metrics = sink.get("/metrics")?.text();
        let line =
            metrics.lines().find(|line| line.contains("reconnects_total{step=\"consumed\"}"));
        let attempts = line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        ensure!(attempts.is_some_and(|attempts| attempts >= 3), "{attempts:?} attempts");
        Ok(())
    })?;
    for (half, most) in [(&sink, 1), (&capture, 4)] {
        let log = half.log();
        let loud = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        ensure!((1..=most).contains(&loud.count()), "{log}");
    }
    kafka.restart()?;
    serves(&sink, DEADLINE, 1)?;
    let log = sink.log();
    ensure!(log.matches("works again what=\"receive from kafka\"").count() == 1, "{log}");
    Ok(())
}

/// Of a copy, changes and a stop there are a few lines, and they say how far it came.
#[test]
fn log_lines_are_objects_on_request_few_and_say_the_position() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    notes(&source)?;
    source.execute("INSERT INTO notes SELECT generate_series(1, 1000)")?;
    let tailwater = Tailwater::with_source(&source.url())?.variable("TAILWATER_LOG_FORMAT", "json");
    let process = tailwater.start()?;
    serves(&tailwater, DEADLINE, 100)?;
    for id in 1001..1050 {
        source.execute(&format!("INSERT INTO notes VALUES ({id})"))?;
    }
    wait_for(DEADLINE, "the last row", || {
        let answer = tailwater.get("/v0/pipes/notes_snapshot.ndjson?id=1049")?;
        ensure!(answer.text() == "{\"id\":1049}\n", "{}", answer.text());
        Ok(())
    })?;
    ensure!(process.terminate(PROMISED)?.success(), "it ended badly");
    let log = tailwater.log();
    let mut positions = Vec::new();
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("no object: {line}"))?;
        for key in ["timestamp", "level", "message", "target"] {
            ensure!(line[key].is_string(), "a line without {key}: {line}");
        }
        positions.extend(line["after"].as_str().or(line["confirmed"].as_str()).map(str::to_owned));
    }
    ensure!(log.lines().count() <= 25, "{} lines:\n{log}", log.lines().count());
    ensure!(positions.len() >= 2, "where it began and where it stopped: {log}");
    Ok(())
}

#[test]
fn a_source_that_is_away_is_logged_when_it_goes_and_when_it_is_back() -> Result<()> {
    let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    notes(&source)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    postgres.stop()?;
    wait_for(DEADLINE, "several attempts", || {
        let metrics = tailwater.get("/metrics")?.text();
        let line =
            metrics.lines().find(|line| line.contains("reconnects_total{step=\"captured\"}"));
        let attempts = line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        ensure!(attempts.is_some_and(|attempts| attempts >= 6), "{attempts:?} attempts");
        Ok(())
    })?;
    postgres.restart()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    serves(&tailwater, DEADLINE, 1)?;
    let log = tailwater.log();
    let count = |text: &str| log.matches(text).count();
    ensure!(log.contains("the source ended the replication stream"), "{log}");
    // The stream ends, nobody listens, the server starts.
    ensure!((1..=4).contains(&count("failed, trying again")), "{log}");
    ensure!(count("works again") == 1 && log.contains("failures="), "{log}");
    Ok(())
}
