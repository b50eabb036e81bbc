//! Keeps only the rows that match in the copy: like a `WHERE` on every table it is given.

mod value;

use std::collections::BTreeMap;

use serde::Deserialize;
use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform};

use value::{Condition, Kind, Truth};

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
    /// By table id, the kind of each condition's column.
    kinds: BTreeMap<u32, Vec<Kind>>,
}

impl Transform for FilterRows {
    type Config = Config;

    fn new(mut config: Config) -> Result<Self, String> {
        if config.conditions.is_empty() {
            return Err("`where` has no condition".to_owned());
        }
        config.conditions.iter_mut().try_for_each(Condition::prepare)?;
        Ok(FilterRows { config, kinds: BTreeMap::new() })
    }

    /// A table without a condition's column is refused: silence would let every row through.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let conditions = &self.config.conditions;
        let kinds = conditions.iter().map(|condition| condition.kind_in(table));
        self.kinds.insert(table.id, kinds.collect::<Result<_, _>>()?);
        let names = || conditions.iter().map(|condition| &condition.column);
        Ok(Some(names().fold(Interest::of(names()), Interest::old)))
    }

    fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
        let conditions = self.config.conditions.iter().zip(&self.kinds[&row.table()]);
        let truths = conditions.enumerate().map(|(column, (condition, kind))| {
            // With REPLICA IDENTITY FULL the old row has what the new one was not sent.
            let old = || row.text(self.config.conditions.len() + column);
            match row.text(column) {
                None if row.is_unchanged(column) => {
                    old().map_or(Truth::NotSent, |text| condition.holds(*kind, Some(text)))
                }
                text => condition.holds(*kind, text),
            }
        });
        let truth = match self.config.matching {
            Match::All => truths.min(),
            Match::Any => truths.max(),
        };
        verdict(truth.expect("there is a condition"))
    }
}

fn verdict(truth: Truth) -> Verdict {
    match truth {
        Truth::Yes => Verdict::Keep,
        Truth::No => Verdict::Discard,
        Truth::NotSent => Verdict::Fault(
            "PostgreSQL did not send a large value that a condition is about; set REPLICA \
             IDENTITY FULL on the table"
                .to_owned(),
        ),
    }
}

export_transform!(FilterRows);

#[cfg(test)]
mod tests;
