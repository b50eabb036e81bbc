//! The `[embedded]` section.

use std::path::PathBuf;

use serde::Deserialize;

/// Settings of the embedded ClickHouse engine, which runs when `[clickhouse] url` is not set.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Directory of the engine's data, also `--data`. Default: `tailwater-data`.
    pub path: PathBuf,
    /// The engine's library, `libchdb.so`. Default: looked for in the cache that
    /// `tailwater embedded fetch` fills.
    pub library: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { path: "tailwater-data".into(), library: None }
    }
}
