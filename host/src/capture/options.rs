//! The `[source]` section.

use serde::Deserialize;

use crate::config::Secret;

/// How the source is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// libpq URL or keyword string. Required, here or as `--source`.
    pub url: Secret,
    /// Replication slot; created if absent. Also the pipeline's name in checkpoints. Default:
    /// `tailwater_<database>`, since a server's databases share their slots' names.
    pub slot: String,
    /// Publication; created if absent.
    pub publication: String,
    /// Tables (`schema.table`) to put into a publication that Tailwater creates; empty means every
    /// table that has a key. Ignored when the publication exists and is not Tailwater's own.
    pub tables: Vec<String>,
    /// Tables to leave out when `tables` is empty.
    pub exclude: Vec<String>,
    /// Whether tables that were never copied are copied first.
    pub snapshot: SnapshotMode,
    /// Tables copied at once.
    pub snapshot_workers: usize,
    /// How long changes may wait for company before a batch goes on, in milliseconds.
    pub linger_ms: u64,
    /// Without a byte from the server for this long the connection is taken for dead, in seconds.
    pub silence_timeout_s: u64,
    /// Whether there is a section `[kafka]`: changes go into topics, each record for itself.
    #[serde(skip)]
    pub over_kafka: bool,
}

/// The `snapshot` setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotMode {
    /// Copy every table once.
    Initial,
    /// Only changes from now on.
    Never,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            url: Secret::default(),
            slot: String::new(),
            publication: "tailwater".into(),
            tables: Vec::new(),
            exclude: Vec::new(),
            snapshot: SnapshotMode::Initial,
            snapshot_workers: 2,
            linger_ms: 5,
            silence_timeout_s: 60,
            over_kafka: false,
        }
    }
}

impl Options {
    /// These options with the defaults that depend on the database.
    #[must_use]
    pub fn for_database(&self, database: &str) -> Options {
        let mut options = self.clone();
        if options.slot.is_empty() {
            let plain = |c: char| match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9' | '_') => c,
                _ => '_',
            };
            options.slot =
                "tailwater_".chars().chain(database.chars().map(plain)).take(63).collect();
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_has_a_slot_name_of_its_own() {
        let options = Options::default();
        assert_eq!(options.for_database("Shop-1").slot, "tailwater_shop_1");
        let own = Options { slot: "mine".into(), ..options };
        assert_eq!(own.for_database("shop").slot, "mine");
        assert_eq!(Options::default().for_database(&"x".repeat(80)).slot.len(), 63);
    }
}
