//! How far the source has come, as Kafka knows it: a record of the pipeline's name with the position,
//! which every transaction writes, and one with the snapshots, which only those write that end one.

use serde::{Deserialize, Serialize};

use super::{Error, Options, compacted};
use crate::hop::{LogPoint, SnapshotDone};
use crate::position::{Lsn, Position};

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
        for done in &point.snapshots {
            self.snapshots.retain(|known| known.table != done.table);
            self.snapshots.push(done.clone());
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

    /// The record of the snapshots; its key, too.
    pub(super) fn snapshots_record(&self, pipeline: &str) -> (String, Vec<u8>) {
        let value = serde_json::to_vec(&self.snapshots).expect("snapshots are plain data");
        (snapshots_key(pipeline), value)
    }

    /// The pipeline's last committed checkpoint.
    pub(super) fn read(
        options: &Options,
        topic: &str,
        pipeline: &str,
    ) -> Result<Option<Checkpoint>, Error> {
        let (mut position, mut snapshots) = (None, None);
        let of_snapshots = snapshots_key(pipeline);
        compacted::read(options, topic, |key, value| {
            if key == pipeline.as_bytes() {
                position = Some(value.to_vec());
            } else if key == of_snapshots.as_bytes() {
                snapshots = Some(value.to_vec());
            }
        })?;
        Checkpoint::parse(position.as_deref(), snapshots.as_deref()).map_err(|source| {
            let (pipeline, topic) = (pipeline.to_owned(), topic.to_owned());
            Error::Checkpoint { pipeline, topic, source }
        })
    }

    fn parse(
        position: Option<&[u8]>,
        snapshots: Option<&[u8]>,
    ) -> Result<Option<Checkpoint>, serde_json::Error> {
        let Some(position) = position else { return Ok(None) };
        let mut checkpoint: Checkpoint = serde_json::from_slice(position)?;
        if let Some(snapshots) = snapshots {
            checkpoint.snapshots = serde_json::from_slice(snapshots)?;
        }
        Ok(Some(checkpoint))
    }
}

/// No name of a slot has a colon.
fn snapshots_key(pipeline: &str) -> String {
    format!("{pipeline}:snapshots")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::Copied;
    use crate::table::TableName;

    #[test]
    fn a_checkpoint_is_read_from_two_records() {
        let table = TableName { schema: "public".into(), name: "users".into() };
        let key = vec!["id".into()];
        let copied = Copied { consistent_at: Lsn(5), oid: 16_385, terms: -7, key };
        let snapshots = vec![SnapshotDone { table, copied }];
        let whole = Checkpoint { confirm: Lsn(9), system: 7, snapshots, ..Checkpoint::default() };
        let position = whole.position_record();
        assert!(!String::from_utf8_lossy(&position).contains("users"));
        let (key, list) = whole.snapshots_record("shop");
        assert_eq!(key, "shop:snapshots");
        assert_eq!(Checkpoint::parse(Some(&position), Some(&list)).unwrap(), Some(whole.clone()));
        let none = Checkpoint { snapshots: Vec::new(), ..whole };
        assert_eq!(Checkpoint::parse(Some(&position), None).unwrap(), Some(none));
        assert_eq!(Checkpoint::parse(None, Some(&list)).unwrap(), None);
    }
}
