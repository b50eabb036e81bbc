//! Copies of tables that are cut short, and what of them has to be done again.

use anyhow::{Result, ensure};
use tailwater_test_support::{Database, Postgres, PostgresVersion, wait_for};

use crate::legs::{DEADLINE, behind_proxy, says, serves};

/// Copies three tables one by one and slowly, does something while it is the second one's turn, and gives the
/// log of the whole.
fn log_of_a_copy(source: &Database<'_>, during: impl FnOnce() -> Result<()>) -> Result<String> {
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1);
         CREATE TABLE b (id int PRIMARY KEY, text text);
         INSERT INTO b SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 3000) n;
         CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (3)",
    )?;
    let (proxy, tailwater) = behind_proxy(source, "snapshot_workers = 1")?;
    let mut process = tailwater.start()?;
    says(&tailwater, "created the publication")?;
    proxy.slow_down(100_000);
    says(&tailwater, "copied the table table=public.a")?;
    during()?;
    proxy.slow_down(0);
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "a", "{\"id\":1}\n")?;
    serves(&tailwater, "c", "{\"id\":3}\n")?;
    wait_for(DEADLINE, "the second table", || {
        let answer = tailwater.get("/v0/sql?format=csv&q=SELECT%20count()%20FROM%20b")?;
        ensure!(answer.text().trim().ends_with("3000"), "{}", answer.text());
        Ok(())
    })?;
    Ok(tailwater.log())
}

fn is_copied_once(log: &str, table: &str) -> Result<()> {
    let copies = log.matches(&format!("copied the table table=public.{table}")).count();
    ensure!(copies == 1, "table {table} was copied {copies} times:\n{log}");
    Ok(())
}

/// Ends backends of the pipeline, of which there is at least one sooner or later.
fn ends_backends(source: &Database<'_>, condition: &str) -> Result<()> {
    wait_for(DEADLINE, "a backend to end", || {
        let ended = source.query(&format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'tailwater' AND {condition}"
        ))?;
        ensure!(!ended.is_empty(), "there is none");
        Ok(())
    })
}

/// Else a copy that is longer than its connections live would never end.
#[test]
fn a_copy_whose_connection_breaks_keeps_the_tables_that_are_complete() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let log = log_of_a_copy(&source, || ends_backends(&source, "query LIKE 'COPY (SELECT %'"))?;
    is_copied_once(&log, "a")
}

/// The snapshot lives as long as the connection that exported it.
#[test]
fn a_copy_whose_snapshot_ends_goes_on_with_a_newer_one() -> Result<()> {
    for version in [PostgresVersion::V15, PostgresVersion::V18] {
        let source = Postgres::shared(version).create_database()?;
        let log = log_of_a_copy(&source, || ends_backends(&source, "backend_type = 'walsender'"))?;
        ensure!(
            log.contains("the snapshot that tables are copied from ended"),
            "it did not:\n{log}"
        );
        ["a", "b", "c"].iter().try_for_each(|table| is_copied_once(&log, table))?;
    }
    Ok(())
}

/// That of a table, and the one that keeps the snapshot, are as long as the copy.
#[test]
fn a_copy_may_take_longer_than_the_servers_transaction_timeout() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(&format!("ALTER DATABASE {} SET transaction_timeout = '1s'", source.name()))?;
    let log = log_of_a_copy(&source, || {
        wait_for(DEADLINE, "long transactions", || {
            let long = source.query(
                "SELECT backend_type FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'tailwater'
                   AND clock_timestamp() - query_start > '3s'
                   AND (backend_type = 'walsender' AND state = 'idle in transaction'
                        OR query LIKE 'COPY%' AND xact_start IS NOT NULL)
                 ORDER BY 1",
            )?;
            ensure!(long == [["client backend"], ["walsender"]], "{long:?}");
            Ok(())
        })
    })?;
    ensure!(!log.contains("the snapshot that tables are copied from ended"), "it did:\n{log}");
    ["a", "b", "c"].iter().try_for_each(|table| is_copied_once(&log, table))
}
