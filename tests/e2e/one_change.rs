//! The way of one change, from `INSERT` to the HTTP answer, with nothing configured but the source.

use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{Postgres, PostgresVersion, Tailwater, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);

fn a_change_is_served(version: PostgresVersion) -> Result<()> {
    let source = Postgres::shared(version).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied by the snapshot')")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    source.execute("UPDATE notes SET body = NULL WHERE id = 1")?;
    let expected = "{\"id\":1,\"body\":null}\n{\"id\":2,\"body\":\"streamed\"}\n";
    wait_for(DEADLINE, "both rows in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/notes_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

#[test]
fn a_change_of_postgres_15_is_served_over_http() -> Result<()> {
    a_change_is_served(PostgresVersion::V15)
}

#[test]
fn a_change_of_postgres_18_is_served_over_http() -> Result<()> {
    a_change_is_served(PostgresVersion::V18)
}
