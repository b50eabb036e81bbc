//! Keeps only the rows that match in the copy: like a `WHERE` on every table it is given.

use std::collections::BTreeMap;

use serde::Deserialize;
use tailwater_guest::condition::{Condition, Predicate};
use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform};

const NOT_SENT: &str = "PostgreSQL did not send a large value that a condition is about; set REPLICA \
                        IDENTITY FULL on the table";

/// Which rows match.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether all conditions must hold, or any of them. Default: all.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// The conditions.
    #[serde(rename = "where")]
    pub conditions: Vec<Condition>,
}

/// How conditions combine.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// Each must hold.
    #[default]
    All,
    /// One must hold.
    Any,
}

/// The plugin.
pub struct FilterRows {
    config: Config,
    /// By table id, the conditions on its columns.
    predicates: BTreeMap<u32, Vec<Predicate>>,
}

impl Transform for FilterRows {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.conditions.is_empty() {
            return Err("`where` has no condition".to_owned());
        }
        Ok(FilterRows { config, predicates: BTreeMap::new() })
    }

    /// A table without a condition's column is refused: silence would let every row through.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let conditions = &self.config.conditions;
        let predicates = conditions.iter().map(|condition| condition.predicate(table));
        self.predicates.insert(table.id, predicates.collect::<Result<_, _>>()?);
        let names = || conditions.iter().map(|condition| &condition.column);
        Ok(Some(names().fold(Interest::of(names()), Interest::old)))
    }

    fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
        let predicates = &self.predicates[&row.table()];
        // What one condition decides, whatever the others say.
        let decisive = self.config.matching == Match::Any;
        let mut unknown = false;
        for (column, predicate) in predicates.iter().enumerate() {
            match holds(predicate, row, column, predicates.len() + column) {
                Some(holds) if holds == decisive => return verdict(holds),
                Some(_) => {}
                None => unknown = true,
            }
        }
        if unknown { Verdict::Fault(NOT_SENT.to_owned()) } else { verdict(!decisive) }
    }
}

fn verdict(matches: bool) -> Verdict {
    if matches { Verdict::Keep } else { Verdict::Discard }
}

/// Whether a condition holds for a row, whose value is in one column and what it was before in another;
/// none if PostgreSQL did not send it.
fn holds(predicate: &Predicate, row: &Row<'_>, column: usize, old: usize) -> Option<bool> {
    let mut text = row.text(column);
    if text.is_none() && row.is_unchanged(column) {
        // With REPLICA IDENTITY FULL the old row has it.
        text = Some(row.text(old)?);
    }
    Some(predicate.holds(text))
}

export_transform!(FilterRows);

#[cfg(test)]
mod tests;
