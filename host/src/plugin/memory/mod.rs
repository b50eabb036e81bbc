//! What is remembered for a plugin: the state it writes itself, and the window by which its
//! duplicates are told.
//!
//! Memory is read and written in memory only: `state` and `window`, which must not be led astray by changes
//! that were `set_aside`. What a batch changed of it travels with the batch as a [`Delta`], and is kept on
//! disk, in the `store`, once everything up to the batch is durable one hop on. So what is on disk is always
//! the memory at one place of the source, and a start that reads on from there makes of it what it was.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::plugin::memory::state::Write;
use crate::plugin::memory::window::{Kept, Mark, Window, WindowDelta};
use crate::plugin::options::Options;
use crate::position::Position;

mod state;

mod set_aside;

mod window;

mod store;

pub(crate) use set_aside::Reach;
pub use set_aside::SetAside;
pub(crate) use state::State;
pub use store::{Error, StateStore};
pub(crate) use store::{IN_FILE_NAMES, Remembered};

/// What a memory is of: empty for all of the source, `topic/partition` for a part of it that may
/// move to another process.
pub type Scope = Arc<str>;

/// The memory of one plugin in one scope.
pub(crate) struct Memory {
    pub(crate) state: State,
    pub(crate) window: Window,
}

impl Memory {
    /// An empty one; `secret` is what rows are marked under.
    pub(crate) fn new(options: &Options, secret: [u8; 16]) -> Memory {
        Memory {
            state: State::new(options.state_mb),
            window: Window::new(options.window_keys, options.window_seconds, secret),
        }
    }

    /// Takes over limits that were changed.
    pub(crate) fn limit(&mut self, options: &Options) {
        self.state.limit(options.state_mb);
        self.window.limit(options.window_keys, options.window_seconds);
    }

    pub(crate) fn roll_back(&mut self) {
        self.state.roll_back();
        self.window.roll_back();
    }
}

/// What one batch changed of one memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub(crate) plugin: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) state: Vec<Write>,
    pub(crate) window: WindowDelta,
}

#[cfg(test)]
impl Delta {
    /// One that writes a value.
    pub(crate) fn writing(key: &str, value: String) -> Delta {
        let state = vec![(key.into(), Some(value.into()))];
        Delta { plugin: "p".into(), scope: "".into(), state, window: WindowDelta::default() }
    }
}

impl Delta {
    /// About how much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let entry = |(key, value): &Write| state::cost(key, value.as_deref().unwrap_or_default());
        let state: usize = self.state.iter().map(entry).sum();
        let WindowDelta { rows, emptied, .. } = &self.window;
        state + size_of_val(rows.as_slice()) + size_of_val(emptied.as_slice())
    }
}

/// What is to be written to disk: the changes of many batches, each thing once.
#[derive(Debug, Default)]
pub struct Pending(pub(crate) FxHashMap<(Arc<str>, Scope), Changed>);

/// What changed of one memory.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) state: HashMap<Box<str>, Option<Box<str>>>,
    /// Rows of the window, by their number.
    pub(crate) rows: BTreeMap<u64, (Mark, Kept)>,
    /// Rows with smaller numbers are gone.
    pub(crate) first: u64,
    pub(crate) newest: i64,
    pub(crate) emptied: FxHashMap<Mark, Position>,
}

impl Pending {
    /// How many entries of states it holds.
    pub(crate) fn entries(&self) -> usize {
        self.0.values().map(|changed| changed.state.len()).sum()
    }

    /// Takes in what the next batch changed.
    pub fn add(&mut self, delta: Delta) {
        let Delta { plugin, scope, state, window } = delta;
        let changed = self.0.entry((plugin, scope)).or_default();
        changed.state.extend(state);
        changed.rows.extend(window.rows);
        changed.first = window.first;
        changed.newest = window.newest;
        changed.emptied.extend(window.emptied);
        if changed.rows.first_key_value().is_some_and(|(number, _)| *number < window.first) {
            changed.rows = changed.rows.split_off(&window.first);
        }
    }
}
