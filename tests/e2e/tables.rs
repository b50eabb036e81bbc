//! Which tables are captured: those with a key, and those that come while the pipeline runs.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Session, Tailwater, unique_name,
    wait_for, wait_until,
};

use crate::bad_input::{FAILED, ends_with};
use tailwater_tests::{read_committed, wait_sent};

use crate::legs::{Link, behind_proxy, says, serves};

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
pub(crate) fn reconnects(source: &Database<'_>) -> Result<()> {
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
    // Within a transaction two of its rows may have one key.
    source.execute(
        "CREATE TABLE moved (id int PRIMARY KEY DEFERRABLE); ALTER TABLE moved REPLICA IDENTITY FULL",
    )?;
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

#[test]
fn a_table_made_while_the_pipeline_runs_is_in_the_copy_without_a_restart() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let mut process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute(
        "CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later SELECT generate_series(1, 2);
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY HASH (id);
         CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         INSERT INTO parts VALUES (7);
         CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
         INSERT INTO parent VALUES (8); INSERT INTO child VALUES (9)",
    )?;
    serves(&tailwater, "later", "{\"id\":1}\n{\"id\":2}\n")?;
    source.execute("DELETE FROM later WHERE id = 1; INSERT INTO later VALUES (3)")?;
    source.execute("INSERT INTO notes VALUES (2); INSERT INTO parts VALUES (6)")?;
    serves(&tailwater, "later", "{\"id\":2}\n{\"id\":3}\n")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    serves(&tailwater, "parts", "{\"id\":6}\n{\"id\":7}\n")?;
    serves(&tailwater, "parent", "{\"id\":8}\n")?;
    serves(&tailwater, "child", "{\"id\":9}\n")?;
    ensure!(process.is_running()?, "it ended:\n{}", tailwater.log_tail());
    Ok(())
}

#[test]
fn the_stream_goes_on_while_the_copy_of_a_new_table_waits() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    let open = Session::open(&source.url())?;
    open.execute("BEGIN; INSERT INTO notes VALUES (2)")?;
    source.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")?;
    says(&tailwater, "the slot waits for an open transaction to end")?;
    source.execute("INSERT INTO notes VALUES (3)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":3}\n")?;
    open.execute("COMMIT")?;
    serves(&tailwater, "later", "{\"id\":1}\n")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n")
}

