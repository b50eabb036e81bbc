//! Dead letters driven through the fixed plugin: each row once, none over a newer version of itself,
//! whatever the process dies of in between.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value as Json;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, guests, http_request, unique_name,
    wait_for,
};

const DEADLINE: Duration = Duration::from_secs(120);

fn install(component: &Path, tailwater: &Tailwater) -> Result<()> {
    let fresh = tailwater.directory().join("fresh");
    fs::copy(component, &fresh)?;
    fs::rename(fresh, tailwater.directory().join("plugin.wasm"))?;
    Ok(())
}

fn config(source: &Database<'_>, kafka: &str, plugin: &str) -> String {
    format!(
        "[source]\nurl = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n\n{kafka}\
         [[plugin]]\nname = \"guest\"\npath = \"plugin.wasm\"\nstage = \"sink\"\n{plugin}",
        source.url()
    )
}

fn ask(tailwater: &Tailwater, method: &str, path: &str) -> Result<Json> {
    let url = format!("{}/v0/dlq{path}", tailwater.http_url());
    let answer = http_request(method, &url, &[], b"")?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    serde_json::from_str(&answer.text()).context("JSON")
}

fn letters(tailwater: &Tailwater) -> Result<Vec<Json>> {
    let answer = ask(tailwater, "GET", "")?;
    Ok(answer.as_array().context("a list")?.clone())
}

fn wait_letters(tailwater: &Tailwater, count: usize) -> Result<()> {
    wait_for(DEADLINE, "the dead letters", || {
        let found = letters(tailwater)?;
        ensure!(found.len() == count, "{found:?}");
        Ok(())
    })
}

fn serves(tailwater: &Tailwater, expected: &[(u32, &str)]) -> Result<()> {
    let line = |(id, name): &(u32, &str)| format!("{{\"id\":{id},\"name\":\"{name}\"}}\n");
    let expected: String = expected.iter().map(line).collect();
    wait_for(DEADLINE, "the rows in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/people_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

/// What `tailwater dlq` with these arguments prints about the running process.
fn command(tailwater: &Tailwater, arguments: &[&str]) -> Result<String> {
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
    let id = letters(tailwater)?[1]["id"].as_str().context("an id")?.to_owned();
    let shown = ask(tailwater, "GET", &format!("/{id}"))?;
    ensure!(shown["original"].as_str().is_some_and(|row| row.contains("poison")), "{shown}");
    let unknown = tailwater.get("/v0/dlq/nobody")?;
    ensure!(unknown.status == 404, "{} {}", unknown.status, unknown.text());
    ensure!(unknown.text().contains("there is no dead letter nobody"), "{}", unknown.text());
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
