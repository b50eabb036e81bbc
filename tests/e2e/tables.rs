//! Which tables are captured: those with a key, and those that come while the pipeline runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{Database, Postgres, PostgresVersion, Tailwater, wait_for};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::serves;

const DEADLINE: Duration = Duration::from_secs(60);

fn source(version: PostgresVersion) -> Result<Database<'static>> {
    let source = Postgres::shared(version).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    Ok(source)
}

fn sections(source: &Database<'_>, more: &str) -> String {
    format!("[source]\nurl = \"{}\"\n{more}\n\n[http]\nlisten = \"{{listen}}\"\n", source.url())
}

/// Ends the walsender of this database, and waits for another one to stream.
fn reconnects(source: &Database<'_>) -> Result<()> {
    let walsender = "SELECT s.active_pid FROM pg_replication_slots s JOIN pg_stat_replication r
         ON r.pid = s.active_pid WHERE s.database = current_database() AND r.state = 'streaming'";
    let before = wait_for(DEADLINE, "a walsender", || {
        let found = source.query(walsender)?;
        ensure!(found.len() == 1, "{found:?}");
        Ok(found)
    })?;
    source.execute(&format!("SELECT pg_terminate_backend({}, 10000)", before[0][0]))?;
    wait_for(DEADLINE, "another walsender", || {
        let found = source.query(walsender)?;
        ensure!(found.len() == 1 && found != before, "{found:?}");
        Ok(())
    })
}

#[test]
fn a_table_whose_rows_cannot_be_told_apart_is_left_out_and_stops_nothing() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    source.execute("CREATE TABLE whole (v text); ALTER TABLE whole REPLICA IDENTITY FULL")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute("CREATE TABLE later (v text); ALTER TABLE later REPLICA IDENTITY FULL")?;
    reconnects(&source)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    let published = source.query("SELECT tablename FROM pg_publication_tables")?;
    ensure!(published == [["notes"]], "{published:?}");
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    Ok(())
}

/// PostgreSQL refuses updates of a published table without a replica identity.
#[test]
fn no_table_is_published_that_could_not_be_updated_any_more() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    source.execute(
        "CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, v text);
         CREATE TABLE lost (id int NOT NULL, v text); CREATE UNIQUE INDEX lost_id ON lost (id);
         ALTER TABLE lost REPLICA IDENTITY USING INDEX lost_id; DROP INDEX lost_id;
         INSERT INTO deferred VALUES (1, 'a'); INSERT INTO lost VALUES (1, 'a')",
    )?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute("UPDATE deferred SET v = 'b'; UPDATE lost SET v = 'b'; DELETE FROM lost")
}

#[test]
fn what_is_not_captured_is_said_once() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    source.execute("CREATE TABLE keyless (v text)")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    reconnects(&source)?;
    reconnects(&source)?;
    let log = tailwater.log();
    let said = log.matches("not captured: it has no primary key").count();
    ensure!(said == 1, "it was said {said} times:\n{log}");
    Ok(())
}

#[test]
fn a_named_table_with_full_identity_and_no_key_is_refused() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    source.execute("CREATE TABLE whole (v text); ALTER TABLE whole REPLICA IDENTITY FULL")?;
    let named = Tailwater::with_config(&sections(&source, "tables = [\"public.whole\"]"))?;
    let said = ["table public.whole has REPLICA IDENTITY FULL but no primary key, so equal rows \
                 cannot be told apart; add a primary key, or take it out of [source] tables"];
    ends_with(&named, FAILED, &said)?;
    source.execute("CREATE PUBLICATION theirs FOR TABLE notes, whole")?;
    let published = Tailwater::with_config(&sections(&source, "publication = \"theirs\""))?;
    let said = [
        "published table public.whole has REPLICA IDENTITY FULL but no primary key",
        "run ALTER PUBLICATION \"theirs\" DROP TABLE \"public\".\"whole\"",
        "name it in [source] exclude",
    ];
    ends_with(&published, FAILED, &said)
}
