//! Names of the source are data: schemas, tables and columns with quotes, backslashes and Unicode in
//! them are copied, streamed and served like any other.

use std::time::Duration;

use crate::bad_input::{FAILED, ends_with};
use crate::legs::Link;
use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, unique_name, wait_for,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TABLES: usize = 12;
const PIECES: [&str; 20] = [
    "\"", "'", "`", "\\", "\\n", "\n", "\t", " ", ";", "--", "/*", "$$", "%", "{a:Int8}", "?", "/",
    ".", "é", "名", "🦀",
];

/// At most 63 bytes, like no other, and with a letter behind, for a name may not end in nothing.
fn name(dice: &mut StdRng, number: usize) -> String {
    let pieces = dice.random_range(1..7);
    let odd: String = (0..pieces).filter_map(|_| PIECES.choose(dice)).copied().collect();
    format!("n{number}{odd}x")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The table's value by its pipe.
fn serves(tailwater: &Tailwater, table: &str, column: &str, value: &str) -> Result<()> {
    wait_for(DEADLINE, "the row", || {
        let answer = tailwater.get(&format!("/v0/pipes/{}_snapshot.ndjson", encoded(table)))?;
        let row: serde_json::Value = serde_json::from_slice(&answer.body)?;
        ensure!(row[column] == value, "{table:?} {column:?}: {}", answer.text());
        Ok(())
    })
}

fn make(source: &Database<'_>, table: &str, column: &str) -> Result<()> {
    make_in(source, "public", table, column)
}

fn make_in(source: &Database<'_>, schema: &str, table: &str, column: &str) -> Result<()> {
    let (schema, table, column) = (quoted(schema), quoted(table), quoted(column));
    source.execute(&format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};
         CREATE TABLE {schema}.{table} (id int PRIMARY KEY, {column} text);
         INSERT INTO {schema}.{table} VALUES (1, 'copied')"
    ))
}

/// A schema, a table and a column of it.
type Names = (String, String, String);

/// Each third table is in `public`, the others in two schemas of odd names.
fn names(dice: &mut StdRng) -> Vec<Names> {
    let schemas =
        ["public".to_owned(), format!("s{}", name(dice, 1)), format!("s{}", name(dice, 2))];
    let of = |number: usize| {
        let schema = schemas[number % schemas.len()].clone();
        (schema, name(dice, number), name(dice, number))
    };
    (0..TABLES).map(of).collect()
}

/// Each table has this value, and is called after its schema unless that is `public`.
fn all_serve(tailwater: &Tailwater, names: &[Names], value: &str) -> Result<()> {
    names.iter().try_for_each(|(schema, table, column)| match schema.as_str() {
        "public" => serves(tailwater, table, column, value),
        _ => serves(tailwater, &format!("{schema}_{table}"), column, value),
    })
}

#[test]
fn any_name_of_the_source_is_copied_streamed_and_served_on_both_routes() -> Result<()> {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let names = names(&mut StdRng::seed_from_u64(seed));
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    for (schema, table, column) in &names {
        make_in(&source, schema, table, column)?;
    }
    let (direct, link) =
        (Tailwater::with_source(&source.url())?, Link::plain(Kafka::shared(), "partitions = 1"));
    let slot = format!("slot = \"{}\"", unique_name("names"));
    let (capture, sink) = (link.capture(&source, &slot)?, link.sink()?);
    let (mut copying, mut capturing, mut sinking) =
        (direct.start()?, capture.start()?, sink.start()?);
    copying.wait_ready(DEADLINE)?;
    capturing.wait_ready(DEADLINE)?;
    for route in [&direct, &sink] {
        all_serve(route, &names, "copied").with_context(|| format!("seed {seed}"))?;
    }
    for (schema, table, column) in &names {
        let (schema, table, column) = (quoted(schema), quoted(table), quoted(column));
        source.execute(&format!("UPDATE {schema}.{table} SET {column} = 'streamed'"))?;
    }
    for route in [&direct, &sink] {
        all_serve(route, &names, "streamed").with_context(|| format!("seed {seed}"))?;
    }
    for (process, tailwater) in
        [(&mut copying, &direct), (&mut capturing, &capture), (&mut sinking, &sink)]
    {
        ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    }
    Ok(())
}

/// The one would be stored where the versions of the other are.
#[test]
fn a_table_that_is_called_like_the_versions_of_another_is_refused_with_both_names() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    make(&source, "notes", "body")?;
    let config = |more: &str| {
        let url = source.url();
        format!("[source]\nurl = \"{url}\"\n{more}\n[http]\nlisten = \"{{listen}}\"\n")
    };
    let said = "public.notes and public.notes_versions would both be called `notes_versions` in \
                ClickHouse; set clickhouse.tables.\"public.notes_versions\".name to another name";
    let tailwater = Tailwater::with_config(&config(""))?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", "body", "copied")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    make(&source, "notes_versions", "body")?;
    ends_with(&tailwater, FAILED, &[said])?;
    tailwater.set_config(&config(
        "[clickhouse.tables.\"public.notes_versions\"]\nname = \"versions_of_notes\"",
    ))?;
    let _process = tailwater.start()?;
    serves(&tailwater, "versions_of_notes", "body", "copied")?;
    serves(&tailwater, "notes", "body", "copied")
}

/// To ClickHouse, arrays whose names begin alike up to a dot are columns of one nested table, with one length.
#[test]
fn arrays_with_dots_in_their_names_have_lengths_of_their_own() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(
        "CREATE TABLE dotted (id int PRIMARY KEY, \"n.a\" int[], \"n.b\" text[]);
         INSERT INTO dotted VALUES (1, '{1,2,3}', '{a}')",
    )?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("ALTER TABLE dotted ADD \"n.c\" int[]")?;
    source.execute("UPDATE dotted SET \"n.c\" = '{7,8}'")?;
    wait_for(DEADLINE, "the row", || {
        let answer = tailwater.get("/v0/pipes/dotted_snapshot.ndjson")?.text();
        let wanted = "{\"id\":1,\"n.a\":[1,2,3],\"n.b\":[\"a\"],\"n.c\":[7,8]}\n";
        ensure!(answer == wanted, "{answer}");
        Ok(())
    })
}
