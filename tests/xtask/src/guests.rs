//! Builds the plugins into `target/plugins/<name>.wasm`; tests build the same way.

use std::path::PathBuf;

use anyhow::Result;
use tailwater_test_support::guests;

/// Builds every plugin in `plugins/`; the files, in the order of their names.
pub(crate) fn build_guests() -> Result<Vec<PathBuf>> {
    guests::plugins()
}
