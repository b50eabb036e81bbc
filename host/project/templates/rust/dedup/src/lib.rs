//! Drops updates that leave the columns that count as they were.

use serde::Deserialize;
use tailwater_guest::{Dedup, Interest, Row, Table, export_dedup};

/// The plugin's `config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The columns that count; a table that lacks one of them is passed over.
    pub columns: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { columns: vec!["name".to_owned()] }
    }
}

/// The plugin.
pub struct Plugin(Config);

impl Dedup for Plugin {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        // Without a column every update would say nothing new.
        if config.columns.is_empty() {
            return Err("config: `columns` names one column at least".to_owned());
        }
        Ok(Plugin(config))
    }

    /// Which columns it wants to see of a table; none: it never sees a row of it.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let all = self.0.columns.iter().all(|name| table.has(name));
        Ok(all.then(|| Interest::of(&self.0.columns)))
    }

    /// Writes the row's key: a change whose key equals the one before of its row is dropped. False: it
    /// has none, and stays.
    fn key(&mut self, row: &Row<'_>, key: &mut String) -> bool {
        for column in 0..row.columns() {
            // Without a value it is not known whether anything changed.
            let Some(text) = row.text(column) else { return false };
            key.push_str(text);
            // No text of PostgreSQL's holds it.
            key.push('\0');
        }
        true
    }
}

export_dedup!(Plugin);

#[cfg(test)]
mod tests {
    use tailwater_guest::testing::{Change, TestTable, TestedDedup};

    use super::*;

    #[test]
    fn only_the_columns_that_count_are_in_the_key() {
        let users = TestTable::new("public.users").key("id", "bigint").column("name", "text");
        let user = |id, name| Change::insert([("id", id), ("name", name)]);
        let mut plugin = TestedDedup::<Plugin>::new("{}").unwrap();
        let keys = plugin.keys(&users, &[user("1", "ann"), user("2", "ann"), user("2", "bob")]);
        assert_eq!(keys[0], keys[1]);
        assert_ne!(keys[1], keys[2]);
    }

    #[test]
    fn without_a_column_it_does_not_start() {
        assert!(TestedDedup::<Plugin>::new("{\"columns\": []}").is_err());
    }
}
