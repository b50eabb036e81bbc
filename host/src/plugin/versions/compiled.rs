//! Compiled code, kept on disk from one start to the next.
//!
//! A file is named after the digest of the component, and after all that compiled code depends on: the
//! engine's version and configuration, and the processor.

use std::fs::{self, File, FileTimes};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::cache;
use crate::directories;
use crate::plugin::digest;

/// The layout of the files is a part of their names: one of an earlier layout is another file, not a damaged
/// one.
const LAYOUT: u8 = 2;
/// Bytes of the SHA-256 that a file ends with. The code before it is an ELF file, whose headers say
/// where its parts lie, so what follows them disturbs nobody.
const CHECKSUM_BYTES: usize = 32;
/// Bytes of compiled code that are kept; what was used least lately goes first.
const KEPT_BYTES: u64 = 2 << 30;

/// A directory of compiled code.
#[derive(Clone)]
pub(super) struct Compiled {
    engine: Engine,
    directory: PathBuf,
}

impl Compiled {
    /// That of an engine.
    pub(super) fn kept_in(directory: PathBuf, engine: Engine) -> Compiled {
        Compiled { engine, directory }
    }

    /// The code compiled from a component of that digest, if it is at hand.
    pub(super) fn find(&self, digest: &str) -> Option<Component> {
        let file = self.file(digest);
        if !self.is_private().ok()? {
            let directory = self.directory.display();
            tracing::warn!(%directory, "others may write there: compiling again");
            return None;
        }
        if !is_whole(&file).ok()? {
            tracing::warn!(file = %file.display(), "compiled plugin is damaged, compiling again");
            return None;
        }
        note_use(&file);
        deserialize(&self.engine, &file)
    }

    /// Keeps what a component of that digest was compiled to. Best effort: without the file the next start
    /// compiles again.
    pub(super) fn keep(&self, component: &Component, digest: &str) {
        let file = self.file(digest);
        let kept = component.serialize().map_err(io::Error::other);
        if let Err(error) = kept.and_then(|code| self.write(&file, &code)) {
            tracing::warn!(file = %file.display(), %error, "compiled plugin is not cached");
        }
    }

    fn write(&self, file: &Path, code: &[u8]) -> io::Result<()> {
        directories::create(&self.directory)?;
        if !self.is_private()? {
            return Err(io::Error::other("others may write there"));
        }
        let content = [code, &Sha256::digest(code)].concat();
        let unfinished = file.with_extension(format!("{}.part", std::process::id()));
        fs::write(&unfinished, content)?;
        fs::rename(&unfinished, file)?;
        prune(&self.directory, KEPT_BYTES)
    }

    /// Whether code passed a test here before; `test` is the digest of all that the outcome depends on.
    pub(super) fn has_passed(&self, digest: &str, test: &str) -> bool {
        let file = self.passed_file(digest, test);
        file.is_some_and(|file| file.exists()) && self.is_private().unwrap_or(false)
    }

    /// Remembers that code passed a test. Best effort: else it is tested again.
    pub(super) fn note_passed(&self, digest: &str, test: &str) {
        if let Some(file) = self.passed_file(digest, test) {
            File::create(file).ok();
        }
    }

    fn passed_file(&self, digest: &str, test: &str) -> Option<PathBuf> {
        Some(self.file(digest).with_extension(format!("{}.passed", test.get(..16)?)))
    }

    fn file(&self, digest: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (LAYOUT, self.engine.precompile_compatibility_hash()).hash(&mut hasher);
        self.directory.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }

    /// Whether nobody but this user, and root, can write to the directory: its owner could at any time.
    fn is_private(&self) -> io::Result<bool> {
        let directory = fs::metadata(&self.directory)?;
        Ok(may_trust(directory.mode(), directory.uid(), rustix::process::geteuid().as_raw()))
    }
}

/// Where compiled code is kept; none without a cache directory.
#[must_use]
pub fn compiled_code() -> Option<PathBuf> {
    Some(cache::directory()?.join("plugins"))
}

fn may_trust(mode: u32, owner: u32, user: u32) -> bool {
    mode & 0o022 == 0 && owner == user
}

/// Best effort: code whose use is not noted is compiled again the sooner. The system itself notes it once
/// a day, or never.
fn note_use(file: &Path) {
    let now = FileTimes::new().set_accessed(SystemTime::now());
    File::open(file).and_then(|file| file.set_times(now)).ok();
}

/// Removes what was used least lately, so that no more than so many bytes of compiled code are left; the
/// last used stays in any case. A process that has a file mapped keeps what it has.
fn prune(directory: &Path, most: u64) -> io::Result<()> {
    let code = |path: &PathBuf| {
        let kinds = ["cwasm", "part", "passed"];
        path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension == *kind))
    };
    let entries = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let used = |path: PathBuf| {
        // Another process may have removed it.
        let metadata = fs::metadata(&path).ok()?;
        Some((metadata.accessed().ok()?, metadata.len(), path))
    };
    let mut files: Vec<_> = entries.filter(code).filter_map(used).collect();
    files.sort_by(|a, b| b.cmp(a));
    let mut bytes = 0;
    for (index, (_, size, path)) in files.iter().enumerate() {
        bytes += size;
        if bytes > most && index > 0 {
            fs::remove_file(path).ok();
        }
    }
    Ok(())
}

/// Whether a file ends with the checksum of what is before it.
fn is_whole(file: &Path) -> io::Result<bool> {
    let mut file = File::open(file)?;
    let Some(code) = file.metadata()?.len().checked_sub(CHECKSUM_BYTES as u64) else {
        return Ok(false);
    };
    let digest = digest::of_reader((&mut file).take(code))?;
    let mut checksum = Vec::new();
    file.read_to_end(&mut checksum)?;
    Ok(digest == checksum)
}

#[expect(unsafe_code, reason = "compiled code can only be checked by who wrote it")]
fn deserialize(engine: &Engine, file: &Path) -> Option<Component> {
    // SAFETY: the file is what `Component::serialize` gave us: it lies in our own directory, and the
    // checksum in it rules out a torn write. It is mapped, which nobody disturbs: files of the directory
    // are replaced as a whole, and never written to. The engine itself refuses code of another version,
    // configuration or CPU.
    unsafe { Component::deserialize_file(engine, file) }.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_directory_of_another_user_is_not_trusted() {
        assert!(may_trust(0o40_700, 7, 7) && may_trust(0o40_755, 7, 7));
        assert!(!may_trust(0o40_700, 8, 7), "its owner may write at any time");
        assert!(!may_trust(0o40_770, 7, 7) && !may_trust(0o40_707, 7, 7));
    }

    #[test]
    fn what_was_used_least_lately_is_removed_first() {
        let scratch = tempfile::tempdir().unwrap();
        let begin = SystemTime::now() - Duration::from_secs(1000);
        let file = |name: &str, used: u64| {
            let path = scratch.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let times = FileTimes::new().set_accessed(begin + Duration::from_secs(used));
            File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
            path
        };
        let files = [file("a.cwasm", 3), file("b.cwasm", 1), file("c.7.part", 2), file("d", 0)];
        let left = || files.each_ref().map(|path| path.exists());
        prune(scratch.path(), 300).unwrap();
        assert_eq!(left(), [true; 4]);
        note_use(&files[1]);
        prune(scratch.path(), 200).unwrap();
        assert_eq!(left(), [true, true, false, true], "nothing but compiled code is removed");
        prune(scratch.path(), 10).unwrap();
        assert_eq!(left(), [false, true, false, true], "the last used stays");
    }
}
