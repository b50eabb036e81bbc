//! One row of a batch, and what the plugin wrote into it.

use crate::shown::Shown;
use crate::types::{Edit, Op, Packed, Position, Values};

/// One row, as far as the interest goes. Columns are numbered as in the interest.
pub struct Row<'a> {
    pub(crate) index: usize,
    pub(crate) shown: &'a Shown,
    pub(crate) edits: &'a mut [Edits],
}

impl<'a> Row<'a> {
    /// A value as PostgreSQL's text form; none where it is NULL, was not sent, or where the row has
    /// no such image. What was set in this call is not read back.
    ///
    /// # Panics
    /// If the column was asked for in native form, or is none of the interest's.
    #[inline]
    #[must_use]
    pub fn text(&self, column: usize) -> Option<&'a str> {
        self.shown.columns[column].values.text(self.index)
    }

    /// A value of a column asked for in native form.
    ///
    /// # Panics
    /// If it is not a native integer column.
    #[must_use]
    pub fn integer(&self, column: usize) -> Option<i64> {
        self.shown.columns[column].values.integer(self.index)
    }

    /// A value of a column asked for in native form.
    ///
    /// # Panics
    /// If it is not a native float column.
    #[must_use]
    pub fn float(&self, column: usize) -> Option<f64> {
        self.shown.columns[column].values.float(self.index)
    }

    /// A value of a column asked for in native form.
    ///
    /// # Panics
    /// If it is not a native boolean column.
    #[must_use]
    pub fn boolean(&self, column: usize) -> Option<bool> {
        self.shown.columns[column].values.boolean(self.index)
    }

    /// Whether the value was not sent because the update left a large value alone: unknown, which
    /// is not NULL.
    #[must_use]
    pub fn is_unchanged(&self, column: usize) -> bool {
        let rows = &self.shown.columns[column].unchanged;
        rows.binary_search_by_key(&self.index, |row| *row as usize).is_ok()
    }

    /// How many columns the interest has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.shown.columns.len()
    }

    /// The id of the row's table, as told to `subscribe`.
    #[must_use]
    pub fn table(&self) -> u32 {
        self.shown.table
    }

    /// What happened.
    ///
    /// # Panics
    /// If the interest has no [`ops`](crate::Interest::ops).
    #[must_use]
    pub fn op(&self) -> Op {
        self.shown.ops.as_ref().expect("the interest asks for ops")[self.index]
    }

    /// Where the change stands in the log.
    ///
    /// # Panics
    /// If the interest has no [`positions`](crate::Interest::positions).
    #[must_use]
    pub fn position(&self) -> Position {
        self.shown.positions.as_ref().expect("the interest asks for positions")[self.index]
    }

    /// When the change was committed, in microseconds since the Unix epoch.
    ///
    /// # Panics
    /// If the interest has no [`times`](crate::Interest::times).
    #[must_use]
    pub fn committed_at(&self) -> i64 {
        self.shown.times.as_ref().expect("the interest asks for times")[self.index]
    }

    /// Replaces a value by PostgreSQL's text form of another.
    #[inline]
    pub fn set(&mut self, column: usize, text: &str) {
        self.edits[column].begin(self.index, self.shown.rows).push_str(text);
        self.edits[column].end(false);
    }

    /// Replaces a value by what `write` appends; saves an allocation.
    #[inline]
    pub fn write(&mut self, column: usize, write: impl FnOnce(&mut String)) {
        write(self.edits[column].begin(self.index, self.shown.rows));
        self.edits[column].end(false);
    }

    /// Replaces a value by NULL.
    pub fn set_null(&mut self, column: usize) {
        self.edits[column].begin(self.index, self.shown.rows);
        self.edits[column].end(true);
    }
}

/// The cells of one column that were set, in row order.
#[derive(Default)]
pub(crate) struct Edits {
    rows: Vec<u32>,
    ends: Vec<u32>,
    text: String,
    nulls: Vec<u32>,
}

impl Edits {
    /// Begins the cell of one of `rows` rows.
    #[inline]
    fn begin(&mut self, row: usize, rows: usize) -> &mut String {
        if self.rows.is_empty() {
            // Who sets one cell of a column sets most: it grows once.
            self.rows.reserve(rows - row);
            self.ends.reserve(rows - row);
        }
        let row = u32::try_from(row).expect("a batch has fewer than 2^32 rows");
        if self.rows.last() == Some(&row) {
            self.undo();
        }
        self.rows.push(row);
        &mut self.text
    }

    #[inline]
    fn end(&mut self, null: bool) {
        if null {
            self.nulls.push(u32::try_from(self.ends.len()).expect("as many as rows"));
        }
        self.ends.push(u32::try_from(self.text.len()).expect("a guest has less than 4 GiB"));
    }

    fn undo(&mut self) {
        self.rows.pop();
        self.ends.pop();
        self.text.truncate(self.ends.last().map_or(0, |end| *end as usize));
        if self.nulls.last().is_some_and(|null| *null as usize == self.ends.len()) {
            self.nulls.pop();
        }
    }

    /// The edit of a batch of `rows` rows; none if nothing was set.
    pub(crate) fn finish(self, column: usize, rows: usize) -> Option<Edit> {
        if self.rows.is_empty() {
            return None;
        }
        let nulls = (!self.nulls.is_empty()).then(|| bitmap(&self.nulls, self.ends.len()));
        let whole = self.rows.len() == rows;
        Some(Edit {
            column: u32::try_from(column).expect("an interest has fewer than 2^32 columns"),
            rows: (!whole).then_some(self.rows),
            values: Values::Packed(Packed { nulls, ends: self.ends, data: self.text.into_bytes() }),
        })
    }
}

fn bitmap(set: &[u32], len: usize) -> Vec<u8> {
    let mut bits = vec![0; len.div_ceil(8)];
    for index in set {
        bits[(index >> 3) as usize] |= 1 << (index & 7);
    }
    bits
}

/// The column of keys that a dedup plugin gave.
#[derive(Default)]
pub(crate) struct KeyColumn(Edits);

impl KeyColumn {
    /// The key of one of `rows` rows.
    pub(crate) fn push(
        &mut self,
        row: usize,
        rows: usize,
        write: impl FnOnce(&mut String) -> bool,
    ) {
        let start = self.0.text.len();
        let given = write(self.0.begin(row, rows));
        if !given {
            self.0.text.truncate(start);
        }
        self.0.end(!given);
    }

    pub(crate) fn finish(self, rows: usize) -> Values {
        let empty = Packed { nulls: None, ends: Vec::new(), data: Vec::new() };
        self.0.finish(0, rows).map_or(Values::Packed(empty), |edit| edit.values)
    }
}
