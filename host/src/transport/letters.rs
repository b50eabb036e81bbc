//! The dead letters in Kafka's topic: listed, shown, read for another drive, closed.
//!
//! A topic only grows, so a letter is closed by another record, `{"closed": "<id>"}`. The producer writes
//! it in the transaction of what became of the letter: either both are there or none, so that a letter is
//! driven through once whatever the process dies of in between. A letter that fails again at the same
//! place is written again, and the later one counts.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Offset;
use rdkafka::message::Message as _;
use serde::{Deserialize, Serialize};

use super::topics::Names;
use super::{Error, Options, compacted};
use crate::dead_letter::DeadLetter;

/// The topic of dead letters; cheap to clone. Its functions block.
#[derive(Clone)]
pub struct Letters {
    options: Arc<Options>,
    topic: Arc<str>,
    /// What this process closed: for a moment after a commit readers do not see it yet.
    closed: Arc<Mutex<HashSet<String>>>,
}

/// A letter that is open, without what its row holds.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is called.
    pub id: String,
    /// Itself, with an empty original.
    pub letter: DeadLetter,
    /// How long its original is.
    pub bytes: usize,
    /// Whether it can be driven through again.
    pub redrivable: bool,
    /// Where its first part is.
    offset: i64,
}

/// The record that closes a letter.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Closing {
    pub(super) closed: String,
}

/// The key of records that close letters; the key of a letter is the full name of its table.
pub(super) const CLOSING: &[u8] = b"closed";

enum Found {
    Closing(String),
    Letter(Box<DeadLetter>),
}

/// Puts letters together that came in parts, one after the other.
#[derive(Default)]
struct Parts {
    pending: Option<(i64, DeadLetter)>,
}

impl Letters {
    /// Those of a pipeline that captures this database.
    #[must_use]
    pub fn of(options: &Options, database: &str) -> Letters {
        let topic = Names::below(options.prefix(database)).dead_letters.into();
        Letters { options: Arc::new(options.clone()), topic, closed: Arc::default() }
    }

    /// The letters that are open, by plugin and position.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub fn open(&self, wanted: impl Fn(&str, &DeadLetter) -> bool) -> Result<Vec<Entry>, Error> {
        let mut open: HashMap<String, Entry> = HashMap::new();
        let mut seen = HashSet::new();
        let mut parts = Parts::default();
        self.read(Offset::Beginning, |offset, found| {
            match found {
                Found::Closing(closed) => {
                    open.remove(&closed);
                    seen.insert(closed);
                }
                Found::Letter(letter) => {
                    if let Some((offset, mut letter)) = parts.take_in(offset, *letter) {
                        let id = letter.id();
                        if wanted(&id, &letter) {
                            let bytes = std::mem::take(&mut letter.original).len();
                            let redrivable = letter.replay.take().is_some();
                            let key = id.clone();
                            open.insert(key, Entry { id, letter, bytes, redrivable, offset });
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        let mut closed = self.closed();
        closed.retain(|id| !seen.contains(id));
        let mut open: Vec<Entry> =
            open.into_values().filter(|entry| !closed.contains(&entry.id)).collect();
        let plugin = |entry: &Entry| entry.letter.plugin.as_ref().map(|plugin| plugin.name.clone());
        open.sort_by_cached_key(|entry| (plugin(entry), entry.letter.position, entry.id.clone()));
        Ok(open)
    }

    /// Reads letters whole, in the order of the entries.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub fn whole(&self, entries: &[Entry]) -> Result<Vec<(String, DeadLetter)>, Error> {
        let mut missing: HashMap<i64, &str> =
            entries.iter().map(|entry| (entry.offset, entry.id.as_str())).collect();
        let Some(first) = missing.keys().min().copied() else { return Ok(Vec::new()) };
        let mut found: HashMap<&str, DeadLetter> = HashMap::new();
        let mut parts = Parts::default();
        self.read(Offset::Offset(first), |offset, record| {
            if let Found::Letter(letter) = record
                && let Some((offset, letter)) = parts.take_in(offset, *letter)
                && let Some(id) = missing.remove(&offset)
            {
                found.insert(id, letter);
            }
            if missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let ids = entries.iter().map(|entry| entry.id.as_str());
        Ok(ids.filter_map(|id| Some((id.to_owned(), found.remove(id)?))).collect())
    }

    /// Notes letters whose closing is committed.
    pub fn note_closed(&self, ids: Vec<String>) {
        self.closed().extend(ids);
    }

    fn closed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(
        &self,
        from: Offset,
        mut each: impl FnMut(i64, Found) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        compacted::read_from(&self.options, &self.topic, from, |message| {
            // What is neither is from a version after this one.
            match parse(message.key(), message.payload().unwrap_or_default()) {
                Some(found) => each(message.offset(), found),
                None => ControlFlow::Continue(()),
            }
        })
    }
}

fn parse(key: Option<&[u8]>, value: &[u8]) -> Option<Found> {
    if key == Some(CLOSING) {
        let closing: Closing = serde_json::from_slice(value).ok()?;
        return Some(Found::Closing(closing.closed));
    }
    Some(Found::Letter(serde_json::from_slice(value).ok()?))
}

impl Parts {
    /// A letter that is whole, with the offset of its first part.
    fn take_in(&mut self, offset: i64, letter: DeadLetter) -> Option<(i64, DeadLetter)> {
        let Some(part) = letter.part else { return Some((offset, letter)) };
        if part.number == 1 {
            self.pending = Some((offset, letter));
        } else {
            let follows = |(_, first): &(i64, DeadLetter)| {
                first.part.is_some_and(|before| before.number + 1 == part.number)
                    && (first.position, &first.table) == (letter.position, &letter.table)
            };
            let (offset, mut whole) = self.pending.take().filter(follows)?;
            whole.original.push_str(&letter.original);
            whole.part = Some(part);
            self.pending = Some((offset, whole));
        }
        let (offset, mut whole) = self.pending.take_if(|_| part.number == part.of)?;
        whole.part = None;
        Some((offset, whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::tests::letter;

    #[test]
    fn parts_make_up_the_letter_and_a_lone_part_makes_none() {
        let whole = letter(&"0123456789".repeat(5));
        let cut = whole.parts(10);
        assert_eq!(cut.len(), 5);
        let mut parts = Parts::default();
        let mut found = Vec::new();
        let lone = [cut[3].clone()];
        let other = letter("short");
        let records = lone.iter().chain(&cut).chain([&other]).chain(&cut[..2]);
        for (offset, part) in (0..).zip(records) {
            found.extend(parts.take_in(offset, part.clone()));
        }
        assert_eq!(found, [(1, whole), (6, other)]);
    }

    #[test]
    fn records_that_say_something_else_are_passed_over() {
        let closing = serde_json::to_vec(&Closing { closed: "ab".into() }).unwrap();
        let whole = serde_json::to_vec(&letter("x")).unwrap();
        assert!(matches!(parse(Some(CLOSING), &closing), Some(Found::Closing(id)) if id == "ab"));
        assert!(matches!(parse(Some(b"public.notes"), &whole), Some(Found::Letter(_))));
        assert!(parse(Some(CLOSING), &whole).is_none() && parse(None, &closing).is_none());
        assert!(parse(Some(b"public.notes"), b"").is_none());
    }
}
