//! Records that are too large for Kafka, and two writers where there may be one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Session, Tailwater, wait_for, wait_until,
};
use tailwater_tests::{
    Audit, Raw, Record, each_change_once, end_offset, produce, read_committed, wait_sent,
};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, Link, says, serves};
use crate::outages::{RATE, metric, recovers};

fn documents() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE documents (id int PRIMARY KEY, body text)")?;
    Ok(source)
}

/// Random digits, so that no compression helps, and a character that JSON escapes.
fn insert(source: &Database<'_>, id: i32, bytes: usize) -> Result<()> {
    source.execute(&format!(
        "INSERT INTO documents SELECT {id}, '\"' || left(string_agg(md5(random()::text), ''), {})
         FROM generate_series(1, {})",
        bytes - 1,
        bytes / 32 + 1,
    ))
}

/// The copy holds the documents up to `limit` bytes, and letters make up the others, in records of
/// less than `taken`.
fn sets_aside(link: &Link, source: &Database<'_>, limit: usize, taken: usize) -> Result<()> {
    let kafka = Kafka::shared();
    let (capture, sink) = (link.capture(source, "")?, link.sink()?);
    insert(source, 1, limit / 2)?;
    insert(source, 2, limit * 5 / 2)?;
    insert(source, 3, 100)?;
    let (_capturing, _sinking) = (capture.start()?, sink.start()?);
    let ids = |expected: &str| {
        wait_for(DEADLINE, "the documents that fit", || {
            let query = "SELECT%20id%20FROM%20documents%20ORDER%20BY%20id";
            let answer = sink.get(&format!("/v0/sql?format=csv&q={query}"))?;
            let lines: Vec<String> = answer.text().lines().map(str::to_owned).collect();
            ensure!(lines.join(" ").ends_with(expected), "{lines:?}\n{}", capture.log_tail());
            Ok(())
        })
    };
    ids("1 3")?;
    insert(source, 4, limit * 2)?;
    source.execute("UPDATE documents SET body = 'short' WHERE id = 3")?;
    insert(source, 5, 100)?;
    ids("1 3 5")?;
    let topic = format!("{}.tailwater.dead-letters", link.prefix);
    let letters = read_committed(&kafka.bootstrap(), &topic)?;
    let largest = letters.iter().filter_map(|letter| letter.value.as_ref()).map(String::len).max();
    ensure!(largest.is_some_and(|bytes| bytes < taken), "a letter of {largest:?} bytes");
    for id in ["2", "4"] {
        let body = &source.query(&format!("SELECT body FROM documents WHERE id = {id}"))?[0][0];
        ensure!(original(&letters, id)? == *body, "the original of {id} is not whole");
    }
    ensure!(!capture.log().contains("error"), "the log:\n{}", capture.log_tail());
    Ok(())
}

/// The body of a document, put together from the parts of its letter.
fn original(letters: &[Record], id: &str) -> Result<String> {
    let mut originals = BTreeMap::<String, String>::new();
    for record in letters {
        let value = record.value.as_deref().context("a letter has a value")?;
        let letter: serde_json::Value = serde_json::from_str(value)?;
        ensure!(letter["table"] == "public.documents" && letter["stage"] == "encode", "{letter}");
        let reason = letter["reason"].as_str().context("a letter has its reason")?;
        ensure!(reason.contains(" is larger than topic "), "{reason}");
        let part = letter["original"].as_str().context("a letter has its original")?;
        originals.entry(letter["position"].to_string()).or_default().push_str(part);
    }
    for original in originals.into_values() {
        let original: serde_json::Value = serde_json::from_str(&original).context("the parts")?;
        if original["after"]["id"].as_str() == Some(id) {
            return Ok(original["after"]["body"].as_str().context("find the body")?.to_owned());
        }
    }
    bail!("there is no letter for document {id}")
}

#[test]
fn a_row_above_the_limit_is_set_aside_whole_and_blocks_nothing() -> Result<()> {
    let link = Link::plain(Kafka::shared(), "max_message_bytes = 2000000");
    sets_aside(&link, &documents()?, 2_000_000, 2_000_000)
}

#[test]
fn a_topic_of_somebody_else_is_asked_for_its_limit() -> Result<()> {
    let link = Link::plain(Kafka::shared(), "");
    Kafka::shared().create_topic(&link.topic("documents"), 2, &["max.message.bytes=100000"])?;
    sets_aside(&link, &documents()?, 100_000, 8 << 20)
}

