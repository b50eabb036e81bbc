//! The topics: their names, and that they exist.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rustc_hash::FxHashMap;

use super::{Error, Options};

/// How long a topic may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one look at a broker in doubt may take.
const LOOK: Duration = Duration::from_secs(2);
/// The broker's own limit of a record batch, if nobody changed it.
const DEFAULT_MESSAGE_BYTES: usize = 1_048_588;
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

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
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    partitions: i32,
    replication: i32,
    message_bytes: u32,
    known: FxHashMap<String, Topic>,
}

impl Topics {
    pub(super) fn new(options: &Options) -> Result<Topics, Error> {
        let admin = options.client(&[]).create().map_err(Error::Settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Topics {
            admin,
            runtime: runtime.expect("a runtime without threads needs only memory and a timer"),
            partitions: options.partitions,
            replication: options.replication,
            message_bytes: options.max_message_bytes,
            known: FxHashMap::default(),
        })
    }

    /// A table's topic, which is created if it is not there.
    pub(super) fn of_table(&mut self, topic: &str) -> Result<Topic, Error> {
        self.ensure(topic, self.partitions, &[])
    }

    /// Makes sure of a topic with one partition that keeps the last value of every key.
    pub(super) fn ensure_compacted(&mut self, topic: &str) -> Result<Topic, Error> {
        self.ensure(topic, 1, &[("cleanup.policy", "compact")])
    }

    /// Makes sure of a topic with one partition that keeps everything.
    pub(super) fn ensure_log(&mut self, topic: &str) -> Result<Topic, Error> {
        self.ensure(topic, 1, &[("retention.ms", "-1")])
    }

    fn ensure(
        &mut self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Topic, Error> {
        if let Some(known) = self.known.get(topic) {
            return Ok(*known);
        }
        let created = self.create(topic, partitions, settings)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.count(topic)?;
            match (found, created) {
                (partitions, _) if partitions > 0 => {
                    let known = Topic { partitions, message_bytes: self.message_bytes(topic) };
                    self.known.insert(topic.to_owned(), known);
                    return Ok(known);
                }
                (_, Err(code)) if Instant::now() >= deadline || is_definite(code) => {
                    return Err(Error::Topic { topic: topic.to_owned(), code });
                }
                _ if Instant::now() >= deadline => {
                    let code = RDKafkaErrorCode::UnknownTopicOrPartition;
                    return Err(Error::Topic { topic: topic.to_owned(), code });
                }
                _ => {}
            }
        }
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

    /// What a topic takes. Where we may not ask, it is taken to be as brokers are delivered.
    fn message_bytes(&self, topic: &str) -> usize {
        let which = [ResourceSpecifier::Topic(topic)];
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = self.runtime.block_on(self.admin.describe_configs(&which, &options));
        let settings = described.ok().and_then(|answers| answers.into_iter().next()?.ok());
        let setting = settings.as_ref().and_then(|settings| settings.get(MAX_MESSAGE_BYTES));
        let bytes = setting.and_then(|setting| setting.value.as_ref()?.parse().ok());
        bytes.unwrap_or(DEFAULT_MESSAGE_BYTES)
    }

    fn create(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Result<(), RDKafkaErrorCode>, Error> {
        let replication = TopicReplication::Fixed(self.replication);
        let message_bytes = self.message_bytes.to_string();
        let mut new = NewTopic::new(topic, partitions, replication);
        new = new.set(MAX_MESSAGE_BYTES, &message_bytes);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let answer = self.runtime.block_on(self.admin.create_topics([&new], &options));
        let answer = answer.map_err(|error| Error::new("create a topic", error))?;
        Ok(match answer.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(code),
            _ => Ok(()),
        })
    }

    fn count(&self, topic: &str) -> Result<i32, Error> {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.map_err(|error| Error::new("look up a topic", error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let count = found.map_or(0, |found| found.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
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
