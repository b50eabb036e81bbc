//! The `[kafka]` section.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::Deserialize;

/// How soon a consumer sees that topics came or went.
pub(super) const METADATA_REFRESH: Duration = Duration::from_secs(5);

/// How long a transaction may be open before the broker gives up on it and its producer.
pub(super) const TRANSACTION_LIMIT: Duration = Duration::from_secs(60);
/// From so many partitions of a broker one fetch takes as much as it may. What it holds of more partitions waits in
/// memory, decompressed, beyond the limit of the queue.
const FETCHED_PARTITIONS: u32 = 6;
/// What the client wants `fetch.max.bytes` to be at least: its `message.max.bytes`, as it comes.
const LARGEST_MESSAGE: u32 = 1_000_000;
/// What it may be at most.
const LARGEST_FETCH: u32 = i32::MAX.unsigned_abs() - 512;

/// What a crash may do to the records in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Nothing: records and the position are one transaction.
    #[default]
    ExactlyOnce,
    /// Records since the last checkpoint may come twice.
    AtLeastOnce,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Cheapest for the processor.
    #[default]
    Lz4,
    /// A quarter of the disk for twice the broker's time.
    Zstd,
    /// Costs the broker more than lz4, for it writes more.
    None,
    /// For old consumers.
    Gzip,
    /// For old consumers.
    Snappy,
}

/// Where a new consumer group starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record.
    #[default]
    Earliest,
    /// At what comes next.
    Latest,
}

/// A value of a librdkafka setting, as TOML has it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// A string.
    Text(String),
    /// A number.
    Number(i64),
    /// A switch.
    Switch(bool),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Text(text) => f.write_str(text),
            Setting::Number(number) => number.fmt(f),
            Setting::Switch(switch) => switch.fmt(f),
        }
    }
}

// A setting may be a password or hold one (`sasl.jaas.config`), so none is ever shown.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The `[kafka]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `host:port` of some brokers, separated by commas. Default: `127.0.0.1:9092`.
    pub brokers: String,
    /// First part of every topic's name. Default: the database's name.
    pub prefix: Option<String>,
    /// `exactly-once` (default) or `at-least-once`.
    pub delivery: Delivery,
    /// Partitions of a topic that is created. Default: 6.
    pub partitions: i32,
    /// Replicas of a topic that is created; -1 leaves it to the broker. Default: -1.
    pub replication: i32,
    /// `lz4` (default), `zstd`, `none`, `gzip`, `snappy`.
    pub compression: Compression,
    /// Milliseconds between the commits of two transactions, and ten times as many, up to 500, while
    /// there is a backlog or changes are more than a second old; shorter is fresher and costs the broker more.
    /// Default: 50.
    pub transaction_interval_ms: u64,
    /// A transaction commits when it holds this many bytes. Default: 64 MiB.
    pub transaction_bytes: usize,
    /// Memory for records on their way to the broker, in KiB. Default: 32768.
    pub queue_kbytes: u32,
    /// The largest record: `max.message.bytes` of a topic that is created. What is larger becomes
    /// a dead letter. Default: 8 MiB, which hosted Kafkas take.
    pub max_message_bytes: u32,
    /// Settings of a table's topic that is created, by their names (`"retention.ms" = "-1"`). Default:
    /// none, which leaves them to the broker.
    pub topic_settings: BTreeMap<String, Setting>,
    /// Consumer group. Default: `tailwater-<prefix>`.
    pub group: Option<String>,
    /// Where a new group starts: `earliest` (default) or `latest`.
    pub start: Start,
    /// Regular expression of the topics to read, `^` first; also topics that Debezium wrote.
    /// Default: all below the prefix.
    pub topics: Option<String>,
    /// Changes of a batch that the consumer hands on. Default: 10000.
    pub batch_rows: usize,
    /// Bytes of such a batch. Default: 4 MiB.
    pub batch_bytes: usize,
    /// Longest wait for such a batch to fill, in milliseconds. Default: 5.
    pub batch_interval_ms: u64,
    /// Most bytes that one fetch takes from a partition, still compressed, and of all of a broker six times as
    /// many. What it holds decompressed counts: about 6 times with lz4, 25 times with zstd. Default: 200000.
    pub fetch_bytes: u32,
    /// Any setting of librdkafka by its name (`"security.protocol" = "SASL_SSL"`). These win over
    /// what Tailwater sets itself.
    pub librdkafka: BTreeMap<String, Setting>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            brokers: "127.0.0.1:9092".to_owned(),
            prefix: None,
            delivery: Delivery::default(),
            partitions: 6,
            replication: -1,
            compression: Compression::default(),
            transaction_interval_ms: 50,
            transaction_bytes: 64 << 20,
            queue_kbytes: 32_768,
            max_message_bytes: 8 << 20,
            topic_settings: BTreeMap::new(),
            group: None,
            start: Start::default(),
            topics: None,
            batch_rows: 10_000,
            batch_bytes: 4 << 20,
            batch_interval_ms: 5,
            fetch_bytes: 200_000,
            librdkafka: BTreeMap::new(),
        }
    }
}

