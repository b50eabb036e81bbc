//! Letters that are still open when their rows come by again.
//!
//! After a crash, or when a partition comes to another process, rows are read again, and a plugin that
//! was mended meanwhile may take what it failed on. What passed a plugin is then noted with the batch,
//! and the store closes the letters of it. Rows that come for the first time have no letters, and nothing
//! is noted of them: their positions are behind those of all letters.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::change::{Changes, Op};
use crate::position::{Lsn, Position};

/// Rows of one table that a plugin took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// `schema.table`, as the plugin was shown it.
    pub table: String,
    /// Where the rows stand, and what changed them: the halves of a change of key share a position.
    pub rows: Vec<(Position, Op)>,
}

/// What passed the plugins of a chain, and what did not.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    passed: Vec<Passed>,
    failed: HashSet<(Arc<str>, Position)>,
}

impl Noted {
    pub(crate) fn passed(&mut self, passed: Passed) {
        self.passed.push(passed);
    }

    pub(crate) fn failed(&mut self, plugin: &Arc<str>, position: Position) {
        self.failed.insert((Arc::clone(plugin), position));
    }

    /// Of several rows with one position all have to have passed.
    pub(crate) fn into_passed(self) -> Vec<Passed> {
        let Noted { mut passed, failed } = self;
        for Passed { plugin, rows, .. } in &mut passed {
            rows.retain(|(position, _)| !failed.contains(&(Arc::clone(plugin), *position)));
        }
        passed.retain(|passed| !passed.rows.is_empty());
        passed
    }
}

/// Up to where there may be open letters, known to a leg's transform and to its store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OpenLetters(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The commit of the newest letter.
    newest: AtomicU64,
    /// How often somebody else may have written letters.
    doubts: AtomicU64,
    /// The last of these after which it was looked.
    settled: AtomicU64,
}

impl OpenLetters {
    /// Where nobody has looked yet.
    #[must_use]
    pub fn unknown() -> OpenLetters {
        let open = OpenLetters::default();
        open.doubt();
        open
    }

    /// Others may have written letters.
    pub fn doubt(&self) {
        self.0.doubts.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a change of the batch may have an open letter.
    #[must_use]
    pub fn may_be_of(&self, changes: &Changes) -> bool {
        let newest = Lsn(self.0.newest.load(Ordering::Acquire));
        let unknown = self.doubts() != self.0.settled.load(Ordering::Acquire);
        let mut transactions = changes.transactions.iter();
        unknown || transactions.any(|transaction| transaction.commit <= newest)
    }

    /// How often it was doubted; to be asked before one looks.
    pub(crate) fn doubts(&self) -> u64 {
        self.0.doubts.load(Ordering::Acquire)
    }

    /// The newest letter, as it was found. `doubts`: they are settled with that.
    pub(crate) fn found(&self, newest: Lsn, doubts: Option<u64>) {
        self.0.newest.store(newest.0, Ordering::Release);
        if let Some(doubts) = doubts {
            self.0.settled.store(doubts, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Transaction;

    fn at(commit: u64) -> Position {
        Position { commit: Lsn(commit), ordinal: 1 }
    }

    #[test]
    fn rows_may_have_letters_until_all_letters_are_known_to_be_older() {
        let mut changes = Changes::default();
        let (commit, previous_commit) = (Lsn(7), Lsn(0));
        changes.push_transaction(Transaction { commit, previous_commit, committed_at: 0, xid: 1 });
        let open = OpenLetters::unknown();
        assert!(open.may_be_of(&changes), "nobody has looked");
        let doubts = open.doubts();
        open.found(Lsn(6), None);
        assert!(open.may_be_of(&changes), "rows as old as the letters still come");
        open.found(Lsn(6), Some(doubts));
        assert!(!open.may_be_of(&changes));
        open.found(Lsn(7), Some(doubts));
        assert!(open.may_be_of(&changes), "the letter is of that transaction");
        open.doubt();
        open.found(Lsn(6), Some(doubts));
        assert!(open.may_be_of(&changes), "it was doubted while one looked");
    }

    #[test]
    fn a_row_has_passed_a_plugin_if_all_of_it_did() {
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let passed = |plugin: &Arc<str>, positions: &[Position]| Passed {
            plugin: Arc::clone(plugin),
            table: "public.t".to_owned(),
            rows: positions.iter().map(|position| (*position, Op::Insert)).collect(),
        };
        let mut noted = Noted::default();
        noted.passed(passed(&one, &[at(1), at(2)]));
        noted.passed(passed(&other, &[at(1)]));
        noted.passed(passed(&other, &[at(2)]));
        noted.failed(&other, at(2));
        let expected = [passed(&one, &[at(1), at(2)]), passed(&other, &[at(1)])];
        assert_eq!(noted.into_passed(), expected);
    }
}
