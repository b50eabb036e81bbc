//! What the thread that loads versions of a plugin and the one that runs them tell each other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plugin::versions::loader::{Loaded, Loader};
use crate::plugin::versions::shadow::{Seen, Shadow};

/// Between the thread that loads versions and the one that runs them.
#[derive(Default)]
pub(crate) struct Handover(Mutex<State>);

#[derive(Default)]
struct State {
    /// Ready to take over.
    incoming: Option<(Loader, Loaded)>,
    /// What runs, or is about to.
    accepted: String,
    error: Option<String>,
    /// The last batches of the version that runs, if the next one is to be compared with it.
    seen: VecDeque<Arc<Seen>>,
    /// What the last comparison came to.
    shadow: Option<Shadow>,
}

impl Handover {
    pub(crate) fn of(running: String) -> Handover {
        Handover(Mutex::new(State { accepted: running, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Option<(Loader, Loaded)> {
        self.state().incoming.take()
    }

    pub(crate) fn offer(&self, identity: String, loader: Loader, loaded: Loaded) {
        let mut state = self.state();
        state.incoming = Some((loader, loaded));
        state.accepted = identity;
        state.error = None;
    }

    pub(crate) fn is_accepted(&self, identity: &str) -> bool {
        self.state().accepted == identity
    }

    /// The identity of what runs, or is about to.
    pub(crate) fn accepted(&self) -> String {
        self.state().accepted.clone()
    }

    /// Notes why a version was not taken.
    pub(crate) fn fail(&self, why: String) {
        self.state().error = Some(why);
    }

    /// Forgets the last failure: the file is that of the version that runs again.
    pub(crate) fn settle(&self) {
        self.state().error = None;
    }

    /// The last failure, unless a reload ended well since.
    pub(crate) fn error(&self) -> Option<String> {
        self.state().error.clone()
    }

    /// Keeps a batch, and so many at most.
    pub(crate) fn see(&self, seen: Seen, most: u32) {
        let mut state = self.state();
        state.seen.push_back(Arc::new(seen));
        while state.seen.len() > most as usize {
            state.seen.pop_front();
        }
    }

    /// Another version runs from now on.
    pub(crate) fn forget_seen(&self) {
        self.state().seen.clear();
    }

    /// The last batches, oldest first.
    pub(crate) fn seen(&self) -> Vec<Arc<Seen>> {
        self.state().seen.iter().cloned().collect()
    }

    /// Tells what a comparison came to.
    pub(crate) fn tell(&self, shadow: Option<Shadow>) {
        self.state().shadow = shadow;
    }

    /// What the last comparison came to.
    pub(crate) fn shadow(&self) -> Option<Shadow> {
        self.state().shadow.clone()
    }

    /// A version that took over is in quarantine, and the one before runs again.
    pub(crate) fn roll_back(&self, from: &str, to: String, why: &str) {
        let mut state = self.state();
        state.error = Some(format!("rolled back and put in quarantine: {why}"));
        if state.accepted == from {
            state.accepted = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_before_runs_after_a_probation_that_failed() {
        let handover = Handover::of("b".to_owned());
        handover.roll_back("b", "a".to_owned(), "it failed");
        assert!(handover.is_accepted("a"));
        assert!(handover.error().is_some_and(|why| why.contains("it failed")));
    }
}
