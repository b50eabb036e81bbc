//! The two halves over Kafka: logins, certificates, delivery, topics as they are found.

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, SASL_PASSWORD, SASL_USER, Tailwater,
    workload::Runner,
};
use tailwater_tests::{Audit, Emails, Raw, produce, read_committed, wait_equal, wait_sent};

use crate::legs::{DEADLINE, Link, says, serves};

const RATE: u64 = 500;
const LETTERS: &str = "tailwater_dead_letters";

fn notes() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied')")?;
    Ok(source)
}

fn ends_well(process: tailwater_test_support::TailwaterProcess<'_>) -> Result<()> {
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

pub(crate) fn login(mechanism: &str, password: &str) -> String {
    format!(
        "[kafka.librdkafka]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\
         \"sasl.mechanism\" = \"{mechanism}\"\n\"sasl.username\" = \"{SASL_USER}\"\n\
         \"sasl.password\" = \"{password}\"\n"
    )
}

/// A workload goes through both halves and arrives whole.
fn carries(link: &Link) -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 3, RATE)?;
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (mut capturing, mut sinking) = (capture.start()?, sink.start()?);
    capturing.wait_ready(DEADLINE)?;
    sinking.wait_ready(DEADLINE)?;
    let counts = workload.stop()?;
    let rows = wait_equal(&source, &sink.http_url(), Emails::Plain, DEADLINE)
        .with_context(|| format!("{counts:?}; the sink:\n{}", sink.log_tail()))?;
    ensure!(rows > 0, "the workload left no row to compare");
    ends_well(capturing)?;
    ends_well(sinking)?;
    for half in [&capture, &sink] {
        ensure!(!half.log().contains(SASL_PASSWORD), "the password is in the log");
    }
    Ok(())
}

#[test]
fn both_halves_log_in_with_sasl_plain() -> Result<()> {
    carries(&Link::over(&Kafka::shared().sasl_bootstrap(), &login("PLAIN", SASL_PASSWORD)))
}

#[test]
fn both_halves_log_in_with_scram() -> Result<()> {
    carries(&Link::over(&Kafka::shared().sasl_bootstrap(), &login("SCRAM-SHA-256", SASL_PASSWORD)))
}

#[test]
fn both_halves_trust_the_authority_they_are_given() -> Result<()> {
    let kafka = Kafka::shared();
    let trust = format!(
        "[kafka.librdkafka]\n\"security.protocol\" = \"SSL\"\n\"ssl.ca.location\" = \"{}\"\n",
        kafka.ca_file().display()
    );
    carries(&Link::over(&kafka.tls_bootstrap(), &trust))
}

#[test]
fn a_wrong_password_ends_both_halves_with_a_sentence_and_loses_nothing() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let brokers = kafka.sasl_bootstrap();
    let right = Link::over(&brokers, &login("SCRAM-SHA-256", SASL_PASSWORD));
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let wrong = login(mechanism, "not-the-word");
        let wrong = Link::below(right.prefix.clone(), &brokers, &wrong);
        for half in [wrong.capture(&source, "")?, wrong.sink()?] {
            refused(&half)?;
        }
    }
    let (capture, sink) = (right.capture(&source, "")?, right.sink()?);
    let (_capturing, _sinking) = (capture.start()?, sink.start()?);
    serves(&sink, "notes", "{\"id\":1,\"body\":\"copied\"}\n")
}

fn refused(half: &Tailwater) -> Result<()> {
    let status = half.run_to_end(DEADLINE)?;
    let log = half.log();
    ensure!(status.code() == Some(1), "it ended with {status}:\n{log}");
    ensure!(log.contains("check credentials and access rights"), "no sentence in:\n{log}");
    ensure!(!log.contains("not-the-word"), "the password is in the log:\n{log}");
    Ok(())
}

#[test]
fn an_authority_that_signed_nothing_is_not_trusted() -> Result<()> {
    let kafka = Kafka::shared();
    let trust = format!(
        "[kafka.librdkafka]\n\"security.protocol\" = \"SSL\"\n\"ssl.ca.location\" = \"{}\"\n",
        kafka.certificates().unrelated_ca.display()
    );
    refused(&Link::over(&kafka.tls_bootstrap(), &trust).capture(&notes()?, "")?)
}

#[test]
fn at_least_once_delivers_every_change_and_the_copy_is_exact() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let kafka = Kafka::shared();
    let workload = Runner::start(&source.url(), 5, RATE)?;
    let audit = Audit::install(&source)?;
    let link = Link::plain(kafka, "delivery = \"at-least-once\"");
    let exclude = "exclude = [\"public.audit\"]";
    let (capture, sink) = (link.capture(&source, exclude)?, link.sink()?);
    let mut sinking = sink.start()?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    let mark = audit.mark()?;
    for _ in 0..3 {
        wait_sent(&capture, &source)?;
        capturing.kill9()?;
        capturing = capture.start()?;
        capturing.wait_ready(DEADLINE)?;
    }
    sinking.wait_ready(DEADLINE)?;
    workload.stop()?;
    wait_equal(&source, &sink.http_url(), Emails::Plain, DEADLINE)?;
    ends_well(capturing)?;
    let records = read_committed(&kafka.bootstrap(), &link.topic("users"))?;
    let mut sent = std::collections::BTreeMap::<String, usize>::new();
    // Of truncates there is no key.
    let rows = records.iter().filter(|record| record.value.is_some() && record.key.is_some());
    for record in rows {
        let key: serde_json::Value = serde_json::from_str(record.key.as_deref().context("a key")?)?;
        *sent.entry(key.to_string()).or_default() += 1;
    }
    for (key, history) in audit.histories("users", mark)? {
        let found = sent.get(&key).copied().unwrap_or_default();
        ensure!(found >= history.after_mark, "key {key}: {history:?}, sent {found}");
    }
    Ok(())
}

