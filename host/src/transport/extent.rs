//! Where a partition is read from, and whether it still holds what was not read yet.
//!
//! Kafka deletes by its retention what nobody has read, and librdkafka then goes on with what is left;
//! only a line in its log tells. So before the first record of a partition, the group's offset is compared
//! with what the partition holds, and librdkafka chooses no offset by itself. Compaction is no loss: it
//! leaves a partition's first offset as it is.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use rustc_hash::FxHashMap;

use super::Start;

/// How long the broker may take to say what partitions hold.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first offset that each partition holds, and the one behind its last committed record.
pub(super) struct Extents(FxHashMap<String, FxHashMap<i32, (i64, i64)>>);

impl Extents {
    /// Asks the brokers, all partitions of one at once.
    pub(super) fn of<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<Extents> {
        let mut extents = Extents(FxHashMap::default());
        if partitions.count() == 0 {
            return Ok(extents);
        }
        let asked = |which: Offset| {
            let mut asked = partitions.clone();
            asked.set_all_offsets(which)?;
            consumer.offsets_for_times(asked, PATIENCE)
        };
        let (lows, highs) = (asked(Offset::Beginning)?, asked(Offset::End)?);
        for low in lows.elements() {
            low.error()?;
            let (topic, partition) = (low.topic(), low.partition());
            let Offset::Offset(first) = low.offset() else { continue };
            let Some(high) = highs.find_partition(topic, partition) else { continue };
            high.error()?;
            let Offset::Offset(end) = high.offset() else { continue };
            extents.0.entry(topic.to_owned()).or_default().insert(partition, (first, end));
        }
        Ok(extents)
    }

    /// What a partition holds, if the broker said so.
    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        self.0.get(topic)?.get(&partition).copied()
    }
}

/// Records that are gone: the first and the last one's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// Where to read a partition from that holds the offsets from `first` to `end`, that one not included.
/// A group that is new, or that Kafka has forgotten, wants all of it unless it starts at what comes next; and if it is
/// not new, a partition is of which it knows nothing, and has come since.
pub(super) fn begin(
    committed: Option<i64>,
    (first, end): (i64, i64),
    start: Start,
    is_new_group: bool,
) -> Result<Offset, Lost> {
    let wanted = match (committed, start) {
        (Some(next), _) => next,
        (None, Start::Earliest) => 0,
        (None, Start::Latest) if is_new_group => end,
        (None, Start::Latest) => first,
    };
    if wanted < first {
        return Err(Lost { first: wanted, last: first - 1 });
    }
    // A topic that was made anew has nothing to do with the offsets of the one before.
    Ok(if wanted > end { Offset::Beginning } else { Offset::Offset(wanted) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: (i64, i64) = (10, 20);

    #[test]
    fn a_group_goes_on_where_it_was() {
        for next in [10, 15, 20] {
            let found = begin(Some(next), HELD, Start::Latest, false);
            assert_eq!(found, Ok(Offset::Offset(next)));
        }
    }

    #[test]
    fn records_that_were_deleted_before_they_were_read_are_named() {
        for start in [Start::Earliest, Start::Latest] {
            assert_eq!(begin(Some(7), HELD, start, false), Err(Lost { first: 7, last: 9 }));
        }
        assert_eq!(begin(None, HELD, Start::Earliest, true), Err(Lost { first: 0, last: 9 }));
    }

    #[test]
    fn a_new_group_reads_a_whole_partition_or_what_comes_next() {
        assert_eq!(begin(None, (0, 20), Start::Earliest, true), Ok(Offset::Offset(0)));
        assert_eq!(begin(None, HELD, Start::Latest, true), Ok(Offset::Offset(20)));
    }

    #[test]
    fn a_partition_that_came_after_the_group_began_is_read_from_its_beginning() {
        assert_eq!(begin(None, (0, 20), Start::Earliest, false), Ok(Offset::Offset(0)));
        assert_eq!(begin(None, HELD, Start::Latest, false), Ok(Offset::Offset(10)));
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning() {
        assert_eq!(begin(Some(30), (0, 20), Start::Latest, false), Ok(Offset::Beginning));
    }
}
