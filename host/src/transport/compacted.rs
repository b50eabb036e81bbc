//! Reading a topic of Tailwater's own: checkpoints and schemas whole, dead letters in parts.

use std::ops::ControlFlow;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::client::Events;
use super::{Error, Options};

/// How long the topic's end may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hands every committed record of the topic's one partition to `each`, oldest first, and returns
/// at the end of it. A topic that does not exist is empty.
pub(super) fn read(
    options: &Options,
    topic: &str,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), Error> {
    read_from(options, topic, Offset::Beginning, |message| {
        if let (Some(key), Some(value)) = (message.key(), message.payload()) {
            each(key, value);
        }
        ControlFlow::Continue(())
    })
}

/// As [`read`], from an offset on, and until `each` has enough.
pub(super) fn read_from(
    options: &Options,
    topic: &str,
    from: Offset,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    const ACTION: &str = "read a topic of tailwater's";
    let config = options.consumer(
        "tailwater-unused",
        &[
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
            ("allow.auto.create.topics", "false"),
        ],
    );
    let consumer: BaseConsumer<Events> =
        config.create_with_context(Events::default()).map_err(Error::Settings)?;
    let sorted = |error| consumer.context().error(ACTION, error);
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(topic, 0, from).map_err(sorted)?;
    consumer.assign(&start).map_err(sorted)?;
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                if each(&message).is_break() {
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if is_missing(&error) => return Ok(()),
            Some(Err(error)) => return Err(sorted(error)),
            None => {
                let timeout = rdkafka::error::RDKafkaErrorCode::OperationTimedOut;
                return Err(sorted(KafkaError::MessageConsumption(timeout)));
            }
        }
    }
}

fn is_missing(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition)
    )
}
