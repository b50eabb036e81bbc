//! What the thread that loads versions of a plugin and the one that runs them tell each other.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plugin::loader::{Loaded, Loader};
use crate::plugin::shadow::{Seen, Shadow};

/// Between the thread that loads versions and the one that runs them.
#[derive(Default)]
pub(crate) struct Handover(Mutex<State>);

#[derive(Default)]
struct State {
    /// Ready to take over.
    incoming: Option<(Loader, Loaded)>,
    /// What runs, or is about to.
    accepted: String,
    /// What failed its probation, or differs too much.
    quarantined: HashSet<String>,
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

    pub(crate) fn is_quarantined(&self, identity: &str) -> bool {
        self.state().quarantined.contains(identity)
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

    /// Never takes that version again.
    pub(crate) fn quarantine(&self, identity: String) {
        self.state().quarantined.insert(identity);
    }

    pub(crate) fn roll_back(&self, from: String, to: String, why: &str) {
        let mut state = self.state();
        state.error = Some(format!("rolled back and quarantined until a restart: {why}"));
        if state.accepted == from {
            state.accepted = to;
        }
        state.quarantined.insert(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_its_probation_is_known_and_what_ran_before_runs() {
        let handover = Handover::of("a".to_owned());
        handover.roll_back("b".to_owned(), "a".to_owned(), "it failed");
        assert!(handover.is_quarantined("b") && handover.is_accepted("a"));
        assert!(handover.error().is_some_and(|why| why.contains("it failed")));
    }
}
