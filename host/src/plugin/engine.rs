//! The WebAssembly engine: one per process, with its clock and its cache of compiled code.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Module, OptLevel};

use crate::plugin::bindings::{clock, log, metrics, state};
use crate::plugin::error::Error;
use crate::plugin::limits::Guest;

/// The epoch's tick: what deadlines are rounded up to.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A module with one function that does nothing.
const SMALLEST: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// The layout of cache files is a part of their names: one of an earlier layout is another file, not a damaged one.
const LAYOUT: u8 = 2;
/// Bytes of the SHA-256 that a cache file ends with. The code before it is an ELF file, whose headers say
/// where its parts lie, so what follows them disturbs nobody.
const CHECKSUM_BYTES: usize = 32;
/// Bytes of compiled code that are kept; what was used least lately goes first.
const KEPT_BYTES: u64 = 2 << 30;
/// Bytes that are read at once for a digest: they stay in the processor's cache.
const READ_BYTES: usize = 64 << 10;

/// Loads plugins. Cheap to clone; one per process is enough.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<Guest>>,
    cache: Option<PathBuf>,
    /// Digests of what was compiled here. One component is compiled at a time: that takes all cores by
    /// itself, and a lot of memory.
    compiled: Arc<Mutex<HashSet<String>>>,
}

/// A component as it was on disk.
pub(crate) struct Code {
    pub(crate) component: Component,
    /// SHA-256 of the file, hex.
    pub(crate) digest: String,
    /// Size of the file.
    pub(crate) bytes: u64,
}

impl Runtime {
    /// Starts the engine. Compiled code is kept in `cache`, which must be a directory that nobody
    /// but this service can write to: what lies there is mapped, and run as machine code.
    ///
    /// # Errors
    /// [`Error::Engine`] if this machine cannot run compiled WebAssembly.
    pub fn new(cache: Option<PathBuf>) -> Result<Runtime, Error> {
        Runtime::metered(cache, Metering::Off)
    }

    /// [`new`](Self::new), for a runtime that may count what plugins execute.
    pub(crate) fn metered(cache: Option<PathBuf>, metering: Metering) -> Result<Runtime, Error> {
        let fail = |source| Error::Engine { source };
        let engine = Engine::new(&config(metering)).map_err(fail)?;
        let mut linker = Linker::new(&engine);
        log::add_to_linker::<_, Guest>(&mut linker, |guest| guest).map_err(fail)?;
        metrics::add_to_linker::<_, Guest>(&mut linker, |guest| guest).map_err(fail)?;
        clock::add_to_linker::<_, Guest>(&mut linker, |guest| guest).map_err(fail)?;
        state::add_to_linker::<_, Guest>(&mut linker, |guest| guest).map_err(fail)?;
        start_ticker(&engine);
        Ok(Runtime { engine, linker: Arc::new(linker), cache, compiled: Arc::default() })
    }

