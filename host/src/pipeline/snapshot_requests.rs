//! Copying tables again on request: see [`snapshot_requests`](crate::snapshot_requests).

use tokio::runtime::Handle;

use super::patience::Patience;
use super::{Error, Pipeline};
use crate::capture::{self, SourceUrl};
use crate::hop::{SnapshotDone, Snapshots};
use crate::shutdown::{Phase, Shutdown};
use crate::sink::Sink;
use crate::snapshot_requests::{SnapshotRequest, SnapshotRequests};
use crate::table::TableName;
use crate::telemetry::logging::chain;
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

/// The requests that wait, each with the one of the `copied` tables that it means, but for those of tables that
/// could not be copied.
async fn take(
    requests: &SnapshotRequests,
    copied: &[TableName],
    source: &SourceUrl,
) -> Vec<(SnapshotRequest, Option<TableName>)> {
    let mut possible = Vec::new();
    for request in requests.take() {
        let table = copied.iter().find(|table| table.to_string() == request.table).cloned();
        let may = match &table {
            Some(table) => capture::may_copy(source, table).await,
            None => Ok(()),
        };
        match may {
            Ok(()) => possible.push((request, table)),
            Err(error) => request.refuse(chain(&error)),
        }
    }
    possible
}

/// Takes back that the tables which are to be copied again are complete, in ClickHouse and in `snapshots`.
pub(super) async fn forget_stored(
    sink: &Sink,
    snapshots: &mut Snapshots,
    requests: &SnapshotRequests,
    source: &SourceUrl,
) -> Result<(), Error> {
    let copied: Vec<TableName> = snapshots.keys().cloned().collect();
    for (request, table) in take(requests, &copied, source).await {
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
    source: &SourceUrl,
    runtime: &Handle,
) -> Result<(), transport::Error> {
    let copied: Vec<TableName> = snapshots.iter().map(|done| done.table.clone()).collect();
    let asked = runtime.block_on(take(requests, &copied, source));
    let forgotten: Vec<TableName> = asked.iter().filter_map(|(_, table)| table.clone()).collect();
    if !forgotten.is_empty() {
        snapshots.retain(|done| !forgotten.contains(&done.table));
        producer.forget_snapshots_of(&forgotten)?;
    }
    for (request, table) in asked {
        request.answer(table.is_some());
    }
    Ok(())
}
