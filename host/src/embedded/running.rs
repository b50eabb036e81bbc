//! Which request a running statement belongs to, so that it ends when nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

/// A request's statement, as seen by its thread and by whoever waits for it.
#[derive(Debug, Clone)]
pub(super) struct Running(Arc<State>);

#[derive(Debug)]
struct State {
    tag: String,
    /// It can write nothing.
    reads: bool,
    ended: AtomicBool,
    cancelled: AtomicBool,
    abandoned: mpsc::UnboundedSender<Running>,
}

impl Running {
    /// `abandoned` is told of statements that nobody waits for any more.
    pub(super) fn new(
        tag: String,
        reads: bool,
        abandoned: mpsc::UnboundedSender<Running>,
    ) -> Running {
        let (ended, cancelled) = (AtomicBool::new(false), AtomicBool::new(false));
        Running(Arc::new(State { tag, reads, ended, cancelled, abandoned }))
    }

    pub(super) fn reads(&self) -> bool {
        self.0.reads
    }

    /// The `log_comment` that marks the statement among the running ones, after the client's own.
    pub(super) fn tag(&self, settings: &[(String, String)]) -> String {
        let own = settings.iter().rev().find(|(name, _)| name == "log_comment");
        format!("{}{}", own.map_or("", |(_, comment)| comment), self.0.tag)
    }

    /// The end of the `log_comment`.
    pub(super) fn mark(&self) -> &str {
        &self.0.tag
    }

    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Dropped by whoever waits: if that is before the statement's end, it gets cancelled.
    pub(super) fn guard(&self) -> Guard {
        Guard(Some(self.clone()))
    }
}

/// See [`Running::guard`].
#[derive(Debug)]
pub(super) struct Guard(Option<Running>);

impl Guard {
    /// Somebody else waits from now on.
    pub(super) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        if !running.has_ended() {
            running.0.cancelled.store(true, Ordering::Release);
            // Fails only when the server stops, and all statements with it.
            drop(running.0.abandoned.send(running.clone()));
        }
    }
}
