//! Kafka deletes records by its retention, whether or not the sink has read them.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, TailwaterProcess, wait_for,
};
use tailwater_tests::{committed_offsets, end_offset, wait_sent};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, Link, says, serves};

const COPIED: &str = "{\"id\":1,\"body\":\"copied\"}\n";
const SECOND: &str = "{\"id\":2,\"body\":\"second\"}\n";

fn notes() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied')")?;
    Ok(source)
}

fn insert_second(source: &Database<'_>, capture: &Tailwater) -> Result<()> {
    source.execute("INSERT INTO notes VALUES (2, 'second')")?;
    wait_sent(capture, source)
}

/// Waits until the group has read all of the topic, the marks behind its records included.
fn read_to_the_end(link: &Link) -> Result<()> {
    let (brokers, topic) = (Kafka::shared().bootstrap(), link.topic("notes"));
    let end = end_offset(&brokers, &topic)?;
    wait_for(DEADLINE, "the group to be at the end", || {
        let committed = committed_offsets(&brokers, &link.group(), &topic)?;
        ensure!(committed.get(&0) == Some(&end), "{committed:?}, the end is {end}");
        Ok(())
    })
}

/// Both legs, once the first rows are copied.
fn copied<'a>(
    capture: &'a Tailwater,
    sink: &'a Tailwater,
) -> Result<(TailwaterProcess<'a>, TailwaterProcess<'a>)> {
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    let sinking = sink.start()?;
    serves(sink, "notes", COPIED)?;
    Ok((capturing, sinking))
}

#[test]
fn records_deleted_while_the_sink_was_away_are_said_and_a_new_copy_mends_it() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1\nstart = \"latest\"");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let topic = link.topic("notes");
    kafka.create_topic(&topic, 1, &[])?;
    let sinking = sink.start()?;
    says(&sink, "partitions assigned partitions=1")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    serves(&sink, "notes", COPIED)?;
    ensure!(sinking.terminate(DEADLINE)?.success(), "it ended badly");
    insert_second(&source, &capture)?;
    kafka.delete_records(&topic)?;
    let said = format!(
        "of partition 0 of {topic}, which group {} had not read, so rows are missing",
        link.group()
    );
    ends_with(&sink, FAILED, &["transport stopped: kafka has deleted records", &said])?;
    let (brokers, group) = (kafka.bootstrap(), link.group());
    let reset = ["--bootstrap-server", &brokers, "--group", &group, "--topic", &topic];
    let reset = reset.into_iter().chain(["--reset-offsets", "--to-earliest", "--execute"]);
    kafka.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", reset)?;
    let _sinking = sink.start()?;
    let url = capture.http_url();
    let again = Tailwater::with_arguments(["snapshot", "public.notes", "--url", &url])?;
    let status = again.run_to_end(DEADLINE)?;
    ensure!(status.success(), "{}", again.log());
    serves(&sink, "notes", &format!("{COPIED}{SECOND}"))
}

#[test]
fn records_deleted_under_a_sink_that_stands_still_are_said() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (_capturing, sinking) = copied(&capture, &sink)?;
    let process = Pid::from_raw(i32::try_from(sinking.id())?).context("a process id")?;
    kill_process(process, Signal::STOP)?;
    // The one that the sink had asked for when it was stopped, and one that it has to ask for.
    insert_second(&source, &capture)?;
    source.execute("INSERT INTO notes VALUES (3, 'third')")?;
    wait_sent(&capture, &source)?;
    kafka.delete_records(&link.topic("notes"))?;
    kill_process(process, Signal::CONT)?;
    let status = sinking.wait_exit(DEADLINE)?;
    ensure!(status.code() == Some(FAILED), "it ended with {status}:\n{}", sink.log());
    says(&sink, "transport stopped: kafka has deleted records")
}

#[test]
fn a_group_that_had_read_all_goes_on_after_the_retention_emptied_the_topic() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (_capturing, sinking) = copied(&capture, &sink)?;
    read_to_the_end(&link)?;
    sinking.kill9()?;
    kafka.delete_records(&link.topic("notes"))?;
    let _sinking = sink.start()?;
    insert_second(&source, &capture)?;
    serves(&sink, "notes", &format!("{COPIED}{SECOND}"))
}

#[test]
fn a_new_group_is_told_that_the_beginning_of_a_topic_is_gone() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let capture = link.capture(&source, "")?;
    let _capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    kafka.delete_records(&link.topic("notes"))?;
    let said = ["kafka has deleted records 0 to ", "of partition 0", "have the table copied again"];
    ends_with(&link.sink()?, FAILED, &said)
}

#[test]
fn a_topic_is_created_with_the_settings_that_are_asked_for() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let settings = "topic_settings = { \"retention.ms\" = -1, \"max.message.bytes\" = 2000000 }";
    let link = Link::plain(kafka, settings);
    let capture = link.capture(&source, "")?;
    let _capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    let (brokers, topic) = (kafka.bootstrap(), link.topic("notes"));
    let describe = ["--bootstrap-server", &brokers, "--describe", "--entity-type", "topics"];
    let describe = describe.into_iter().chain(["--entity-name", &topic]);
    let described = kafka.tool("kafka.admin.ConfigCommand", describe)?;
    for setting in ["retention.ms=-1", "max.message.bytes=2000000"] {
        ensure!(described.contains(setting), "no {setting} in {described}");
    }
    Ok(())
}
