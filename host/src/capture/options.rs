//! The `[source]` section.

use serde::Deserialize;

use crate::config::Secret;

/// How the source is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// libpq URL or keyword string. Required, here or as `--source`.
    pub url: Secret,
    /// Replication slot; created if absent. Also the pipeline's name in checkpoints.
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
            slot: "tailwater".into(),
            publication: "tailwater".into(),
            tables: Vec::new(),
            exclude: Vec::new(),
            snapshot: SnapshotMode::Initial,
            snapshot_workers: 2,
            linger_ms: 5,
            silence_timeout_s: 60,
        }
    }
}
