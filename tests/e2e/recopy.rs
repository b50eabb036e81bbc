//! A table that is no longer right in ClickHouse is copied again on request, and only that one.

use anyhow::{Result, ensure};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresVersion, Tailwater, http_request, unique_name,
};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, Link, serves};
use crate::outages::into_url;
use crate::own_publication;

const COPIED: &str = "{\"id\":1,\"body\":\"copied\"}\n";
const STREAMED: &str = "{\"id\":2,\"body\":\"streamed\"}\n";
const AFTER: &str = "{\"id\":3,\"body\":\"after\"}\n";

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    for table in ["notes", "others"] {
        source.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, body text)"))?;
        source.execute(&format!("INSERT INTO {table} VALUES (1, 'copied')"))?;
    }
    Ok(source)
}

/// ClickHouse loses a row of the table, and of the other one.
fn damage(database: &str) -> Result<()> {
    for table in ["notes", "others"] {
        ClickHouse::shared().query(&format!(
            "ALTER TABLE {database}.{table}_versions DELETE WHERE id = 1 SETTINGS mutations_sync = 2"
        ))?;
    }
    Ok(())
}

fn ask(tailwater: &Tailwater, table: &str) -> Result<(u16, String)> {
    let url = format!("{}/v0/snapshot?table={table}", tailwater.http_url());
    let answer = http_request("POST", &url, &[], b"")?;
    Ok((answer.status, answer.text()))
}

fn is_copied_again(
    source: &Database<'_>,
    capture: &Tailwater,
    served: &Tailwater,
    database: &str,
) -> Result<()> {
    let mut capturing = capture.start()?;
    serves(served, "notes", COPIED)?;
    serves(served, "others", COPIED)?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    serves(served, "notes", &format!("{COPIED}{STREAMED}"))?;
    damage(database)?;
    serves(served, "notes", STREAMED)?;
    let (status, said) = ask(capture, "public.note")?;
    let unknown = "no copy of a table `public.note` is complete";
    ensure!(status == 404 && said.contains(unknown), "{status} {said}");
    let url = capture.http_url();
    let command = Tailwater::with_arguments(["snapshot", "public.notes", "--url", &url])?;
    let status = command.run_to_end(DEADLINE)?;
    let said = command.log();
    ensure!(status.success() && said.contains("is being copied again"), "{status} {said}");
    source.execute("INSERT INTO notes VALUES (3, 'after')")?;
    serves(served, "notes", &format!("{COPIED}{STREAMED}{AFTER}"))?;
    serves(served, "others", "")?;
    ensure!(capturing.is_running()?, "it ended:\n{}", capture.log_tail());
    capturing.terminate(DEADLINE)?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    let copies = capture.log().matches("copied the table").count();
    ensure!(copies == 3, "{copies} copies:\n{}", capture.log());
    capturing.terminate(DEADLINE)?;
    Ok(())
}

#[test]
fn a_table_is_copied_again_on_request_without_a_broker() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    is_copied_again(&source, &tailwater, &tailwater, source.name())?;
    // A start finds out by itself what is not there any more.
    clickhouse.query(&format!("DROP TABLE {}.notes_versions SYNC", source.name()))?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{COPIED}{STREAMED}{AFTER}"))
}

#[test]
fn a_table_is_copied_again_on_request_over_kafka() -> Result<()> {
    let source = source()?;
    let link = Link::plain(Kafka::shared(), "partitions = 2");
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(ClickHouse::shared())?);
    let mut sinking = sink.start()?;
    sinking.wait_ready(DEADLINE)?;
    let (status, said) = ask(&sink, "public.notes")?;
    ensure!(status == 409 && said.contains("this process copies no tables"), "{status} {said}");
    is_copied_again(&source, &capture, &sink, &link.prefix)
}

#[test]
fn a_copy_on_request_that_is_cut_short_is_taken_by_the_next_start() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    serves(&tailwater, "others", COPIED)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let mut process = tailwater.start_with(&[("TAILWATER_FAILPOINT", "during_snapshot:1")])?;
    process.wait_ready(DEADLINE)?;
    damage(source.name())?;
    let (status, said) = ask(&tailwater, "public.notes")?;
    ensure!(status == 200, "{status} {said}");
    process.wait_exit(DEADLINE)?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)
}

