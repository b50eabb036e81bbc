//! Drops a change that says nothing new: one that was delivered twice, or, by content, an update
//! that leaves a row's columns as they were.

use serde::Deserialize;
use tailwater_guest::{Dedup, Interest, Row, Table, export_dedup};

/// What makes two changes of a row the same.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is compared. Default: the content.
    pub by: By,
    /// The columns whose content counts. Default: all.
    pub columns: Option<Vec<String>>,
    /// Columns whose content does not count, for example `updated_at`. Default: none.
    pub except: Vec<String>,
}

/// What is compared.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The row's columns.
    #[default]
    Content,
    /// The place in the log: only the very same change is a duplicate.
    Position,
}

/// The plugin.
pub struct DropDuplicates(Config);

impl DropDuplicates {
    fn counts(&self, column: &str) -> bool {
        let chosen = self.0.columns.as_ref();
        let chosen = chosen.is_none_or(|columns| columns.iter().any(|known| known == column));
        chosen && !self.0.except.iter().any(|known| known == column)
    }
}

impl Dedup for DropDuplicates {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let narrows = config.columns.is_some() || !config.except.is_empty();
        if config.by == By::Position && narrows {
            return Err("by = \"position\" looks at no columns: remove them".to_owned());
        }
        Ok(DropDuplicates(config))
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        if self.0.by == By::Position {
            return Ok(Some(Interest::default().positions()));
        }
        let columns = table.columns.iter().map(|column| &column.name);
        let counted: Vec<_> = columns.filter(|column| self.counts(column)).collect();
        Ok((!counted.is_empty()).then(|| Interest::of(counted)))
    }

    fn key(&mut self, row: &Row<'_>, key: &mut String) -> bool {
        if self.0.by == By::Position {
            let position = row.position();
            key.push_str(&format!("{}:{}", position.commit, position.ordinal));
        }
        for column in 0..row.columns() {
            // A value ends with the one character that PostgreSQL's text never holds, so that
            // neighbours cannot be taken for each other.
            match row.text(column) {
                Some(text) => {
                    key.push('+');
                    key.push_str(text);
                    key.push('\0');
                }
                None if row.is_unchanged(column) => key.push('='),
                None => key.push('-'),
            }
        }
        true
    }
}

export_dedup!(DropDuplicates);

#[cfg(test)]
mod tests;
