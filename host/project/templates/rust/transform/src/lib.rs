//! Takes the blanks off both ends of text columns.

use serde::Deserialize;
use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform};

/// The plugin's `config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The columns to trim; what a table does not have is passed over.
    pub columns: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { columns: vec!["name".to_owned()] }
    }
}

/// The plugin.
pub struct Plugin(Config);

impl Transform for Plugin {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Plugin(config))
    }

    /// Which columns it wants to see of a table; none: it never sees a row of it.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let present: Vec<&String> = self.0.columns.iter().filter(|name| table.has(name)).collect();
        Ok((!present.is_empty()).then(|| Interest::of(present)))
    }

    /// What becomes of a row; its columns are those of the interest.
    fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
        for column in 0..row.columns() {
            if let Some(text) = row.text(column) {
                let trimmed = text.trim_matches(' ');
                if trimmed.len() < text.len() {
                    row.set(column, trimmed);
                }
            }
        }
        Verdict::Keep
    }
}

export_transform!(Plugin);

#[cfg(test)]
mod tests {
    use tailwater_guest::testing::{Change, Fate, TestTable, Tested};

    use super::*;

    #[test]
    fn blanks_inside_stay() {
        let users = TestTable::new("public.users").key("id", "bigint").column("name", "text");
        let change = Change::insert([("id", "1"), ("name", "  ann b ")]);
        let fates = Tested::<Plugin>::new("{}").unwrap().transform(&users, &[change]);
        assert_eq!(fates, [Fate::kept([("id", "1"), ("name", "ann b")])]);
    }
}
