//! What the publication holds, what the user may do with it, and what becomes of tables that leave it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{
    Database, Postgres, PostgresOptions, PostgresVersion, Tailwater, unique_name,
};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{says, serves};
use crate::tables::reconnects;

const DEADLINE: Duration = Duration::from_secs(60);

fn notes() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    Ok(source)
}

fn config(url: &str, more: &str) -> String {
    format!("[source]\nurl = \"{url}\"\n{more}\n[http]\nlisten = \"{{listen}}\"\n")
}

#[test]
fn a_run_without_the_rights_says_which_as_a_check_does() -> Result<()> {
    let source = notes()?;
    let (role, database) = (unique_name("reader"), source.name());
    source.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'hunter2'"))?;
    let url = source.tcp_url().replace("tailwater:correct%20horse", &format!("{role}:hunter2"));
    let tailwater = Tailwater::with_config(&config(&url, ""))?;
    ends_with(
        &tailwater,
        FAILED,
        &["may not create the publication; run GRANT CREATE ON DATABASE"],
    )?;
    source.execute(&format!("GRANT CREATE ON DATABASE {database} TO {role}"))?;
    ends_with(&tailwater, FAILED, &["does not own table public.notes, so it may not publish it"])?;
    source.execute("CREATE PUBLICATION tailwater FOR TABLE notes")?;
    ends_with(
        &tailwater,
        FAILED,
        &["run GRANT USAGE ON SCHEMA", "SELECT ON \"public\".\"notes\""],
    )?;
    let slots = source
        .query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")?;
    ensure!(slots.is_empty(), "a slot was made for nothing: {slots:?}");
    source.execute(&format!("GRANT SELECT ON notes TO {role}"))?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    Ok(())
}

#[test]
fn a_named_table_that_is_dropped_or_attached_stops_no_other() -> Result<()> {
    let source = notes()?;
    source.execute(
        "CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE part (id int PRIMARY KEY);
         CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id)",
    )?;
    let named = "tables = [\"public.notes\", \"public.gone\", \"public.part\"]";
    let tailwater = Tailwater::with_config(&config(&source.url(), named))?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute(
        "DROP TABLE gone; ALTER TABLE whole ATTACH PARTITION part FOR VALUES FROM (0) TO (9)",
    )?;
    reconnects(&source)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    for table in ["public.gone", "public.part"] {
        let said = format!("it will be if it is made table={table}");
        let times = tailwater.log().matches(&said).count();
        ensure!(times == 1, "`{said}` was said {times} times:\n{}", tailwater.log());
    }
    process.terminate(DEADLINE)?;
    let mut process = tailwater.start()?;
    source.execute("CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (3)")?;
    serves(&tailwater, "gone", "{\"id\":3}\n")?;
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    Ok(())
}

/// As builds made it that published tables with all that inherit from them.
#[test]
fn children_that_nobody_wants_are_taken_out_of_a_publication_of_ours() -> Result<()> {
    let source = notes()?;
    source.execute(
        "CREATE TABLE keyless () INHERITS (notes); CREATE TABLE keyed (PRIMARY KEY (id)) INHERITS (notes);
         CREATE PUBLICATION tailwater FOR TABLE notes WITH (publish_via_partition_root = true);
         COMMENT ON PUBLICATION tailwater IS 'managed by tailwater since 0/0';
         INSERT INTO keyless VALUES (5); INSERT INTO keyed VALUES (6)",
    )?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    serves(&tailwater, "keyed", "{\"id\":6}\n")?;
    let published = "SELECT tablename FROM pg_publication_tables ORDER BY 1";
    let published = source.query(published)?;
    ensure!(published == [["keyed"], ["notes"]], "{published:?}");
    source.execute("UPDATE keyless SET id = 7")?;
    says(&tailwater, "took a table out of the publication")?;
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    Ok(())
}

#[test]
fn a_copy_that_no_slot_is_left_for_is_said_once() -> Result<()> {
    let options = PostgresOptions::default();
    let postgres = Postgres::start(PostgresVersion::V18, options)?;
    let source = postgres.create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute(
        "SELECT pg_create_physical_replication_slot('taken_' || n) FROM generate_series(1,
             current_setting('max_replication_slots')::int
             - (SELECT count(*)::int FROM pg_replication_slots)) n",
    )?;
    says(&tailwater, "streaming slot=")?;
    let begun = tailwater.log().lines().count();
    source.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (2)")?;
    says(&tailwater, "raise max_replication_slots on the server")?;
    // Another attempt, which a table that is seen by the same look tells.
    source.execute("CREATE TABLE other (v text)")?;
    says(&tailwater, "table=public.other")?;
    source.execute("CREATE TABLE another (v text)")?;
    says(&tailwater, "table=public.another")?;
    let log = tailwater.log();
    let lines: Vec<&str> = log.lines().skip(begun).filter(|line| line.contains("slot")).collect();
    ensure!(lines.len() == 1, "{lines:?}");
    source.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'taken%'",
    )?;
    serves(&tailwater, "later", "{\"id\":2}\n")
}
