//! Reads a topic from its beginning to its end, as a downstream consumer would.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::value::RawValue;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A record, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value; none is a tombstone.
    pub value: Option<String>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
}

/// All committed records of a topic, partition by partition, in order.
pub fn read_committed(bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "an-oracle")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().first().context("find the topic")?.partitions();
    ensure!(!partitions.is_empty(), "topic {topic} does not exist");
    let mut assigned = TopicPartitionList::new();
    for partition in partitions {
        assigned.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    let mut open = partitions.len();
    let mut records = Vec::new();
    while open > 0 {
        match consumer.poll(TIMEOUT).context("hear from the broker")? {
            Ok(message) => records.push(record(&message)),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            // A broker that is slow; the client connects again, and polling ends when it does not.
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
            )) => {}
            Err(error) => return Err(error.into()),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// A record as it was recorded: every byte but the first part of its topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Its topic.
    pub topic: String,
    /// Its partition; none is that of its key.
    pub partition: Option<i32>,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

impl Raw {
    /// A record.
    pub fn new(topic: &str, key: &str, value: &str, headers: &[(&str, &str)]) -> Raw {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Raw {
            topic: topic.to_owned(),
            partition: None,
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
            headers: headers.iter().map(owned).collect(),
        }
    }

    /// A record without key and headers.
    pub fn keyless(topic: &str, partition: i32, value: &str) -> Raw {
        Raw { partition: Some(partition), key: None, ..Raw::new(topic, "", value, &[]) }
    }

    /// Parses a line of `{"topic", "key", "value", "headers"}` and puts it below another prefix.
    pub fn parse(line: &str, prefix: &str) -> Result<Raw> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            topic: String,
            #[serde(borrow)]
            key: Option<&'a RawValue>,
            #[serde(borrow)]
            value: Option<&'a RawValue>,
            #[serde(borrow)]
            headers: BTreeMap<String, &'a RawValue>,
        }
        let line: Line<'_> = serde_json::from_str(line)?;
        let (_, rest) = line.topic.split_once('.').context("a topic has a prefix")?;
        let text = |value: &RawValue| value.get().to_owned();
        let some = |value: Option<&RawValue>| value.map(text).filter(|text| text != "null");
        Ok(Raw {
            topic: format!("{prefix}.{rest}"),
            partition: None,
            key: some(line.key),
            value: some(line.value),
            headers: line.headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
        })
    }
}

/// Writes records, in order, and returns once the broker has them all.
pub fn produce(bootstrap: &str, records: &[Raw]) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .create()?;
    for Raw { topic, partition, key, value, headers } in records {
        let mut record = BaseRecord::<str, str>::to(topic);
        (record.key, record.payload) = (key.as_deref(), value.as_deref());
        record.partition = *partition;
        let with = |all: OwnedHeaders, (key, value): &(String, String)| {
            all.insert(Header { key, value: Some(value) })
        };
        record.headers = Some(headers.iter().fold(OwnedHeaders::new(), with));
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT)?;
    ensure!(producer.in_flight_count() == 0, "the broker did not take every record");
    Ok(())
}

/// Writes a record in a transaction that stays open until the producer is told otherwise, and returns once the
/// broker has it.
pub fn produce_undecided(bootstrap: &str, raw: &Raw) -> Result<BaseProducer> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", format!("undecided-{}", raw.topic))
        .set("transaction.timeout.ms", "600000")
        .create()?;
    producer.init_transactions(TIMEOUT)?;
    producer.begin_transaction()?;
    let mut record = BaseRecord::<str, str>::to(&raw.topic);
    (record.key, record.payload) = (raw.key.as_deref(), raw.value.as_deref());
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(TIMEOUT)?;
    ensure!(producer.in_flight_count() == 0, "the broker did not take the record");
    Ok(producer)
}

/// The end of a topic's first partition: behind its records, committed or not, and marks of transactions.
pub fn end_offset(bootstrap: &str, topic: &str) -> Result<i64> {
    end_offset_of(bootstrap, topic, 0)
}

/// The end of any partition, likewise.
pub fn end_offset_of(bootstrap: &str, topic: &str, partition: i32) -> Result<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("isolation.level", "read_uncommitted")
        .create()?;
    Ok(consumer.fetch_watermarks(topic, partition, TIMEOUT)?.1)
}

/// Where a group goes on in each partition of a topic that it committed.
pub fn committed_offsets(bootstrap: &str, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().first().context("find the topic")?.partitions();
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(topic, partition.id());
    }
    let found = consumer.committed_offsets(asked, TIMEOUT)?;
    let committed = found.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((element.partition(), offset)),
        _ => None,
    });
    Ok(committed.collect())
}

fn record(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(text),
        value: message.payload().map(text),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default()))
            .collect(),
    }
}
