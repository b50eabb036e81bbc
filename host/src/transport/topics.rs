//! The topics: their names, and that they exist.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;
use rustc_hash::FxHashMap;

use super::client::Events;
use super::{Error, Options};

/// How long a topic may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one look at a broker in doubt may take.
const LOOK: Duration = Duration::from_secs(2);
/// The broker's own limit of a record batch, if nobody changed it.
const DEFAULT_MESSAGE_BYTES: usize = 1_048_588;
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// The least that a segment may be.
const SEGMENT_BYTES: u32 = 1 << 20;
/// How long the marker of a transaction is kept once its records are compacted away. A reader of the
/// topic's beginning has to come to its end within this time; ours take seconds.
const MARKERS_MS: &str = "600000";

/// Topics of Tailwater's own.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) checkpoints: String,
    pub(super) schemas: String,
    pub(super) dead_letters: String,
}

impl Names {
    pub(super) fn below(prefix: &str) -> Names {
        Names {
            checkpoints: format!("{prefix}.tailwater.checkpoints"),
            schemas: format!("{prefix}.tailwater.schemas"),
            dead_letters: format!("{prefix}.tailwater.dead-letters"),
        }
    }

    /// All of them. A table of a schema `tailwater` has its topic beside them.
    pub(super) fn all(&self) -> [&str; 3] {
        [&self.checkpoints, &self.schemas, &self.dead_letters]
    }
}

/// A topic that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) partitions: i32,
    /// The largest batch of records that the broker takes, and so the largest record.
    pub(super) message_bytes: usize,
}

/// Topics that are known to exist.
pub(super) struct Topics {
    admin: AdminClient<Events>,
    runtime: tokio::runtime::Runtime,
    partitions: i32,
    replication: i32,
    message_bytes: u32,
    /// Further settings of tables' topics.
    settings: Vec<(String, String)>,
    known: FxHashMap<String, Topic>,
}

impl Topics {
    pub(super) fn new(options: &Options) -> Result<Topics, Error> {
        let config = options.client(&[]);
        let admin = config.create_with_context(Events::default()).map_err(Error::Settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Topics {
            admin,
            runtime: runtime.expect("a runtime without threads needs only memory and a timer"),
            partitions: options.partitions,
            replication: options.replication,
            message_bytes: options.max_message_bytes,
            settings: options
                .topic_settings
                .iter()
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect(),
            known: FxHashMap::default(),
        })
    }

    /// A table's topic, which is created if it is not there.
    pub(super) fn of_table(&mut self, topic: &str) -> Result<Topic, Error> {
        self.of_tables(&[topic]).map(|found| found[0])
    }

    /// The topics of tables, in their order. Those that are not there are created with one request.
    pub(super) fn of_tables(&mut self, topics: &[&str]) -> Result<Vec<Topic>, Error> {
        let settings = self.settings.clone();
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.ensure(topics, self.partitions, &settings)
    }

