//! What Debezium 3.6.3 wrote, byte for byte, read by a sink: the copy is what the same statements
//! leave in a real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, wait_for, workspace_root,
};
use tailwater_tests::{Raw, produce};

use crate::legs::{DEADLINE, Link, serves};

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

/// Row and column of every value, NULL as `\N`.
type Cells = BTreeMap<String, String>;

/// The source's table as PostgreSQL prints it.
fn source_cells(source: &Database<'_>, table: &str, key: &str) -> Result<Cells> {
    let columns = source.query(&format!(
        "SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0
         AND NOT attisdropped ORDER BY attnum"
    ))?;
    let mut cells = Cells::new();
    for column in columns.into_iter().flatten() {
        let sql = format!(
            "SET timezone = 'UTC'; SELECT concat_ws(' ', {key}),
                 replace(coalesce(\"{column}\"::text, '\\N'), E'\\t', '<tab>') FROM {table}"
        );
        for row in source.query(&sql)? {
            cells.insert(format!("{} {column}", row[0]), row.get(1).cloned().unwrap_or_default());
        }
    }
    Ok(cells)
}

/// The copy's view as ClickHouse prints it.
fn copy_cells(sink: &Tailwater, view: &str, key: &str) -> Result<Cells> {
    let columns = format!(
        "SELECT name AS line FROM system.columns WHERE database = currentDatabase() AND table = '{view}'"
    );
    let mut cells = Cells::new();
    for column in lines(sink, &columns)? {
        let text = match column.as_str() {
            "c_bytea" => "concat('\\\\x', lower(hex(c_bytea)))".to_owned(),
            column => format!("toString(\"{column}\")"),
        };
        let sql = format!(
            "SELECT concat(concat_ws(' ', {key}), '\t', replace(ifNull({text}, '\\\\N'), '\t', '<tab>'))
                 AS line FROM \"{view}\""
        );
        for line in lines(sink, &sql)? {
            let (row, value) = line.split_once('\t').context("a row and its value")?;
            cells.insert(format!("{row} {column}"), value.to_owned());
        }
    }
    Ok(cells)
}

/// `row column: source | copy` wherever they differ.
fn differences(source: &Cells, copy: &Cells) -> Vec<String> {
    let absent = "absent".to_owned();
    let cells: BTreeSet<&String> = source.keys().chain(copy.keys()).collect();
    let line = |cell: &String| {
        let (a, b) = (source.get(cell).unwrap_or(&absent), copy.get(cell).unwrap_or(&absent));
        (a != b).then(|| format!("{cell}: {a} | {b}"))
    };
    cells.into_iter().filter_map(line).collect()
}

/// Every table of the source with its name in the copy and what tells its rows apart there.
const TABLES: [(&str, &str, &str); 8] = [
    ("users", "users", "id"),
    ("composite_key", "composite_key", "tenant, id"),
    ("all_types", "all_types", "id"),
    ("toasted", "toasted", "id"),
    ("full_identity", "full_identity", "id"),
    ("index_identity", "index_identity", "id"),
    ("no_key", "no_key", "a"),
    ("\"Weird Name\"", "Weird Name", "\"Id\""),
];

fn becomes_the_right_rows(events: &str, differences_file: &str) -> Result<()> {
    let source = database()?;
    let link = Link::plain(Kafka::shared(), "");
    let sink = fed(events, &link)?;
    let mut process = sink.start()?;
    process.wait_ready(DEADLINE)?;
    let expected = recorded(differences_file)?;
    let expected: Vec<&str> = expected.lines().collect();
    wait_for(DEADLINE, "the copy to be the source but for the known differences", || {
        let mut found = Vec::new();
        for (table, view, key) in TABLES {
            let source = source_cells(&source, table, key)?;
            let differing = differences(&source, &copy_cells(&sink, view, key)?);
            found.extend(differing.into_iter().map(|line| format!("{table}: {line}")));
        }
        let surprising: Vec<_> = found.iter().filter(|l| !expected.contains(&l.as_str())).collect();
        ensure!(surprising.is_empty(), "unknown differences: {surprising:#?}");
        let missing = expected.iter().filter(|line| !found.iter().any(|found| found == *line));
        let missing: Vec<_> = missing.collect();
        ensure!(missing.is_empty(), "known differences that are none: {missing:#?}");
        Ok(())
    })
    .with_context(|| sink.log_tail())?;
    let letters = lines(&sink, "SELECT reason AS line FROM _tailwater_dead_letters FINAL")?;
    ensure!(letters.is_empty(), "some records were set aside: {letters:?}");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn events_with_inline_schemas_become_the_right_rows() -> Result<()> {
    becomes_the_right_rows("events-default.jsonl", "differences-default.txt")
}

#[test]
fn events_without_schemas_become_the_right_rows() -> Result<()> {
    becomes_the_right_rows("events-plain.jsonl", "differences-plain.txt")
}

#[test]
fn a_value_that_debezium_did_not_send_stays_what_it_was_in_the_copy() -> Result<()> {
    const UNSENT: &str = "__debezium_unavailable_value";
    const UNSENT_BYTES: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
    let (kafka, link) = (Kafka::shared(), Link::plain(Kafka::shared(), ""));
    let topic = link.topic("documents");
    kafka.create_topic(&topic, 1, &[])?;
    let record = |lsn: u32, op: &str, n: u32, text: &str, bytes: &str, tag: &str| {
        let value = format!(
            r#"{{"before":null,"after":{{"id":1,"n":{n},"text":"{text}","bytes":"{bytes}","tags":["{tag}"]}},
                "source":{{"schema":"public","table":"documents","lsn":{lsn}}},"op":"{op}"}}"#
        );
        Raw::new(&topic, r#"{"id":1}"#, &value, &[])
    };
    let records = [
        record(16, "c", 1, "a text", "AP8=", "a tag"),
        record(32, "u", 2, UNSENT, UNSENT_BYTES, UNSENT),
    ];
    produce(&kafka.bootstrap(), &records)?;
    let sink = link.sink()?;
    let _sinking = sink.start()?;
    let row = r#"{"id":1,"n":2,"text":"a text","bytes":"AP8=","tags":"[\"a tag\"]"}"#;
    serves(&sink, "documents", &format!("{row}\n"))
}

/// The value of a record of Debezium's without schemas.
fn value(table: &str, (lsn, previous_commit): (u32, &str), op: &str, row: &str) -> String {
    let (before, after) = if op == "d" { (row, "null") } else { ("null", row) };
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"schema":"public","table":"{table}",
            "lsn":{lsn},"sequence":"[{previous_commit},\"{lsn}\"]"}},"op":"{op}"}}"#
    )
}

