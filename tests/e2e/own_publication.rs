//! A publication of the user's own that changes: what it shows of a table from then on is copied anew.

use anyhow::{Result, ensure};
use tailwater_test_support::{ClickHouse, Database, Postgres, PostgresVersion, Tailwater};

use crate::legs::{DEADLINE, serves};

const ONE: &str = "{\"id\":1,\"body\":\"a\"}\n";
const TWO: &str = "{\"id\":2,\"body\":\"b\"}\n";
const THREE: &str = "{\"id\":3,\"body\":\"c\"}\n";

fn source(version: PostgresVersion) -> Result<Database<'static>> {
    let source = Postgres::shared(version).create_database()?;
    source.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'a');
         CREATE TABLE others (id int PRIMARY KEY, body text); INSERT INTO others VALUES (1, 'a');
         CREATE PUBLICATION theirs FOR TABLE notes, others",
    )?;
    Ok(source)
}

/// From the publication `theirs` of this source.
pub(crate) fn into(url: &str) -> Result<Tailwater> {
    let clickhouse = ClickHouse::shared();
    Tailwater::with_config(&format!(
        "[source]\nurl = \"{url}\"\npublication = \"theirs\"\n\n\
         [clickhouse]\nurl = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\n\n\
         [http]\nlisten = \"{{listen}}\"\n",
        clickhouse.url(),
        clickhouse.user(),
        clickhouse.password(),
    ))
}

#[test]
fn a_table_that_a_publication_leaves_out_for_a_while_is_copied_again() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    let tailwater = into(&source.url())?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", ONE)?;
    process.wait_ready(DEADLINE)?;
    source.execute("ALTER PUBLICATION theirs DROP TABLE notes")?;
    source.execute("INSERT INTO notes VALUES (2, 'b')")?;
    source.execute("ALTER PUBLICATION theirs ADD TABLE notes")?;
    serves(&tailwater, "notes", &format!("{ONE}{TWO}"))?;
    process.wait_ready(DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    // The same while nobody streams; the other table is none of it.
    source.execute("ALTER PUBLICATION theirs DROP TABLE notes")?;
    source.execute("INSERT INTO notes VALUES (3, 'c')")?;
    source.execute("ALTER PUBLICATION theirs ADD TABLE notes")?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{ONE}{TWO}{THREE}"))?;
    process.wait_ready(DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let log = tailwater.log();
    let copies =
        |table: &str| log.matches(&format!("copied the table table=public.{table}")).count();
    ensure!((copies("notes"), copies("others")) == (3, 1), "{log}");
    Ok(())
}

#[test]
fn a_row_filter_that_changes_is_followed() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    source.execute("INSERT INTO notes VALUES (2, 'b'), (3, 'c')")?;
    let tailwater = into(&source.url())?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{ONE}{TWO}{THREE}"))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("ALTER PUBLICATION theirs SET TABLE others, notes WHERE (id > 1)")?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{TWO}{THREE}"))?;
    process.wait_ready(DEADLINE)?;
    source.execute("ALTER PUBLICATION theirs SET TABLE others, notes WHERE (id < 3)")?;
    serves(&tailwater, "notes", &format!("{ONE}{TWO}"))
}

/// From version 18 on the server streams nothing meanwhile, without a word.
/// Between two looks, and though it is the same again.
#[test]
fn what_a_publication_leaves_out_for_a_moment_is_copied_again() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    let tailwater = into(&source.url())?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", ONE)?;
    process.wait_ready(DEADLINE)?;
    source.execute("ALTER PUBLICATION theirs SET (publish = 'insert')")?;
    source.execute("UPDATE notes SET body = 'left out'; INSERT INTO notes VALUES (2, 'b')")?;
    source
        .execute("ALTER PUBLICATION theirs SET (publish = 'insert, update, delete, truncate')")?;
    serves(&tailwater, "notes", &format!("{{\"id\":1,\"body\":\"left out\"}}\n{TWO}"))
}

/// PostgreSQL sends such an update as an insert, and what it left alone of large values not at all.
#[test]
fn a_row_that_comes_into_a_filter_comes_whole() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    source.execute(
        "ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
         INSERT INTO notes VALUES (5, repeat('long', 1000));
         ALTER PUBLICATION theirs SET TABLE notes WHERE (id > 10)",
    )?;
    let tailwater = into(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("UPDATE notes SET id = 20 WHERE id = 5")?;
    let long = "long".repeat(1000);
    serves(&tailwater, "notes", &format!("{{\"id\":20,\"body\":\"{long}\"}}\n"))
}

#[test]
fn a_publication_that_is_dropped_and_made_again_by_its_owner_is_copied_again() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    let tailwater = into(&source.url())?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", ONE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("DROP PUBLICATION theirs")?;
    source.execute("INSERT INTO notes VALUES (2, 'b')")?;
    source.execute("CREATE PUBLICATION theirs FOR TABLE notes, others")?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{ONE}{TWO}"))
}
