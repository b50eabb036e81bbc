//! Columns that are renamed, dropped, added and altered while rows are there: the copy shows what the
//! source shows, of rows from before as well.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, TailwaterProcess, wait_for,
};

use crate::legs::Link;

const DEADLINE: Duration = Duration::from_secs(90);

const SCHEMA: &str = "
    CREATE TABLE items (id int PRIMARY KEY, a text NOT NULL, b text, note text, n int);
    INSERT INTO items SELECT i, 'a' || i, 'b' || i, 'note ' || i, i FROM generate_series(1, 20) i";

/// Each is followed by rows that are new or changed. Rows 1 to 9 are only ever copied.
const STEPS: [(&str, &str); 12] = [
    ("renamed", "ALTER TABLE items RENAME a TO title"),
    (
        "swapped",
        "BEGIN; ALTER TABLE items RENAME title TO aside; ALTER TABLE items RENAME b TO title;
         ALTER TABLE items RENAME aside TO b; COMMIT",
    ),
    ("dropped", "ALTER TABLE items DROP note"),
    ("back under its old name", "ALTER TABLE items ADD note text"),
    (
        "of another type",
        "BEGIN; ALTER TABLE items DROP note; ALTER TABLE items ADD note int; COMMIT",
    ),
    (
        "added, then given a default",
        "ALTER TABLE items ADD x int; ALTER TABLE items ALTER x SET DEFAULT 9",
    ),
    (
        "added with a default",
        "ALTER TABLE items ADD y int DEFAULT 5; ALTER TABLE items ALTER y SET DEFAULT 7",
    ),
    ("added with the time", "ALTER TABLE items ADD created timestamptz NOT NULL DEFAULT now()"),
    (
        "added with an array and bytes",
        "ALTER TABLE items ADD tags text[] NOT NULL DEFAULT '{a,\"b \\\"c\\\"\"}', ADD raw text DEFAULT ''",
    ),
    (
        "allowed to be NULL",
        "ALTER TABLE items ALTER b DROP NOT NULL; UPDATE items SET b = NULL WHERE id = 10",
    ),
    (
        "widened between two changes of one transaction",
        "BEGIN; UPDATE items SET n = -1 WHERE id = 11; ALTER TABLE items ALTER n TYPE bigint;
         UPDATE items SET n = 9223372036854775807 WHERE id = 12; COMMIT",
    ),
    ("renamed, of the key", "ALTER TABLE items RENAME id TO number"),
];

/// Changes that every step's table takes.
fn change(source: &Database<'_>, step: usize) -> Result<()> {
    let key = if step + 1 == STEPS.len() { "number" } else { "id" };
    source.execute(&format!(
        "INSERT INTO items ({key}, title, b) VALUES ({}, 'new', 'too');
         UPDATE items SET title = 'changed {step}' WHERE {key} = {}",
        100 + step,
        13 + step % 7,
    ))
}

/// The rows as the source has them, and as the copy does.
fn equal(source: &Database<'_>, tailwater: &Tailwater) -> Result<()> {
    let rows = source.query(
        "SELECT (to_jsonb(t) || CASE WHEN to_jsonb(t) ? 'created' THEN jsonb_build_object('created',
             to_char((to_jsonb(t) ->> 'created')::timestamptz AT TIME ZONE 'UTC',
                     'YYYY-MM-DD HH24:MI:SS.US')) ELSE '{}' END)::text
         FROM items t",
    )?;
    let wanted: Vec<Value> =
        rows.iter().map(|row| serde_json::from_str(&row[0])).collect::<Result<_, _>>()?;
    let answer = tailwater.get("/v0/pipes/items_snapshot.ndjson?limit=1000")?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let found: Vec<Value> =
        answer.text().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for row in &wanted {
        ensure!(found.contains(row), "{row} is not in {}", answer.text());
    }
    ensure!(wanted.len() == found.len(), "{} rows, copied {}", wanted.len(), found.len());
    Ok(())
}

/// A process that has copied the table.
fn copied<'a>(source: &Database<'_>, tailwater: &'a Tailwater) -> Result<TailwaterProcess<'a>> {
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the copy to equal the source", || equal(source, tailwater))
        .with_context(|| tailwater.log_tail())?;
    Ok(process)
}

fn follows(source: &Database<'_>, copy: &Tailwater) -> Result<()> {
    wait_for(DEADLINE, "the first copy", || equal(source, copy))?;
    for (step, (what, sql)) in STEPS.iter().enumerate() {
        source.execute(sql)?;
        change(source, step)?;
        wait_for(DEADLINE, "the copy to follow", || equal(source, copy))
            .with_context(|| format!("a column was {what}; {}", copy.log_tail()))?;
    }
    Ok(())
}

fn columns_are_followed(version: PostgresVersion, settings: &str) -> Result<()> {
    let source = Postgres::shared(version).create_database()?;
    source.execute(SCHEMA)?;
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n[http]\nlisten = \"{{listen}}\"\n{settings}",
        source.url()
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    follows(&source, &tailwater)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn the_columns_of_postgres_15_are_followed() -> Result<()> {
    columns_are_followed(PostgresVersion::V15, "")
}

#[test]
fn the_columns_of_postgres_18_are_followed_where_all_versions_are_kept() -> Result<()> {
    columns_are_followed(PostgresVersion::V18, "[clickhouse]\ndedup = \"argmax\"\n")
}

#[test]
fn columns_are_followed_over_kafka() -> Result<()> {
    let link = Link::plain(Kafka::shared(), "");
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(SCHEMA)?;
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    follows(&source, &sink)
}

/// What was changed while nobody read is described by the catalog as it is now.
#[test]
fn columns_that_changed_while_nobody_read_are_followed() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(SCHEMA)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let process = copied(&source, &tailwater)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    for (step, (_, sql)) in STEPS.iter().enumerate() {
        source.execute(sql)?;
        change(&source, step)?;
    }
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))
        .with_context(|| tailwater.log_tail())
}

