//! The rows that are known, in the order in which they became known.
//!
//! Rows lie in a ring, where the oldest is let go and a new one is written without a look elsewhere;
//! an index of four bytes a row finds them. Both are small, because at a hundred thousand rows it is
//! misses of the cache that cost.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::mark::Mark;
use crate::position::Position;

/// The last change of a row that went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) position: Position,
    /// Microseconds since the Unix epoch.
    pub(crate) committed_at: i64,
    /// What the plugin said of it; none if the row is gone, or the plugin said nothing.
    pub(crate) key: Option<Mark>,
}

/// The last 32 bits of a row's number; rows are numbered as they become known.
pub(super) type Number = u32;

#[derive(Default)]
pub(super) struct Known {
    rows: VecDeque<(Mark, Kept)>,
    /// Number of the oldest row.
    first: u64,
    numbers: HashTable<Number>,
}

impl Known {
    /// Number of the oldest row; those of the others follow without a gap.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The whole number, if the row has not been let go.
    pub(super) fn whole(&self, number: Number) -> Option<u64> {
        let offset = number.wrapping_sub(low(self.first));
        ((offset as usize) < self.rows.len()).then(|| self.first + u64::from(offset))
    }

    /// Begins to count at a number; nothing may be known yet.
    pub(super) fn begin_at(&mut self, first: u64) {
        debug_assert!(self.rows.is_empty(), "rows have numbers already");
        self.first = first;
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row's number, if it is known.
    pub(super) fn find(&self, row: Mark) -> Option<Number> {
        let found = self.numbers.find(row.0, |number| self.row(*number).0 == row);
        found.copied()
    }

    /// The row of a number that [`find`](Self::find) or [`push`](Self::push) gave.
    pub(super) fn row(&self, number: Number) -> &(Mark, Kept) {
        &self.rows[number.wrapping_sub(low(self.first)) as usize]
    }

    /// As [`row`](Self::row), to be changed.
    pub(super) fn kept_mut(&mut self, number: Number) -> &mut Kept {
        &mut self.rows[number.wrapping_sub(low(self.first)) as usize].1
    }

    pub(super) fn oldest(&self) -> Option<&(Mark, Kept)> {
        self.rows.front()
    }

    /// Adds a row that is not known.
    pub(super) fn push(&mut self, row: Mark, kept: Kept) -> Number {
        let Known { rows, first, numbers } = self;
        let number = low(*first + rows.len() as u64);
        rows.push_back((row, kept));
        let hash = |number: &Number| rows[number.wrapping_sub(low(*first)) as usize].0.0;
        numbers.insert_unique(row.0, number, hash);
        number
    }

    pub(super) fn pop_oldest(&mut self) {
        let Some((row, _)) = self.rows.pop_front() else { return };
        self.forget_number(row, low(self.first));
        self.first += 1;
    }

    pub(super) fn pop_newest(&mut self) {
        let Some((row, _)) = self.rows.pop_back() else { return };
        self.forget_number(row, low(self.first + self.rows.len() as u64));
    }

    fn forget_number(&mut self, row: Mark, gone: Number) {
        if let Ok(entry) = self.numbers.find_entry(row.0, |number| *number == gone) {
            entry.remove();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a window has fewer than 2^32 rows")]
fn low(number: u64) -> Number {
    number as Number
}
