//! Keys that are more, or less, than they seem: a row is found by what PostgreSQL tells it by.

use anyhow::Result;
use tailwater_test_support::{ClickHouse, Database, Kafka, Postgres, PostgresVersion, unique_name};

use crate::legs::{DEADLINE, Link, serves};
use crate::outages::into_url;

fn source() -> Result<Database<'static>> {
    Postgres::shared(PostgresVersion::V15).create_database()
}

/// Both ways, one after the other: tables made by `tables`, changed by `changes`, and then each of them as the
/// source has it, told by an expression of a line of JSON.
fn follow(tables: &str, changes: &str, lines: &[(&str, &str)]) -> Result<()> {
    let clickhouse = ClickHouse::shared();
    let source = source()?;
    source.execute(tables)?;
    let direct = into_url(&clickhouse.url(), clickhouse, &source)?;
    let link = Link::plain(Kafka::shared(), "partitions = 2");
    let slot = format!("slot = \"{}\"", unique_name("over_kafka"));
    let (capture, sink) = (link.capture(&source, &slot)?, link.sink_into(clickhouse)?);
    let all = [&direct, &capture, &sink];
    let mut running = all.iter().map(|each| each.start()).collect::<Result<Vec<_>>>()?;
    running.iter_mut().try_for_each(|process| process.wait_ready(DEADLINE))?;
    source.execute(changes)?;
    for (table, line) in lines {
        let rows = source.query(&format!("SELECT {line} FROM {table} ORDER BY 1"))?;
        let rows: String = rows.iter().map(|row| format!("{}\n", row[0])).collect();
        serves(&direct, table, &rows)?;
        serves(&sink, table, &rows)?;
    }
    Ok(())
}

#[test]
fn columns_that_an_index_only_includes_tell_no_row() -> Result<()> {
    let line = r#"format('{"id":%s,"body":"%s"}', id, body)"#;
    follow(
        "CREATE TABLE primaries (id int, body text, PRIMARY KEY (id) INCLUDE (body));
         INSERT INTO primaries VALUES (1, 'a'), (2, 'b'), (3, '');
         CREATE TABLE indexed (id int NOT NULL, body text NOT NULL);
         CREATE UNIQUE INDEX known ON indexed (id) INCLUDE (body);
         ALTER TABLE indexed REPLICA IDENTITY USING INDEX known;
         INSERT INTO indexed VALUES (1, 'a'), (2, 'b')",
        "UPDATE primaries SET body = 'aa' WHERE id = 1; DELETE FROM primaries WHERE id > 1;
         UPDATE indexed SET id = 4, body = 'aa' WHERE id = 1; DELETE FROM indexed WHERE id = 2",
        &[("primaries", line), ("indexed", line)],
    )
}

/// Of such a key the log has what it was with the old row, and nothing with the new one.
#[test]
fn a_key_that_is_stored_out_of_line_is_known_in_every_update() -> Result<()> {
    follow(
        "CREATE TABLE outside (key text PRIMARY KEY, n int);
         ALTER TABLE outside ALTER key SET STORAGE EXTERNAL;
         INSERT INTO outside SELECT n || string_agg(md5(i::text || n), ''), n
         FROM generate_series(1, 3) n, generate_series(1, 80) i GROUP BY n",
        "UPDATE outside SET n = n + 10; DELETE FROM outside WHERE n = 12",
        &[("outside", r#"format('{"key":"%s","n":%s}', key, n)"#)],
    )
}

#[test]
fn the_two_zeros_of_a_float_are_one_key() -> Result<()> {
    follow(
        "CREATE TABLE zeros (k float8 PRIMARY KEY, n int); INSERT INTO zeros VALUES (0, 1)",
        "UPDATE zeros SET k = '-0'; UPDATE zeros SET n = 2",
        &[("zeros", r#"format('{"k":%s,"n":%s}', abs(k), n)"#)],
    )
}