/// `tailwater snapshot public.notes --replace` with the settings of a run, and what it says.
fn replaces(tailwater: &Tailwater, more: &[&str], code: i32, said: &str) -> Result<()> {
    let config = tailwater.directory().join("tailwater.toml").display().to_string();
    let arguments = ["snapshot", "public.notes", "--replace", "--config", &config];
    let command = Tailwater::with_arguments(arguments.into_iter().chain(more.iter().copied()))?;
    let status = command.run_to_end(DEADLINE)?;
    let log = command.log();
    ensure!(status.code() == Some(code) && log.contains(said), "{status} without {said}: {log}");
    Ok(())
}

/// The engine's password is nowhere, and it runs only while the process does.
#[test]
fn a_table_that_does_not_fit_is_replaced_in_the_embedded_engine() -> Result<()> {
    let source = source()?;
    let url = source.url();
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{url}\"\n[embedded]\npath = \"data\"\n[http]\nlisten = \"{{listen}}\"\n"
    ))?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    serves(&tailwater, "others", COPIED)?;
    replaces(&tailwater, &[], FAILED, "is used by another process; stop it")?;
    source.execute(
        "ALTER TABLE notes ALTER body TYPE text[] USING ARRAY[body]; INSERT INTO notes VALUES (2, '{x}')",
    )?;
    let status = process.wait_exit(DEADLINE)?;
    ensure!(status.code() == Some(FAILED), "it ended with {status}:\n{}", tailwater.log());
    let said =
        ["to drop it and copy the table again run `tailwater snapshot public.notes --replace`"];
    ends_with(&tailwater, FAILED, &said)?;
    replaces(
        &tailwater,
        &[],
        0,
        "dropped `notes` and `notes_versions` in ClickHouse; the next start",
    )?;
    replaces(&tailwater, &[], FAILED, "has no copy of public.notes")?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1,\"body\":[\"copied\"]}\n{\"id\":2,\"body\":[\"x\"]}\n")?;
    serves(&tailwater, "others", COPIED)?;
    let copies = tailwater.log().matches("copied the table").count();
    ensure!(copies == 3, "{copies} copies:\n{}", tailwater.log());
    Ok(())
}

#[test]
fn what_tailwater_did_not_make_is_replaced_only_if_it_is_named() -> Result<()> {
    let (source, clickhouse) = (source()?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    clickhouse.query(&format!("CREATE DATABASE {}", source.name()))?;
    clickhouse.query(&format!(
        "CREATE TABLE {}.notes (id Int64) ENGINE = MergeTree ORDER BY id COMMENT 'theirs'",
        source.name()
    ))?;
    let said = "`notes` in ClickHouse is a MergeTree that tailwater did not make";
    ends_with(&tailwater, FAILED, &[said])?;
    let whose = "it is a MergeTree with the comment `theirs`; if it may be dropped all the same, add \
                 `--drop notes`";
    replaces(&tailwater, &[], FAILED, whose)?;
    replaces(
        &tailwater,
        &["--drop", "others"],
        FAILED,
        "`others` is not in the way of public.notes",
    )?;
    replaces(&tailwater, &["--drop", "notes"], 0, "dropped `notes`")?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)
}

#[test]
fn a_table_that_may_not_be_read_any_more_is_not_copied_again_and_stops_no_other() -> Result<()> {
    let source = source()?;
    let user = unique_name("reader");
    source.execute(&format!(
        "CREATE ROLE {user} LOGIN REPLICATION; GRANT SELECT ON notes, others TO {user};
         CREATE PUBLICATION theirs FOR TABLE notes, others"
    ))?;
    let url = source.url().replace("user=postgres", &format!("user={user}"));
    let tailwater = own_publication::into(&url)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute(&format!("REVOKE SELECT ON notes FROM {user}"))?;
    let (status, said) = ask(&tailwater, "public.notes")?;
    ensure!(status == 409 && said.contains("the table was left as it is"), "{status} {said}");
    source.execute("INSERT INTO others VALUES (2, 'streamed')")?;
    serves(&tailwater, "others", &format!("{COPIED}{STREAMED}"))?;
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    Ok(())
}
