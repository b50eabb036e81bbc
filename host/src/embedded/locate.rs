//! Where the engine's library is.

use std::path::{Path, PathBuf};

use super::error::Error;
use crate::cache;

/// Names the library, before all other places.
const VARIABLE: &str = "TAILWATER_LIBCHDB";
pub(super) const FILE: &str = "libchdb.so";
/// The directory of the pinned version in the cache.
const VERSIONED: &str = "libchdb-26.7.3";

/// The engine's library: the one named, else the first that is there of `$TAILWATER_LIBCHDB`,
/// `libchdb.so` beside the program, and the cache.
///
/// # Errors
/// [`Error::NoLibrary`], which says how to get it.
pub fn find_library(named: Option<&Path>) -> Result<PathBuf, Error> {
    let looked = match named {
        Some(path) => vec![path.to_owned()],
        None => candidates(),
    };
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::NoLibrary { looked }),
    }
}

/// Whether the environment names the library.
pub(super) fn is_named() -> bool {
    named().is_some()
}

fn candidates() -> Vec<PathBuf> {
    if let Some(path) = named() {
        return vec![path];
    }
    let program = std::env::current_exe().ok();
    let beside = program.and_then(|path| path.parent().map(|directory| directory.join(FILE)));
    beside.into_iter().chain(cached_library().ok()).collect()
}

/// Where the cache keeps the library, whether it is there or not.
pub(super) fn cached_library() -> Result<PathBuf, Error> {
    let cache = cache::directory().ok_or(Error::NoCache)?;
    Ok(cache.join(VERSIONED).join(FILE))
}

fn named() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}
