//! What a plugin keeps under keys of its own, in memory. What of it lasts is the business of
//! [`memory`](super) and [`store`](super::store).
//!
//! Two things are undone: a call that failed wrote nothing, because its rows are shown again, and a
//! batch that failed wrote nothing, because it comes again from its source. For each of the two the
//! value before the first write is remembered, once a key, so that what is remembered is bounded
//! however often a plugin writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;

/// What an entry costs beside its text: the table's slot and two allocations.
const ENTRY_BYTES: usize = 64;

/// Values under keys, bounded.
#[derive(Default)]
pub(crate) struct State {
    entries: HashMap<Box<str>, Box<str>>,
    /// What the entries cost.
    bytes: usize,
    bytes_max: usize,
    call: Before,
    batch: Before,
}

/// What was there before the first write.
#[derive(Default)]
struct Before {
    entries: HashMap<Box<str>, Option<Box<str>>>,
    bytes: usize,
}

/// A key with its value; none if it was removed.
pub(crate) type Write = (Box<str>, Option<Box<str>>);

/// What an entry takes, in bytes.
pub(super) fn cost(key: &str, value: &str) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

impl Before {
    fn note(&mut self, key: &str, value: Option<&str>) {
        if let Entry::Vacant(place) = self.entries.entry(key.into()) {
            self.bytes += cost(key, value.unwrap_or_default());
            place.insert(value.map(Into::into));
        }
    }

    fn take(&mut self) -> HashMap<Box<str>, Option<Box<str>>> {
        mem::take(self).entries
    }
}

impl State {
    /// Holds `mebibytes` at most, what entries cost beside their text included.
    pub(crate) fn new(mebibytes: u32) -> State {
        let mut state = State::default();
        state.limit(mebibytes);
        state
    }

    /// Sets another limit; what is beyond it stays.
    pub(crate) fn limit(&mut self, mebibytes: u32) {
        self.bytes_max = usize::try_from(u64::from(mebibytes) << 20).unwrap_or(usize::MAX);
    }

    /// Puts an entry in as it was kept, whatever the limit: it may have been lowered since.
    pub(crate) fn load(&mut self, key: &str, value: &str) {
        self.put(key, Some(value.into()));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// The value under a key, as this call sees it.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(|value| &**value)
    }

