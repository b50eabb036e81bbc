//! Plugins that reshape tables, in the running binary: Kafka's records and ClickHouse's tables follow.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, guests, unique_name, wait_for,
};
use tailwater_tests::read_committed;

const DEADLINE: Duration = Duration::from_secs(120);

fn plugin(name: &str, settings: &str) -> Result<String> {
    let path = guests::plugin(name)?;
    Ok(format!("\n[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n{settings}\n", path.display()))
}

fn config(source: &Database<'_>, transport: &str) -> Result<String> {
    let router = plugin("outbox-router", "tables = [\"public.outbox\"]")?;
    let flatten = plugin(
        "flatten-json",
        "tables = [\"people\"]\nconfig = { column = \"profile\", drop = true, members = { \
         age = { path = \"age\", type = \"integer\" } } }",
    )?;
    let (url, listen) = (source.url(), "{listen}");
    Ok(format!(
        "[source]\nurl = \"{url}\"\n\n[http]\nlisten = \"{listen}\"\n{transport}{router}{flatten}"
    ))
}

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(
        "CREATE TABLE outbox (id int PRIMARY KEY, aggregatetype text NOT NULL, \
         aggregateid text NOT NULL, payload jsonb)",
    )?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, profile jsonb)")?;
    source.execute("INSERT INTO people VALUES (1, '{\"age\": 30}')")?;
    Ok(source)
}

fn write_events(source: &Database<'_>) -> Result<()> {
    source.execute("INSERT INTO outbox VALUES (1, 'invoice', 'a', '{\"n\": 1}')")?;
    source.execute("INSERT INTO outbox VALUES (2, 'invoice', 'a', '{\"n\": 2}')")?;
    source.execute("DELETE FROM outbox")?;
    source.execute("INSERT INTO people VALUES (2, '{\"age\": null}')")?;
    source.execute("UPDATE people SET profile = '{\"age\": 31}' WHERE id = 1")?;
    Ok(())
}

fn serves(tailwater: &Tailwater, pipe: &str, expected: &str) -> Result<()> {
    wait_for(DEADLINE, pipe, || {
        let answer = tailwater.get(&format!("/v0/pipes/{pipe}_snapshot.ndjson"))?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

fn serves_everything(tailwater: &Tailwater) -> Result<()> {
    serves(tailwater, "people", "{\"id\":1,\"age\":31}\n{\"id\":2,\"age\":null}\n")?;
    let event = |id, n| {
        format!(
            "{{\"id\":{id},\"aggregatetype\":\"invoice\",\"aggregateid\":\"a\",\
             \"payload\":\"{{\\\"n\\\": {n}}}\"}}\n"
        )
    };
    serves(tailwater, "outbox_invoice", &format!("{}{}", event(1, 1), event(2, 2)))?;
    let outbox = tailwater.get("/v0/pipes/outbox_snapshot.ndjson")?;
    ensure!(outbox.status == 404, "the outbox itself is served: {}", outbox.text());
    Ok(())
}

#[test]
fn tables_of_clickhouse_follow_what_plugins_make_of_them() -> Result<()> {
    let source = source()?;
    let tailwater = Tailwater::with_config(&config(&source, "")?)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    write_events(&source)?;
    serves_everything(&tailwater)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn topics_follow_what_plugins_make_of_tables_and_clickhouse_follows_the_topics() -> Result<()> {
    let source = source()?;
    let (kafka, prefix) = (Kafka::shared(), unique_name("reshape"));
    let transport = format!(
        "\n[kafka]\nbrokers = \"{}\"\nprefix = \"{prefix}\"\npartitions = 3\n",
        kafka.bootstrap()
    );
    let tailwater = Tailwater::with_config(&config(&source, &transport)?)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    write_events(&source)?;
    serves_everything(&tailwater)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let events = read_committed(&kafka.bootstrap(), &format!("{prefix}.outbox.invoice"))?;
    let keys: Vec<&str> = events.iter().filter_map(|event| event.key.as_deref()).collect();
    ensure!(keys == ["{\"aggregateid\":\"a\"}"; 2], "keys are {keys:?}");
    let person = read_committed(&kafka.bootstrap(), &format!("{prefix}.public.people"))?;
    let value = person.iter().find_map(|record| record.value.as_deref());
    let value: serde_json::Value = serde_json::from_str(value.context("find a person")?)?;
    ensure!(value["after"].get("profile").is_none(), "the document travels on: {value}");
    Ok(())
}
