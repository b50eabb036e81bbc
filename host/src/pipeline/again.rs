//! Copying tables again on request: see [`recopy`](crate::recopy).

use super::destination::Destination;
use super::{Error, Pipeline};
use crate::hop::{SnapshotDone, Snapshots};
use crate::recopy::Recopies;
use crate::shutdown::{Phase, Shutdown};
use crate::table::TableName;
use crate::transport::{self, Producer};

impl Pipeline {
    /// The end of one life of a capture, which drains when a table is to be copied again.
    pub(super) fn part_until_asked(&self) -> Shutdown {
        let (end, recopies) = (self.shutdown.part(), self.report.recopies().clone());
        let part = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = recopies.asked() => part.advance(Phase::Draining),
                () = part.reached(Phase::Draining) => {}
            }
        });
        end
    }

    /// Whether a life of a capture ended because a table is to be copied again.
    pub(super) fn goes_on_copying(&self) -> bool {
        self.shutdown.phase() == Phase::Running && self.report.recopies().is_asked()
    }
}

impl Destination {
    /// Takes back that the tables which are to be copied again are complete; gives those that still are.
    pub(super) async fn forget_asked(
        &self,
        mut snapshots: Snapshots,
        recopies: &Recopies,
    ) -> Result<Snapshots, Error> {
        for request in recopies.take() {
            let table = snapshots.keys().find(|table| table.to_string() == request.table).cloned();
            if let Some(table) = &table {
                self.sink.forget_snapshot(table).await?;
                snapshots.remove(table);
            }
            request.answer(table.is_some());
        }
        Ok(snapshots)
    }
}

/// Takes back that the tables which are to be copied again are complete, in Kafka and in `snapshots`.
pub(super) fn forget_asked(
    producer: &mut Producer,
    snapshots: &mut Vec<SnapshotDone>,
    recopies: &Recopies,
) -> Result<(), transport::Error> {
    let asked = recopies.take();
    let is_asked = |done: &SnapshotDone| {
        let name = done.table.to_string();
        asked.iter().any(|request| request.table == name)
    };
    let forgotten = snapshots.extract_if(.., |done| is_asked(done)).map(|done| done.table);
    let forgotten: Vec<TableName> = forgotten.collect();
    if !forgotten.is_empty() {
        producer.forget_snapshots_of(&forgotten)?;
    }
    for request in asked {
        let marked = forgotten.iter().any(|table| table.to_string() == request.table);
        request.answer(marked);
    }
    Ok(())
}
