//! A memory of the plugin's own that the host keeps. The host of 0.1.0 does not grant it yet, so that
//! a plugin that uses it does not load there. In a native test it is a map of the test's thread.
//!
//! A call of the host costs more than a look into a map, so ask for many keys at once where the rows
//! of a batch are known, and once per row where they are not.

/// What is known under each key, in the order of the keys.
#[must_use]
pub fn get(keys: &[String]) -> Vec<Option<String>> {
    host::get(keys)
}

/// Writes entries; none removes the key.
///
/// # Errors
/// The state would grow beyond the plugin's `state_mb`; nothing was written.
pub fn set(entries: &[(String, Option<String>)]) -> Result<(), String> {
    host::set(entries)
}

#[cfg(target_family = "wasm")]
use crate::bindings::granted::tailwater::plugin::state as host;

#[cfg(not(target_family = "wasm"))]
mod host {
    use std::cell::RefCell;
    use std::collections::HashMap;

    thread_local! {
        static ENTRIES: RefCell<HashMap<String, String>> = RefCell::default();
    }

    pub(super) fn get(keys: &[String]) -> Vec<Option<String>> {
        ENTRIES.with_borrow(|known| keys.iter().map(|key| known.get(key).cloned()).collect())
    }

    pub(super) fn set(entries: &[(String, Option<String>)]) -> Result<(), String> {
        ENTRIES.with_borrow_mut(|known| {
            for (key, value) in entries {
                match value {
                    Some(value) => drop(known.insert(key.clone(), value.clone())),
                    None => drop(known.remove(key)),
                }
            }
        });
        Ok(())
    }
}
