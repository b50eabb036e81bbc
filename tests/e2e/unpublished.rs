//! A publication that somebody drops: the server streams nothing any more, or refuses to.

use anyhow::{Result, ensure};
use tailwater_test_support::{ClickHouse, Database, Postgres, PostgresVersion, Tailwater};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, serves};
use crate::outages::into_url;

const COPIED: &str = "{\"id\":1,\"body\":\"copied\"}\n";
const MISSED: &str = "{\"id\":2,\"body\":\"missed\"}\n";
const AGAIN: &str = "{\"id\":3,\"body\":\"missed\"}\n";
const DROPPED: &str = "publication tailwater was dropped while slot";

fn source(version: PostgresVersion) -> Result<Database<'static>> {
    let source = Postgres::shared(version).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied')")?;
    Ok(source)
}

fn into(source: &Database<'_>) -> Result<Tailwater> {
    let clickhouse = ClickHouse::shared();
    into_url(&clickhouse.url(), clickhouse, source)
}

/// Dropped under the stream, then while nobody streams.
fn is_told_and_made_anew(version: PostgresVersion) -> Result<()> {
    let source = source(version)?;
    let tailwater = into(&source)?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    process.wait_ready(DEADLINE)?;
    source.execute("DROP PUBLICATION tailwater")?;
    source.execute("INSERT INTO notes VALUES (2, 'missed')")?;
    let status = process.wait_exit(DEADLINE)?;
    let log = tailwater.log();
    ensure!(status.code() == Some(FAILED) && log.contains(DROPPED), "{status}:\n{log}");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "notes", &format!("{COPIED}{MISSED}"))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("DROP PUBLICATION tailwater")?;
    source.execute("INSERT INTO notes VALUES (3, 'missed')")?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "notes", &format!("{COPIED}{MISSED}{AGAIN}"))?;
    // What is made anew is not made anew again.
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("DELETE FROM notes WHERE id = 1")?;
    serves(&tailwater, "notes", &format!("{MISSED}{AGAIN}"))?;
    let log = tailwater.log();
    let made = log.matches("the slot is older than the publication").count();
    ensure!(made == 2, "the slot was made anew {made} times:\n{log}");
    Ok(())
}

#[test]
fn a_dropped_publication_is_told_and_made_anew_with_its_slot_on_version_15() -> Result<()> {
    is_told_and_made_anew(PostgresVersion::V15)
}

#[test]
fn a_dropped_publication_is_told_and_made_anew_with_its_slot_on_version_18() -> Result<()> {
    is_told_and_made_anew(PostgresVersion::V18)
}

/// Until version 17 the server looks for the publication as of each change.
#[test]
fn a_slot_from_before_a_publication_of_the_users_own_is_told_of() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    let tailwater = into(&source)?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute("DROP PUBLICATION tailwater")?;
    source.execute("INSERT INTO notes VALUES (2, 'missed')")?;
    source.execute("CREATE PUBLICATION tailwater FOR TABLE notes")?;
    let slot = format!("run SELECT pg_drop_replication_slot('tailwater_{}')", source.name());
    ends_with(&tailwater, FAILED, &[DROPPED, &slot])?;
    ensure!(source.drop_idle_slots()? == 1, "there was no slot");
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{COPIED}{MISSED}"))
}
