//! One line of `COPY … TO STDOUT` in text format becomes a row.
//!
//! Source: PostgreSQL, "COPY", File Formats, Text Format. Columns are parted by tabs, NULL is `\N`,
//! and a backslash escapes.

use std::ops::Range;

use crate::change::{Cell, Changes, Row};

/// The line does not have the columns that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a COPY line came with {sent} columns where {expected} were asked for")]
pub struct Width {
    /// Columns in the line.
    pub sent: usize,
    /// Columns asked for.
    pub expected: usize,
}

/// Pushes the line's cells as a row.
///
/// # Errors
/// [`Width`] if the line has another number of columns.
pub fn push_row(line: &[u8], columns: usize, batch: &mut Changes) -> Result<Row, Width> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let row = batch.begin_row();
    // Most lines have nothing to unescape: one copy for all their values.
    let whole = (!has_escapes(line)).then(|| batch.push_buffer(line));
    let mut sent = 0;
    // A table without columns gives empty lines, and no cell at all.
    if columns > 0 {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\t', line).chain([line.len()]) {
            sent += 1;
            if sent <= columns {
                let cell = push_field(line, start..end, whole, batch);
                batch.push_cell(cell);
            }
            start = end + 1;
        }
    }
    if sent == columns { Ok(row) } else { Err(Width { sent, expected: columns }) }
}

/// Whether a backslash is more than the beginning of a NULL.
fn has_escapes(line: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', line).any(|at| line.get(at + 1) != Some(&b'N'))
}

/// `whole` is where the line stands in the batch, if nothing in it is escaped.
fn push_field(line: &[u8], at: Range<usize>, whole: Option<u32>, batch: &mut Changes) -> Cell {
    let field = &line[at.clone()];
    if field == b"\\N" {
        return Cell::NULL;
    }
    let part = |of: usize| u32::try_from(of).expect("a value is below 4 GiB");
    if let Some(line) = whole {
        return Cell::text(line + part(at.start), part(field.len()));
    }
    match memchr::memchr(b'\\', field) {
        None => batch.push_text(field),
        Some(first) => batch.write_text(|arena| unescape(field, first, arena)),
    }
}

/// The server writes only `\b \f \n \r \t \v \\`; a backslash before anything else is dropped.
fn unescape(field: &[u8], first: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&field[..first]);
    let mut bytes = field[first..].iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.extend(bytes.next().map(|escaped| match escaped {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0B,
            &other => other,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Value;
    use proptest::prelude::*;

    fn escape(text: &str) -> String {
        let mut out = String::new();
        for char in text.chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{b}' => out.push_str("\\v"),
                '\u{c}' => out.push_str("\\f"),
                other => out.push(other),
            }
        }
        out
    }

    #[test]
    fn null_empty_and_a_literal_backslash_n_differ() {
        let mut batch = Changes::default();
        let row = push_row(b"\\N\t\t\\\\N\n", 3, &mut batch).unwrap();
        assert_eq!(batch.value(row, 0), Value::Null);
        assert_eq!(batch.value(row, 1), Value::Text(b""));
        assert_eq!(batch.value(row, 2), Value::Text(b"\\N"));
        // Beside nothing that is escaped, and beside a backslash that ends a value.
        for line in [&b"\\N\ta N\tb"[..], b"\\N\t\\\\\tN"] {
            let row = push_row(line, 3, &mut batch).unwrap();
            assert_eq!(batch.value(row, 0), Value::Null);
            assert!(matches!(batch.value(row, 1), Value::Text(b"a N" | b"\\")));
            assert!(matches!(batch.value(row, 2), Value::Text(b"b" | b"N")));
        }
    }

    #[test]
    fn another_number_of_columns_is_an_error() {
        let mut batch = Changes::default();
        assert_eq!(push_row(b"a\tb\n", 3, &mut batch), Err(Width { sent: 2, expected: 3 }));
        assert_eq!(push_row(b"a\tb\n", 1, &mut batch), Err(Width { sent: 2, expected: 1 }));
        let error = push_row(b"a\n", 2, &mut batch).expect_err("a column is missing").to_string();
        assert_eq!(error, "a COPY line came with 1 columns where 2 were asked for");
        assert!(push_row(b"\n", 0, &mut batch).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_comes_back_unescaped(cells in prop::collection::vec(any::<String>(), 1..6)) {
            let line = cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>().join("\t") + "\n";
            let mut batch = Changes::default();
            let row = push_row(line.as_bytes(), cells.len(), &mut batch).unwrap();
            for (index, cell) in cells.iter().enumerate() {
                prop_assert_eq!(batch.value(row, index), Value::Text(cell.as_bytes()));
            }
        }
    }
}
