//! Every kind of change in the running binary, on both majors: the copy's tables are the source's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Session, Tailwater, wait_for,
};

use crate::legs::{Link, serves};

const DEADLINE: Duration = Duration::from_secs(90);

const SCHEMA: &str = "
    CREATE TABLE composite (tenant int, id int, v text, PRIMARY KEY (tenant, id));
    CREATE TABLE whole (id int PRIMARY KEY, v text, n int);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, v text);
    CREATE UNIQUE INDEX by_index_code ON by_index (code);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
    CREATE TABLE toasted (id int PRIMARY KEY, big text, small int);
    ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE \"Weird Name\" (\"Id\" int PRIMARY KEY, \"a.b\" text, \"ünï\" text, \"select\" int);
    CREATE SCHEMA billing;
    CREATE TABLE billing.invoices (id bigint PRIMARY KEY, cents bigint);
    CREATE TABLE parts (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
    CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us');
    INSERT INTO composite SELECT 1, n, 'copied' FROM generate_series(1, 500) n;
    INSERT INTO toasted VALUES (1, repeat('0123456789', 2000), 1), (2, repeat('x', 9000), 1);
    INSERT INTO billing.invoices VALUES (9223372036854775807, -1)";

const WORKLOAD: &str = "
    BEGIN; INSERT INTO composite VALUES (2, 1, 'a'), (2, 2, 'b'); UPDATE composite SET v = 'c'
        WHERE tenant = 2 AND id = 2; DELETE FROM composite WHERE id = 3;
        UPDATE composite SET tenant = 9 WHERE tenant = 2 AND id = 1; COMMIT;
    INSERT INTO whole VALUES (1, 'x', 1); UPDATE whole SET v = NULL; UPDATE whole SET id = 2;
    INSERT INTO whole VALUES (1, 'again', NULL); DELETE FROM whole WHERE id = 2;
    INSERT INTO by_index VALUES (1, 'A', 'x'), (2, 'B', 'y'); UPDATE by_index SET v = 'z';
    UPDATE by_index SET code = 'C' WHERE code = 'A'; DELETE FROM by_index WHERE code = 'B';
    UPDATE toasted SET small = 2 WHERE id = 1; UPDATE toasted SET id = 3 WHERE id = 2;
    INSERT INTO \"Weird Name\" VALUES (1, 'tab\there', E'line\\nbreak', 5), (2, NULL, '', NULL);
    UPDATE \"Weird Name\" SET \"select\" = 6 WHERE \"Id\" = 1;
    INSERT INTO parts VALUES (1, 'eu'), (2, 'us'); UPDATE parts SET region = 'us' WHERE id = 1;
    BEGIN; INSERT INTO whole VALUES (7, 'rolled', 0); ROLLBACK;
    BEGIN; INSERT INTO whole VALUES (8, 'kept', 0); SAVEPOINT a; INSERT INTO whole VALUES (9, 'no', 0);
        ROLLBACK TO a; INSERT INTO whole VALUES (10, 'kept too', 0); COMMIT;
    TRUNCATE billing.invoices; INSERT INTO billing.invoices VALUES (1, 100);
    ALTER TABLE whole ADD COLUMN plan text DEFAULT 'free';
    INSERT INTO whole VALUES (11, 'new column', 1, 'pro'); UPDATE whole SET plan = 'basic' WHERE id = 1";

/// Table, its columns' order in the source, and its pipe.
const TABLES: [(&str, &str, &str); 7] = [
    ("composite", "tenant, id", "composite"),
    ("whole", "id", "whole"),
    ("by_index", "code", "by_index"),
    ("toasted", "id", "toasted"),
    ("\"Weird Name\"", "\"Id\"", "Weird%20Name"),
    ("billing.invoices", "id", "billing_invoices"),
    ("parts", "id, region", "parts"),
];

fn equal(source: &Database<'_>, tailwater: &Tailwater) -> Result<()> {
    tables_equal(source, tailwater, &TABLES)
}

fn tables_equal(
    source: &Database<'_>,
    tailwater: &Tailwater,
    tables: &[(&str, &str, &str)],
) -> Result<()> {
    for (table, order, pipe) in tables {
        let sql = format!("SELECT row_to_json(t)::text FROM {table} t ORDER BY {order}");
        let rows = source.query(&sql)?;
        let wanted: Vec<Value> =
            rows.iter().map(|row| serde_json::from_str(&row[0])).collect::<Result<_, _>>()?;
        let answer = tailwater.get(&format!("/v0/pipes/{pipe}_snapshot.ndjson?limit=10000"))?;
        let text = answer.text();
        ensure!(answer.status == 200, "{table}: {} {text}", answer.status);
        let mut found: Vec<Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| format!("parse the answer for {table}"))?;
        // The order of text differs between the two; the rows must not.
        let (mut wanted, by) = (wanted, |row: &Value| row.to_string());
        wanted.sort_by_key(by);
        found.sort_by_key(by);
        ensure!(wanted == found, "{table}: {} rows, copied {}", wanted.len(), found.len());
    }
    Ok(())
}

