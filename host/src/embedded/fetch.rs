//! `tailwater embedded fetch`.

use std::path::PathBuf;

use super::error::Error;
use super::locate::find_library;
use super::options::Options;

/// The engine's library, which must be on this machine.
///
/// # Errors
/// [`Error::NoLibrary`].
pub fn fetch(options: &Options) -> Result<PathBuf, Error> {
    find_library(options.library.as_deref())
}
