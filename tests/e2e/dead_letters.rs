//! Dead letters driven through the fixed plugin: each row once, none over a newer version of itself,
//! whatever the process dies of in between.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value as Json;
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresVersion, Tailwater, guests, http_request,
    unique_name, wait_for,
};
use tailwater_tests::read_committed;

use crate::legs::Link;

const DEADLINE: Duration = Duration::from_secs(120);

fn install(component: &Path, tailwater: &Tailwater) -> Result<()> {
    let fresh = tailwater.directory().join("fresh");
    fs::copy(component, &fresh)?;
    fs::rename(fresh, tailwater.directory().join("plugin.wasm"))?;
    Ok(())
}

fn config(source: &Database<'_>, kafka: &str, plugin: &str) -> String {
    config_on(source, kafka, "sink", plugin)
}

fn config_on(source: &Database<'_>, kafka: &str, stage: &str, plugin: &str) -> String {
    format!(
        "[source]\nurl = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n\n{kafka}\
         [[plugin]]\nname = \"guest\"\npath = \"plugin.wasm\"\nstage = \"{stage}\"\n{plugin}",
        source.url()
    )
}

fn over_kafka(prefix: &str) -> String {
    let brokers = Kafka::shared().bootstrap();
    format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\npartitions = 2\n\n")
}

/// Has the running process read the plugin's settings and file again.
fn reload(tailwater: &Tailwater) -> Result<()> {
    let url = format!("{}/v0/plugins/guest/reload", tailwater.http_url());
    let answer = http_request("POST", &url, &[], b"")?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(())
}

pub(crate) fn ask(tailwater: &Tailwater, method: &str, path: &str) -> Result<Json> {
    let url = format!("{}/v0/dlq{path}", tailwater.http_url());
    let answer = http_request(method, &url, &[], b"")?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    serde_json::from_str(&answer.text()).context("JSON")
}

fn letters(tailwater: &Tailwater) -> Result<Vec<Json>> {
    let answer = ask(tailwater, "GET", "")?;
    Ok(answer["letters"].as_array().context("a list")?.clone())
}

pub(crate) fn wait_letters(tailwater: &Tailwater, count: usize) -> Result<()> {
    wait_for(DEADLINE, "the dead letters", || {
        let found = letters(tailwater)?;
        ensure!(found.len() == count, "{found:?}");
        Ok(())
    })
}

