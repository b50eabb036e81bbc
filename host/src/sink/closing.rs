//! Letters of rows that came through when they were read again.
//!
//! They are looked for only behind a batch of which something was [noted](crate::dead_letter::OpenLetters),
//! and closed after it is stored. Dying before that is made up for: the batch was not acknowledged, so
//! its rows come again.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::error::Error;
use super::letters::Open;
use super::writer::{Writer, until_done};
use crate::dead_letter::Passed;
use crate::failpoint;
use crate::position::Lsn;

/// Letters that one statement closes.
const PAGE: usize = 1024;

impl Writer {
    /// Closes what letters are open of rows that passed the plugin which had failed on them, and are
    /// stored now, or whatever else became of them is.
    pub(super) async fn close_passed(&self, passed: &[Passed]) -> Result<(), Error> {
        let positions = || passed.iter().flat_map(|passed| &passed.positions);
        let Some((first, last)) = positions().min().zip(positions().max()) else { return Ok(()) };
        let (letters, doubts) = (self.letters(), self.open.doubts());
        let newest = until_done!(self, "look for dead letters", letters.newest())?;
        // Rows behind all letters have none, nor have those that follow them.
        let behind = newest < first.version();
        self.open.found(commit_of(newest), behind.then_some(doubts));
        if behind {
            return Ok(());
        }
        let found = until_done!(self, "look for dead letters", letters.between(*first, *last))?;
        for ((plugin, table), versions) in closed(found, passed) {
            failpoint::pass("before_closing");
            let task = "remove dead letters of rows that came through";
            for versions in versions.chunks(PAGE) {
                until_done!(self, task, letters.close(&plugin, &table, versions))?;
            }
            let count = versions.len();
            tracing::info!(count, %plugin, %table, "closed dead letters whose rows came through");
        }
        Ok(())
    }
}

/// The versions of letters to be closed, by plugin and table.
fn closed(found: Vec<Open>, passed: &[Passed]) -> BTreeMap<(String, String), Vec<u128>> {
    let mut open: HashMap<(String, String), HashSet<u128>> = HashMap::new();
    for Open { plugin, table, version } in found {
        open.entry((plugin, table)).or_default().insert(version);
    }
    let mut closed: BTreeMap<_, Vec<u128>> = BTreeMap::new();
    for Passed { plugin, table, positions } in passed {
        let letter = (plugin.to_string(), table.clone());
        let Some(open) = open.get(&letter) else { continue };
        let versions = positions.iter().map(|position| position.version());
        let versions: Vec<u128> = versions.filter(|version| open.contains(version)).collect();
        if !versions.is_empty() {
            closed.entry(letter).or_default().extend(versions);
        }
    }
    closed
}

fn commit_of(version: u128) -> Lsn {
    Lsn(u64::try_from(version >> 64).expect("half of the bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    #[test]
    fn letters_are_closed_of_what_passed_the_plugin_that_had_failed() {
        let at = |ordinal| Position { commit: Lsn(7), ordinal };
        let passed = |plugin: &str, table: &str, ordinals: &[u64]| Passed {
            plugin: plugin.into(),
            table: table.to_owned(),
            positions: ordinals.iter().map(|ordinal| at(*ordinal)).collect(),
        };
        let open = |plugin: &str, table: &str, ordinal| Open {
            plugin: plugin.to_owned(),
            table: table.to_owned(),
            version: at(ordinal).version(),
        };
        let found =
            vec![open("p", "t", 1), open("p", "t", 2), open("q", "t", 3), open("p", "u", 3)];
        let passed = [passed("p", "t", &[2, 3]), passed("q", "u", &[3]), passed("r", "t", &[1])];
        let expected = BTreeMap::from([(("p".to_owned(), "t".to_owned()), vec![at(2).version()])]);
        assert_eq!(closed(found, &passed), expected);
    }
}