#[test]
fn a_table_made_while_the_pipeline_runs_goes_over_kafka_too() -> Result<()> {
    let (source, kafka) = (source(PostgresVersion::V15)?, Kafka::shared());
    let link = Link::plain(kafka, "");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    // A copy that is prepared and dies before it begins is prepared again.
    let dies = capture.start_with(&[("TAILWATER_FAILPOINT", "after_prepare:1")])?;
    let _sinking = sink.start()?;
    serves(&sink, "notes", "{\"id\":1}\n")?;
    source.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")?;
    ensure!(dies.wait_exit(DEADLINE)?.signal() == Some(9), "it ended by itself");
    let mut capturing = capture.start()?;
    serves(&sink, "later", "{\"id\":1}\n")?;
    source.execute("INSERT INTO later VALUES (2); INSERT INTO notes VALUES (2)")?;
    serves(&sink, "later", "{\"id\":1}\n{\"id\":2}\n")?;
    serves(&sink, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    ensure!(capturing.is_running()?, "it ended:\n{}", capture.log_tail());
    Ok(())
}

/// Who reads the topic in order and forgets everything at a truncate has what the source has: also what was
/// written, and streamed, after the copy was prepared and before it was taken.
#[test]
fn in_a_topic_the_copy_of_a_new_table_is_newer_than_what_stands_before_it() -> Result<()> {
    // Where other tests always have transactions open the copy shows the table as it was a little earlier.
    let postgres = Postgres::start(PostgresVersion::V18, PostgresOptions::default())?;
    let (source, kafka) = (postgres.create_database()?, Kafka::shared());
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let link = Link::plain(kafka, "");
    let capture = link.capture(&source, "")?;
    let held = capture.directory().join("held");
    let mut capturing = capture.start_with(&[
        ("TAILWATER_FAILPOINT", "after_prepare:1"),
        ("TAILWATER_FAILPOINT_HOLD", &held.display().to_string()),
    ])?;
    capturing.wait_ready(DEADLINE)?;
    source.execute(
        "CREATE TABLE later (id int PRIMARY KEY, n int); INSERT INTO later VALUES (1, 0)",
    )?;
    wait_until(DEADLINE, "the copy to be prepared", || held.exists())?;
    source.execute("UPDATE later SET n = 1; UPDATE later SET n = 2")?;
    wait_sent(&capture, &source)?;
    std::fs::remove_file(&held)?;
    says(&capture, "copied the table table=public.later")?;
    source.execute("UPDATE later SET n = 3")?;
    wait_sent(&capture, &source)?;
    let mut seen = Vec::new();
    for record in read_committed(&kafka.bootstrap(), &link.topic("later"))? {
        let envelope: serde_json::Value =
            serde_json::from_str(record.value.as_deref().unwrap_or("null"))?;
        let op = envelope["op"].as_str().unwrap_or_default();
        seen.push(format!("{op}{}", envelope["after"]["n"]));
    }
    seen.retain(|record| record != "tnull");
    ensure!(seen.ends_with(&["u1", "u2", "r2", "u3"].map(str::to_owned)), "{seen:?}");
    Ok(())
}

/// PostgreSQL 18 publishes those that are stored; those before publish none. A copy that had what the stream
/// lacks would be of another shape.
#[test]
fn generated_columns_are_in_the_copy_where_they_are_in_the_stream() -> Result<()> {
    for (version, expected) in [
        (PostgresVersion::V15, ["{\"id\":1,\"a\":2}\n", "{\"id\":1,\"a\":3}\n"]),
        (PostgresVersion::V18, ["{\"id\":1,\"a\":2,\"g\":4}\n", "{\"id\":1,\"a\":3,\"g\":6}\n"]),
    ] {
        let source = Postgres::shared(version).create_database()?;
        source.execute(
            "CREATE TABLE made (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED);
             CREATE TABLE keyed (a int, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY);
             INSERT INTO made VALUES (1, 2)",
        )?;
        let tailwater = Tailwater::with_source(&source.url())?;
        let _process = tailwater.start()?;
        serves(&tailwater, "made", expected[0])?;
        says(&tailwater, "not captured: it has no primary key")?;
        source.execute("INSERT INTO keyed VALUES (1); UPDATE keyed SET a = 2")?;
        source.execute("UPDATE made SET a = 3")?;
        serves(&tailwater, "made", expected[1])?;
    }
    Ok(())
}

/// Once published, a table without a key refuses updates.
#[test]
fn a_child_without_a_key_of_its_own_stays_writable() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    source.execute(
        "CREATE TABLE base (id int PRIMARY KEY); CREATE TABLE child (b text) INHERITS (base);
         INSERT INTO child VALUES (1, 'b')",
    )?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute("UPDATE child SET b = 'x'; DELETE FROM child")?;
    let published = source.query("SELECT tablename FROM pg_publication_tables ORDER BY 1")?;
    ensure!(published == [["base"], ["notes"]], "{published:?}");
    Ok(())
}

/// Nothing of it is published, so somebody has to be told.
#[test]
fn partitions_that_come_and_go_as_a_whole_are_told_of() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (25);
         INSERT INTO p VALUES (1), (11)",
    )?;
    let tailwater = Tailwater::with_config(&sections(
        &source,
        "exclude = [\"public.later\", \"public.lather\"]",
    ))?;
    let _process = tailwater.start()?;
    serves(&tailwater, "p", "{\"id\":1}\n{\"id\":11}\n")?;
    // A table that comes is found at a look, and the partitions are known after one.
    source.execute("CREATE TABLE mark (id int PRIMARY KEY); INSERT INTO mark VALUES (1)")?;
    serves(&tailwater, "mark", "{\"id\":1}\n")?;
    source.execute(
        "DROP TABLE p_1; ALTER TABLE p ATTACH PARTITION later FOR VALUES FROM (20) TO (30);
         CREATE TABLE p_4 PARTITION OF p FOR VALUES FROM (30) TO (40); INSERT INTO p VALUES (31)",
    )?;
    says(&tailwater, "later was attached, p_1 was dropped or detached")?;
    says(
        &tailwater,
        "exclude names no table; names are schema.table, as in public.users table=public.lather",
    )?;
    source.execute("TRUNCATE p_2")?;
    says(&tailwater, "p_2 was truncated")?;
    ensure!(
        !tailwater.log().contains("p_4"),
        "of one that was made as a partition nothing is said"
    );
    Ok(())
}