fn every_kind_of_change_arrives(version: PostgresVersion) -> Result<()> {
    let source = Postgres::shared(version).create_database()?;
    source.execute(SCHEMA)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the first copy", || equal(&source, &tailwater))?;
    source.execute(WORKLOAD)?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &tailwater))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn every_kind_of_change_of_postgres_15_arrives() -> Result<()> {
    every_kind_of_change_arrives(PostgresVersion::V15)
}

#[test]
fn every_kind_of_change_of_postgres_18_arrives() -> Result<()> {
    every_kind_of_change_arrives(PostgresVersion::V18)
}

#[test]
fn every_kind_of_change_arrives_over_kafka() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(SCHEMA)?;
    let link = Link::plain(Kafka::shared(), "partitions = 3");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, _sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    // Of a table without a row the sink hears nothing.
    let filled = [TABLES[0], TABLES[3], TABLES[5]];
    wait_for(DEADLINE, "the first copy", || tables_equal(&source, &sink, &filled))?;
    source.execute(WORKLOAD)?;
    wait_for(DEADLINE, "the copy to follow", || equal(&source, &sink))?;
    no_letters(&sink)
}

fn no_letters(sink: &Tailwater) -> Result<()> {
    let letters = sink.get("/v0/dlq")?.text();
    ensure!(letters.contains("[]"), "set aside: {letters}");
    Ok(())
}

/// The log does not tell the large values of these rows, and by the time that the capture reads of the
/// rows some are elsewhere, some gone, and some keys are another row's.
#[test]
fn rows_that_got_another_key_keep_their_large_values_over_kafka() -> Result<()> {
    let table = ("large", "id", "large");
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(
        "CREATE TABLE large (id text PRIMARY KEY, big text, more text, small int);
         ALTER TABLE large ALTER big SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL;
         INSERT INTO large SELECT E'it''s \\\\ ' || n, repeat(n || 'x', 3000),
             CASE WHEN n % 2 = 0 THEN repeat(E'\\t\\\\', 3000) END, n
         FROM generate_series(1, 200) n",
    )?;
    let link = Link::plain(Kafka::shared(), "partitions = 3");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, _sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    let equal = || tables_equal(&source, &sink, &[table]);
    wait_for(DEADLINE, "the first copy", equal)?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("UPDATE large SET id = id || '!'")?;
    source.execute("UPDATE large SET id = id || '?' WHERE small < 50")?;
    source.execute("UPDATE large SET big = repeat('later', 3000) WHERE small = 60")?;
    source.execute("UPDATE large SET small = -small WHERE small = 70")?;
    source.execute("DELETE FROM large WHERE small = 80")?;
    source.execute(
        "UPDATE large SET id = 'gone' WHERE small = 90; DELETE FROM large WHERE id = 'gone';
         INSERT INTO large VALUES ('gone', repeat('another', 3000), NULL, 0)",
    )?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the copy to follow", equal)?;
    ensure!(capturing.is_running()?, "it ended:\n{}", capture.log_tail());
    Ok(())
}

