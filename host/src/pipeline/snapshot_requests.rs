//! Copying tables again on request: see [`snapshot_requests`](crate::snapshot_requests).

use super::patience::Patience;
use super::{Error, Pipeline};
use crate::hop::{SnapshotDone, Snapshots};
use crate::shutdown::{Phase, Shutdown};
use crate::sink::Sink;
use crate::snapshot_requests::SnapshotRequests;
use crate::table::TableName;
use crate::transport::{self, Producer};

impl Pipeline {
    /// The end of one life of a capture, which drains when a table is to be copied again.
    pub(super) fn part_until_asked(&self) -> Shutdown {
        let (end, requests) = (self.shutdown.part(), self.report.snapshot_requests().clone());
        let part = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = requests.asked() => part.advance(Phase::Draining),
                () = part.reached(Phase::Draining) => {}
            }
        });
        end
    }

    /// Whether another life of a capture follows: at once if a table is to be copied again, else after a pause
    /// and for as long as waiting can help.
    ///
    /// # Errors
    /// What no waiting mends.
    pub(super) async fn captures_again(
        &self,
        ended: Result<(), Error>,
        patience: &mut Patience,
    ) -> Result<bool, Error> {
        let running = self.shutdown.phase() == Phase::Running;
        if ended.is_ok() && running && self.report.snapshot_requests().is_asked() {
            return Ok(true);
        }
        patience.another(ended).await
    }
}

/// Takes back that the tables which are to be copied again are complete, in ClickHouse and in `snapshots`.
pub(super) async fn forget_stored(
    sink: &Sink,
    snapshots: &mut Snapshots,
    requests: &SnapshotRequests,
) -> Result<(), Error> {
    for request in requests.take() {
        let table = snapshots.keys().find(|table| table.to_string() == request.table).cloned();
        if let Some(table) = &table {
            sink.forget_snapshot(table).await?;
            snapshots.remove(table);
        }
        request.answer(table.is_some());
    }
    Ok(())
}

/// Takes back that the tables which are to be copied again are complete, in Kafka and in `snapshots`.
pub(super) fn forget_sent(
    producer: &mut Producer,
    snapshots: &mut Vec<SnapshotDone>,
    requests: &SnapshotRequests,
) -> Result<(), transport::Error> {
    let asked = requests.take();
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