#[test]
fn a_row_of_several_mebibytes_goes_through_with_the_defaults() -> Result<()> {
    let source = documents()?;
    let link = Link::plain(Kafka::shared(), "");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    insert(&source, 1, 6 << 20)?;
    let digest = source.query("SELECT md5(body) FROM documents")?[0][0].clone();
    let (_capturing, _sinking) = (capture.start()?, sink.start()?);
    wait_for(DEADLINE, "the document", || {
        let query = "SELECT%20lower(hex(MD5(body)))%20FROM%20documents";
        let answer = sink.get(&format!("/v0/sql?format=csv&q={query}"))?;
        ensure!(answer.text().contains(&digest), "{}\n{}", answer.text(), capture.log_tail());
        Ok(())
    })
}

/// Somebody lowers the limit of a topic that is in use.
#[test]
fn a_record_that_the_broker_refuses_after_all_is_said_and_set_aside() -> Result<()> {
    let (source, kafka) = (documents()?, Kafka::shared());
    let link = Link::plain(kafka, "");
    let capture = link.capture(&source, "")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    insert(&source, 1, 100)?;
    wait_sent(&capture, &source)?;
    alter(&link.topic("documents"), "max.message.bytes=10000")?;
    insert(&source, 2, 100_000)?;
    says(&capture, "transport stopped: a record is larger than the broker takes; raise `max.")?;
    wait_sent(&capture, &source)?;
    let letters =
        read_committed(&kafka.bootstrap(), &format!("{}.tailwater.dead-letters", link.prefix))?;
    let body = source.query("SELECT body FROM documents WHERE id = 2")?[0][0].clone();
    ensure!(original(&letters, "2")? == body, "the original is not whole");
    ensure!(capturing.is_running()?, "it ended:\n{}", capture.log_tail());
    Ok(())
}

fn alter(topic: &str, setting: &str) -> Result<()> {
    let (kafka, bootstrap) = (Kafka::shared(), Kafka::shared().bootstrap());
    let of_topic = ["--entity-type", "topics", "--entity-name", topic];
    let altered = ["--alter", "--add-config", setting];
    let arguments = ["--bootstrap-server", &bootstrap].into_iter().chain(of_topic).chain(altered);
    kafka.tool("kafka.admin.ConfigCommand", arguments).map(drop)
}

#[test]
fn a_topic_that_is_compacted_is_said_to_take_no_copy_and_takes_it_when_it_is_not_any_more()
-> Result<()> {
    let source = documents()?;
    insert(&source, 1, 100)?;
    let link = Link::plain(Kafka::shared(), "");
    Kafka::shared().create_topic(&link.topic("documents"), 1, &["cleanup.policy=compact"])?;
    let capture = link.capture(&source, "")?;
    let _capturing = capture.start()?;
    says(
        &capture,
        "transport stopped: kafka refuses a record as invalid: a topic with cleanup.policy=compact takes",
    )?;
    alter(&link.topic("documents"), "cleanup.policy=delete")?;
    wait_sent(&capture, &source)?;
    let records = read_committed(&Kafka::shared().bootstrap(), &link.topic("documents"))?;
    ensure!(records.len() == 2, "the truncate and the row, not {}", records.len());
    Ok(())
}

