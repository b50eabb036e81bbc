//! What stands for a row, and for what the plugin said of it.
//!
//! A mark is SipHash-2-4 with 128 bits of result under a secret of 128 bits that every memory draws
//! for itself. Two texts then have one mark with a chance of 2^-128, whatever the texts are, because
//! who writes them does not know the secret; among the 2^17 rows of a default window some two of them do
//! with 2^-95. That is far below the chance that memory itself flips the bits, and the only way in
//! which a change could be dropped wrongly. Lengths are hashed along, so that neighbours cannot be
//! taken for each other.

use siphasher::sip128::SipHasher24;

use crate::change::{Changes, Row, Value};
use crate::table::Table;

/// 128 bits that stand for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mark(pub(crate) u64, pub(crate) u64);

/// Makes marks. What it needs to put texts together it keeps from one to the next.
pub(crate) struct Marker {
    hasher: SipHasher24,
    text: Vec<u8>,
}

impl Marker {
    /// Marks under this secret.
    pub(crate) fn new(secret: [u8; 16]) -> Marker {
        Marker { hasher: SipHasher24::new_with_key(&secret), text: Vec::new() }
    }

    pub(super) fn of(&self, text: &[u8]) -> Mark {
        let hash = self.hasher.hash(text);
        Mark(hash.h1, hash.h2)
    }

    pub(super) fn of_table(&mut self, table: &Table) -> Mark {
        self.text.clear();
        self.push(table.schema.as_bytes());
        self.push(table.name.as_bytes());
        self.of(&self.text)
    }

    /// The row with that key in the marked table; none if a part of the key was not sent, or there
    /// is no key.
    pub(super) fn of_row(
        &mut self,
        changes: &Changes,
        table: &Table,
        mark: Mark,
        row: Row,
    ) -> Option<Mark> {
        self.begin(mark);
        let begun = self.text.len();
        for column in table.key() {
            match changes.value(row, column) {
                Value::Text(text) => self.push(text),
                Value::Null | Value::Unchanged => return None,
            }
        }
        (self.text.len() > begun).then(|| self.of(&self.text))
    }

    /// What stands for a row of a table without a key: what the plugin said of it.
    pub(super) fn of_content(&mut self, table: Mark, key: Mark) -> Mark {
        self.begin(table);
        self.push_mark(key);
        self.of(&self.text)
    }

    fn begin(&mut self, table: Mark) {
        self.text.clear();
        self.push_mark(table);
    }

    fn push_mark(&mut self, Mark(high, low): Mark) {
        self.text.extend_from_slice(&high.to_le_bytes());
        self.text.extend_from_slice(&low.to_le_bytes());
    }

    fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.text.extend_from_slice(text);
    }
}
