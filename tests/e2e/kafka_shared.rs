//! Topics of Tailwater's own, into which other pipelines with the same prefix write too.

use anyhow::{Context as _, Result, ensure};
use rdkafka::producer::Producer as _;
use tailwater_test_support::{Database, Kafka, Postgres, PostgresVersion, guests, wait_for};
use tailwater_tests::{Raw, produce_undecided, read_committed, wait_sent};

use crate::legs::{DEADLINE, Link, says, serves};

const SAID: &str =
    "cannot be read to its end, because another producer has a transaction open in it";

fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    Ok(source)
}

/// A record of nobody's in a topic below the prefix.
fn of_another(link: &Link, topic: &str) -> Raw {
    Raw::new(&format!("{}.tailwater.{topic}", link.prefix), "another", "{}", &[])
}

/// From an older one it would copy again what is copied.
#[test]
fn a_capture_starts_from_its_last_checkpoint_behind_an_open_transaction_of_another() -> Result<()> {
    let (source, kafka) = (source()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let capture = link.capture(&source, "")?;
    let capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    let open = produce_undecided(&kafka.bootstrap(), &of_another(&link, "checkpoints"))?;
    source.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")?;
    says(&capture, "copied the table table=public.later")?;
    wait_sent(&capture, &source)?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    let mut capturing = capture.start()?;
    says(&capture, SAID)?;
    open.abort_transaction(DEADLINE)?;
    capturing.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO later VALUES (2)")?;
    wait_sent(&capture, &source)?;
    let mut ops = Vec::new();
    for record in read_committed(&kafka.bootstrap(), &link.topic("later"))? {
        let value = record.value.context("nothing is deleted")?;
        let value: serde_json::Value = serde_json::from_str(&value)?;
        ops.push(value["op"].as_str().context("find the op")?.to_owned());
    }
    ops.retain(|op| op != "t");
    ensure!(ops == ["r", "c"], "{ops:?}");
    Ok(())
}

#[test]
fn a_sink_waits_for_a_table_version_behind_an_open_transaction_of_another() -> Result<()> {
    let (source, kafka) = (source()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (_capturing, _sinking) = (capture.start()?, sink.start()?);
    serves(&sink, "notes", "{\"id\":1}\n")?;
    let open = produce_undecided(&kafka.bootstrap(), &of_another(&link, "schemas"))?;
    source.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")?;
    says(&sink, SAID)?;
    open.abort_transaction(DEADLINE)?;
    serves(&sink, "later", "{\"id\":1}\n")?;
    ensure!(!sink.log().contains("a table version is missing"), "{}", sink.log());
    Ok(())
}

/// With plugins that remember, a batch ends where the next record is of another partition. If that record
/// cannot be read now, the batch goes with its consumer, and is read again by the next one.
#[test]
fn a_sink_that_remembers_loses_nothing_that_it_read_before_it_had_to_wait() -> Result<()> {
    let (source, kafka) = (source()?, Kafka::shared());
    source.execute("CREATE TABLE others (id int PRIMARY KEY); INSERT INTO others VALUES (1)")?;
    let link = Link::plain(kafka, "partitions = 1\nbatch_interval_ms = 5000");
    let capture = link.capture(&source, "")?;
    let sink = link.sink_with(&format!(
        "[[plugin]]\nname = \"remembers\"\npath = \"{}\"\nstage = \"sink\"\n\
         [plugin.config]\nby = \"position\"\n",
        guests::plugin("drop-duplicates")?.display()
    ))?;
    let (_capturing, mut sinking) = (capture.start()?, sink.start()?);
    serves(&sink, "notes", "{\"id\":1}\n")?;
    serves(&sink, "others", "{\"id\":1}\n")?;
    let open = produce_undecided(&kafka.bootstrap(), &of_another(&link, "schemas"))?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    wait_for(DEADLINE, "the record that waits for company", || {
        let records = read_committed(&kafka.bootstrap(), &link.topic("notes"))?;
        ensure!(
            records.iter().any(|record| record.key.as_deref() == Some("{\"id\":2}")),
            "{records:?}"
        );
        Ok(())
    })?;
    source.execute("ALTER TABLE others ADD COLUMN n int; INSERT INTO others VALUES (2, 2)")?;
    says(&sink, SAID)?;
    open.abort_transaction(DEADLINE)?;
    serves(&sink, "others", "{\"id\":1,\"n\":null}\n{\"id\":2,\"n\":2}\n")?;
    serves(&sink, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    ensure!(sinking.is_running()?, "it ended by itself:\n{}", sink.log_tail());
    Ok(())
}