impl Options {
    /// The topics' prefix.
    #[must_use]
    pub fn prefix<'a>(&'a self, database: &'a str) -> &'a str {
        self.prefix.as_deref().unwrap_or(database)
    }

    /// The consumer group.
    #[must_use]
    pub fn group(&self, database: &str) -> String {
        self.group.clone().unwrap_or_else(|| format!("tailwater-{}", self.prefix(database)))
    }

    /// What every client is set up with; the user's own settings come last and win.
    pub(super) fn client(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "tailwater");
        // Else the question whether a topic is gone makes it anew, on a broker that allows it.
        config.set("allow.auto.create.topics", "false");
        for (name, value) in ours {
            config.set(*name, *value);
        }
        for (name, value) in &self.librdkafka {
            config.set(name, value.to_string());
        }
        config
    }

    pub(super) fn producer(&self, transactional_id: &str) -> ClientConfig {
        let queue = self.queue_kbytes.to_string();
        let limit = TRANSACTION_LIMIT.as_millis().to_string();
        let largest = self.max_message_bytes.to_string();
        let codec = match self.compression {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
        };
        let mut ours = vec![
            ("enable.idempotence", "true"),
            ("compression.codec", codec),
            // As Java's default partitioner, so that a key stays in the partition Debezium chose.
            ("partitioner", "murmur2_random"),
            ("linger.ms", "5"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.kbytes", &queue),
            ("queue.buffering.max.messages", "500000"),
            ("message.max.bytes", &largest),
            ("delivery.report.only.error", "true"),
            // A broker shows a new topic before it takes records for it, and refuses the first batch. This is
            // the first pause; the next ones double, up to a second.
            ("retry.backoff.ms", "10"),
        ];
        if self.delivery == Delivery::ExactlyOnce {
            ours.push(("transactional.id", transactional_id));
            ours.push(("transaction.timeout.ms", &limit));
        }
        self.client(&ours)
    }

    pub(super) fn consumer(&self, group: &str, ours: &[(&str, &str)]) -> ClientConfig {
        let fetch = self.fetch_bytes.to_string();
        let answer = self.fetch_bytes.saturating_mul(FETCHED_PARTITIONS);
        let answer = answer.clamp(LARGEST_MESSAGE, LARGEST_FETCH).to_string();
        let refresh = METADATA_REFRESH.as_millis().to_string();
        let mut all = vec![
            ("group.id", group),
            ("isolation.level", "read_committed"),
            // Where to begin is said with each assignment; what is gone later must not be passed over.
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // With the default of a second, every time the local queue fills costs a second.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.message.max.bytes", &fetch),
            ("queued.max.messages.kbytes", "8192"),
            ("queued.min.messages", "20000"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("topic.metadata.refresh.interval.ms", &refresh),
            // The group waits this long for a member that was killed, also its own successor.
            ("session.timeout.ms", "10000"),
        ];
        // The client refuses one that is below a limit of the user's own for messages.
        if !self.librdkafka.contains_key("message.max.bytes") {
            all.push(("fetch.max.bytes", &answer));
        }
        all.extend_from_slice(ours);
        self.client(&all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_pass_through_by_name_and_win() {
        let text = r#"
            brokers = "b:1"
            delivery = "at-least-once"
            librdkafka = { "security.protocol" = "SASL_SSL", "sasl.password" = "geheim", "linger.ms" = 50 }
        "#;
        let options: Options = toml::from_str(text).unwrap();
        let config = options.producer("id");
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("linger.ms"), Some("50"));
        assert_eq!(config.get("sasl.password"), Some("geheim"));
        assert_eq!(config.get("transactional.id"), None);
        assert!(!format!("{options:?}").contains("geheim"));
    }

    #[test]
    fn a_fetch_is_bounded_however_many_partitions_there_are() {
        let fetch = |text: &str| {
            let options: Options = toml::from_str(text).unwrap();
            options.consumer("g", &[]).get("fetch.max.bytes").map(ToOwned::to_owned)
        };
        assert_eq!(fetch("").as_deref(), Some("1200000"));
        assert_eq!(fetch("fetch_bytes = 1000").as_deref(), Some("1000000"));
        assert_eq!(fetch("fetch_bytes = 4294967295").as_deref(), Some("2147483135"));
        assert_eq!(fetch("librdkafka = { 'message.max.bytes' = 99999999 }"), None);
        let own = "librdkafka = { 'fetch.max.bytes' = 7000000 }";
        assert_eq!(fetch(own).as_deref(), Some("7000000"));
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = toml::from_str::<Options>("broker = 'x'").unwrap_err().to_string();
        assert!(error.contains("unknown field `broker`"), "{error}");
    }
}