    /// Reads and compiles a component, or takes the compiled code from the cache.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotAComponent`], [`Error::Engine`].
    pub(crate) fn code(&self, path: &Path) -> Result<Code, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let (digest, bytes) = digest_of(path).map_err(read)?;
        if let Some(component) = self.cached(&digest) {
            return Ok(Code { component, digest, bytes });
        }
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let wasm = fs::read(path).map_err(read)?;
        let (digest, bytes) = (hex(&Sha256::digest(&wasm)), wasm.len() as u64);
        // Somebody else may have waited for the same.
        let known = compiled.contains(&digest).then(|| self.cached(&digest)).flatten();
        if let Some(component) = known {
            return Ok(Code { component, digest, bytes });
        }
        let component = Component::from_binary(&self.engine, &wasm).map_err(|source| {
            // Where nothing compiles, the file is not to blame.
            match Module::from_binary(&self.engine, SMALLEST) {
                Ok(_) => Error::NotAComponent { path: path.to_owned(), source },
                Err(source) => Error::Engine { source },
            }
        })?;
        if let Some(file) = self.cache_file(&digest) {
            keep(&component, &file);
            compiled.insert(digest.clone());
        }
        Ok(Code { component, digest, bytes })
    }

    fn cache_file(&self, digest: &str) -> Option<PathBuf> {
        let mut hasher = DefaultHasher::new();
        (LAYOUT, self.engine.precompile_compatibility_hash()).hash(&mut hasher);
        let name = format!("{digest}-{:016x}.cwasm", hasher.finish());
        self.cache.as_ref().map(|directory| directory.join(name))
    }

    /// The code compiled from a file of that digest, if it is at hand.
    fn cached(&self, digest: &str) -> Option<Component> {
        let file = self.cache_file(digest)?;
        let directory = file.parent()?;
        if !is_private(&fs::metadata(directory).ok()?) {
            let directory = directory.display();
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
}

/// Whether nobody but this user, and root, can write to a directory: its owner could at any time.
fn is_private(directory: &Metadata) -> bool {
    may_trust(directory.mode(), directory.uid(), rustix::process::geteuid().as_raw())
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
        path.extension().is_some_and(|extension| extension == "cwasm" || extension == "part")
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

/// Whether a cache file ends with the checksum of what is before it.
fn is_whole(file: &Path) -> io::Result<bool> {
    let mut file = File::open(file)?;
    let Some(code) = file.metadata()?.len().checked_sub(CHECKSUM_BYTES as u64) else {
        return Ok(false);
    };
    let digest = digest((&mut file).take(code))?;
    let mut checksum = Vec::new();
    file.read_to_end(&mut checksum)?;
    Ok(digest == checksum)
}

/// SHA-256 of a file, hex, and its size.
pub(crate) fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let digest = hex(&digest(&mut file)?);
    Ok((digest, io::Seek::stream_position(&mut file)?))
}

/// SHA-256, without all of it in memory.
fn digest(mut content: impl Read) -> io::Result<Vec<u8>> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_vec()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[expect(unsafe_code, reason = "compiled code can only be checked by who wrote it")]
fn deserialize(engine: &Engine, file: &Path) -> Option<Component> {
    // SAFETY: the file is what `Component::serialize` gave us: it lies in our own directory, and the
    // checksum in it rules out a torn write. It is mapped, which nobody disturbs: files of the directory
    // are replaced as a whole, and never written to. The engine itself refuses code of another version,
    // configuration or CPU.
    unsafe { Component::deserialize_file(engine, file) }.ok()
}

/// Where compiled code is kept for this user; none without a home directory.
#[must_use]
pub fn compiled_code() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Some(cache?.join("tailwater/plugins"))
}

/// Whether an engine counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metering {
    /// It does not: counting costs time.
    Off,
    /// The instructions that plugins execute.
    Instructions,
}

fn config(metering: Metering) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // Plugins are plain functions; the machinery for async ones would quadruple a call's cost.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    if metering == Metering::Instructions {
        config.consume_fuel(true);
        // Their number is the same however well they are compiled, and this is faster.
        config.cranelift_opt_level(OptLevel::None);
    }
    config
}

fn start_ticker(engine: &Engine) {
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    let builder = thread::Builder::new().name("plugin-clock".to_owned());
    builder.spawn(tick).expect("a service can start a thread");
}

/// Best effort: without the file the next start compiles again.
fn keep(component: &Component, file: &Path) {
    let kept = component.serialize().map_err(io::Error::other).and_then(|code| {
        let directory = file.parent().expect("the file lies in the cache directory");
        create_private(directory)?;
        if !is_private(&fs::metadata(directory)?) {
            return Err(io::Error::other("others may write there"));
        }
        let content = [&code[..], &Sha256::digest(&code)].concat();
        let unfinished = file.with_extension(format!("{}.part", std::process::id()));
        fs::write(&unfinished, content)?;
        fs::rename(&unfinished, file)?;
        prune(directory, KEPT_BYTES)
    });
    if let Err(error) = kept {
        tracing::warn!(file = %file.display(), %error, "compiled plugin is not cached");
    }
}

fn create_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
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