/// With a synchronous standby the server sends a commit before anybody sees what it did.
#[test]
fn a_row_that_got_another_key_in_a_commit_that_waits_keeps_its_large_value_over_kafka() -> Result<()>
{
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = vec![
        setting("synchronous_standby_names", "nobody"),
        setting("synchronous_commit", "local"),
    ];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = Postgres::start(PostgresVersion::V18, options)?;
    let source = postgres.create_database()?;
    source.execute(
        "CREATE TABLE large (id text PRIMARY KEY, big text);
         ALTER TABLE large ALTER big SET STORAGE EXTERNAL;
         INSERT INTO large VALUES ('a', repeat('x', 3000))",
    )?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, _sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    let equal = || tables_equal(&source, &sink, &[("large", "id", "large")]);
    wait_for(DEADLINE, "the first copy", equal)?;
    let waiting = Session::open(&source.url())?;
    waiting.execute("SET synchronous_commit = on")?;
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| waiting.execute("UPDATE large SET id = 'b'"));
        let asked =
            wait_for(DEADLINE, "the capture to ask for the row, or for leave to ask", || {
                let asking = source.query(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'tailwater' AND
                 (query LIKE '%pg_current_snapshot%' OR query LIKE '%\"public\".\"large\" WHERE%')",
                )?;
                ensure!(!asking.is_empty(), "it does not");
                Ok(())
            });
        let visible = source.query("SELECT id FROM large")?;
        let released = source.query(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
        )?;
        committing.join().expect("no panic")?;
        asked?;
        ensure!(visible == [["a"]], "the commit did not wait: {visible:?}");
        ensure!(released == [["t"]], "nobody waited");
        anyhow::Ok(())
    })?;
    wait_for(DEADLINE, "the copy to follow", equal)
}

#[test]
fn an_idle_database_does_not_pin_the_log_while_its_neighbour_writes() -> Result<()> {
    let postgres = Postgres::shared(PostgresVersion::V15);
    let (idle, busy) = (postgres.create_database()?, postgres.create_database()?);
    idle.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let tailwater = Tailwater::with_source(&idle.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    busy.execute("CREATE TABLE noise AS SELECT n FROM generate_series(1, 10000) n")?;
    let written = busy.query("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")?[0][0].clone();
    wait_for(DEADLINE, "the idle database's slot to move on", || {
        let sql = format!(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn >= {written} FROM pg_replication_slots
             WHERE database = current_database()"
        );
        let moved = idle.query(&sql)?;
        ensure!(moved == [["t"]], "{moved:?}");
        Ok(())
    })
}

/// Bytes that are no UTF-8 are no JSON text.
#[test]
fn bytes_are_shown_as_valid_json_and_found_by_what_is_shown() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(
        "CREATE TABLE files (id bytea PRIMARY KEY, body bytea, parts bytea[]);
         INSERT INTO files VALUES ('\\x01', '\\xe000', ARRAY['\\xc0', NULL]::bytea[]), ('\\x02', NULL, '{}')",
    )?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    let first = "{\"id\":\"AQ==\",\"body\":\"4AA=\",\"parts\":[\"wA==\",null]}\n";
    let second = "{\"id\":\"Ag==\",\"body\":null,\"parts\":[]}\n";
    serves(&tailwater, "files", &format!("{first}{second}"))?;
    for (asked, rows) in [
        ("body=4AA%3D", first),
        ("id=Ag%3D%3D", second),
        ("body.is=null", second),
        ("offset=1", second),
        ("parts=%5B'wA%3D%3D',NULL%5D", first),
    ] {
        let answer = tailwater.get(&format!("/v0/pipes/files_snapshot.ndjson?{asked}"))?;
        ensure!(answer.text() == rows, "{asked}: {} {}", answer.status, answer.text());
    }
    let csv = tailwater.get("/v0/pipes/files_snapshot.csv?limit=1")?.text();
    ensure!(csv.ends_with("\"AQ==\",\"4AA=\",\"['wA==',NULL]\"\n"), "{csv}");
    for format in ["json", "ndjson"] {
        let asked = format!(
            "/v0/sql?q=SELECT%20body%20FROM%20files%20WHERE%20body%3C%3E''&format={format}"
        );
        let answer = tailwater.get(&asked)?;
        let text = std::str::from_utf8(&answer.body)?.replace(": ", ":");
        ensure!(text.contains("\"body\":\"\u{fffd}\\u0000\""), "{text}");
    }
    Ok(())
}
