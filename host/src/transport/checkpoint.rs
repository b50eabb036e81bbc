//! How far the source has come, as Kafka knows it.

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
    /// The cluster that the positions are of; releases before 0.1 did not write it.
    #[serde(default)]
    pub system: Option<u64>,
    /// Snapshots whose records are all in Kafka, the latest of each table.
    #[serde(default)]
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

    /// The pipeline's last committed checkpoint.
    pub(super) fn read(
        options: &Options,
        topic: &str,
        pipeline: &str,
    ) -> Result<Option<Checkpoint>, Error> {
        let mut last = None;
        compacted::read(options, topic, |key, value| {
            if key == pipeline.as_bytes() {
                last = Some(value.to_vec());
            }
        })?;
        let parse = |text: Vec<u8>| {
            serde_json::from_slice(&text).map_err(|source| Error::Checkpoint {
                pipeline: pipeline.to_owned(),
                topic: topic.to_owned(),
                source,
            })
        };
        last.map(parse).transpose()
    }
}