    /// Writes all of the entries, or nothing.
    ///
    /// # Errors
    /// In a sentence for the plugin's author: the state is full.
    pub(crate) fn set(&mut self, entries: Vec<(String, Option<String>)>) -> Result<(), String> {
        let mut after = self.bytes;
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (key, value) in &entries {
            let written = value.as_ref().map_or(0, |value| cost(key, value));
            let known = || self.get(key).map_or(0, |value| cost(key, value));
            let before = seen.insert(key, written).unwrap_or_else(known);
            after = after.saturating_add(written).saturating_sub(before);
        }
        if after > self.bytes_max && after > self.bytes {
            return Err(format!(
                "its state would grow beyond {} MiB; raise `state_mb`, or remove keys that are not \
                 needed any more",
                self.bytes_max >> 20
            ));
        }
        let unnoted = |(key, _): &(String, _)| !self.call.entries.contains_key(key.as_str());
        let noted = self.call.bytes.saturating_add(self.batch.bytes);
        if noted > self.bytes_max.saturating_mul(2) && entries.iter().any(unnoted) {
            return Err(format!(
                "one batch wrote over more than twice {} MiB of its state; lower `batch_rows`, or \
                 raise `state_mb`",
                self.bytes_max >> 20
            ));
        }
        for (key, value) in entries {
            let before = self.entries.get(key.as_str());
            self.call.note(&key, before.map(|value| &**value));
            self.put(&key, value.map(Into::into));
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: Option<Box<str>>) {
        let added = value.as_ref().map_or(0, |value| cost(key, value));
        let before = match value {
            Some(value) => self.entries.insert(key.into(), value),
            None => self.entries.remove(key),
        };
        self.bytes = self.bytes + added - before.map_or(0, |before| cost(key, &before));
    }

    /// The call went well: what it wrote is the batch's.
    pub(crate) fn keep_call(&mut self) {
        for (key, before) in self.call.take() {
            self.batch.note(&key, before.as_deref());
        }
    }

    /// The call failed: it wrote nothing.
    pub(crate) fn undo_call(&mut self) {
        for (key, before) in self.call.take() {
            self.put(&key, before);
        }
    }

    /// The batch failed: it wrote nothing.
    pub(crate) fn roll_back(&mut self) {
        self.undo_call();
        for (key, before) in self.batch.take() {
            self.put(&key, before);
        }
    }

    /// The batch is through; what it wrote.
    pub(crate) fn commit(&mut self) -> Vec<Write> {
        let written = self.batch.take();
        let now = |key: Box<str>| {
            let value = self.entries.get(&key).cloned();
            (key, value)
        };
        written.into_keys().map(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(state: &mut State, entries: &[(&str, Option<&str>)]) -> Result<(), String> {
        let owned =
            |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(ToOwned::to_owned));
        state.set(entries.iter().map(owned).collect())
    }

    #[test]
    fn a_call_sees_what_it_wrote_and_wrote_nothing_if_it_failed() {
        let mut state = State::new(1);
        write(&mut state, &[("a", Some("1"))]).unwrap();
        state.keep_call();
        write(&mut state, &[("a", Some("2")), ("b", Some("1")), ("a", None)]).unwrap();
        assert_eq!((state.get("a"), state.get("b")), (None, Some("1")));
        state.undo_call();
        assert_eq!((state.get("a"), state.get("b")), (Some("1"), None));
        assert_eq!(state.commit(), [("a".into(), Some("1".into()))]);
    }

    #[test]
    fn a_batch_that_failed_wrote_nothing() {
        let mut state = State::new(1);
        write(&mut state, &[("a", Some("1"))]).unwrap();
        state.keep_call();
        state.commit();
        let before = state.bytes();
        for (key, value) in [("a", Some("2")), ("b", Some("3")), ("a", None)] {
            write(&mut state, &[(key, value)]).unwrap();
            state.keep_call();
        }
        state.roll_back();
        assert_eq!((state.get("a"), state.get("b")), (Some("1"), None));
        assert_eq!((state.bytes(), state.keys()), (before, 1));
        assert_eq!(state.commit(), []);
    }

    #[test]
    fn a_full_state_takes_nothing_more_but_can_be_emptied() {
        let mut state = State::new(1);
        let half = "x".repeat(1 << 19);
        write(&mut state, &[("a", Some(&half))]).unwrap();
        let error = write(&mut state, &[("b", Some("1")), ("c", Some(&half))]).unwrap_err();
        assert!(error.contains("beyond 1 MiB; raise `state_mb`"), "{error}");
        assert_eq!(state.get("b"), None, "all or nothing");
        write(&mut state, &[("a", Some("small"))]).unwrap();
        write(&mut state, &[("c", Some(&half))]).unwrap();
        state.bytes_max = 0;
        write(&mut state, &[("c", None)]).unwrap();
        assert_eq!((state.keys(), state.bytes()), (1, cost("a", "small")));
    }

    #[test]
    fn what_is_kept_to_be_undone_is_bounded() {
        let mut state = State::new(1);
        let key = |n: u32| format!("{n:0>1000}");
        let written = (0..1_000_000_u32).find(|n| {
            let key = key(*n);
            let there = write(&mut state, &[(&key, Some("1"))]);
            there.and_then(|()| write(&mut state, &[(&key, None)])).is_err()
        });
        assert!(written.is_some_and(|n| n < 2_100), "{written:?}");
        state.roll_back();
        assert_eq!((state.keys(), state.bytes()), (0, 0));
    }
}
