//! A server that has the cluster's identifier and not all of its changes: put back from a backup, or
//! promoted while it was behind. Nothing of what it lost may stay, and nothing new be taken for old.

use anyhow::{Result, ensure};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Tailwater, wait_for,
};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, Link, says, serves};
use crate::outages::into_url;

const COPIED: &str = "{\"id\":1,\"body\":\"copied\"}\n";
const STREAMED: &str = "{\"id\":2,\"body\":\"streamed\"}\n";
const OTHER: &str = "{\"id\":2,\"body\":\"other\"}\n";
const BEHIND: &str =
    "it was restored from a backup, or is a standby that was behind, so it lacks changes";

fn cluster(version: PostgresVersion) -> Result<Postgres> {
    let postgres = Postgres::start(version, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied')")?;
    Ok(postgres)
}

/// The database that [`cluster`] made.
fn source(postgres: &Postgres) -> Result<Database<'_>> {
    let sql = "SELECT datname FROM pg_database WHERE datname LIKE 'db%'";
    Ok(postgres.database(&postgres.query("postgres", sql)?[0][0]))
}

fn ends_well(process: tailwater_test_support::TailwaterProcess<'_>) -> Result<()> {
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// Rows that the backup does not have.
fn write_on(source: &Database<'_>) -> Result<()> {
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    source.execute("INSERT INTO notes SELECT n, repeat('x', 999) FROM generate_series(3, 1000) n")
}

fn serves_many(tailwater: &Tailwater, rows: usize) -> Result<()> {
    wait_for(DEADLINE, "the rows in the snapshot pipe", || {
        let served =
            tailwater.get("/v0/pipes/notes_snapshot.ndjson?limit=2000")?.text().lines().count();
        ensure!(served == rows, "{served} rows");
        Ok(())
    })
}

/// What is written after the backup is stored, too.
fn is_backed_up_and_goes_on(
    source: &Database<'_>,
    capture: &Tailwater,
    served: &Tailwater,
) -> Result<()> {
    let process = capture.start()?;
    serves(served, "notes", COPIED)?;
    ends_well(process)?;
    source.postgres().back_up()?;
    let process = capture.start()?;
    write_on(source)?;
    serves_many(served, 1000)?;
    ends_well(process)
}

#[test]
fn a_backup_with_its_slot_is_refused_where_it_lacks_what_is_stored() -> Result<()> {
    let postgres = cluster(PostgresVersion::V15)?;
    let (source, clickhouse) = (source(&postgres)?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    is_backed_up_and_goes_on(&source, &tailwater, &tailwater)?;
    postgres.restore()?;
    source.execute("INSERT INTO notes VALUES (2, 'other')")?;
    let database = format!("drop the database `{}` in ClickHouse", source.name());
    ends_with(&tailwater, FAILED, &[BEHIND, &database])?;
    clickhouse.query(&format!("DROP DATABASE {} SYNC", source.name()))?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{COPIED}{OTHER}"))
}

/// A snapshot of the volume may be of the second before: what was stored in it is not recorded yet.
#[test]
fn a_backup_that_lacks_only_what_is_stored_and_not_recorded_is_refused() -> Result<()> {
    let postgres = cluster(PostgresVersion::V18)?;
    let (source, clickhouse) = (source(&postgres)?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    ends_well(process)?;
    postgres.back_up()?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let records = format!("{}._tailwater_sources", source.name());
    let readonly = |on: u8| {
        clickhouse.query(&format!("ALTER TABLE {records} MODIFY SETTING table_readonly = {on}"))
    };
    readonly(1)?;
    write_on(&source)?;
    serves_many(&tailwater, 1000)?;
    process.kill9()?;
    readonly(0)?;
    postgres.restore()?;
    source.execute("INSERT INTO notes VALUES (2, 'other')")?;
    // The log gets longer than what is recorded, and not as long as what is stored.
    source.query(
        "SELECT pg_logical_emit_message(false, '', repeat('x', 1000)) FROM generate_series(1, 100)",
    )?;
    let recorded = clickhouse.query(&format!("SELECT confirmed FROM {records} FINAL"))?;
    let end = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
    let end: u64 = source.query(end)?[0][0].parse()?;
    ensure!(
        recorded.trim().parse::<u64>()? < end,
        "{recorded} is recorded, and the log ends at {end}"
    );
    ends_with(&tailwater, FAILED, &[BEHIND])
}

#[test]
fn a_backup_without_a_slot_is_refused_where_it_lacks_what_is_stored() -> Result<()> {
    let postgres = cluster(PostgresVersion::V18)?;
    let (source, clickhouse) = (source(&postgres)?, ClickHouse::shared());
    postgres.back_up()?;
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    write_on(&source)?;
    serves_many(&tailwater, 1000)?;
    ends_well(process)?;
    postgres.restore()?;
    source.execute("INSERT INTO notes VALUES (2, 'other')")?;
    // What is stored is not forgotten by the first refusal.
    ends_with(&tailwater, FAILED, &[BEHIND])?;
    ends_with(&tailwater, FAILED, &[BEHIND])?;
    ensure!(source.query("SELECT FROM pg_replication_slots")?.is_empty(), "it made a slot");
    Ok(())
}

#[test]
fn a_backup_is_refused_before_it_is_written_into_the_topics() -> Result<()> {
    let postgres = cluster(PostgresVersion::V15)?;
    let source = source(&postgres)?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(ClickHouse::shared())?);
    let _sinking = sink.start()?;
    postgres.back_up()?;
    let process = capture.start()?;
    serves(&sink, "notes", COPIED)?;
    write_on(&source)?;
    serves_many(&sink, 1000)?;
    ends_well(process)?;
    postgres.restore()?;
    source.execute("INSERT INTO notes VALUES (2, 'other')")?;
    for _ in 0..2 {
        ends_with(&capture, FAILED, &[BEHIND, "name a new prefix with [kafka] prefix"])?;
    }
    Ok(())
}

/// The standby is made of the server's own files, so it has all of the log.
#[test]
fn a_standby_that_has_everything_goes_on_where_the_primary_was() -> Result<()> {
    let postgres = cluster(PostgresVersion::V18)?;
    let (source, clickhouse) = (source(&postgres)?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", COPIED)?;
    let failover = source.query("SELECT failover FROM pg_replication_slots")?;
    ensure!(failover == [["t"]], "standbys may not keep the slot: {failover:?}");
    postgres.promote()?;
    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    serves(&tailwater, "notes", &format!("{COPIED}{STREAMED}"))?;
    says(&tailwater, "went from timeline 1 to 2: what it has is compared with what is stored")?;
    ends_well(process)?;
    // Between two starts as well, and once more on a timeline that is known.
    postgres.promote()?;
    source.execute("DELETE FROM notes WHERE id = 1")?;
    for _ in 0..2 {
        let process = tailwater.start()?;
        serves(&tailwater, "notes", STREAMED)?;
        ends_well(process)?;
    }
    ensure!(tailwater.log().matches("copied the table").count() == 1, "it copied again");
    Ok(())
}

/// A standby that was behind becomes the primary, and its log longer than the other one was.
fn is_refused_until_its_tables_are_copied_anew(
    source: &Database<'_>,
    capture: &Tailwater,
    served: &Tailwater,
) -> Result<()> {
    is_backed_up_and_goes_on(source, capture, served)?;
    let delivered = source.query("SELECT pg_current_wal_lsn()")?.swap_remove(0).swap_remove(0);
    source.postgres().restore()?;
    source.postgres().promote()?;
    source.execute("INSERT INTO notes VALUES (2, 'other')")?;
    source
        .execute("CREATE TABLE filler AS SELECT repeat('x', 999) FROM generate_series(1, 9000)")?;
    let longer = source.query(&format!("SELECT pg_current_wal_lsn() > '{delivered}'"))?;
    ensure!(longer == [["t"]], "the log is shorter than {delivered}");
    let said = [
        "came from timeline 1 of the source",
        "and the source, which is on timeline 2, left it at",
    ];
    ends_with(capture, FAILED, &said)?;
    ensure!(source.drop_idle_slots()? == 1, "there was no slot");
    let _process = capture.start()?;
    serves(served, "notes", &format!("{COPIED}{OTHER}"))
}

#[test]
fn a_standby_that_was_behind_is_refused_until_its_tables_are_copied_anew() -> Result<()> {
    let postgres = cluster(PostgresVersion::V18)?;
    let (source, clickhouse) = (source(&postgres)?, ClickHouse::shared());
    let tailwater = into_url(&clickhouse.url(), clickhouse, &source)?;
    is_refused_until_its_tables_are_copied_anew(&source, &tailwater, &tailwater)
}

#[test]
fn a_standby_that_was_behind_is_refused_before_it_is_written_into_the_topics() -> Result<()> {
    let postgres = cluster(PostgresVersion::V15)?;
    let source = source(&postgres)?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(ClickHouse::shared())?);
    let _sinking = sink.start()?;
    is_refused_until_its_tables_are_copied_anew(&source, &capture, &sink)
}
