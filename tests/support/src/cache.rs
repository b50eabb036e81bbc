//! Where fetched services are kept: complete or absent, fetched once however many processes ask.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// `$TAILWATER_CACHE`, else `$XDG_CACHE_HOME/tailwater`, else `~/.cache/tailwater`: the directory
/// that `tailwater embedded fetch` uses too.
pub fn directory() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TAILWATER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("tailwater")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/tailwater")))
        .context("no cache directory: set TAILWATER_CACHE")
}

/// The cached directory `name`; when it lacks its file `proof`, `fill` makes its contents in an empty
/// directory that takes the name only once it is complete.
pub(crate) fn install(
    name: &str,
    proof: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = directory()?;
    let target = cache.join(name);
    if target.join(proof).exists() {
        return Ok(target);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join(format!(".{name}.lock")))?;
    lock.lock().with_context(|| format!("lock {name} in {}", cache.display()))?;
    if target.join(proof).exists() {
        return Ok(target);
    }
    let staging = cache.join(format!(".{name}.partial"));
    remove(&staging)?;
    fs::create_dir(&staging)?;
    fill(&staging).with_context(|| format!("fetch {name} into {}", cache.display()))?;
    // Somebody who does not take this lock may have been faster; theirs is complete as well.
    if target.join(proof).exists() {
        remove(&staging)?;
    } else {
        remove(&target)?;
        fs::rename(&staging, &target).with_context(|| format!("put {name} into place"))?;
    }
    ensure!(target.join(proof).exists(), "{name} came without {proof}");
    Ok(target)
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}
