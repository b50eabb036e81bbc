//! What plugins remember goes to disk behind the stream: after what it is of is durable, and before
//! the source is told so.
//!
//! No batch waits for the disk. What is durable one hop on is handed to a thread, which writes what
//! came within a moment as one transaction and acknowledges it then. When a disk stands still, batches go
//! on until what waits for it has filled the [`Backlog`]; from then on the plugins are shown no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::ack::Durable;
use crate::failpoint;
use crate::hop::Point;
use crate::plugin::{Delta, MemoryError, Pending, StateStore};
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::metrics::Metrics;

/// How long what is durable waits for company.
const LINGER: Duration = Duration::from_millis(100);

/// The step that writes the memory of the capture's plugins,
pub(super) const CAPTURE_MEMORY: &str = "capture-memory";
/// and of the sink's.
pub(super) const SINK_MEMORY: &str = "sink-memory";

/// How much memory may be taken by what plugins changed and the thread has not taken yet, in bytes.
pub(super) const MOST_WAITING: usize = 64 << 20;

/// What plugins changed of their memory and the thread has not taken yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<watch::Sender<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    /// The thread has failed and takes nothing any more.
    abandoned: bool,
}

impl Backlog {
    /// Takes in what a batch changed.
    pub(super) fn add(&self, deltas: &[Delta]) {
        let more: usize = deltas.iter().map(Delta::bytes).sum();
        self.0.send_if_modified(|waiting| {
            waiting.bytes += more;
            false
        });
    }

    /// The thread has them.
    pub(super) fn take(&self, deltas: &[Delta]) {
        let less: usize = deltas.iter().map(Delta::bytes).sum();
        self.0.send_modify(|waiting| waiting.bytes -= less);
    }

    /// The thread will take nothing any more: whoever waits for room goes on, to the end of this life.
    fn abandon(&self) {
        self.0.send_modify(|waiting| waiting.abandoned = true);
    }

    /// Waits until another batch may be shown to the plugins.
    pub(super) async fn room(&self) {
        let mut watch = self.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let has_room = |waiting: &Waiting| waiting.bytes < MOST_WAITING || waiting.abandoned;
        let _room = watch.wait_for(has_room).await;
    }
}

/// How far a leg's source has come, as it is kept beside the memory.
pub(super) trait Ledger: Send + 'static {
    /// What it is made of.
    type Point: Point;

    /// Takes in a point.
    fn advance(&mut self, point: &Self::Point);

    /// What of it is to be written, by scope; none while nothing is, because a start could not go on from there.
    fn progress(&mut self) -> Option<BTreeMap<String, String>>;
}

/// A leg's memory: where it is kept, and the place at which it begins.
pub(super) struct Kept<L> {
    pub(super) store: Arc<StateStore>,
    pub(super) ledger: L,
    pub(super) backlog: Backlog,
    /// What writing it is called: [`CAPTURE_MEMORY`] or [`SINK_MEMORY`].
    pub(super) step: &'static str,
}

/// The thread, if there is something to keep.
pub(super) struct Keeping(Option<JoinHandle<Result<(), MemoryError>>>);

/// Takes what is durable.
pub(super) type Give<P> = Box<dyn FnMut(Durable<P>) + Send>;

/// How many entries of states wait for the end of a copy before it is looked which of them can be dropped.
const MANY_ENTRIES: usize = 100_000;

/// Gives what is durable to `acknowledge`, once the memory of it is on disk. When the disk fails, `end`
/// drains; while it stands still, `metrics` know.
pub(super) fn keep<L: Ledger>(
    kept: Option<Kept<L>>,
    end: &Shutdown,
    metrics: &Arc<Metrics>,
    mut acknowledge: impl FnMut(Durable<L::Point>) + Send + 'static,
) -> (Give<L::Point>, Keeping) {
    let Some(mut kept) = kept else {
        return (Box::new(acknowledge), Keeping(None));
    };
    let (give, given) = mpsc::channel();
    let (end, metrics) = (end.clone(), Arc::clone(metrics));
    let thread = spawn_blocking(move || {
        let ended = run(&mut kept, &metrics, &given, &mut acknowledge);
        if ended.is_err() {
            kept.backlog.abandon();
            end.advance(Phase::Draining);
        }
        ended
    });
    // When the thread has ended with an error, nothing is acknowledged any more.
    (Box::new(move |durable| drop(give.send(durable))), Keeping(Some(thread)))
}

impl Keeping {
    /// Waits until everything that was given is on disk; what gave it must have ended.
    pub(super) async fn finish(self) -> Result<(), MemoryError> {
        match self.0 {
            Some(thread) => thread.await.expect("the keeper does not panic"),
            None => Ok(()),
        }
    }
}

fn run<L: Ledger>(
    Kept { store, ledger, backlog, step }: &mut Kept<L>,
    metrics: &Metrics,
    given: &Receiver<Durable<L::Point>>,
    acknowledge: &mut impl FnMut(Durable<L::Point>),
) -> Result<(), MemoryError> {
    let mut pending = Pending::default();
    let mut held = Vec::new();
    let mut many = MANY_ENTRIES;
    let mut open = true;
    while open && let Ok(first) = given.recv() {
        let due = Instant::now() + LINGER;
        let mut next = Some(first);
        while let Some(mut durable) = next.take() {
            ledger.advance(durable.point());
            let deltas = durable.take_remembered();
            backlog.take(&deltas);
            deltas.into_iter().for_each(|delta| pending.add(delta));
            held.push(durable);
            match given.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(durable) => next = Some(durable),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        if let Some(progress) = ledger.progress() {
            failpoint::pass("before_keep");
            metrics.begins(step);
            let kept = store.keep(&pending, &progress);
            metrics.awaits_nothing(step);
            kept?;
            failpoint::pass("after_keep");
            (pending, many) = (Pending::default(), MANY_ENTRIES);
            held.drain(..).for_each(&mut *acknowledge);
        } else if pending.entries() > many {
            store.drop_needless(&mut pending)?;
            many = MANY_ENTRIES.max(2 * pending.entries());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn there_is_room_again_once_the_thread_has_taken_what_waited() {
        let backlog = Backlog::default();
        let half = || vec![Delta::writing("key", "v".repeat(MOST_WAITING / 2))];
        backlog.add(&half());
        assert!(backlog.room().now_or_never().is_some());
        backlog.add(&half());
        let mut room = std::pin::pin!(backlog.room());
        assert!(room.as_mut().now_or_never().is_none());
        backlog.take(&half());
        assert!(room.now_or_never().is_some());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_failed() {
        let backlog = Backlog::default();
        backlog.add(&[Delta::writing("key", "v".repeat(MOST_WAITING))]);
        let mut room = std::pin::pin!(backlog.room());
        assert!(room.as_mut().now_or_never().is_none());
        backlog.abandon();
        assert!(room.now_or_never().is_some());
    }
}
