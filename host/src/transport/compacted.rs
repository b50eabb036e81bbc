//! Reading a topic of Tailwater's own: checkpoints and schemas whole, dead letters in parts.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::client::Events;
use super::{Error, Options};

/// How long the topic's end may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the transactions of others may stand before the topic's end until that is told. They take less than
/// a second, but one of a process that was killed stays until the broker ends it, a minute or more.
const UNDECIDED: Duration = Duration::from_secs(10);
/// Between two looks whether they still do.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands every committed record of the topic's one partition to `each`, oldest first, and returns
/// at the end of it: what was there when this was called is passed or aborted. A topic that does not
/// exist is empty.
///
/// # Errors
/// [`Error::Undecided`]; what Kafka refuses.
pub(super) fn read(
    options: &Options,
    topic: &str,
    mut each: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<(), Error> {
    decide(options, topic)?;
    read_from(options, topic, Offset::Beginning, |message| {
        if let Some(key) = message.key() {
            each(key, message.payload());
        }
        ControlFlow::Continue(())
    })
}

/// Waits until every transaction that has records in the topic now is committed or aborted. A reader of
/// committed records is shown nothing behind the first one that is open, whosever it is, and takes that for
/// the end: pipelines with one prefix share these topics.
fn decide(options: &Options, topic: &str) -> Result<(), Error> {
    const ACTION: &str = "ask for the end of a topic of tailwater's";
    let client = |isolation: &str| {
        let mut config = options.consumer("tailwater-unused", &[]);
        // The broker is asked for the end that a reader of this kind sees.
        config.set("isolation.level", isolation);
        let client: Result<BaseConsumer<Events>, _> = config.create_with_context(Events::default());
        client.map_err(Error::Settings)
    };
    let (all, committed) = (client("read_uncommitted")?, client("read_committed")?);
    let sorted = |error| all.context().error(ACTION, error);
    let known = all.fetch_metadata(Some(topic), PATIENCE).map_err(sorted)?;
    if known.topics().iter().all(|topic| topic.partitions().is_empty()) {
        return Ok(());
    }
    let (_, end) = all.fetch_watermarks(topic, 0, PATIENCE).map_err(sorted)?;
    let begun = Instant::now();
    loop {
        let (_, stable) = committed.fetch_watermarks(topic, 0, PATIENCE).map_err(sorted)?;
        if stable >= end {
            return Ok(());
        }
        if begun.elapsed() >= UNDECIDED {
            return Err(Error::Undecided { topic: topic.to_owned() });
        }
        thread::sleep(PAUSE);
    }
}

/// As [`read`], from an offset on, and until `each` has enough. It does not wait for what is undecided.
pub(super) fn read_from(
    options: &Options,
    topic: &str,
    from: Offset,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    const ACTION: &str = "read a topic of tailwater's";
    let config = options.consumer(
        "tailwater-unused",
        &[("enable.partition.eof", "true"), ("auto.offset.reset", "earliest")],
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
