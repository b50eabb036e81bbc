//! What the thread that loads versions of a plugin and the one that runs them tell each other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plugin::versions::loader::{Loaded, Loader};
use crate::plugin::versions::shadow::{Seen, Shadow};

/// What the batches may take that are kept to compare the next version on.
const SEEN_BYTES: usize = 64 << 20;

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

    /// Keeps a batch, and so many at most, of as many bytes together as may be held.
    pub(crate) fn see(&self, seen: Seen, most: u32) {
        let mut state = self.state();
        state.seen.push_back(Arc::new(seen));
        let mut bytes: usize = state.seen.iter().map(|seen| seen.bytes()).sum();
        while state.seen.len() > most as usize || bytes > SEEN_BYTES {
            let Some(oldest) = state.seen.pop_front() else { break };
            bytes -= oldest.bytes();
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
    use std::path::Path;

    use super::*;
    use crate::change::Changes;
    use crate::plugin::options::Options;

    /// A batch of some MiB, by itself.
    fn batch(mebibytes: usize) -> Seen {
        let before = Changes::over(vec![0; mebibytes << 20]);
        let options = Arc::new(Options::of_component(Path::new("p.wasm"), Vec::new()));
        Seen { before, after: Changes::default(), failed: Vec::new(), options }
    }

    #[test]
    fn the_last_batches_are_kept_as_long_as_they_are_not_too_large_together() {
        let handover = Handover::default();
        let kept =
            || -> Vec<usize> { handover.seen().iter().map(|seen| seen.bytes() >> 20).collect() };
        (1..=3).for_each(|mebibytes| handover.see(batch(mebibytes), 2));
        assert_eq!(kept(), [2, 3], "no more than wanted");
        handover.see(batch(60), 9);
        assert_eq!(kept(), [3, 60]);
        handover.see(batch(65), 9);
        assert!(kept().is_empty(), "one alone is too large");
    }

    #[test]
    fn what_ran_before_runs_after_a_probation_that_failed() {
        let handover = Handover::of("b".to_owned());
        handover.roll_back("b", "a".to_owned(), "it failed");
        assert!(handover.is_accepted("a"));
        let told = handover.error();
        assert_eq!(told.as_deref(), Some("rolled back and put in quarantine: it failed"));
    }
}