#[test]
fn a_new_group_that_starts_at_the_latest_sees_only_what_comes_next() -> Result<()> {
    let source = notes()?;
    let link = Link::plain(Kafka::shared(), "partitions = 1");
    let capture = link.capture(&source, "")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    wait_sent(&capture, &source)?;
    let brokers = Kafka::shared().bootstrap();
    let sink = Link::below(link.prefix, &brokers, "start = \"latest\"").sink()?;
    let mut sinking = sink.start()?;
    sinking.wait_ready(DEADLINE)?;
    says(&sink, "partitions assigned partitions=1")?;
    ends_well(sinking)?;
    // Nothing was read of it yet, and the other topic comes only now.
    source.execute(
        "INSERT INTO notes VALUES (2, 'next');
         CREATE TABLE later (id int PRIMARY KEY, body text); INSERT INTO later VALUES (1, 'new')",
    )?;
    wait_sent(&capture, &source)?;
    let sinking = sink.start()?;
    serves(&sink, "notes", "{\"id\":2,\"body\":\"next\"}\n")?;
    serves(&sink, "later", "{\"id\":1,\"body\":\"new\"}\n")?;
    ends_well(sinking)
}

#[test]
fn a_topic_with_fewer_partitions_is_taken_as_it_is() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 6");
    kafka.create_topic(&link.topic("notes"), 1, &[])?;
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (_capturing, _sinking) = (capture.start()?, sink.start()?);
    serves(&sink, "notes", "{\"id\":1,\"body\":\"copied\"}\n")?;
    source.execute("TRUNCATE notes; INSERT INTO notes VALUES (2, 'after')")?;
    serves(&sink, "notes", "{\"id\":2,\"body\":\"after\"}\n")?;
    let records = read_committed(&kafka.bootstrap(), &link.topic("notes"))?;
    ensure!(records.iter().all(|record| record.partition == 0), "{records:?}");
    Ok(())
}

#[test]
fn a_topic_deleted_while_running_is_said_made_again_and_written_to() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let (_capturing, _sinking) = (capture.start()?, sink.start()?);
    serves(&sink, "notes", "{\"id\":1,\"body\":\"copied\"}\n")?;
    kafka.delete_topic(&link.topic("notes"))?;
    source.execute("INSERT INTO notes VALUES (2, 'after')")?;
    let gone = format!("topic {} is gone, and with it what nobody had read", link.topic("notes"));
    says(&capture, &gone)?;
    serves(&sink, "notes", "{\"id\":1,\"body\":\"copied\"}\n{\"id\":2,\"body\":\"after\"}\n")
        .with_context(|| format!("{}\n{}", capture.log_tail(), sink.log_tail()))
}

/// What each of them would wait for is waited for once; what a later version described is not at all.
#[test]
fn records_whose_table_version_is_missing_hold_the_others_up_only_once() -> Result<()> {
    let (source, kafka) = (notes()?, Kafka::shared());
    let link = Link::plain(kafka, "partitions = 1");
    let (capture, sink) = (link.capture(&source, "")?, link.sink()?);
    let _capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    let of = |ordinal: u64, fingerprint: &str| {
        let origin = format!("0/7:{ordinal} {fingerprint}");
        Raw::new(&link.topic("notes"), "{}", "{}", &[("tailwater.origin", &origin)])
    };
    let (missing, later) = ("00000000000000aa", "00000000000000bb");
    let schemas = format!("{}.tailwater.schemas", link.prefix);
    let mut records = vec![Raw::new(&schemas, later, "{\"of a later version\":1}", &[])];
    records.extend((1..=20).map(|ordinal| of(ordinal, missing)));
    records.extend((21..=25).map(|ordinal| of(ordinal, later)));
    produce(&kafka.bootstrap(), &records)?;
    source.execute("INSERT INTO notes VALUES (2, 'after')")?;
    let _sinking = sink.start()?;
    serves(&sink, "notes", "{\"id\":1,\"body\":\"copied\"}\n{\"id\":2,\"body\":\"after\"}\n")?;
    ensure!(sink.log().matches("a table version is missing").count() == 1, "{}", sink.log());
    let metrics = sink.get("/metrics")?.text();
    let counted = |line: &&str| line.starts_with(LETTERS) && !line.ends_with(" 0");
    let counts: Vec<_> = metrics.lines().filter(counted).collect();
    ensure!(counts == [format!("{LETTERS}_total{{step=\"consumed\"}} 25")], "{counts:?}");
    Ok(())
}
