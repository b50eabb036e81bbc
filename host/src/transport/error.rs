//! What can go wrong with Kafka, and what to do about it.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::options::METADATA_REFRESH;
use crate::disposition::Disposition;
use crate::table::TableName;

/// An error of the transport.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be set up.
    #[error("the kafka settings do not make a client; check the names below [kafka.librdkafka]")]
    Settings(#[source] KafkaError),
    /// The broker could not be reached, or did not answer in time.
    #[error("could not {action}; is kafka up and `brokers` right")]
    Broker {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// Another producer with the same transactional id has started.
    #[error(
        "another tailwater took over this pipeline; stop one of them, or give them different names"
    )]
    Fenced,
    /// The broker gave up on a transaction of this producer, which stood still too long.
    #[error(
        "a transaction was open for longer than the {} s that kafka waits, as when the machine was \
         suspended; kafka undid it, and it is sent again",
        limit.as_secs()
    )]
    Outlived {
        /// `transaction.timeout.ms`.
        limit: Duration,
    },
    /// Somebody's transaction stands before the end of a topic of ours.
    #[error(
        "topic {topic} cannot be read to its end, because another producer has a transaction open in it; \
         if that lasts, look for one that hangs with Kafka's tool kafka-transactions.sh"
    )]
    Undecided {
        /// The topic.
        topic: String,
    },
    /// Wrong credentials, a certificate that does not fit, or a missing right.
    #[error("kafka refused to {action}: {detail}; check credentials and access rights")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// What the broker or librdkafka said.
        detail: String,
    },
    /// A topic that was there is not any more.
    #[error(
        "could not {action}: topic {topic} is gone, and with it what nobody had read; somebody \
         deleted it while it was in use"
    )]
    Gone {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: String,
    },
    /// A topic neither exists nor may be created.
    #[error("topic {topic} does not exist and could not be created ({code}); {}", remedy(*code))]
    Topic {
        /// The topic.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
    },
    /// A table's topic would be one of Tailwater's own.
    #[error(
        "the changes of table {table} would go into topic {topic}, which is tailwater's own; rename \
         the table or its schema, or take it out of the publication"
    )]
    OwnTopic {
        /// The table.
        table: TableName,
        /// The topic.
        topic: String,
    },
    /// The broker takes no record as large as one of ours, though it said so when the producer began:
    /// the next one asks again.
    #[error(
        "a record is larger than the broker takes; raise `max.message.bytes` of the topic, or lower \
         `max_message_bytes` in section [kafka] so that such records become dead letters"
    )]
    TooLarge,
    /// A truncate has no key, and a compacted topic takes nothing without one.
    #[error(
        "kafka refuses a record as invalid: a topic with cleanup.policy=compact takes none without a key, as a \
         truncate is, with which the copy of a table begins; set cleanup.policy=delete for the topic"
    )]
    Keyless,
    /// What plugins remember is elsewhere, and cannot be made again.
    #[error(
        "what the plugins remember of partition {partition} of {topic} is not on this machine, and \
         the topic has lost the records to make it from; start the sink that had the partition, \
         or run these plugins with stage = \"capture\""
    )]
    MemoryLost {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Records that were to be read are gone.
    #[error(
        "kafka has deleted records {first} to {last} of partition {partition} of {topic}, which \
         group {group} had not read, so rows are missing; set the group's offsets to the earliest, \
         start again and have the table copied again (see Retention in OPERATING.md)"
    )]
    Deleted {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The first record's offset.
        first: i64,
        /// The last one's.
        last: i64,
        /// The consumer group.
        group: String,
    },
    /// The checkpoint in Kafka cannot be read.
    #[error("the checkpoint of pipeline {pipeline} in {topic} is not one of this version")]
    Checkpoint {
        /// The pipeline.
        pipeline: String,
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Passing trouble is tried again from the checkpoint; the rest needs a person.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Error::Broker { .. }
            | Error::Outlived { .. }
            | Error::Undecided { .. }
            | Error::Gone { .. }
            | Error::TooLarge
            | Error::Keyless => Disposition::Retry,
            Error::Topic { code, .. } if is_late(*code) => Disposition::Retry,
            Error::Settings(_)
            | Error::Fenced
            | Error::Denied { .. }
            | Error::Topic { .. }
            | Error::OwnTopic { .. }
            | Error::MemoryLost { .. }
            | Error::Deleted { .. }
            | Error::Checkpoint { .. } => Disposition::Halt,
        }
    }

    /// How long to wait at least before another attempt. A topic that was deleted is made again only
    /// after its readers had the time to see that it is gone: one that did not would go on in the
    /// new topic at its offset of the old one, and never read what is before that.
    #[must_use]
    pub fn least_pause(&self) -> Duration {
        match self {
            Error::Gone { .. } => METADATA_REFRESH * 3,
            _ => Duration::ZERO,
        }
    }

    /// Sorts an error of librdkafka.
    pub(super) fn new(action: &'static str, source: KafkaError) -> Error {
        use RDKafkaErrorCode as Code;
        match source.rdkafka_error_code() {
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => Error::Fenced,
            Some(
                code @ (Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SSL),
            ) => Error::Denied { action, detail: code.to_string() },
            Some(Code::MessageSizeTooLarge) => Error::TooLarge,
            Some(Code::InvalidRecord) => Error::Keyless,
            _ => Error::Broker { action, source },
        }
    }
}

