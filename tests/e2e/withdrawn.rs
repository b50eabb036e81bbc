//! A copy that counted once and does not any more never counts again, even if what spoke against it goes away
//! while another one is half done.

use anyhow::{Result, ensure};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresVersion, Tailwater, wait_until,
};

use crate::legs::{DEADLINE, Link, says, serves};
use crate::outages::into_url;
use crate::own_publication;

const FIRST: &str = "{\"id\":1,\"body\":\"first\"}\n";
const LATER: &str = "{\"id\":2,\"body\":\"later\"}\n";

/// Rows of a kilobyte: so many batches that the first ones are stored when the process dies at the [`HALF`].
const MANY: &str = "SELECT n, repeat('x', 1000) FROM generate_series(1, 80000) n";
const HALF: (&str, &str) = ("TAILWATER_FAILPOINT", "during_snapshot:120");

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'first')")?;
    Ok(source)
}

/// The process is killed when another table of the name is half copied, and the first one takes its place again.
fn survives_a_swap_that_is_undone(
    source: &Database<'_>,
    capture: &Tailwater,
    served: &Tailwater,
) -> Result<()> {
    let process = capture.start()?;
    serves(served, "notes", FIRST)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("ALTER TABLE notes RENAME TO notes_before")?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute(&format!("INSERT INTO notes {MANY}"))?;
    let process = capture.start_with(&[HALF])?;
    process.wait_exit(DEADLINE)?;
    source.execute("DROP TABLE notes")?;
    source.execute("ALTER TABLE notes_before RENAME TO notes")?;
    source.execute("INSERT INTO notes VALUES (2, 'later')")?;
    let _process = capture.start()?;
    serves(served, "notes", &format!("{FIRST}{LATER}"))
}

#[test]
fn a_table_that_another_one_replaced_for_half_a_copy_is_copied_again_without_a_broker() -> Result<()>
{
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    survives_a_swap_that_is_undone(&source, &tailwater, &tailwater)
}

#[test]
fn a_table_that_another_one_replaced_for_half_a_copy_is_copied_again_over_kafka() -> Result<()> {
    let source = source()?;
    let link = Link::plain(Kafka::shared(), "partitions = 2");
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(ClickHouse::shared())?);
    let _sinking = sink.start()?;
    survives_a_swap_that_is_undone(&source, &capture, &sink)
}

#[test]
fn a_copy_of_a_table_that_clickhouse_has_lost_counts_only_when_it_is_whole() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    source.execute("TRUNCATE notes")?;
    source.execute(&format!("INSERT INTO notes {MANY}"))?;
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let count = || clickhouse.query(&format!("SELECT count() FROM {}.notes", source.name()));
    let is_whole = || count().is_ok_and(|rows| rows.trim() == "80000");
    let process = tailwater.start()?;
    wait_until(DEADLINE, "the copy", is_whole)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    clickhouse.query(&format!("DROP TABLE {}.notes_versions SYNC", source.name()))?;
    let process = tailwater.start_with(&[HALF])?;
    process.wait_exit(DEADLINE)?;
    let half = count()?;
    ensure!(half.trim() != "0" && half.trim() != "80000", "{half} rows are no half");
    let _process = tailwater.start()?;
    wait_until(DEADLINE, "the whole", is_whole)
}

/// What is written under another name goes to the table of that name.
#[test]
fn tables_that_swap_their_names_for_a_transaction_are_copied_again() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    source.execute("CREATE TABLE others (id int PRIMARY KEY, body text)")?;
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", FIRST)?;
    process.wait_ready(DEADLINE)?;
    let swap = "ALTER TABLE notes RENAME TO between; ALTER TABLE others RENAME TO notes;
                ALTER TABLE between RENAME TO others;";
    source.execute(&format!(
        "BEGIN; {swap} INSERT INTO notes VALUES (7, 'of others'); INSERT INTO others VALUES (2, 'later');
         {swap} COMMIT"
    ))?;
    serves(&tailwater, "notes", &format!("{FIRST}{LATER}"))?;
    serves(&tailwater, "others", "{\"id\":7,\"body\":\"of others\"}\n")?;
    // The same, and the process dies before it could copy them.
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute(&format!(
        "BEGIN; {swap} UPDATE others SET body = 'last' WHERE id = 1; {swap} COMMIT"
    ))?;
    let process = tailwater.start_with(&[("TAILWATER_FAILPOINT", "during_snapshot:1")])?;
    process.wait_exit(DEADLINE)?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{}{LATER}", FIRST.replace("first", "last")))?;
    serves(&tailwater, "others", "{\"id\":7,\"body\":\"of others\"}\n")
}

/// The stream still tells of it under its old name then.
#[test]
fn a_table_that_was_renamed_while_nobody_read_is_copied_once() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", FIRST)?;
    process.wait_ready(DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute(
        "INSERT INTO notes VALUES (2, 'later'); UPDATE notes SET body = 'last' WHERE id = 1",
    )?;
    source.execute(
        "ALTER TABLE notes RENAME TO renamed; CREATE TABLE notes (id int PRIMARY KEY, body text)",
    )?;
    source.execute("INSERT INTO notes VALUES (3, 'other')")?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "renamed", &format!("{}{LATER}", FIRST.replace("first", "last")))?;
    serves(&tailwater, "notes", "{\"id\":3,\"body\":\"other\"}\n")?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO renamed VALUES (4, 'streamed')")?;
    let streamed = "{\"id\":4,\"body\":\"streamed\"}\n";
    let all = format!("{}{LATER}{streamed}", FIRST.replace("first", "last"));
    serves(&tailwater, "renamed", &all)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let copies = |table: &str| {
        tailwater.log().matches(&format!("copied the table table=public.{table}")).count()
    };
    ensure!((copies("renamed"), copies("notes")) == (1, 2), "{}", tailwater.log());
    Ok(())
}

#[test]
fn a_table_that_leaves_the_published_ones_is_copied_again_when_it_comes_back() -> Result<()> {
    let source = source()?;
    source.execute("CREATE TABLE others (id int PRIMARY KEY)")?;
    source.execute("CREATE PUBLICATION theirs FOR ALL TABLES")?;
    let tailwater = own_publication::into(&source.url())?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", FIRST)?;
    // An unlogged table is in no publication, and nothing streams what comes into it.
    source.execute("ALTER TABLE notes SET UNLOGGED")?;
    says(&tailwater, "copies of tables do not count any more tables=\"public.notes\"")?;
    source.execute("INSERT INTO notes VALUES (2, 'later')")?;
    source.execute("ALTER TABLE notes SET LOGGED")?;
    serves(&tailwater, "notes", &format!("{FIRST}{LATER}"))?;
    // The same of one that is away at a start.
    source.execute("ALTER TABLE notes SET UNLOGGED")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("DELETE FROM notes WHERE id = 1")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("ALTER TABLE notes SET LOGGED")?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", LATER)
}
