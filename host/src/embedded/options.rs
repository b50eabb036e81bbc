//! The `[embedded]` section.

use std::path::PathBuf;

use serde::Deserialize;

/// The `[embedded]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Directory of the engine's data; one process uses it at a time. Default:
    /// `tailwater-data`.
    pub path: PathBuf,
    /// The engine's library. Default: `$TAILWATER_LIBCHDB`, else `libchdb.so` beside the program,
    /// else where `tailwater embedded fetch` keeps it.
    pub library: Option<PathBuf>,
    /// Port of 127.0.0.1 that the engine serves ClickHouse's HTTP interface on. Default: 0, any
    /// free one.
    pub port: u16,
    /// Memory that the engine may use, in MiB. Default: half of the machine's.
    pub memory_mb: Option<u64>,
    /// Threads of one statement. Default: the machine's cores.
    pub threads: Option<u32>,
    /// Statements that run at the same time; further ones wait. Default: 32.
    pub concurrent_statements: u32,
    /// The program to start as the engine's process. Default: this one.
    #[serde(skip)]
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            path: "tailwater-data".into(),
            library: None,
            port: 0,
            memory_mb: None,
            threads: None,
            concurrent_statements: 32,
            program: None,
        }
    }
}
