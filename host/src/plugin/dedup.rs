//! The memory of keys. It belongs to the host, so it outlives traps and reloads of the plugin.
//!
//! A batch's keys are provisional until [`Window::commit`]: a batch that fails is seen again, and
//! its rows must not count as duplicates of themselves. For the same reason
//! [`Window::rewind`] forgets the keys of changes that a restarted source will send again.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use crate::position::Position;

/// 128 bits of SHA-256 over table and key: as good as the key itself, and of bounded size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 16]);

impl Key {
    pub(crate) fn new(schema: &str, table: &str, key: &[u8]) -> Key {
        let mut hasher = Sha256::new();
        for part in [schema.as_bytes(), table.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(key);
        let digest = hasher.finalize();
        Key(digest[..16].try_into().expect("32 bytes"))
    }
}

/// When a key was first seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) position: Position,
    /// Microseconds since the Unix epoch.
    pub(crate) committed_at: i64,
}

pub(crate) struct Window {
    keys_max: usize,
    age_max: i64,
    known: FxHashMap<Key, Seen>,
    order: VecDeque<Key>,
    /// Inserted since the last commit, with what each key was before.
    provisional: Vec<(Key, Option<Seen>)>,
    newest: i64,
}

impl Window {
    /// Remembers `keys_max` keys at most, each until a commit is `seconds` younger.
    pub(crate) fn new(keys_max: usize, seconds: u32) -> Window {
        Window {
            keys_max,
            age_max: i64::from(seconds) * 1_000_000,
            known: FxHashMap::default(),
            order: VecDeque::new(),
            provisional: Vec::new(),
            newest: i64::MIN,
        }
    }

    /// Remembers a key; false if it is known already.
    pub(crate) fn insert(&mut self, key: Key, seen: Seen) -> bool {
        self.newest = self.newest.max(seen.committed_at);
        let horizon = self.newest.saturating_sub(self.age_max);
        match self.known.entry(key) {
            Entry::Occupied(known) if known.get().committed_at >= horizon => false,
            // Too old to count. It keeps its place in the order, so that a full window drops it early.
            Entry::Occupied(mut known) => {
                self.provisional.push((key, Some(known.insert(seen))));
                true
            }
            Entry::Vacant(place) => {
                place.insert(seen);
                self.order.push_back(key);
                self.provisional.push((key, None));
                true
            }
        }
    }

    /// The batch is through: its keys stay, and what is too old or too much goes.
    pub(crate) fn commit(&mut self) {
        self.provisional.clear();
        let horizon = self.newest.saturating_sub(self.age_max);
        while let Some(oldest) = self.order.front() {
            let aged = self.known[oldest].committed_at < horizon;
            if !aged && self.order.len() <= self.keys_max {
                break;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
    }

    /// The batch failed: its keys were never seen.
    pub(crate) fn roll_back(&mut self) {
        while let Some((key, before)) = self.provisional.pop() {
            if let Some(seen) = before {
                self.known.insert(key, seen);
            } else {
                self.known.remove(&key);
                self.order.pop_back();
            }
        }
    }

    /// Forgets the keys of changes after `durable`.
    pub(crate) fn rewind(&mut self, durable: Position) {
        self.provisional.clear();
        self.known.retain(|_, seen| seen.position <= durable);
        self.order.retain(|key| self.known.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Lsn;

    fn key(text: &str) -> Key {
        Key::new("public", "users", text.as_bytes())
    }

    fn at(second: i64) -> Seen {
        let commit = Lsn(u64::try_from(second).unwrap());
        Seen { position: Position { commit, ordinal: 1 }, committed_at: second * 1_000_000 }
    }

    #[test]
    fn a_key_is_new_once() {
        let mut window = Window::new(10, 60);
        assert!(window.insert(key("a"), at(1)));
        assert!(!window.insert(key("a"), at(2)));
        assert!(window.insert(Key::new("public", "orders", b"a"), at(2)));
    }

    #[test]
    fn a_key_is_forgotten_when_commits_are_younger_by_the_window() {
        let mut window = Window::new(10, 60);
        window.insert(key("a"), at(0));
        window.insert(key("b"), at(60));
        window.commit();
        assert!(!window.insert(key("a"), at(60)), "the window's edge is inside");
        assert!(window.insert(key("c"), at(61)));
        assert!(window.insert(key("a"), at(61)), "also before the commit that sweeps");
    }

    #[test]
    fn the_oldest_key_goes_when_there_are_too_many() {
        let mut window = Window::new(2, 60);
        for name in ["a", "b", "c"] {
            window.insert(key(name), at(1));
        }
        window.commit();
        assert_eq!(window.known.len(), 2);
        assert!(window.insert(key("a"), at(1)));
        assert!(!window.insert(key("c"), at(1)));
    }

    #[test]
    fn a_batch_that_failed_leaves_no_keys() {
        let mut window = Window::new(10, 60);
        window.insert(key("a"), at(1));
        window.commit();
        window.insert(key("b"), at(2));
        window.roll_back();
        assert!(window.insert(key("b"), at(2)));
        assert!(!window.insert(key("a"), at(2)));
    }

    #[test]
    fn a_rewound_source_finds_its_rows_new() {
        let mut window = Window::new(10, 60);
        window.insert(key("a"), at(1));
        window.insert(key("b"), at(2));
        window.commit();
        window.rewind(at(1).position);
        assert!(!window.insert(key("a"), at(1)));
        assert!(window.insert(key("b"), at(2)));
    }
}
