//! Batches that are kept for the next version to be compared on.

use std::sync::Arc;

use crate::change::Changes;
use crate::dead_letter::DeadLetter;
use crate::plugin::chain::member::Member;
use crate::plugin::versions::Seen;
use crate::table::Table;

impl Member {
    /// The batch as the plugin is about to see it, if the next version is to be compared on it.
    pub(super) fn before_comparing(&self, changes: &Changes) -> Option<Changes> {
        let compares = self.compares() && !self.redriving;
        let covers = |table: &Arc<Table>| self.covers(table);
        let worth = compares && !changes.is_empty() && changes.tables.iter().any(covers);
        worth.then(|| changes.clone())
    }

    /// Whether batches are kept for the next version to be compared on.
    pub(crate) fn compares(&self) -> bool {
        self.options().shadow_batches > 0 && !self.remembers()
    }

    /// Keeps a batch for the next version to be compared on.
    pub(super) fn keep_to_compare(
        &self,
        before: Changes,
        changes: &Changes,
        set_aside: &[DeadLetter],
    ) {
        let failed = set_aside.iter().map(|letter| letter.position).collect();
        let options = Arc::clone(&self.loader.options);
        let seen = Seen { before, after: changes.clone(), failed, options };
        self.handover.see(seen, self.options().shadow_batches);
    }
}