#[test]
fn rows_without_a_key_are_all_there_whatever_their_partitions() -> Result<()> {
    let (kafka, link) = (Kafka::shared(), Link::plain(Kafka::shared(), ""));
    let topic = link.topic("visits");
    kafka.create_topic(&topic, 2, &[])?;
    // A snapshot gives all its rows one LSN, and a partition counts from 0 on like every other.
    let visit = |n: i32| {
        let row = format!(r#"{{"n":{n}}}"#);
        Raw::keyless(&topic, n % 2, &value("visits", (100, "null"), "r", &row))
    };
    produce(&kafka.bootstrap(), &(0..6).map(visit).collect::<Vec<_>>())?;
    let sink = link.sink()?;
    let _sinking = sink.start()?;
    wait_for(DEADLINE, "all rows", || {
        let rows = lines(&sink, "SELECT toString(n) AS line FROM visits ORDER BY n")?;
        ensure!(rows == ["0", "1", "2", "3", "4", "5"], "{rows:?}");
        Ok(())
    })
    .with_context(|| sink.log_tail())
}

#[test]
fn a_sink_that_sees_nothing_but_nulls_after_its_start_keeps_the_types_that_it_had() -> Result<()> {
    let (kafka, link) = (Kafka::shared(), Link::plain(Kafka::shared(), ""));
    let topic = link.topic("machines");
    kafka.create_topic(&topic, 1, &[])?;
    let record = |lsn: (u32, &str), op: &str, id: u32, rest: &str| {
        let row = format!(r#"{{"id":{id},{rest}}}"#);
        let key = format!(r#"{{"id":{id}}}"#);
        Raw::new(&topic, &key, &value("machines", lsn, op, &row), &[])
    };
    let typed = r#""runs":true,"load":1.5,"count":7,"stopped":null"#;
    let nulls = r#""runs":null,"load":null,"count":null,"stopped":null"#;
    let copied = [1, 2].map(|id| record((100, "null"), "r", id, typed));
    produce(&kafka.bootstrap(), &copied)?;
    let sink = link.sink()?;
    let row = |id: u32, rest: &str| format!("{{\"id\":{id},{rest}}}\n");
    let first = sink.start()?;
    serves(&sink, "machines", &format!("{}{}", row(1, typed), row(2, typed)))?;
    ensure!(first.terminate(DEADLINE)?.success(), "it ended badly");
    let nothing_but_nulls =
        [record((105, "null"), "d", 1, nulls), record((108, "null"), "c", 3, nulls)];
    produce(&kafka.bootstrap(), &nothing_but_nulls)?;
    let second = sink.start()?;
    serves(&sink, "machines", &format!("{}{}", row(2, typed), row(3, nulls)))
        .with_context(|| sink.log_tail())?;
    // It was in the log before the copy, and was committed after it.
    let late = r#""runs":false,"load":2.5,"count":8,"stopped":true"#;
    produce(&kafka.bootstrap(), &[record((90, r#"\"110\""#), "u", 2, late)])?;
    // The column was made when nothing was known of its type.
    let stored = late.replace("\"stopped\":true", "\"stopped\":\"t\"");
    serves(&sink, "machines", &format!("{}{}", row(2, &stored), row(3, nulls)))
        .with_context(|| sink.log_tail())?;
    ensure!(second.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn a_truncate_that_a_sink_reads_before_any_row_empties_the_table_and_ends_nothing() -> Result<()> {
    let (kafka, link) = (Kafka::shared(), Link::plain(Kafka::shared(), ""));
    let topic = link.topic("queue");
    kafka.create_topic(&topic, 1, &[])?;
    let record = |lsn: u32, id: u32| {
        let (key, row) = (format!(r#"{{"id":{id}}}"#), format!(r#"{{"id":{id}}}"#));
        Raw::new(&topic, &key, &value("queue", (lsn, "null"), "c", &row), &[])
    };
    let truncate = |lsn: u32| Raw::keyless(&topic, 0, &value("queue", (lsn, "null"), "t", "null"));
    produce(&kafka.bootstrap(), &[truncate(100), record(110, 1), record(120, 2)])?;
    let sink = link.sink()?;
    let first = sink.start()?;
    serves(&sink, "queue", "{\"id\":1}\n{\"id\":2}\n").with_context(|| sink.log_tail())?;
    ensure!(first.terminate(DEADLINE)?.success(), "it ended badly");
    produce(&kafka.bootstrap(), &[truncate(130)])?;
    let second = sink.start()?;
    serves(&sink, "queue", "").with_context(|| sink.log_tail())?;
    produce(&kafka.bootstrap(), &[record(140, 3)])?;
    serves(&sink, "queue", "{\"id\":3}\n").with_context(|| sink.log_tail())?;
    ensure!(second.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