/// The first change of a session is described by the catalog of the transaction's end.
#[test]
fn a_column_that_takes_anothers_name_behind_a_change_of_its_transaction_is_another_one()
-> Result<()> {
    let steps = [
        "UPDATE items SET title = 'before' WHERE id = 1; ALTER TABLE items RENAME title TO old_title;
         ALTER TABLE items ADD title text; UPDATE items SET title = 'after' WHERE id = 2",
        "UPDATE items SET n = 7 WHERE id = 3; ALTER TABLE items DROP n; ALTER TABLE items ADD n date;
         UPDATE items SET n = '2024-02-29' WHERE id = 4",
    ];
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(&SCHEMA.replace("a text", "title text"))?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = copied(&source, &tailwater)?;
    for sql in steps {
        ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
        process = tailwater.start()?;
        process.wait_ready(DEADLINE)?;
        source.execute(&format!("BEGIN; {sql}; COMMIT"))?;
        wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))
            .with_context(|| format!("{sql}; {}", tailwater.log_tail()))?;
    }
    Ok(())
}

/// Of the first change nobody can tell any more whether it was behind these.
#[test]
fn a_column_given_again_under_its_name_while_nobody_read_is_not_taken_for_the_one_before()
-> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(SCHEMA)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let process = copied(&source, &tailwater)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    for sql in [
        "UPDATE items SET n = 100 WHERE id = 1; INSERT INTO items VALUES (21, 'a', 'b', 'c', 200)",
        "ALTER TABLE items DROP n; ALTER TABLE items ADD n int",
        "UPDATE items SET a = 'x' WHERE id = 2; UPDATE items SET n = 300 WHERE id = 3",
    ] {
        source.execute(sql)?;
    }
    let _process = tailwater.start()?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))
        .with_context(|| tailwater.log_tail())?;
    let said = tailwater.log();
    ensure!(said.contains("changed in ways that cannot be told apart"), "{said}");
    Ok(())
}

#[test]
fn a_table_that_was_rewritten_while_nobody_looked_is_copied_again() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(SCHEMA)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let steps = [
        "ALTER TABLE items ADD dice float8 DEFAULT random()",
        "ALTER TABLE items ALTER n TYPE bigint USING n::bigint * 1000000000",
    ];
    for sql in steps {
        let process = copied(&source, &tailwater)?;
        ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
        source.execute(sql)?;
    }
    let _process = tailwater.start()?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))
        .with_context(|| tailwater.log_tail())
}

/// The source is asked for what the update did not tell, by names that others have by then.
#[test]
fn a_row_that_moved_before_its_columns_changed_names_comes_whole_over_kafka() -> Result<()> {
    let link = Link::plain(Kafka::shared(), "");
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(SCHEMA)?;
    source.execute(
        "ALTER TABLE items ALTER b SET STORAGE EXTERNAL, ALTER note SET STORAGE EXTERNAL;
         UPDATE items SET b = repeat('b', 9000), note = repeat('n', 9000) WHERE id < 3",
    )?;
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the first copy", || equal(&source, &sink))?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    for sql in [
        "UPDATE items SET id = id + 100 WHERE id < 3",
        "ALTER TABLE items RENAME id TO number; ALTER TABLE items RENAME n TO id",
        "ALTER TABLE items RENAME b TO aside; ALTER TABLE items RENAME a TO b;
         ALTER TABLE items RENAME aside TO a; ALTER TABLE items DROP note",
    ] {
        source.execute(sql)?;
    }
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO items VALUES (21, 'a', 'b', 21)")?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &sink))
        .with_context(|| sink.log_tail())
}

/// Before version 18 it was not published.
#[test]
fn a_computed_column_that_becomes_a_plain_one_is_copied() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(SCHEMA)?;
    source.execute("ALTER TABLE items ADD sum int GENERATED ALWAYS AS (n + 1) STORED")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("ALTER TABLE items ALTER sum DROP EXPRESSION")?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))
        .with_context(|| tailwater.log_tail())
}

#[test]
fn a_column_whose_rows_were_never_checked_for_null_shows_them() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(SCHEMA)?;
    source.execute(
        "UPDATE items SET n = NULL WHERE id = 3;
         ALTER TABLE items ADD CONSTRAINT given NOT NULL n NOT VALID",
    )?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    wait_for(DEADLINE, "the first copy", || equal(&source, &tailwater))
}

#[test]
fn a_table_that_a_change_of_its_columns_rewrites_is_copied_again() -> Result<()> {
    let steps = [
        "ALTER TABLE items ADD status text DEFAULT 'new', ALTER n TYPE bigint",
        "ALTER TABLE items ADD dice float8 DEFAULT random()",
        "ALTER TABLE items ALTER code TYPE text",
    ];
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(SCHEMA)?;
    source.execute("ALTER TABLE items ADD code char(5) DEFAULT 'ab'")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let process = copied(&source, &tailwater)?;
    for sql in steps {
        source.execute(sql)?;
        wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))
            .with_context(|| format!("{sql}; {}", tailwater.log_tail()))?;
    }
    // What only puts a table in order is no reason.
    source.execute("VACUUM FULL items")?;
    source.execute("ALTER TABLE items ADD more text")?;
    source.execute("UPDATE items SET more = 'm' WHERE id = 1")?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
