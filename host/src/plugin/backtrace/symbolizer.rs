//! Where in its source a plugin trapped, if it was built with debug information.
//!
//! That is read when a plugin traps for the first time, and of the file itself: a plugin that does not
//! trap, and one without debug information, pay nothing for it. Strangers write it, so whatever it says,
//! only so many steps are gone, and what is damaged or too large just names no place.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::plugin::backtrace::dwarf::{Debug, Steps};
use crate::plugin::digest;

/// Places that are remembered: rows that fail do so at the same ones.
const KNOWN_MAX: usize = 1024;
/// Steps that all lookups of a version may take, remembered ones aside; a second of them or so.
const STEPS: Steps = Steps(50_000_000);

/// Finds where in the source one version's code comes from.
pub(crate) struct Symbolizer {
    path: PathBuf,
    /// SHA-256 of the file, hex: another version may lie there by now.
    digest: String,
    read: Mutex<Option<Read>>,
}

struct Read {
    debug: Option<Debug>,
    left: Steps,
    known: FxHashMap<(usize, usize), Vec<String>>,
}

impl Symbolizer {
    /// Of the component in that file.
    pub(crate) fn of(path: PathBuf, digest: String) -> Symbolizer {
        Symbolizer { path, digest, read: Mutex::new(None) }
    }

    /// The places of an instruction: that of the function which was inlined deepest first, `name (file:line)`
    /// each. `offset`: in the component; `start`: that of the function it is in.
    pub(crate) fn places(&self, start: usize, offset: usize) -> Vec<String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Read { debug, left, known } = read.get_or_insert_with(|| self.read());
        let Some(debug) = debug else { return Vec::new() };
        if let Some(known) = known.get(&(start, offset)) {
            return known.clone();
        }
        let places = debug.places(start, offset, left).unwrap_or_default();
        if known.len() < KNOWN_MAX {
            known.insert((start, offset), places.clone());
        }
        places
    }

    fn read(&self) -> Read {
        let file = fs::read(&self.path).ok();
        let file = file.filter(|file| digest::of(file) == self.digest);
        let debug = file.as_deref().and_then(Debug::of);
        Read { debug, left: STEPS, known: FxHashMap::default() }
    }
}
