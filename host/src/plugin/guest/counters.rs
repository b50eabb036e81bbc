//! The names of the counters that a plugin has of its own.
//!
//! They are those of all versions and instances of a plugin, because a metric stays once it is there, and
//! a new instance is what a trap makes.

use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashSet;

/// Counters that a plugin may have.
const COUNTERS_MAX: usize = 32;
/// Characters of a counter's name.
const NAME_MAX: usize = 64;

/// The counters of one plugin.
#[derive(Default)]
pub(crate) struct Counters(Mutex<Names>);

#[derive(Default)]
struct Names {
    admitted: FxHashSet<String>,
    any_refused: bool,
}

/// A counter is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) why: &'static str,
    /// None was refused before.
    pub(crate) is_first: bool,
}

impl Counters {
    /// Takes in a name, which is the plugin's from then on.
    ///
    /// # Errors
    /// It is no name of a counter, or the plugin has as many as it may.
    pub(crate) fn admit(&self, name: &str) -> Result<(), Refusal> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.admitted.contains(name) {
            return Ok(());
        }
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let why = if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
            "its name is not 1 to 64 of a-z, 0-9 and _"
        } else if names.admitted.len() == COUNTERS_MAX {
            "a plugin may have 32"
        } else {
            names.admitted.insert(name.to_owned());
            return Ok(());
        };
        let is_first = !std::mem::replace(&mut names.any_refused, true);
        Err(Refusal { why, is_first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_has_so_many_counters_and_keeps_them() {
        let counters = Counters::default();
        for number in 0..COUNTERS_MAX {
            counters.admit(&format!("counter_{number}")).unwrap();
        }
        let refused = |is_first| Err(Refusal { why: "a plugin may have 32", is_first });
        assert_eq!(counters.admit("one_more"), refused(true));
        assert_eq!(counters.admit("another"), refused(false), "it is told once");
        assert_eq!(counters.admit("counter_0"), Ok(()));
    }

    #[test]
    fn what_is_no_name_takes_no_place() {
        let counters = Counters::default();
        let long = "x".repeat(NAME_MAX + 1);
        for name in ["", "Big", "a b", "a\u{e9}", &long] {
            let refusal = counters.admit(name).unwrap_err();
            assert!(refusal.why == "its name is not 1 to 64 of a-z, 0-9 and _", "{name}");
        }
        assert_eq!(counters.admit(&long[1..]), Ok(()));
    }
}
