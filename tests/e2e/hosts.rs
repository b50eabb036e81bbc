//! A source of several hosts: everything goes to the one that the URL asks for.

use anyhow::{Result, ensure};
use tailwater_test_support::{Postgres, PostgresOptions, PostgresVersion, Tailwater};

use crate::legs::{DEADLINE, serves};

#[test]
fn queries_stream_and_copies_go_to_the_host_that_can_be_written() -> Result<()> {
    let standby = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    standby.become_standby()?;
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    let primary = format!("127.0.0.1:{}", source.postgres().port());
    let both = format!("127.0.0.1:{},{primary}", standby.port());
    let url = source.tcp_url().replace(&primary, &both) + "?target_session_attrs=read-write";
    let tailwater = Tailwater::with_source(&url)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
