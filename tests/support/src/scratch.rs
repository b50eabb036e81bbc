//! Directories that live as long as their owner, and names nobody else uses.
//!
//! A killed process cannot remove its directory, so each one holds a lock file that its owner keeps
//! locked: whoever starts next removes the directories whose lock is free.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

const PREFIX: &str = "tailwater-";
const STAGING_PREFIX: &str = ".tailwater-";
const LOCK: &str = "owner.lock";

/// A directory of one's own under the system's temporary directory, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a directory whose name begins with `purpose`. The path is short, because the unix
    /// sockets in it may be 107 bytes long at most.
    pub fn new(purpose: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep_scratch);
        let name = unique_name(purpose);
        let temporary = std::env::temp_dir();
        // Locked before it gets the name that sweepers look for, else one could take it for stale.
        let staging = temporary.join(format!("{STAGING_PREFIX}{name}"));
        fs::create_dir(&staging).with_context(|| format!("create {}", staging.display()))?;
        let lock = File::create(staging.join(LOCK))?;
        lock.lock()?;
        let path = temporary.join(format!("{PREFIX}{name}"));
        fs::rename(&staging, &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the directory.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A server that is just going down may still write: what stays is swept at the next start.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Removes the directories of processes that are gone.
pub fn sweep_scratch() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn is_abandoned(directory: &Path) -> bool {
    let Ok(lock) = File::open(directory.join(LOCK)) else {
        return false;
    };
    !matches!(lock.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_)))
}

/// `prefix` with a suffix that no other caller gets, on this machine, for years: lower-case letters,
/// digits and underscores, fit for a database, slot, topic prefix or consumer group.
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{prefix}_{}_{:x}_{count}", std::process::id(), now & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_survives_a_sweep_and_an_abandoned_one_does_not() {
        let used = Scratch::new("used").unwrap();
        let stale = std::env::temp_dir().join(format!("{PREFIX}{}", unique_name("stale")));
        fs::create_dir(&stale).unwrap();
        File::create(stale.join(LOCK)).unwrap();
        sweep_scratch();
        assert!(used.path().exists());
        assert!(!stale.exists());
    }

    #[test]
    fn unique_names_never_repeat() {
        assert_ne!(unique_name("a"), unique_name("a"));
    }
}
