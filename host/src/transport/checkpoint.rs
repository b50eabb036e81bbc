//! How far the source has come, as Kafka knows it: a record of the pipeline's name with the position,
//! which every transaction writes, and one for each table whose copy is complete, which only the
//! transaction writes that ends it. A tombstone withdraws a copy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Error, Options, compacted};
use crate::hop::{CopyMark, LogPoint, SnapshotDone};
use crate::position::{Lsn, Position};
use crate::table::TableName;

/// Written in the same transaction as the records it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last change whose records are in Kafka; a restart skips everything up to it.
    pub position: Position,
    /// What the slot may be told.
    pub confirm: Lsn,
    /// The cluster that the positions are of.
    pub system: u64,
    /// Their timeline.
    pub timeline: u32,
    /// Snapshots whose records are all in Kafka, the latest of each table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotDone>,
}

impl Checkpoint {
    /// Takes in a point that is about to be committed.
    pub(crate) fn advance(&mut self, point: &LogPoint) {
        self.position = self.position.max(point.position);
        self.confirm = self.confirm.max(point.confirm);
        for mark in &point.copies {
            self.snapshots.retain(|known| known.table != *mark.table());
            if let CopyMark::Complete(done) = mark {
                self.snapshots.push(done.clone());
            }
        }
    }

    /// How far changes are in Kafka: none is behind this.
    #[must_use]
    pub fn end(&self) -> Lsn {
        let copies = self.snapshots.iter().map(|done| done.copied.consistent_at);
        copies.fold(self.confirm.max(self.position.commit), Lsn::max)
    }

    /// The record of the position.
    pub(super) fn position_record(&self) -> Vec<u8> {
        let position = Checkpoint { snapshots: Vec::new(), ..*self };
        serde_json::to_vec(&position).expect("a checkpoint is plain data")
    }

    /// The pipeline's last committed checkpoint.
    pub(super) fn read(
        options: &Options,
        topic: &str,
        pipeline: &str,
    ) -> Result<Option<Checkpoint>, Error> {
        let mut found = Found::default();
        compacted::read(options, topic, |key, value| found.take_in(pipeline, key, value))?;
        found.parse().map_err(|source| {
            let (pipeline, topic) = (pipeline.to_owned(), topic.to_owned());
            Error::Checkpoint { pipeline, topic, source }
        })
    }
}

/// The record of a table's copy: its key, and its value if the copy is complete.
pub(super) fn copy_record(
    pipeline: &str,
    TableName { schema, name }: &TableName,
    done: Option<&SnapshotDone>,
) -> (String, Option<Vec<u8>>) {
    let table = serde_json::to_string(&(schema, name)).expect("names are plain data");
    let value = done.map(|done| serde_json::to_vec(done).expect("a snapshot is plain data"));
    (format!("{}{table}", copies_prefix(pipeline)), value)
}

/// What the keys of a pipeline's copies begin with: no name of a slot has a colon.
fn copies_prefix(pipeline: &str) -> String {
    format!("{pipeline}:copied:")
}

/// The records of a pipeline, the last of each key.
#[derive(Debug, Default)]
struct Found {
    position: Option<Vec<u8>>,
    copies: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Found {
    fn take_in(&mut self, pipeline: &str, key: &[u8], value: Option<&[u8]>) {
        if key == pipeline.as_bytes() {
            self.position = value.map(<[u8]>::to_vec);
        } else if key.starts_with(copies_prefix(pipeline).as_bytes()) {
            match value {
                Some(value) => _ = self.copies.insert(key.to_vec(), value.to_vec()),
                None => _ = self.copies.remove(key),
            }
        }
    }

    fn parse(&self) -> Result<Option<Checkpoint>, serde_json::Error> {
        let Some(position) = &self.position else { return Ok(None) };
        let mut checkpoint: Checkpoint = serde_json::from_slice(position)?;
        let copies = self.copies.values().map(|copy| serde_json::from_slice(copy));
        checkpoint.snapshots = copies.collect::<Result<_, _>>()?;
        Ok(Some(checkpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::{Copied, Form};

    fn done(schema: &str, name: &str) -> SnapshotDone {
        let table = TableName { schema: schema.into(), name: name.into() };
        let key = vec!["id".into()];
        SnapshotDone {
            table,
            copied: Copied {
                consistent_at: Lsn(5),
                oid: 16_385,
                terms: -7,
                key,
                form: Form::default(),
            },
        }
    }

    #[test]
    fn a_checkpoint_is_read_from_its_position_and_the_last_record_of_each_table() {
        let (users, notes) = (done("public", "users"), done("a\".b", "c"));
        let both = vec![notes.clone(), users.clone()];
        let whole =
            Checkpoint { confirm: Lsn(9), system: 7, snapshots: both, ..Checkpoint::default() };
        let position = whole.position_record();
        assert!(!String::from_utf8_lossy(&position).contains("users"));
        let mut found = Found::default();
        let records = [&users, &notes].map(|done| copy_record("shop", &done.table, Some(done)));
        for (key, value) in records {
            found.take_in("shop", key.as_bytes(), value.as_deref());
            found.take_in("other", key.as_bytes(), None);
        }
        assert_eq!(found.parse().unwrap(), None);
        found.take_in("shop", b"shop", Some(&position));
        assert_eq!(found.parse().unwrap(), Some(whole.clone()));
        let (key, value) = copy_record("shop", &notes.table, None);
        found.take_in("shop", key.as_bytes(), value.as_deref());
        assert_eq!(found.parse().unwrap(), Some(Checkpoint { snapshots: vec![users], ..whole }));
    }

    #[test]
    fn a_copy_that_is_withdrawn_and_completed_counts_as_the_last_mark_says() {
        let (first, users) = (done("public", "users"), done("public", "users").table);
        let second = SnapshotDone {
            copied: Copied { consistent_at: Lsn(8), ..first.copied.clone() },
            ..first.clone()
        };
        let complete = |done: &SnapshotDone| CopyMark::Complete(done.clone());
        let withdrawn = || CopyMark::Withdrawn(users.clone());
        let cases = [
            (vec![complete(&first), withdrawn()], None),
            (vec![withdrawn(), complete(&second)], Some(&second)),
            (vec![complete(&first), withdrawn(), complete(&second)], Some(&second)),
        ];
        for (copies, wanted) in cases {
            assert_eq!(CopyMark::complete(&copies).collect::<Vec<_>>(), Vec::from_iter(wanted));
            let mut checkpoint =
                Checkpoint { snapshots: vec![first.clone()], ..Default::default() };
            checkpoint.advance(&LogPoint { copies, ..LogPoint::default() });
            assert_eq!(checkpoint.snapshots.iter().collect::<Vec<_>>(), Vec::from_iter(wanted));
        }
    }
}
