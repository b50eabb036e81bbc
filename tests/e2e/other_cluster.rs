//! A cluster that was built anew under the old address: its positions mean something else.

use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Tailwater, unique_name, wait_for,
};

use crate::bad_input::{FAILED, ends_with};

const DEADLINE: Duration = Duration::from_secs(90);

fn cluster() -> Result<Postgres> {
    Postgres::start(PostgresVersion::V15, PostgresOptions::default())
}

/// The database `shop` with one note in it.
fn shop<'a>(cluster: &'a Postgres, note: &str) -> Result<Database<'a>> {
    cluster.execute("postgres", "CREATE DATABASE shop")?;
    let shop = cluster.database("shop");
    shop.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    shop.execute(&format!("INSERT INTO notes VALUES (1, '{note}')"))?;
    Ok(shop)
}

fn serves(tailwater: &Tailwater, note: &str) -> Result<()> {
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the note", || {
        let answer = tailwater.get("/v0/pipes/notes_snapshot.ndjson")?;
        ensure!(answer.text().contains(note), "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

fn config(source: &Database<'_>, more: &str) -> String {
    format!("[source]\nurl = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n\n{more}", source.url())
}

#[test]
fn another_cluster_is_refused_until_it_has_a_database_of_its_own() -> Result<()> {
    let (old, new) = (cluster()?, cluster()?);
    let (before, after) = (shop(&old, "before")?, shop(&new, "after")?);
    let tailwater = Tailwater::with_config(&config(&before, ""))?;
    serves(&tailwater, "before")?;
    serves(&tailwater, "before")?;
    tailwater.set_config(&config(&after, ""))?;
    let said = [
        "the source is another cluster",
        "than the one that the ClickHouse database `shop` came from",
        "name a new one with [clickhouse] database",
    ];
    ends_with(&tailwater, FAILED, &said)?;
    let slots = after.query("SELECT count(*) FROM pg_replication_slots")?;
    ensure!(slots == [["0"]], "it made a slot all the same");
    tailwater.set_config(&config(&after, "[clickhouse]\ndatabase = \"shop2\"\n"))?;
    serves(&tailwater, "after")
}

#[test]
fn another_cluster_is_refused_before_it_writes_into_the_old_topics() -> Result<()> {
    let (old, new) = (cluster()?, cluster()?);
    let (before, after) = (shop(&old, "before")?, shop(&new, "after")?);
    let kafka = |prefix: &str| {
        let brokers = Kafka::shared().bootstrap();
        format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\npartitions = 1\n")
    };
    let (first, second) = (unique_name("cluster"), unique_name("cluster"));
    let tailwater = Tailwater::with_config(&config(&before, &kafka(&first)))?;
    serves(&tailwater, "before")?;
    tailwater.set_config(&config(&after, &kafka(&first)))?;
    let said = ["the source is another cluster", &first, "name a new prefix with [kafka] prefix"];
    ends_with(&tailwater, FAILED, &said)?;
    let anew = format!("{}\n[clickhouse]\ndatabase = \"shop2\"\n", kafka(&second));
    tailwater.set_config(&config(&after, &anew))?;
    serves(&tailwater, "after")
}
