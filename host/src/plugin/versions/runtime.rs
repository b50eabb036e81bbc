//! From a file to a component that is compiled.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use rustix::process::nice;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Module};

use crate::plugin::digest;
use crate::plugin::error::Error;
use crate::plugin::guest::{Guest, Metering, engine};
use crate::plugin::versions::compiled::Compiled;
use crate::plugin::versions::quarantine::Quarantine;

/// A module with one function that does nothing.
const SMALLEST: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// Loads plugins. Cheap to clone; one per process is enough.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<Guest>>,
    pub(crate) quarantine: Quarantine,
    cache: Option<Compiled>,
    /// Digests of what was compiled here. One component is compiled at a time: that takes all cores by
    /// itself, and a lot of memory.
    compiled: Arc<Mutex<HashSet<String>>>,
    /// How much nicer than others the threads are that compile.
    niceness: i32,
}

/// Of compiling beside a version that runs: a tenth of a core that others want, all of one that nobody does.
const YIELDING: i32 = 10;

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
        let engine = engine::start(metering).map_err(fail)?;
        let linker = Arc::new(engine::linker(&engine).map_err(fail)?);
        let cache = cache.map(|directory| Compiled::kept_in(directory, engine.clone()));
        let (quarantine, compiled) = (Quarantine::default(), Arc::default());
        Ok(Runtime { engine, linker, quarantine, cache, compiled, niceness: 0 })
    }

    /// One that compiles what nothing waits for, and takes no time from what runs.
    pub(crate) fn yielding(self) -> Runtime {
        Runtime { niceness: YIELDING, ..self }
    }

    /// Keeps in a directory which versions of plugins are not to run again; else that is known as long as
    /// the process lives.
    #[must_use]
    pub fn with_quarantine(self, directory: PathBuf) -> Runtime {
        Runtime { quarantine: Quarantine::kept_in(directory), ..self }
    }

    /// Reads and compiles a component, or takes the compiled code from the cache.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotAComponent`], [`Error::Engine`].
    pub(crate) fn code(&self, path: &Path) -> Result<Code, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let (digest, bytes) = digest::of_file(path).map_err(read)?;
        if let Some(component) = self.cached(&digest) {
            return Ok(Code { component, digest, bytes });
        }
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let wasm = fs::read(path).map_err(read)?;
        let (digest, bytes) = (digest::of(&wasm), wasm.len() as u64);
        // Somebody else may have waited for the same.
        let known = compiled.contains(&digest).then(|| self.cached(&digest)).flatten();
        if let Some(component) = known {
            return Ok(Code { component, digest, bytes });
        }
        let component = self.compile(&wasm).map_err(|source| {
            // Where nothing compiles, the file is not to blame.
            match Module::from_binary(&self.engine, SMALLEST) {
                Ok(_) => Error::NotAComponent { path: path.to_owned(), source },
                Err(source) => Error::Engine { source },
            }
        })?;
        if let Some(cache) = &self.cache {
            cache.keep(&component, &digest);
            compiled.insert(digest.clone());
        }
        Ok(Code { component, digest, bytes })
    }

    /// Compiles on threads of its own: a priority that was lowered stays so.
    fn compile(&self, wasm: &[u8]) -> wasmtime::Result<Component> {
        let compile = || Component::from_binary(&self.engine, wasm);
        // Without threads it compiles all the same.
        threads(self.niceness).map_or_else(|_| compile(), |threads| threads.install(compile))
    }

    /// The code of a version that ran here before, if it is still at hand.
    pub(crate) fn code_of(&self, digest: &str) -> Option<Code> {
        let component = self.cached(digest)?;
        Some(Code { component, digest: digest.to_owned(), bytes: 0 })
    }

    fn cached(&self, digest: &str) -> Option<Component> {
        self.cache.as_ref()?.find(digest)
    }

    /// Whether code passed a test on this machine; `test` is the digest of all that the outcome depends on.
    pub(crate) fn has_passed(&self, digest: &str, test: &str) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.has_passed(digest, test))
    }

    /// Remembers that code passed a test. Best effort: else it is tested again.
    pub(crate) fn note_passed(&self, digest: &str, test: &str) {
        self.cache.iter().for_each(|cache| cache.note_passed(digest, test));
    }
}

/// One for each core, so much nicer than the one that asks.
fn threads(niceness: i32) -> Result<ThreadPool, ThreadPoolBuildError> {
    let threads = ThreadPoolBuilder::new().thread_name(|number| format!("compile-{number}"));
    let yields = move |_| {
        // It compiles in any case, if not as politely.
        nice(niceness).ok();
    };
    threads.start_handler(yields).build()
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn threads_that_compile_beside_a_version_yield_and_who_asks_for_it_does_not() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        let runtime = Runtime::new(None).unwrap();
        assert_eq!(threads(runtime.niceness).unwrap().install(niceness), before);
        let yielding = runtime.yielding();
        // There is nothing nicer than 19.
        let nicer = (before + YIELDING).min(19);
        assert_eq!(threads(yielding.niceness).unwrap().install(niceness), nicer);
        assert_eq!(niceness(), before);
    }
}