    /// Makes sure of a topic with one partition that keeps the last value of every key. Every start reads
    /// all of it, and the segment that is written to is not compacted: so that is no larger than the
    /// largest batch of records needs.
    pub(super) fn ensure_compacted(&mut self, topic: &str) -> Result<Topic, Error> {
        let segment = self.message_bytes.max(SEGMENT_BYTES).to_string();
        let settings = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", &segment),
            ("delete.retention.ms", MARKERS_MS),
        ];
        self.ensure(&[topic], 1, &settings).map(|found| found[0])
    }

    /// Makes sure of a topic with one partition that keeps everything.
    pub(super) fn ensure_log(&mut self, topic: &str) -> Result<Topic, Error> {
        self.ensure(&[topic], 1, &[("retention.ms", "-1")]).map(|found| found[0])
    }

    fn ensure(
        &mut self,
        topics: &[&str],
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Vec<Topic>, Error> {
        let known = |topic: &&str| self.known.contains_key(*topic);
        let mut unknown: Vec<&str> = topics.iter().copied().filter(|topic| !known(topic)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            let created = self.create(&unknown, partitions, settings)?;
            let mut counts = Vec::with_capacity(unknown.len());
            for (topic, created) in unknown.iter().zip(created) {
                counts.push(self.wait(topic, created)?);
            }
            let bytes = self.message_bytes(&unknown);
            for ((topic, partitions), message_bytes) in unknown.iter().zip(counts).zip(bytes) {
                self.known.insert((*topic).to_owned(), Topic { partitions, message_bytes });
            }
        }
        Ok(topics.iter().map(|topic| self.known[*topic]).collect())
    }

    /// Waits until the broker shows a topic; the number of its partitions.
    fn wait(&self, topic: &str, created: Result<(), RDKafkaErrorCode>) -> Result<i32, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = count(self.admin.inner(), topic)?;
            let late = Instant::now() >= deadline;
            let code = match (found, created) {
                (1.., _) => return Ok(found),
                (_, Err(code)) if late || is_definite(code) => code,
                _ if late => RDKafkaErrorCode::UnknownTopicOrPartition,
                _ => continue,
            };
            return Err(Error::Topic { topic: topic.to_owned(), code });
        }
    }

    /// How many partitions a table's topic has by now, as this client of ours learns with it.
    pub(super) fn partitions_now<C: ClientContext>(
        &mut self,
        topic: &str,
        client: &Client<C>,
    ) -> Result<i32, Error> {
        let mut known = self.of_table(topic)?;
        known.partitions = known.partitions.max(count(client, topic)?);
        self.known.insert(topic.to_owned(), known);
        Ok(known.partitions)
    }

    /// A topic that was there and is not any more, if the broker says so.
    pub(super) fn gone(&self) -> Option<String> {
        for topic in self.known.keys() {
            let metadata = self.admin.inner().fetch_metadata(Some(topic), LOOK).ok()?;
            if metadata.topics().iter().all(|found| found.partitions().is_empty()) {
                return Some(topic.clone());
            }
        }
        None
    }

    /// What each topic takes. Where we may not ask, it is taken to be as brokers are delivered.
    fn message_bytes(&self, topics: &[&str]) -> Vec<usize> {
        let which: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = self.runtime.block_on(self.admin.describe_configs(&which, &options));
        let described: FxHashMap<_, _> = described
            .unwrap_or_default()
            .into_iter()
            .filter_map(|described| {
                let described = described.ok()?;
                let bytes = described.get(MAX_MESSAGE_BYTES)?.value.as_ref()?.parse().ok()?;
                match described.specifier {
                    OwnedResourceSpecifier::Topic(topic) => Some((topic, bytes)),
                    _ => None,
                }
            })
            .collect();
        let of = |topic: &&str| described.get(*topic).copied().unwrap_or(DEFAULT_MESSAGE_BYTES);
        topics.iter().map(of).collect()
    }

    /// Asks for topics; what the broker says to each, and that it is there already is no error.
    fn create(
        &self,
        topics: &[&str],
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Vec<Result<(), RDKafkaErrorCode>>, Error> {
        let message_bytes = self.message_bytes.to_string();
        let mut new = Vec::with_capacity(topics.len());
        for topic in topics {
            let replication = TopicReplication::Fixed(self.replication);
            let asked = NewTopic::new(topic, partitions, replication);
            let largest = (MAX_MESSAGE_BYTES, message_bytes.as_str());
            // The broker takes none that is named twice.
            let largest = Some(largest).filter(|(name, _)| settings.iter().all(|(n, _)| n != name));
            let all = largest.iter().chain(settings);
            new.push(all.fold(asked, |asked, (name, value)| asked.set(name, value)));
        }
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let answers = self.runtime.block_on(self.admin.create_topics(&new, &options));
        let answers = answers.map_err(|error| Error::new("create a topic", error))?;
        let refused: FxHashMap<_, _> = answers.into_iter().filter_map(Result::err).collect();
        let answer = |topic: &&str| match refused.get(*topic) {
            Some(code) if *code != RDKafkaErrorCode::TopicAlreadyExists => Err(*code),
            _ => Ok(()),
        };
        Ok(topics.iter().map(answer).collect())
    }
}

/// How many partitions a topic has, 0 if there is none.
fn count<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<i32, Error> {
    let metadata = client.fetch_metadata(Some(topic), PATIENCE);
    let metadata = metadata.map_err(|error| Error::new("look up a topic", error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let count = found.map_or(0, |found| found.partitions().len());
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

fn is_definite(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::PolicyViolation
    )
}