/// A consumer that remembers rows of the new partitions has to hear of it there.
#[test]
fn a_truncate_goes_to_partitions_that_were_added_since() -> Result<()> {
    let (source, kafka) = (documents()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let capture = link.capture(&source, "")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    let (bootstrap, topic) = (kafka.bootstrap(), link.topic("documents"));
    let truncates = || -> Result<usize> {
        let records = read_committed(&bootstrap, &topic)?;
        Ok(records.iter().filter(|record| record.key.is_none()).count())
    };
    ensure!(truncates()? == 1, "the copy begins with one");
    let more =
        ["--bootstrap-server", &bootstrap, "--alter", "--topic", &topic, "--partitions", "3"];
    kafka.tool("org.apache.kafka.tools.TopicCommand", more)?;
    source.execute("TRUNCATE documents")?;
    wait_sent(&capture, &source)?;
    ensure!(truncates()? == 4, "{} truncates", truncates()?);
    Ok(())
}

#[test]
fn topics_that_cannot_be_made_or_read_are_named() -> Result<()> {
    let (source, kafka) = (documents()?, Kafka::shared());
    let link = Link::plain(kafka, "replication = 3");
    let said = format!(
        "transport stopped: topic {}.tailwater.checkpoints does not exist and could not be created (",
        link.prefix
    );
    ends_with(&link.capture(&source, "")?, FAILED, &[&said])?;
    let link = Link::plain(kafka, "");
    kafka.create_topic(&format!("{}.tailwater.checkpoints", link.prefix), 1, &[])?;
    let foreign = r#"{"topic": "p.tailwater.checkpoints", "key": 7, "value": [], "headers": {}}"#;
    produce(&kafka.bootstrap(), &[Raw::parse(foreign, &link.prefix)?])?;
    let said = ["transport stopped: the checkpoint of pipeline 7 in", "is not one of this version"];
    ends_with(&link.capture(&source, "slot = \"7\"")?, FAILED, &said)
}

#[test]
fn a_second_capture_on_the_slot_waits_and_does_not_shut_the_first_one_out() -> Result<()> {
    let source = documents()?;
    let link = Link::plain(Kafka::shared(), "");
    let (first, second) = (link.capture(&source, "")?, link.capture(&source, "")?);
    let mut running = first.start()?;
    running.wait_ready(DEADLINE)?;
    let waiting = second.start()?;
    told(&second, "another process streams")?;
    insert(&source, 1, 100)?;
    wait_sent(&first, &source)?;
    ensure!(waiting.terminate(DEADLINE)?.success(), "the second one ended badly");
    ensure!(running.terminate(DEADLINE)?.success(), "the first one ended badly");
    Ok(())
}

fn told(tailwater: &Tailwater, reason: &str) -> Result<()> {
    wait_for(DEADLINE, "the reason in /readyz", || {
        let answer = tailwater.get("/readyz")?;
        ensure!(answer.text().contains(reason), "{}", answer.text());
        Ok(())
    })
}

/// Has a row committed and stored, so that the next one waits in an open transaction; the row as it is served.
fn commits_a_row(source: &Database<'_>, sink: &Tailwater) -> Result<String> {
    source.execute("INSERT INTO documents VALUES (0, 'committed')")?;
    let row = "{\"id\":0,\"body\":\"committed\"}\n";
    serves(sink, "documents", row)?;
    Ok(row.to_owned())
}

/// Waits until a capture has sent something in a transaction that is still open.
fn has_an_open_transaction(capture: &Tailwater) -> Result<()> {
    let of_sent = |name: &str| metric(capture, &format!("{name}{{step=\"sent\"}}"));
    let mut before = None;
    wait_for(DEADLINE, "an open transaction", || {
        let (sent, committed) =
            (of_sent("tailwater_passed_total")?, of_sent("tailwater_position")?);
        let earlier = before.replace((sent, committed));
        let open = earlier.is_some_and(|(less, same)| less < sent && committed <= same);
        ensure!(open, "{sent} records were sent, and nothing since position {committed}");
        Ok(())
    })
}

/// A process that stood still while another one took over its slot and its transactional id, all of it under load.
#[test]
fn a_zombie_that_wakes_up_writes_nothing_and_says_why() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    // Few enough that the sleeper's socket is not full soon.
    let workload = Runner::start(&source.url(), 18, RATE / 2)?;
    let audit = Audit::install(&source)?;
    let settings = "transaction_interval_ms = 3000\n\
                    [kafka.librdkafka]\n\"transaction.timeout.ms\" = 300000\n";
    let (kafka, link) = (Kafka::shared(), Link::plain(Kafka::shared(), settings));
    let capture = || link.capture(&source, "exclude = [\"public.audit\"]");
    let (zombie, successor, sink) = (capture()?, capture()?, link.sink()?);
    let mut asleep = zombie.start()?;
    asleep.wait_ready(DEADLINE)?;
    // Else the successor would take the copy again.
    wait_sent(&zombie, &source)?;
    let mark = audit.mark()?;
    let _sinking = sink.start()?;
    has_an_open_transaction(&zombie)?;
    let process = Pid::from_raw(i32::try_from(asleep.id())?).context("a process id")?;
    // At once: a walsender that has filled the sleeper's socket does not end.
    let session = Session::open(&source.url())?;
    kill_process(process, Signal::STOP)?;
    session.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
         WHERE database = current_database()",
    )?;
    let mut awake = successor.start()?;
    awake.wait_ready(DEADLINE)?;
    wait_sent(&successor, &source)?;
    kill_process(process, Signal::CONT)?;
    wait_sent(&successor, &source)?;
    recovers(&source, workload, &sink)?;
    wait_sent(&successor, &source)?;
    let histories = audit.histories("users", mark)?;
    ensure!(awake.is_running()?, "the successor ended:\n{}", successor.log_tail());
    // It knows already if its transaction was still open; else it learns by the next one.
    ensure!(awake.terminate(DEADLINE)?.success(), "the successor ended badly");
    source.execute("INSERT INTO users (id, name, email) VALUES (0, 'for nobody', 'e')")?;
    // As Kafka says it, or the source, whichever it asks first.
    wait_for(DEADLINE, "the zombie to say why", || {
        let log = zombie.log();
        let of_kafka = log.contains("transport stopped: another tailwater took over this pipeline");
        ensure!(of_kafka || log.contains("another tailwater took over slot "), "{log}");
        Ok(())
    })?;
    each_change_once(&histories, &kafka.bootstrap(), &link.topic("users"))
}