/// The rows of a table that is rewritten are too new for the snapshot, and the stream does not tell them.
#[test]
fn tables_that_change_while_others_are_copied_are_copied_as_they_are_then() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY, text text);
         INSERT INTO a SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 3000) n;
         CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b VALUES (1, 2);
         CREATE TABLE c (id int PRIMARY KEY, n int); INSERT INTO c VALUES (3, 4);
         CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9); INSERT INTO p VALUES (5, 6)",
    )?;
    let (proxy, tailwater) = behind_proxy(&source, "snapshot_workers = 1")?;
    let mut process = tailwater.start()?;
    says(&tailwater, "created the publication")?;
    proxy.slow_down(100_000);
    says(&tailwater, "copying tables tables=4")?;
    source.execute(
        "ALTER TABLE b ALTER n TYPE bigint; ALTER TABLE c RENAME n TO m; ALTER TABLE p ALTER n TYPE bigint",
    )?;
    proxy.slow_down(0);
    serves(&tailwater, "b", "{\"id\":1,\"n\":2}\n")?;
    serves(&tailwater, "c", "{\"id\":3,\"m\":4}\n")?;
    serves(&tailwater, "p", "{\"id\":5,\"n\":6}\n")?;
    says(&tailwater, "public.b, public.c, public.p changed while tables were copied")?;
    process.wait_ready(DEADLINE)?;
    let copies = tailwater.log().matches("copied the table table=public.a rows=3000").count();
    ensure!(copies == 1, "the table that did not change was copied {copies} times");
    Ok(())
}

/// The slot, and so the snapshot, may come hours after the tables were described.
#[test]
fn what_changes_of_a_table_while_its_slot_waits_is_in_the_copy() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    source.execute(
        "CREATE TABLE other (id int PRIMARY KEY);
         CREATE TABLE few (id int PRIMARY KEY); INSERT INTO few SELECT generate_series(1, 3);
         CREATE PUBLICATION theirs FOR TABLE notes, other, few WHERE (id > 1)",
    )?;
    let tailwater = Tailwater::with_config(&sections(&source, "publication = \"theirs\""))?;
    let open = Session::open(&source.url())?;
    open.execute("BEGIN; INSERT INTO other VALUES (1)")?;
    let mut process = tailwater.start()?;
    says(&tailwater, "the slot waits for an open transaction to end")?;
    source.execute("ALTER TABLE notes ADD c int")?;
    source.execute("UPDATE notes SET c = 7")?;
    source.execute("ALTER PUBLICATION theirs SET TABLE notes, other, few WHERE (id > 2)")?;
    open.execute("COMMIT")?;
    serves(&tailwater, "notes", "{\"id\":1,\"c\":7}\n")?;
    serves(&tailwater, "few", "{\"id\":3}\n")?;
    serves(&tailwater, "other", "{\"id\":1}\n")?;
    process.wait_ready(DEADLINE)?;
    says(&tailwater, "public.few, public.notes changed while tables were copied")
}

/// The stream knows of no policies, so a copy that obeys them would be another table.
#[test]
fn a_table_whose_rows_a_policy_hides_is_refused() -> Result<()> {
    let source = source(PostgresVersion::V18)?;
    let role = unique_name("reader");
    source.execute(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON notes TO {role};
         CREATE PUBLICATION theirs FOR TABLE notes; ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY few ON notes USING (id > 1)"
    ))?;
    let url = source.url().replace("user=postgres", &format!("user={role}"));
    let config = sections(&source, "publication = \"theirs\"").replace(&source.url(), &url);
    let refused = Tailwater::with_config(&config)?;
    let said = ["row-level security hides rows of table public.notes", "BYPASSRLS", "DROP TABLE"];
    ends_with(&refused, FAILED, &said)?;
    source.execute(&format!("ALTER ROLE {role} BYPASSRLS"))?;
    let tailwater = Tailwater::with_config(&config)?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")
}

/// It is another table of the same name, and what was known of the copy of the first means nothing.
#[test]
fn a_table_that_is_dropped_and_made_again_is_copied_again() -> Result<()> {
    is_copied_again_when_made_again("")
}