pub(crate) fn serves(tailwater: &Tailwater, expected: &[(u32, &str)]) -> Result<()> {
    let line = |(id, name): &(u32, &str)| format!("{{\"id\":{id},\"name\":\"{name}\"}}\n");
    let expected: String = expected.iter().map(line).collect();
    wait_for(DEADLINE, "the rows in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/people_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

/// What `tailwater dlq` with these arguments prints about the running process.
pub(crate) fn command(tailwater: &Tailwater, arguments: &[&str]) -> Result<String> {
    let url = tailwater.http_url();
    let command = Tailwater::with_arguments([&["dlq"], arguments, &["--url", &url]].concat())?;
    let status = command.run_to_end(DEADLINE)?;
    ensure!(status.success(), "{status}: {}", command.log());
    Ok(command.log())
}

/// Two letters, of whose rows one has a newer version; looked at and driven through in vain.
fn sets_aside(source: &Database<'_>, tailwater: &Tailwater) -> Result<()> {
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_letters(tailwater, 1)?;
    source.execute("UPDATE people SET name = 'Bob' WHERE id = 2")?;
    source.execute("INSERT INTO people VALUES (4, 'poison'), (5, 'Eve')")?;
    wait_letters(tailwater, 2)?;
    serves(tailwater, &[(1, "Ada"), (2, "Bob"), (3, "Hiro"), (5, "Eve")])?;
    let listed = command(tailwater, &["list", "--plugin", "guest"])?;
    ensure!(listed.lines().count() == 2 && listed.contains("public.people"), "{listed}");
    ensure!(!listed.contains("poison"), "a list holds a row's value: {listed}");
    let cut = command(tailwater, &["list", "--limit", "1"])?;
    ensure!(cut.lines().next() == listed.lines().next(), "it is not the first: {cut}");
    ensure!(cut.lines().nth(1) == Some("and 1 more; --limit 2 lists all"), "{cut}");
    let cut = ask(tailwater, "GET", "?limit=1")?;
    ensure!(cut["letters"].as_array().is_some_and(|letters| letters.len() == 1), "{cut}");
    ensure!(cut["more"] == 1, "{cut}");
    let id = letters(tailwater)?[1]["id"].as_str().context("an id")?.to_owned();
    let shown = ask(tailwater, "GET", &format!("/{id}"))?;
    ensure!(shown["original"].as_str().is_some_and(|row| row.contains("poison")), "{shown}");
    let unknown = tailwater.get("/v0/dlq/nobody")?;
    ensure!(unknown.status == 404, "{} {}", unknown.status, unknown.text());
    ensure!(unknown.text().contains("there is no dead letter nobody"), "{}", unknown.text());
    let metrics = tailwater.get("/metrics")?.text();
    let total = counted(&metrics, "tailwater_dead_letters_total", &[]);
    let transformed = counted(&metrics, "tailwater_dead_letters_total", &["\"transformed\""]);
    ensure!((total, transformed) == (2, 2), "{total} letters, {transformed} of them of plugins");
    let again = ask(tailwater, "POST", "/redrive?all=true")?;
    ensure!(again["redriven"] == 0 && again["failed"] == 2, "{again}");
    wait_letters(tailwater, 2)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

fn come_through_once(kafka: &str) -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO people VALUES (1, 'Ada'), (2, 'poison'), (3, 'Hiro')")?;
    let hostile = "[plugin.config]\ndeed = \"panic-on-poison\"\n";
    let tailwater = Tailwater::with_config(&config(&source, kafka, hostile))?;
    install(&guests::test_guest("hostile")?, &tailwater)?;
    sets_aside(&source, &tailwater)?;
    tailwater.set_config(&config(&source, kafka, ""))?;
    install(&guests::test_guest("identity")?, &tailwater)?;
    for place in ["before_store:1", "after_store:1", "before_redriven:1"] {
        let mut process = tailwater.start_with(&[("TAILWATER_FAILPOINT", place)])?;
        process.wait_ready(DEADLINE)?;
        ensure!(ask(&tailwater, "POST", "/redrive?plugin=guest").is_err(), "it outlived {place}");
        process.wait_exit(DEADLINE)?;
    }
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_letters(&tailwater, 2)?;
    let done = command(&tailwater, &["redrive", "--plugin", "guest"])?;
    ensure!(done.contains("redriven  2") && done.contains("failed  0"), "{done}");
    wait_letters(&tailwater, 0)?;
    let whole = [(1, "Ada"), (2, "Bob"), (3, "Hiro"), (4, "poison"), (5, "Eve")];
    serves(&tailwater, &whole)?;
    let again = ask(&tailwater, "POST", "/redrive?all=true")?;
    ensure!(again["redriven"] == 0 && again["failed"] == 0, "{again}");
    serves(&tailwater, &whole)?;
    ensure!(!tailwater.log().contains("poison"), "a row value is in the log");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn redriven_letters_come_through_once_and_never_over_a_newer_row() -> Result<()> {
    come_through_once("")
}

#[test]
fn redriven_letters_of_the_sink_behind_kafka_come_through_once() -> Result<()> {
    let (brokers, prefix) = (Kafka::shared().bootstrap(), unique_name("dlq"));
    come_through_once(&format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\n\n"))
}

/// The names that the topic's records give to a row, in order.
fn sent_names(prefix: &str, id: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let topic = format!("{prefix}.public.people");
    for record in read_committed(&Kafka::shared().bootstrap(), &topic)? {
        let Some(value) = record.value else { continue };
        let after = &serde_json::from_str::<Json>(&value)?["after"];
        if after["id"].as_u64() == Some(id.into()) {
            names.push(after["name"].as_str().context("a name")?.to_owned());
        }
    }
    Ok(names)
}

/// A plugin before Kafka fails on rows; its next version, which takes over while the process runs, takes
/// them, and the process dies on the way of the drive.
#[test]
fn redriven_letters_of_the_capture_are_in_the_topic_once_whatever_dies() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO people VALUES (1, 'Ada'), (2, 'poison'), (3, 'Hiro')")?;
    let prefix = unique_name("dlq");
    let kafka = over_kafka(&prefix);
    let hostile = "[plugin.config]\ndeed = \"panic-on-poison\"\n";
    let tailwater = Tailwater::with_config(&config_on(&source, &kafka, "capture", hostile))?;
    install(&guests::test_guest("hostile")?, &tailwater)?;
    sets_aside(&source, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO people VALUES (6, 'poison')")?;
    wait_letters(&tailwater, 3)?;
    ensure!(letters(&tailwater)?.iter().all(|letter| letter["kept"] == "kafka"), "not in Kafka");
    tailwater.set_config(&config_on(&source, &kafka, "capture", ""))?;
    install(&guests::test_guest("identity")?, &tailwater)?;
    reload(&tailwater)?;
    let id = letters(&tailwater)?[2]["id"].as_str().context("an id")?.to_owned();
    let done = command(&tailwater, &["redrive", "--id", &id])?;
    ensure!(done.contains("redriven  1") && done.contains("failed  0"), "{done}");
    let again = ask(&tailwater, "POST", &format!("/redrive?id={id}"));
    let again = again.err().context("it is redriven twice")?.to_string();
    ensure!(again.contains("404") && again.contains("there is no dead letter"), "{again}");
    wait_letters(&tailwater, 2)?;
    process.kill9()?;
    for (place, left) in [("before_redriven:1", 2), ("after_redriven:1", 0)] {
        let mut process = tailwater.start_with(&[("TAILWATER_FAILPOINT", place)])?;
        process.wait_ready(DEADLINE)?;
        ensure!(ask(&tailwater, "POST", "/redrive?all=true").is_err(), "it outlived {place}");
        process.wait_exit(DEADLINE)?;
        let mut process = tailwater.start()?;
        process.wait_ready(DEADLINE)?;
        wait_letters(&tailwater, left)?;
        process.kill9()?;
    }
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let again = ask(&tailwater, "POST", "/redrive?all=true")?;
    ensure!(again["redriven"] == 0 && again["failed"] == 0, "{again}");
    let whole = [(1, "Ada"), (2, "Bob"), (3, "Hiro"), (4, "poison"), (5, "Eve"), (6, "poison")];
    serves(&tailwater, &whole)?;
    for (id, name) in whole {
        let expected = if id == 2 { vec!["Bob", "poison"] } else { vec![name] };
        let sent = sent_names(&prefix, id)?;
        ensure!(sent == expected, "row {id} was sent as {sent:?}");
    }
    ensure!(!tailwater.log().contains("poison"), "a row value is in the log");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

/// The capture is asked of its own letters; the sink knows nothing of them, and gets what they become.
#[test]
fn a_capture_by_itself_lists_drops_and_redrives_its_letters() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO people VALUES (1, 'poison'), (2, 'Ada'), (3, 'poison')")?;
    let link = Link::plain(Kafka::shared(), "partitions = 2");
    let plugin = |deed: &str| {
        let section = "[[plugin]]\nname = \"guest\"\npath = \"plugin.wasm\"\n";
        format!("\n{section}[plugin.config]\ndeed = \"{deed}\"\n")
    };
    let capture = link.capture_with(&source, &plugin("panic-on-poison"))?;
    let sink = link.sink()?;
    install(&guests::test_guest("hostile")?, &capture)?;
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    wait_letters(&capture, 2)?;
    sinking.wait_ready(DEADLINE)?;
    serves(&sink, &[(2, "Ada")])?;
    ensure!(letters(&sink)?.is_empty(), "the sink has letters of the capture");
    let id = |index: usize| -> Result<String> {
        Ok(letters(&capture)?[index]["id"].as_str().context("an id")?.to_owned())
    };
    let shown = ask(&capture, "GET", &format!("/{}", id(0)?))?;
    ensure!(shown["original"].as_str().is_some_and(|row| row.contains("poison")), "{shown}");
    let dropped = ask(&capture, "POST", &format!("/drop?id={}", id(0)?))?;
    ensure!(dropped["dropped"] == 1, "{dropped}");
    wait_letters(&capture, 1)?;
    link.set_capture(&capture, &source, &plugin("nothing"))?;
    reload(&capture)?;
    let done = command(&capture, &["redrive", "--plugin", "guest"])?;
    ensure!(done.contains("redriven  1") && done.contains("failed  0"), "{done}");
    serves(&sink, &[(2, "Ada"), (3, "poison")])?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    wait_letters(&capture, 0)?;
    ensure!(sent_names(&link.prefix, 1)?.is_empty(), "the dropped row was sent");
    ensure!(sent_names(&link.prefix, 3)? == ["poison"], "{:?}", sent_names(&link.prefix, 3)?);
    Ok(())
}

/// A row that is driven through again finds what the plugin remembered of the rows before it.
fn finds_its_state(kafka: &str) -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    let plugin = |deed: &str| {
        let plugin = format!("grants = [\"state\"]\n[plugin.config]\ndeed = \"{deed}\"\n");
        config(&source, kafka, &plugin)
    };
    let tailwater = Tailwater::with_config(&plugin("panic-on-poison"))?;
    install(&guests::test_guest("rememberer")?, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO people VALUES (1, 'a'), (2, 'a')")?;
    for name in ["b", "c", "poison"] {
        source.execute(&format!("UPDATE people SET name = '{name}' WHERE id = 1"))?;
    }
    wait_letters(&tailwater, 1)?;
    serves(&tailwater, &[(1, "3"), (2, "1")])?;
    tailwater.set_config(&plugin("count"))?;
    reload(&tailwater)?;
    let done = command(&tailwater, &["redrive", "--plugin", "guest"])?;
    ensure!(done.contains("redriven  1") && done.contains("failed  0"), "{done}");
    serves(&tailwater, &[(1, "4"), (2, "1")])?;
    // It is remembered as any other change is.
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("UPDATE people SET name = 'd'")?;
    serves(&tailwater, &[(1, "5"), (2, "2")])?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn a_redriven_row_finds_what_was_remembered_before_it() -> Result<()> {
    finds_its_state("")
}

#[test]
fn a_redriven_row_of_the_sink_behind_kafka_finds_what_its_partition_remembers() -> Result<()> {
    finds_its_state(&over_kafka(&unique_name("dlq")))
}

/// The sum of a counter's values with all of these labels.
fn counted(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Further lines of `[kafka]`, and a plugin on the sink that remembers.
fn rememberer(guest: &Path, partitions: u32, deed: &str) -> String {
    let path = guest.display();
    format!(
        "partitions = {partitions}\n\n[[plugin]]\nname = \"guest\"\npath = \"{path}\"\nstage = \"sink\"\n\
         grants = [\"state\"]\n[plugin.config]\ndeed = \"{deed}\"\n"
    )
}

/// Two sinks of a group have a partition each, and with it the memory that its letters need.
#[test]
fn letters_of_a_partition_that_another_sink_has_are_left_to_that_one() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    let (brokers, clickhouse) = (Kafka::shared().bootstrap(), ClickHouse::shared());
    let guest = guests::test_guest("rememberer")?;
    let settings = |deed: &str| rememberer(&guest, 2, deed);
    let link = Link::over(&brokers, &settings("panic-on-poison"));
    let capture = link.capture(&source, "")?;
    let (first, second) = (link.sink_into(clickhouse)?, link.sink_into(clickhouse)?);
    let (mut capturing, mut sinking) = (capture.start()?, first.start()?);
    capturing.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO people SELECT n, 'a' FROM generate_series(1, 8) n")?;
    source.execute("UPDATE people SET name = 'poison'")?;
    wait_letters(&first, 8)?;
    sinking.wait_ready(DEADLINE)?;
    let mut joined = second.start()?;
    joined.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "a partition for each", || {
        for sink in [&first, &second] {
            let log = sink.log();
            let last = log.lines().rfind(|line| line.contains("partitions assigned"));
            ensure!(last.is_some_and(|line| line.ends_with("partitions=1")), "{last:?}");
        }
        Ok(())
    })?;
    // The one that joined reads its partition from where the memory begins: inserts, then as many updates.
    wait_for(DEADLINE, "the second to have read its partition", || {
        let metrics = second.get("/metrics")?.text();
        let inserts = counted(&metrics, "tailwater_changes_total", &["\"consumed\"", "\"insert\""]);
        let letters = counted(&metrics, "tailwater_dead_letters_total", &["\"transformed\""]);
        ensure!(inserts > 0 && letters == inserts, "{letters} letters of {inserts} rows");
        let log = second.log();
        let stored = log.lines().filter(|line| line.contains("set changes aside as dead letters"));
        let stored = stored.filter_map(|line| line.split_once("count=")?.1.parse::<u64>().ok());
        ensure!(stored.sum::<u64>() == letters, "not all of {letters} letters are stored");
        Ok(())
    })?;
    let fixed = Link::below(link.prefix, &brokers, &settings("count"));
    for sink in [&first, &second] {
        fixed.set_sink(sink, clickhouse)?;
        reload(sink)?;
    }
    let of_first = ask(&first, "POST", "/redrive?all=true")?;
    let left = of_first["elsewhere"].as_u64().context("a count")?;
    ensure!((1..8).contains(&left), "{of_first}");
    ensure!(of_first["redriven"] == 8 - left && of_first["failed"] == 0, "{of_first}");
    let of_second = ask(&second, "POST", "/redrive?all=true")?;
    ensure!(of_second["redriven"] == left && of_second["elsewhere"] == 0, "{of_second}");
    wait_letters(&first, 0)?;
    let counted: Vec<_> = (1..=8).map(|id| (id, "2")).collect();
    serves(&second, &counted)?;
    ensure!(sinking.terminate(DEADLINE)?.success(), "the first sink ended badly");
    ensure!(joined.terminate(DEADLINE)?.success(), "the second sink ended badly");
    Ok(())
}

/// A sink that never had the partition reads it from its beginning, through the mended plugin.
#[test]
fn letters_close_when_another_sink_reads_their_rows_and_they_come_through() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    let (brokers, clickhouse) = (Kafka::shared().bootstrap(), ClickHouse::shared());
    let guest = guests::test_guest("rememberer")?;
    let settings = |deed: &str| rememberer(&guest, 1, deed);
    let link = Link::over(&brokers, &settings("panic-on-poison"));
    let capture = link.capture(&source, "")?;
    let (first, second) = (link.sink_into(clickhouse)?, link.sink_into(clickhouse)?);
    let (mut capturing, sinking) = (capture.start()?, first.start()?);
    capturing.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO people SELECT n, 'a' FROM generate_series(1, 4) n")?;
    source.execute("UPDATE people SET name = 'poison'")?;
    wait_letters(&first, 4)?;
    ensure!(sinking.terminate(DEADLINE)?.success(), "the first sink ended badly");
    let fixed = Link::below(link.prefix, &brokers, &settings("count"));
    fixed.set_sink(&second, clickhouse)?;
    let mut sinking = second.start()?;
    sinking.wait_ready(DEADLINE)?;
    let counted = |count| (1..=4).map(|id| (id, count)).collect::<Vec<_>>();
    serves(&second, &counted("2"))?;
    wait_letters(&second, 0)?;
    let again = ask(&second, "POST", "/redrive?all=true")?;
    ensure!(again["redriven"] == 0, "{again}");
    source.execute("UPDATE people SET name = 'b'")?;
    serves(&second, &counted("3"))?;
    ensure!(sinking.terminate(DEADLINE)?.success(), "the second sink ended badly");
    Ok(())
}

/// The first part of a transaction is stored and its letter too when the process dies, so the source
/// shows all of it again.
#[test]
fn letters_close_when_their_rows_come_again_after_a_crash_and_come_through() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    let part_by_part = "[clickhouse]\nbatch_rows = 1\n\n";
    let deed = "[plugin.config]\ndeed = \"panic-on-poison\"\n";
    let hostile = config(&source, part_by_part, deed);
    let tailwater = Tailwater::with_config(&hostile)?;
    install(&guests::test_guest("hostile")?, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute(
        "INSERT INTO people SELECT n, CASE n WHEN 1 THEN 'poison' ELSE repeat('x', 100) END \
         FROM generate_series(1, 20000) n",
    )?;
    let dies_at = |place: &str| -> Result<()> {
        let process = tailwater.start_with(&[("TAILWATER_FAILPOINT", place)])?;
        process.wait_exit(DEADLINE)?;
        Ok(())
    };
    dies_at("before_store:3")?;
    // What is skipped does not come through.
    tailwater.set_config(&config(
        &source,
        part_by_part,
        &format!("on_error = \"skip\"\n{deed}"),
    ))?;
    dies_at("before_store:3")?;
    tailwater.set_config(&config(&source, part_by_part, ""))?;
    install(&guests::test_guest("identity")?, &tailwater)?;
    dies_at("before_closing:1")?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_letters(&tailwater, 0)?;
    let answer = tailwater.get("/v0/pipes/people_snapshot.ndjson")?;
    ensure!(answer.text().starts_with("{\"id\":1,\"name\":\"poison\"}\n"), "the row is not there");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn dropped_letters_are_gone_and_the_log_says_so() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO people VALUES (1, 'poison'), (2, 'Ada'), (3, 'poison')")?;
    let hostile = "[plugin.config]\ndeed = \"panic-on-poison\"\n";
    let tailwater = Tailwater::with_config(&config(&source, "", hostile))?;
    install(&guests::test_guest("hostile")?, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_letters(&tailwater, 2)?;
    let id = letters(&tailwater)?[0]["id"].as_str().context("an id")?.to_owned();
    let dropped = ask(&tailwater, "POST", &format!("/drop?id={id}"))?;
    ensure!(dropped["dropped"] == 1, "{dropped}");
    wait_letters(&tailwater, 1)?;
    ensure!(ask(&tailwater, "POST", "/drop").is_err(), "it has to be said that all are meant");
    ensure!(tailwater.log().contains("dropped on request"), "the log:\n{}", tailwater.log());
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
