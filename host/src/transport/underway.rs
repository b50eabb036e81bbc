//! What was read and is not committed yet, and what stands in a partition behind the last record.
//!
//! A partition does not end with a record: Kafka's own marker of the transaction's end follows, and more
//! of them where transactions were aborted. They count as read once nothing before them is underway.
//! Otherwise a group whose partition was emptied by the retention, after all of it was stored, could not be
//! told from one that missed something.

use rdkafka::{Offset, TopicPartitionList};
use rustc_hash::FxHashMap;

use super::Offsets;
use super::member::Member;
use super::starts;

/// By topic and partition.
type Map<T> = FxHashMap<String, FxHashMap<i32, T>>;

/// The partitions of one consumer.
#[derive(Debug, Default)]
pub(super) struct Underway {
    /// Up to where each was handed on, and under which assignment, until that is committed.
    handed_on: Map<(i64, u64)>,
    /// What was committed last.
    committed: Map<i64>,
}

impl Underway {
    /// Notes a batch that goes to the next stage.
    pub(super) fn hand_on(&mut self, offsets: &Offsets) {
        for (topic, partition, next) in offsets.nexts() {
            let partitions = self.handed_on.entry(topic.to_owned()).or_default();
            partitions.insert(partition, (next.offset, next.assignment));
        }
    }

    /// Notes what the group's offsets are now.
    pub(super) fn commit(&mut self, list: &TopicPartitionList) {
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Offset::Offset(next) = element.offset() else { continue };
            if let Some(partitions) = self.handed_on.get_mut(topic)
                && partitions.get(&partition).is_some_and(|(offset, _)| *offset <= next)
            {
                partitions.remove(&partition);
            }
            self.committed.entry(topic.to_owned()).or_default().insert(partition, next);
        }
    }

    /// What may be committed of the `positions` of the assigned partitions: those ahead of what is
    /// committed, with nothing underway. `pending` is what was read and not handed on.
    pub(super) fn passed(
        &self,
        positions: &TopicPartitionList,
        pending: &Offsets,
        member: &Member,
    ) -> TopicPartitionList {
        let mut passed = TopicPartitionList::new();
        for element in positions.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Offset::Offset(position) = element.offset() else { continue };
            let handed_on = self.handed_on.get(topic).and_then(|known| known.get(&partition));
            let underway = handed_on.is_some_and(|(_, assignment)| {
                member.assignment(topic, partition) == Some(*assignment)
            });
            let committed = self.committed.get(topic).and_then(|known| known.get(&partition));
            let known = committed.is_some_and(|committed| *committed >= position);
            if underway || known || pending.get(topic, partition).is_some() {
                continue;
            }
            let memory = member.memory(topic, partition);
            if member.remembers() && memory.is_none() {
                continue;
            }
            let added = passed.add_partition_offset(topic, partition, Offset::Offset(position));
            added.expect("an offset that was read is a valid one");
            if let (Some(memory), Some(mut element)) =
                (memory, passed.find_partition(topic, partition))
            {
                element.set_metadata(starts::metadata_behind(memory));
            }
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::super::offsets::Next;
    use super::super::options::Start;
    use super::*;

    const TOPIC: &str = "shop.public.users";
    const ASSIGNMENT: u64 = 3;

    fn offsets(offset: i64, assignment: u64) -> Offsets {
        let mut offsets = Offsets::default();
        offsets.read(TOPIC, 0, Next { offset, assignment, since: None });
        offsets
    }

    fn list(offset: i64) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Offset(offset)).unwrap();
        list
    }

    /// What may be committed of a partition that was read up to 12, of which `pending` waits for company.
    fn passed(underway: &Underway, pending: &Offsets) -> Option<Offset> {
        let member = Member::new("group".into(), Start::Earliest, None);
        member.assigned().entry(TOPIC.into()).or_default().insert(0, ASSIGNMENT);
        let passed = underway.passed(&list(12), pending, &member);
        passed.find_partition(TOPIC, 0).map(|element| element.offset())
    }

    #[test]
    fn nothing_is_passed_while_a_record_before_it_is_on_its_way_or_waits_for_company() {
        let (mut underway, none) = (Underway::default(), Offsets::default());
        assert_eq!(passed(&underway, &none), Some(Offset::Offset(12)));
        assert_eq!(passed(&underway, &offsets(11, ASSIGNMENT)), None, "it is not handed on");
        underway.hand_on(&offsets(9, ASSIGNMENT));
        underway.hand_on(&offsets(11, ASSIGNMENT));
        assert_eq!(passed(&underway, &none), None, "nothing is stored");
        underway.commit(&list(9));
        assert_eq!(passed(&underway, &none), None, "one is not stored");
        underway.commit(&list(11));
        assert_eq!(passed(&underway, &none), Some(Offset::Offset(12)));
        underway.commit(&list(12));
        assert_eq!(passed(&underway, &none), None, "it is known already");
    }

    #[test]
    fn what_was_handed_on_before_the_partition_was_taken_away_is_read_again_and_holds_nothing_up() {
        let mut underway = Underway::default();
        underway.hand_on(&offsets(11, ASSIGNMENT - 1));
        assert_eq!(passed(&underway, &Offsets::default()), Some(Offset::Offset(12)));
        underway.hand_on(&offsets(11, ASSIGNMENT));
        assert_eq!(passed(&underway, &Offsets::default()), None);
    }
}
