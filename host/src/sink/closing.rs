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
use crate::position::commit_of;

/// Letters that one statement closes.
const PAGE: usize = 1024;

impl Writer {
    /// Closes what letters are open of rows that passed the plugin which had failed on them, and are
    /// stored now, or whatever else became of them is.
    pub(super) async fn close_passed(&self, passed: &[Passed]) -> Result<(), Error> {
        let rows = passed.iter().flat_map(|passed| &passed.rows);
        let positions = || rows.clone().map(|(position, _)| position);
        let Some((first, last)) = positions().min().zip(positions().max()) else { return Ok(()) };
        let (letters, doubts) = (self.letters(), self.open.doubts());
        let newest = until_done!(self, letters.newest())?;
        // Rows behind all letters have none, nor have those that follow them.
        let behind = newest < first.version();
        self.open.found(commit_of(newest), behind.then_some(doubts));
        if behind {
            return Ok(());
        }
        let found = until_done!(self, letters.between(*first, *last))?;
        for ((plugin, table), rows) in closed(found, passed) {
            failpoint::pass("before_closing");
            for rows in rows.chunks(PAGE) {
                until_done!(self, letters.close(&plugin, &table, rows))?;
            }
            let count = rows.len();
            tracing::info!(count, %plugin, %table, "closed dead letters whose rows came through");
        }
        Ok(())
    }
}

/// Version and operation of the letters to be closed, by plugin and table.
fn closed(
    found: Vec<Open>,
    passed: &[Passed],
) -> BTreeMap<(String, String), Vec<(u128, &'static str)>> {
    let mut open: HashMap<(String, String), HashSet<(u128, String)>> = HashMap::new();
    for Open { plugin, table, version, op } in found {
        open.entry((plugin, table)).or_default().insert((version, op));
    }
    let mut closed: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Passed { plugin, table, rows } in passed {
        let letter = (plugin.to_string(), table.clone());
        let Some(open) = open.get(&letter) else { continue };
        let rows = rows.iter().map(|(position, op)| (position.version(), op.code()));
        let is_open = |row: &(u128, &str)| open.contains(&(row.0, row.1.to_owned()));
        let rows: Vec<_> = rows.filter(is_open).collect();
        if !rows.is_empty() {
            closed.entry(letter).or_default().extend(rows);
        }
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Op;
    use crate::position::{Lsn, Position};

    #[test]
    fn letters_are_closed_of_what_passed_the_plugin_that_had_failed() {
        let at = |ordinal| Position { commit: Lsn(7), ordinal };
        let passed = |plugin: &str, table: &str, rows: &[(u64, Op)]| Passed {
            plugin: plugin.into(),
            table: table.to_owned(),
            rows: rows.iter().map(|(ordinal, op)| (at(*ordinal), *op)).collect(),
        };
        let open = |plugin: &str, table: &str, ordinal, op: Op| Open {
            plugin: plugin.to_owned(),
            table: table.to_owned(),
            version: at(ordinal).version(),
            op: op.code().to_owned(),
        };
        let found = vec![
            open("p", "t", 1, Op::Insert),
            open("p", "t", 2, Op::Update),
            open("q", "t", 3, Op::Insert),
            open("p", "u", 3, Op::Insert),
        ];
        let passed = [
            passed("p", "t", &[(2, Op::Update), (3, Op::Insert)]),
            // The other half of a change of key.
            passed("p", "t", &[(1, Op::Delete)]),
            passed("q", "u", &[(3, Op::Insert)]),
            passed("r", "t", &[(1, Op::Insert)]),
        ];
        let expected = [(("p".to_owned(), "t".to_owned()), vec![(at(2).version(), "u")])];
        assert_eq!(closed(found, &passed), BTreeMap::from(expected));
    }
}
