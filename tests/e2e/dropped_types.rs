//! Types that are dropped with the tables that had them, while changes of those wait in the slot.

use anyhow::{Result, ensure};
use tailwater_test_support::{Database, Kafka, Postgres, PostgresVersion, Tailwater};

use crate::legs::{DEADLINE, Link, serves};

const KINDS: &str = "
    CREATE SCHEMA doomed;
    CREATE TYPE doomed.mood AS ENUM ('glad', 'sad');
    CREATE DOMAIN doomed.number AS int;
    CREATE DOMAIN doomed.price AS numeric(10, 2);
    CREATE DOMAIN doomed.flag AS boolean;
    CREATE TABLE doomed.kinds (id doomed.number PRIMARY KEY, mood doomed.mood, moods doomed.mood[],
        numbers doomed.number[], price doomed.price, flag doomed.flag);
    INSERT INTO doomed.kinds VALUES (1, 'glad', '{glad}', '{1}', 1.5, 't'), (2, 'sad', '{}', '{}', 2, 'f');
    CREATE TABLE notes (id int PRIMARY KEY)";

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(KINDS)?;
    Ok(source)
}

fn line(id: i32, mood: &str, moods: &str, numbers: &str, price: &str, flag: bool) -> String {
    format!(
        "{{\"id\":{id},\"mood\":\"{mood}\",\"moods\":[{moods}],\"numbers\":[{numbers}],\
         \"price\":\"{price}\",\"flag\":{flag}}}\n"
    )
}

/// The reader's table follows the last changes, made while the `writer` was stopped.
fn goes_on(source: &Database<'_>, writer: &Tailwater, reader: &Tailwater) -> Result<()> {
    let mut process = writer.start()?;
    process.wait_ready(DEADLINE)?;
    let first = line(1, "glad", "\"glad\"", "1", "1.5", true);
    serves(reader, "doomed_kinds", &format!("{first}{}", line(2, "sad", "", "", "2", false)))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute(
        "INSERT INTO doomed.kinds VALUES (3, 'glad', '{sad,NULL}', '{3,4}', 3.25, 'f');
         UPDATE doomed.kinds SET mood = 'sad', moods = '{glad,sad}', price = 9 WHERE id = 1;
         DELETE FROM doomed.kinds WHERE id = 2",
    )?;
    source.execute("DROP SCHEMA doomed CASCADE; INSERT INTO notes VALUES (1)")?;
    let mut process = writer.start()?;
    serves(reader, "notes", "{\"id\":1}\n")?;
    let first = line(1, "sad", "\"glad\",\"sad\"", "1", "9", true);
    let third = line(3, "glad", "\"sad\",null", "3,4", "3.25", false);
    serves(reader, "doomed_kinds", &format!("{first}{third}"))?;
    ensure!(process.is_running()?, "it ended:\n{}", writer.log_tail());
    Ok(())
}

#[test]
fn changes_of_a_table_that_was_dropped_with_its_types_become_values_of_the_columns_it_had()
-> Result<()> {
    let source = source()?;
    let tailwater = Tailwater::with_source(&source.url())?;
    goes_on(&source, &tailwater, &tailwater)
}

#[test]
fn over_kafka_too() -> Result<()> {
    let source = source()?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let _sinking = sink.start()?;
    goes_on(&source, &capture, &sink)
}
