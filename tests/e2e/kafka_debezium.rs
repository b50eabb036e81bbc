//! What Debezium 3.6.3 wrote, byte for byte, read by a sink: the copy is what the same statements
//! leave in a real PostgreSQL.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, wait_for, workspace_root,
};
use tailwater_tests::{Raw, produce};

use crate::legs::{DEADLINE, Link};

fn recorded(name: &str) -> Result<String> {
    let path = workspace_root().join("tests/data/debezium-3.6.3").join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// A database after the statements that Debezium was recorded with. One ALTER of them fails, and
/// the UPDATE after it.
fn database() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(&recorded("schema.sql")?)?;
    let statements = recorded("workload.sql")?;
    source.execute(&format!("\\set ON_ERROR_STOP off\nSET timezone = 'UTC';\n{statements}"))?;
    Ok(source)
}

/// Writes the recorded events to topics of the link's own and starts a sink on them.
fn fed(events: &str, link: &Link) -> Result<Tailwater> {
    let kafka = Kafka::shared();
    let mut records: Vec<Raw> = Vec::new();
    for line in recorded(events)?.lines() {
        records.push(Raw::parse(line, &link.prefix)?);
    }
    let mut topics: Vec<&str> = records.iter().map(|record| record.topic.as_str()).collect();
    topics.sort_unstable();
    topics.dedup();
    for topic in topics {
        kafka.create_topic(topic, 1, &[])?;
    }
    produce(&kafka.bootstrap(), &records)?;
    link.sink()
}

/// The only column of a query's rows.
fn lines(tailwater: &Tailwater, sql: &str) -> Result<Vec<String>> {
    let sql = utf8_percent_encode(sql, NON_ALPHANUMERIC);
    let answer = tailwater.get(&format!("/v0/sql?format=ndjson&q={sql}"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let line = |line: &str| -> Result<String> {
        let row: serde_json::Value = serde_json::from_str(line)?;
        Ok(row["line"].as_str().context("find `line`")?.to_owned())
    };
    answer.text().lines().map(line).collect()
}

#[test]
fn probe() -> Result<()> {
    let source = database()?;
    for events in ["events-default.jsonl", "events-plain.jsonl"] {
        let link = Link::plain(Kafka::shared(), "");
        let sink = fed(events, &link)?;
        let mut process = sink.start()?;
        process.wait_ready(DEADLINE)?;
        wait_for(DEADLINE, "all", || {
            let a = sink.get("/v0/pipes/composite_key_snapshot.ndjson")?.text();
            let b = sink.get("/v0/pipes/all_types_snapshot.ndjson")?.text();
            ensure!(
                a.contains("copied two") && b.contains("\"id\":4"),
                "{a} {b}\n{}",
                sink.log_tail()
            );
            Ok(())
        })?;
        for table in [
            "users",
            "composite_key",
            "no_key",
            "full_identity",
            "index_identity",
            "toasted",
            "Weird%20Name",
            "all_types",
        ] {
            println!(
                "{events} {table}: {}",
                sink.get(&format!("/v0/pipes/{table}_snapshot.ndjson"))?.text()
            );
            println!(
                "types {table}: {}",
                sink.get(&format!("/v0/sql?format=csv&q=describe%20%60{table}%60"))?
                    .text()
                    .replace("\n", "; ")
            );
        }
        println!(
            "letters {:?}",
            lines(
                &sink,
                "SELECT concat(source_table, ' ', reason, ' ', original) AS line FROM _tailwater_dead_letters FINAL"
            )
        );
    }
    for table in [
        "users",
        "composite_key",
        "no_key",
        "full_identity",
        "index_identity",
        "toasted",
        "\"Weird Name\"",
        "all_types",
    ] {
        println!(
            "SOURCE {table}: {:?}",
            source.query(&format!("SELECT row_to_json(t) FROM {table} t"))?
        );
    }
    Ok(())
}