/// It is published from its first row on, and nobody says in the log that there was another one before.
#[test]
fn a_table_that_somebody_elses_publication_shows_again_is_copied_again() -> Result<()> {
    is_copied_again_when_made_again("publication = \"theirs\"\n")
}

fn is_copied_again_when_made_again(settings: &str) -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    if !settings.is_empty() {
        source.execute(
            "CREATE PUBLICATION theirs FOR ALL TABLES WITH (publish = 'insert, update, delete')",
        )?;
    }
    source.execute("CREATE TABLE stays (id int PRIMARY KEY); INSERT INTO stays VALUES (1)")?;
    let again = |id| {
        source.execute(&format!(
            "DROP TABLE notes; CREATE TABLE notes (id int PRIMARY KEY);
             INSERT INTO notes VALUES ({id})"
        ))
    };
    let tailwater = Tailwater::with_config(&sections(&source, settings))?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    again(2)?;
    serves(&tailwater, "notes", "{\"id\":2}\n")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    again(3)?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":3}\n")?;
    let copies = tailwater.log().matches("copied the table table=public.stays").count();
    ensure!(copies == 1, "the other table was copied {copies} times:\n{}", tailwater.log());
    let partial = tailwater.log().contains("leaves out a kind of change");
    ensure!(partial != settings.is_empty(), "not said, or said of a publication that is whole");
    Ok(())
}

/// The catalog does not tell its key any more, and the log tells none of a table with full identity.
#[test]
fn what_a_table_with_full_identity_held_when_it_was_dropped_is_read_to_the_end() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    source.execute("ALTER TABLE notes ADD text text, REPLICA IDENTITY FULL")?;
    let tailwater = Tailwater::with_source(&source.url())?;
    let process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1,\"text\":null}\n")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    source.execute(
        "INSERT INTO notes VALUES (2, 'b'), (3, 'c'); DELETE FROM notes WHERE id = 1;
         UPDATE notes SET text = 'd' WHERE id = 3; UPDATE notes SET id = 4 WHERE id = 2",
    )?;
    source.execute("CREATE TABLE other (id int PRIMARY KEY); DROP TABLE notes")?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":3,\"text\":\"d\"}\n{\"id\":4,\"text\":\"b\"}\n")
}

#[test]
fn tables_that_may_not_be_captured_are_said_once_and_do_not_disturb_the_stream() -> Result<()> {
    let source = source(PostgresVersion::V15)?;
    let role = unique_name("owner");
    source.execute(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {} TO {role};
         GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE notes OWNER TO {role}",
        source.name()
    ))?;
    let tailwater =
        Tailwater::with_source(&source.url().replace("user=postgres", &format!("user={role}")))?;
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", "{\"id\":1}\n")?;
    source.execute("CREATE TABLE theirs (id int PRIMARY KEY); CREATE TABLE keyless (v text)")?;
    says(&tailwater, "not captured: the user may not read all of it")?;
    source.execute(&format!(
        "BEGIN; CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1);
         ALTER TABLE later OWNER TO {role}; COMMIT"
    ))?;
    serves(&tailwater, "later", "{\"id\":1}\n")?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    let log = tailwater.log();
    for (said, times) in [("not captured: ", 2), ("streaming slot", 2), ("copying tables", 2)] {
        ensure!(log.matches(said).count() == times, "`{said}` is not {times} times in:\n{log}");
    }
    Ok(())
}

/// Their rows would mix in one topic, where a key says nothing of the table.
#[test]
fn tables_whose_topics_are_one_are_refused_and_one_that_comes_is_left_out() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE \"Weird Name\" (id int PRIMARY KEY)")?;
    source.execute("CREATE TABLE \"Weird_Name\" (id int PRIMARY KEY)")?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let said = "tables public.Weird Name and public.Weird_Name would have topics that Kafka cannot";
    ends_with(&link.capture(&source, "")?, FAILED, &[said])?;
    let (capture, sink) =
        (link.capture(&source, "exclude = [\"public.Weird Name\"]")?, link.sink()?);
    let (mut capturing, _sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    source.execute("CREATE TABLE \"Weird.Name\" (id int PRIMARY KEY)")?;
    source.execute("CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1)")?;
    says(&capture, "not captured: Kafka cannot tell its topic from that of a table which is")?;
    serves(&sink, "plain", "{\"id\":1}\n")?;
    ensure!(capturing.is_running()?, "it ended:\n{}", capture.log_tail());
    Ok(())
}
