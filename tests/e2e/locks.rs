//! Tables that somebody else has locked, as `VACUUM FULL` does for hours.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tailwater_test_support::{Database, Postgres, PostgresVersion, Session, Tailwater, wait_for};

use crate::legs::{DEADLINE, says, serves};

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    Ok(source)
}

/// The pipeline's backends for queries that fit, by process.
fn backends(source: &Database<'_>, condition: &str) -> Result<BTreeSet<String>> {
    let found = source.query(&format!(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'tailwater'
           AND backend_type = 'client backend' AND {condition}"
    ))?;
    Ok(found.into_iter().flatten().collect())
}

/// The server does not notice that nobody waits for an answer any more.
#[test]
fn looks_at_a_locked_table_leave_no_backends_behind() -> Result<()> {
    let source = source()?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    let lock = Session::open(&source.url())?;
    lock.execute("BEGIN; LOCK TABLE notes")?;
    let mut waited = BTreeSet::new();
    wait_for(DEADLINE, "three looks", || {
        waited.extend(backends(&source, "wait_event_type = 'Lock'")?);
        ensure!(waited.len() >= 3, "{waited:?}");
        Ok(())
    })?;
    // The session's own, that of the slot's monitor, and that of a look.
    let left = backends(&source, "true")?;
    ensure!(left.len() <= 3, "{} are there after {} looks", left.len(), waited.len());
    says(&tailwater, "look for new tables")?;
    says(&tailwater, "(SQLSTATE 55P03); another session keeps a table locked")?;
    lock.execute("COMMIT")?;
    source.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (2)")?;
    serves(&tailwater, "later", "{\"id\":2}\n")?;
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    Ok(())
}

#[test]
fn a_start_that_waits_for_a_locked_table_says_so() -> Result<()> {
    let source = source()?;
    let lock = Session::open(&source.url())?;
    lock.execute("BEGIN; LOCK TABLE notes")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    wait_for(DEADLINE, "/readyz to say so", || {
        let answer = tailwater.get("/readyz")?;
        ensure!(
            answer.text().contains("another session keeps a table locked"),
            "{}",
            answer.text()
        );
        Ok(())
    })?;
    lock.execute("COMMIT")?;
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "notes", "{\"id\":1}\n")
}
