//! A memory of the plugin's own that the host keeps; needs `grants = ["state"]`.
//!
//! It is there while a batch is shown: in [`new`](crate::Transform::new) and
//! [`subscribe`](crate::Transform::subscribe) it is empty and takes nothing. What a call wrote counts if
//! the call ends well; a call that traps wrote nothing, and its rows are shown again. It is of all tables
//! that the plugin sees, whose rows then come in the order of the log, unless the plugin runs on a
//! sink over Kafka: there each partition of a topic has its own. In a native test it is a map of the
//! thread, which is empty again for every plugin that [`testing`](crate::testing) makes.
//!
//! ```
//! use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform, state};
//!
//! /// Numbers the changes of each customer.
//! struct Number;
//!
//! impl Transform for Number {
//!     type Config = serde::de::IgnoredAny;
//!
//!     fn new(_: Self::Config) -> Result<Self, String> {
//!         Ok(Number)
//!     }
//!
//!     fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
//!         let columns = ["customer", "number"];
//!         Ok(columns.iter().all(|column| table.has(column)).then(|| Interest::of(columns)))
//!     }
//!
//!     fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
//!         let Some(customer) = row.text(0) else { return Verdict::Keep };
//!         let before = state::get_one(customer).and_then(|count| count.parse().ok());
//!         let count = (before.unwrap_or(0_u64) + 1).to_string();
//!         if let Err(full) = state::put(customer, &count) {
//!             return Verdict::Fault(full);
//!         }
//!         row.set(1, &count);
//!         Verdict::Keep
//!     }
//! }
//!
//! export_transform!(Number);
//! ```
//!
//! A call of the host costs more than a look into a map, so ask for many keys at once where they are
//! known.

/// What is known under each key, in the order of the keys.
#[must_use]
pub fn get(keys: &[String]) -> Vec<Option<String>> {
    host::get(keys)
}

/// What is known under one key.
#[must_use]
pub fn get_one(key: &str) -> Option<String> {
    host::get(&[key.to_owned()]).pop().flatten()
}

/// Writes entries, all of them or none; a value of none removes the key. Of a key that comes twice the
/// last entry counts.
///
/// # Errors
/// In a sentence for operators: the state would grow beyond the plugin's `state_mb`.
pub fn set(entries: &[(String, Option<String>)]) -> Result<(), String> {
    host::set(entries)
}

/// Writes one entry.
///
/// # Errors
/// As [`set`].
pub fn put(key: &str, value: &str) -> Result<(), String> {
    host::set(&[(key.to_owned(), Some(value.to_owned()))])
}

/// Removes one key.
///
/// # Errors
/// As [`set`], though what removes is not refused for its size.
pub fn remove(key: &str) -> Result<(), String> {
    host::set(&[(key.to_owned(), None)])
}

#[cfg(target_family = "wasm")]
use crate::bindings::granted::tailwater::plugin::state as host;

/// Empties the state of the thread, for another test.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn clear() {
    host::clear();
}

#[cfg(not(target_family = "wasm"))]
mod host {
    use std::cell::RefCell;
    use std::collections::HashMap;

    thread_local! {
        static ENTRIES: RefCell<HashMap<String, String>> = RefCell::default();
    }

    pub(super) fn clear() {
        ENTRIES.take();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Change, Fate, TestTable, Tested};
    use crate::{Interest, Row, Table, Transform, Verdict};

    /// Writes what it knew under the row's id into its name, and remembers the name.
    struct Before;

    impl Transform for Before {
        type Config = serde::de::IgnoredAny;

        fn new(_: Self::Config) -> Result<Self, String> {
            Ok(Before)
        }

        fn subscribe(&mut self, _: &Table) -> Result<Option<Interest>, String> {
            Ok(Some(Interest::of(["id", "name"])))
        }

        fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
            let (id, name) = (row.text(0).unwrap_or_default(), row.text(1));
            row.set(1, &get_one(id).unwrap_or_default());
            let written = name.map_or_else(|| remove(id), |name| put(id, name));
            written.map_or_else(Verdict::Fault, |()| Verdict::Keep)
        }
    }

    #[test]
    fn a_tested_plugin_has_a_state_of_its_own() {
        let table = TestTable::new("public.t").key("id", "bigint").column("name", "text");
        let changes = ["a", "b"].map(|name| Change::insert([("id", "1"), ("name", name)]));
        for _ in 0..2 {
            let mut plugin = Tested::<Before>::new("{}").unwrap();
            let before = |name| Fate::kept([("id", "1"), ("name", name)]);
            assert_eq!(plugin.transform(&table, &changes), [before(""), before("a")]);
            assert_eq!(get(&["1".to_owned(), "2".to_owned()]), [Some("b".to_owned()), None]);
        }
    }
}