fn is_late(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::OperationTimedOut)
}

/// What helps against the broker's reason not to create a topic.
fn remedy(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as Code;
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "grant the right to create it, or create it"
        }
        Code::InvalidReplicationFactor => {
            "set `replication` in section [kafka] to no more than there are brokers"
        }
        Code::PolicyViolation => "set what the brokers' policy asks for, or create it",
        Code::InvalidTopic => "set a `prefix` of letters, digits, `.`, `_` and `-` that is shorter",
        Code::InvalidConfig => "correct section [kafka.topic_settings]",
        Code::InvalidPartitions => "correct `partitions` in section [kafka]",
        late if is_late(late) => {
            "it is tried again; see in the brokers' logs why they take so long"
        }
        Code::UnknownTopicOrPartition => {
            "the brokers took it and do not show it: grant the right to describe it"
        }
        _ => "create it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_cannot_be_created_has_the_advice_for_its_cause() {
        use RDKafkaErrorCode as Code;
        let cases = [
            (Code::TopicAuthorizationFailed, "grant the right to create it"),
            (Code::ClusterAuthorizationFailed, "grant the right to create it"),
            (Code::InvalidReplicationFactor, "no more than there are brokers"),
            (Code::PolicyViolation, "what the brokers' policy asks for"),
            (Code::InvalidTopic, "set a `prefix` of letters, digits"),
            (Code::InvalidConfig, "correct section [kafka.topic_settings]"),
            (Code::InvalidPartitions, "correct `partitions` in section [kafka]"),
            (Code::OperationTimedOut, "why they take so long"),
            (Code::RequestTimedOut, "why they take so long"),
            (Code::UnknownTopicOrPartition, "grant the right to describe it"),
            (Code::NotController, "; create it"),
        ];
        for (code, wanted) in cases {
            let said = Error::Topic { topic: "t".into(), code }.to_string();
            assert!(
                said.starts_with("topic t does not exist and could not be created ("),
                "{said}"
            );
            assert!(said.contains(wanted), "{said}");
        }
        let of = |code| Error::Topic { topic: "t".into(), code }.disposition();
        assert_eq!(of(Code::RequestTimedOut), Disposition::Retry);
        assert_eq!(of(Code::PolicyViolation), Disposition::Halt);
    }

    #[test]
    fn a_deleted_topic_is_left_alone_until_its_readers_know() {
        let gone = Error::Gone { action: "send", topic: "t".into() };
        assert!(gone.least_pause() > METADATA_REFRESH);
        assert_eq!(Error::Fenced.least_pause(), Duration::ZERO);
    }

    #[test]
    fn only_passing_trouble_is_retried() {
        use RDKafkaErrorCode as Code;
        let of = |code| Error::new("send", KafkaError::Global(code)).disposition();
        assert_eq!(of(Code::BrokerTransportFailure), Disposition::Retry);
        assert_eq!(of(Code::OperationTimedOut), Disposition::Retry);
        assert_eq!(of(Code::MessageSizeTooLarge), Disposition::Retry);
        assert_eq!(Error::Undecided { topic: "t".into() }.disposition(), Disposition::Retry);
        for code in [Code::Fenced, Code::SaslAuthenticationFailed] {
            assert_eq!(of(code), Disposition::Halt, "{code}");
        }
    }
}
