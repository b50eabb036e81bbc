//! The topics: their names, and that they exist.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rustc_hash::FxHashMap;

use super::{Error, Options};

/// How long a topic may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Topics that are known to exist, with their partitions.
pub(super) struct Topics {
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    partitions: i32,
    replication: i32,
    known: FxHashMap<String, i32>,
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
            known: FxHashMap::default(),
        })
    }

    /// The partitions of a table's topic, which is created if it is not there.
    pub(super) fn of_table(&mut self, topic: &str) -> Result<i32, Error> {
        if let Some(partitions) = self.known.get(topic) {
            return Ok(*partitions);
        }
        self.ensure(topic, self.partitions, &[])
    }

    /// Makes sure of a topic with one partition that keeps the last value of every key.
    pub(super) fn ensure_compacted(&mut self, topic: &str) -> Result<i32, Error> {
        self.ensure(topic, 1, &[("cleanup.policy", "compact")])
    }

    /// Makes sure of a topic with one partition that keeps everything.
    pub(super) fn ensure_log(&mut self, topic: &str) -> Result<i32, Error> {
        self.ensure(topic, 1, &[("retention.ms", "-1")])
    }

    fn ensure(
        &mut self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<i32, Error> {
        let created = self.create(topic, partitions, settings)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.count(topic)?;
            match (found, created) {
                (count, _) if count > 0 => {
                    self.known.insert(topic.to_owned(), count);
                    return Ok(count);
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

    fn create(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Result<(), RDKafkaErrorCode>, Error> {
        let replication = TopicReplication::Fixed(self.replication);
        let mut new = NewTopic::new(topic, partitions, replication);
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
            | RDKafkaErrorCode::PolicyViolation
    )
}
