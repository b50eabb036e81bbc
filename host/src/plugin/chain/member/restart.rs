//! A plugin whose instance trapped gets another one.
//!
//! That may not start, though the first one did: its `init` asks the time, or ran into its deadline on a
//! busy machine. Then the rows of the batch fail, as others do that a plugin fails on, and the next batch
//! tries again.

use crate::plugin::chain::member::{Member, Subscription};
use crate::plugin::guest::Outcome;

impl Member {
    /// Counts a failed call, and replaces the instance if it is dead.
    pub(super) fn after_failure(&mut self, outcome: &Outcome) {
        self.note_failure(outcome, outcome.kind());
        self.replace_dead();
    }

    /// Replaces the instance if it is dead, with one attempt a batch. Why there is none, if there is none.
    pub(super) fn replace_dead(&mut self) -> Option<String> {
        if self.instance.is_dead() && self.down.is_none() {
            self.restart();
        }
        self.down.clone()
    }

    /// The new instance was told of no table yet. A version that wants nothing of a table does not come to
    /// want it, so that those of a [wave](crate::plugin::chain::wave) stay apart.
    fn restart(&mut self) {
        match self.loader.instance(&self.version) {
            Ok(instance) => {
                self.instance = instance;
                self.subscriptions.retain(|_, known| !matches!(known, Subscription::Wanted(_)));
            }
            Err(outcome) => {
                self.note_failure(&outcome, "init");
                let plugin = &self.version.id.name;
                tracing::error!(%plugin, %outcome, "plugin does not start again, its rows fail");
                self.down = Some(format!("it does not start again: {outcome}"));
            }
        }
    }

    /// Counts what failed, and what it took if that is why.
    pub(super) fn note_failure(&mut self, outcome: &Outcome, kind: &'static str) {
        self.count_fault(kind);
        // What was set aside before says nothing of what flows.
        if let Outcome::Deadline(given) = outcome
            && !self.redriving
        {
            self.breaker.hung(*given);
        }
    }
}
