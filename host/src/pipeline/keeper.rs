//! What plugins remember goes to disk behind the stream: after what it is of is durable, and before
//! the source is told so.
//!
//! No batch waits for the disk. What is durable one hop on is handed to a thread, which writes what
//! came within a moment as one transaction and acknowledges it then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::ack::Durable;
use crate::failpoint;
use crate::hop::Point;
use crate::plugin::{MemoryError, Pending, Store};
use crate::shutdown::{Phase, Shutdown};

/// How long what is durable waits for company.
const LINGER: Duration = Duration::from_millis(100);

/// How far a leg's source has come, as it is kept beside the memory.
pub(super) trait Ledger: Send + 'static {
    /// What it is made of.
    type Point: Point;

    /// Takes in a point.
    fn advance(&mut self, point: &Self::Point);

    /// By scope; none while it is not to be written, because a start could not go on from there.
    fn progress(&self) -> Option<BTreeMap<String, String>>;
}

/// A leg's memory: where it is kept, and the place at which it begins.
pub(super) struct Kept<L> {
    pub(super) store: Arc<Store>,
    pub(super) ledger: L,
}

/// The thread, if there is something to keep.
pub(super) struct Keeping(Option<JoinHandle<Result<(), MemoryError>>>);

/// Takes what is durable.
pub(super) type Give<P> = Box<dyn FnMut(Durable<P>) + Send>;

/// Gives what is durable to `acknowledge`, once the memory of it is on disk. When the disk fails, `end`
/// drains.
pub(super) fn keep<L: Ledger>(
    kept: Option<Kept<L>>,
    end: &Shutdown,
    mut acknowledge: impl FnMut(Durable<L::Point>) + Send + 'static,
) -> (Give<L::Point>, Keeping) {
    let Some(Kept { store, mut ledger }) = kept else {
        return (Box::new(acknowledge), Keeping(None));
    };
    let (give, given) = mpsc::channel();
    let end = end.clone();
    let thread = spawn_blocking(move || {
        let ended = run(&store, &mut ledger, &given, &mut acknowledge);
        if ended.is_err() {
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
    store: &Store,
    ledger: &mut L,
    given: &Receiver<Durable<L::Point>>,
    acknowledge: &mut impl FnMut(Durable<L::Point>),
) -> Result<(), MemoryError> {
    let mut pending = Pending::default();
    let mut held = Vec::new();
    let mut open = true;
    while open && let Ok(first) = given.recv() {
        let due = Instant::now() + LINGER;
        let mut next = Some(first);
        while let Some(mut durable) = next.take() {
            ledger.advance(durable.point());
            durable.take_remembered().into_iter().for_each(|delta| pending.add(delta));
            held.push(durable);
            match given.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(durable) => next = Some(durable),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        if let Some(progress) = ledger.progress() {
            failpoint::pass("before_keep");
            store.keep(&pending, &progress)?;
            failpoint::pass("after_keep");
            pending = Pending::default();
            held.drain(..).for_each(&mut *acknowledge);
        }
    }
    Ok(())
}