/// Every start reads the topic of checkpoints, to which up to twenty records a second go for good.
#[test]
fn checkpoints_that_are_outdated_are_compacted_away_soon() -> Result<()> {
    const WRITTEN: usize = 30_000;
    let (source, kafka) = (documents()?, Kafka::shared());
    let link = Link::plain(kafka, "max_message_bytes = 1048576");
    let capture = link.capture(&source, "")?;
    let capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    let topic = format!("{}.tailwater.checkpoints", link.prefix);
    let record = Raw::new(&topic, "somebody", &"x".repeat(200), &[]);
    produce(&kafka.bootstrap(), &vec![record; WRITTEN])?;
    wait_for(DEADLINE, "the broker to compact the topic", || {
        let left = read_committed(&kafka.bootstrap(), &topic)?.len();
        ensure!(left < WRITTEN / 3, "{left} of {WRITTEN} records are left");
        Ok(())
    })?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    // What counts is still there.
    insert(&source, 1, 100)?;
    let _capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    ensure!(capture.log().matches("copied the table").count() == 1, "{}", capture.log());
    Ok(())
}

#[test]
fn a_schema_called_tailwater_is_carried_but_for_the_names_of_its_own_topics() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE SCHEMA tailwater")?;
    source.execute("CREATE TABLE tailwater.notes (id int PRIMARY KEY)")?;
    source.execute("INSERT INTO tailwater.notes VALUES (1)")?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let capturing = capture.start()?;
    let _sinking = sink.start()?;
    serves(&sink, "tailwater_notes", "{\"id\":1}\n")?;
    source.execute("CREATE TABLE tailwater.checkpoints (id int PRIMARY KEY)")?;
    source.execute("INSERT INTO tailwater.checkpoints VALUES (1)")?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "it ended badly");
    let said = "the changes of table tailwater.checkpoints would go into topic ";
    ends_with(&capture, FAILED, &[said, "which is tailwater's own"])
}

/// As a machine that is suspended. The broker gives up on its transaction, and nobody took over.
#[test]
fn a_process_that_stood_still_for_longer_than_its_transaction_may_goes_on() -> Result<()> {
    let (source, kafka) = (documents()?, Kafka::shared());
    let settings = "partitions = 1\ntransaction_interval_ms = 3000\n\
                    [kafka.librdkafka]\n\"transaction.timeout.ms\" = 4000\n";
    let link = Link::plain(kafka, settings);
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let mut capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    let _sinking = sink.start()?;
    let (bootstrap, topic) = (kafka.bootstrap(), link.topic("documents"));
    let committed = commits_a_row(&source, &sink)?;
    let before = end_offset(&bootstrap, &topic)?;
    source.execute("INSERT INTO documents VALUES (1, 'in an open transaction')")?;
    wait_until(DEADLINE, "the row to be there", || {
        end_offset(&bootstrap, &topic).is_ok_and(|end| end == before + 1)
    })?;
    let process = Pid::from_raw(i32::try_from(capturing.id())?).context("a process id")?;
    kill_process(process, Signal::STOP)?;
    wait_until(DEADLINE, "the broker's mark that the row does not count", || {
        end_offset(&bootstrap, &topic).is_ok_and(|end| end == before + 2)
    })?;
    kill_process(process, Signal::CONT)?;
    source.execute("INSERT INTO documents VALUES (2, 'after')")?;
    let rows = "{\"id\":1,\"body\":\"in an open transaction\"}\n{\"id\":2,\"body\":\"after\"}\n";
    serves(&sink, "documents", &format!("{committed}{rows}"))
        .with_context(|| capture.log_tail())?;
    let rows = read_committed(&bootstrap, &topic)?.into_iter().filter(|row| row.key.is_some());
    ensure!(rows.count() == 3, "a change is there twice");
    says(&capture, "a transaction was open for longer than the 4 s that kafka waits")?;
    ensure!(capturing.is_running()?, "it ended:\n{}", capture.log_tail());
    Ok(())
}
