//! What the slot is told on the direct way is kept in ClickHouse first. A start then knows how far the
//! slot can be by this pipeline's doing, and how far the source's log was when it was left.
//!
//! That takes an insert, so the slot is told at most once in [`INTERVAL`], and at the end.
//!
//! A process that was stopped for long, with its machine or by itself, may write its record when another one has
//! taken over and gone farther. Of a pipeline's records the one that is farthest counts, whichever came last, so
//! the later start finds what the slot was told. That passes over no change: a record says only that everything
//! up to it is stored, in the database that holds the record, and what is stored once stays so, whoever stored it.
//! A slot behind the record repeats what is stored already; one before it is what a start looks for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::ack::{Durable, SlotAck};
use crate::disposition::Disposition;
use crate::failpoint;
use crate::hop::LogPoint;
use crate::position::Lsn;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{self, Provenance, Records};
use crate::telemetry::logging::Repeated;
use crate::telemetry::metrics::Metrics;

const INTERVAL: Duration = Duration::from_secs(1);

/// The step that records how far the slot is told.
pub(super) const SLOT_RECORD: &str = "slot-record";

/// Takes what is stored. Dropping it ends the [`Telling`].
pub(super) struct Tell {
    give: UnboundedSender<Durable<LogPoint>>,
    stored: Lsn,
}

impl Tell {
    /// Takes a point; gives how far is stored.
    pub(super) fn take(&mut self, durable: Durable<LogPoint>) -> Lsn {
        self.stored = self.stored.max(durable.point().confirm);
        // When the task has ended with an error, nothing is acknowledged any more.
        drop(self.give.send(durable));
        self.stored
    }
}

/// The task that keeps and acknowledges.
pub(super) struct Telling(JoinHandle<Result<(), sink::Error>>);

impl Telling {
    /// Waits until everything that was given is kept and acknowledged; what gave it must have ended.
    pub(super) async fn finish(self) -> Result<(), sink::Error> {
        self.0.await.expect("to tell does not panic")
    }
}

/// Acknowledges to `ack` what is given, once it is kept beside what is `known`. If ClickHouse refuses,
/// `end` drains; while it takes rows but not the record of them, `metrics` know.
pub(super) fn tell(
    records: Records,
    known: Provenance,
    ack: SlotAck,
    end: &Shutdown,
    metrics: &Arc<Metrics>,
) -> (Tell, Telling) {
    let (give, given) = mpsc::unbounded_channel();
    let (stored, end, metrics) = (known.confirmed, end.clone(), Arc::clone(metrics));
    let task = tokio::spawn(async move {
        let ended = run(&records, known, &ack, given, &metrics).await;
        metrics.awaits_nothing(SLOT_RECORD);
        if ended.is_err() {
            end.advance(Phase::Draining);
        }
        ended
    });
    (Tell { give, stored }, Telling(task))
}

async fn run(
    records: &Records,
    mut known: Provenance,
    ack: &SlotAck,
    mut given: UnboundedReceiver<Durable<LogPoint>>,
    metrics: &Metrics,
) -> Result<(), sink::Error> {
    let failures = Repeated::new("record how far the slot may be told");
    let (mut waiting, mut due, mut open) = (Vec::new(), Instant::now(), true);
    while open {
        open = gather(&mut given, &mut waiting, due, metrics).await;
        let reached = waiting.iter().map(|durable| durable.point().confirm).max();
        let confirmed = reached.unwrap_or_default().max(known.confirmed);
        if confirmed > known.confirmed {
            let kept = records.provenance(Provenance { confirmed, ..known }).await;
            due = Instant::now() + INTERVAL;
            match kept {
                Ok(()) => {
                    known.confirmed = confirmed;
                    failures.succeeded();
                }
                // Rows may go on meanwhile, so nobody else tells; a stop does not wait for it.
                Err(error) if error.disposition() == Disposition::Retry => {
                    failures.failed(&error);
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        metrics.awaits_nothing(SLOT_RECORD);
        for durable in waiting.drain(..) {
            failpoint::pass("before_slot_advance");
            ack.advance(durable);
        }
    }
    Ok(())
}

/// Waits for something to acknowledge, and then for company until it is due; whether more may come.
async fn gather(
    given: &mut UnboundedReceiver<Durable<LogPoint>>,
    waiting: &mut Vec<Durable<LogPoint>>,
    due: Instant,
    metrics: &Metrics,
) -> bool {
    if waiting.is_empty() {
        match given.recv().await {
            Some(durable) => waiting.push(durable),
            None => return false,
        }
    }
    metrics.begins(SLOT_RECORD);
    loop {
        match timeout_at(due, given.recv()).await {
            Ok(Some(durable)) => waiting.push(durable),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
