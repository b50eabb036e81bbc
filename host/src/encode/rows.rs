//! The rows of an envelope become rows of a batch.

use super::json::{self, Scanner};
use super::reader::Shape;
use super::wire::Wire;
use super::{EXACT, Error, text, value};
use crate::change::{Cell, Changes, Old, Row};

/// Takes in the rows of one envelope.
pub(super) struct Rows<'a> {
    shape: &'a Shape,
    /// The value of [`EXACT`].
    exact: Option<&'a [u8]>,
    /// `before` is all of a row, and not its key.
    whole: bool,
    /// What the batch may have grown to behind the rows, in bytes.
    most: usize,
    pub(super) changes: &'a mut Changes,
    pub(super) old: Old,
    pub(super) new: Option<Row>,
}

impl<'a> Rows<'a> {
    /// The rows of a record's value, with its header of exact texts.
    pub(super) fn new(
        shape: &'a Shape,
        (value, exact): (&[u8], Option<&'a [u8]>),
        whole: bool,
        changes: &'a mut Changes,
    ) -> Rows<'a> {
        let json = value.len() + exact.map_or(0, <[u8]>::len);
        let most = changes.bytes() + text::most(json);
        Rows { shape, exact, whole, most, changes, old: Old::None, new: None }
    }

    /// Reads the value of `before`, which comes next.
    pub(super) fn before(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Error> {
        let row = self.row(scanner, b"before", self.whole)?;
        let old = if self.whole { Old::Full } else { Old::Key };
        self.old = row.map_or(Old::None, old);
        Ok(())
    }

    /// Reads the value of `after`, which comes next.
    pub(super) fn after(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Error> {
        self.new = self.row(scanner, b"after", true)?;
        Ok(())
    }

    /// Reads a row, all of it or only its key columns; none if there is no object.
    fn row(
        &mut self,
        scanner: &mut Scanner<'_>,
        side: &[u8],
        whole: bool,
    ) -> Result<Option<Row>, Error> {
        if !scanner.enter(b'{') {
            return scanner.value().map(|_| None);
        }
        let Rows { shape, changes, most, .. } = self;
        let row = changes.begin_row();
        for _ in &shape.fields {
            changes.push_cell(Cell::NULL);
        }
        let mut expected = 0;
        while scanner.more(b'}')? {
            let index = match shape.fields.get(expected) {
                Some(field) if scanner.eat(&field.fragment) => expected,
                _ => named(shape, scanner.name()?)?,
            };
            expected = index + 1;
            let token = scanner.value()?;
            let field = &shape.fields[index];
            if token != b"null" && (whole || field.key) {
                let cell = cell(shape, index, token, changes)?;
                changes.set_cell(row, index, cell);
                if changes.bytes() > *most {
                    return Err(invalid(shape, index));
                }
            }
        }
        let exact = self.exact.and_then(|header| text::member(header, side));
        if let Some(exact) = exact {
            self.overwrite(row, exact, whole)?;
        }
        Ok(Some(row))
    }

    /// Puts the exact texts in place of what their Debezium form kept of them.
    fn overwrite(&mut self, row: Row, exact: &[u8], whole: bool) -> Result<(), Error> {
        let mut scanner = Scanner::new(exact);
        if !scanner.enter(b'{') {
            return Err(Error::Header { name: EXACT });
        }
        while let Some(name) = scanner.field()? {
            let index = named(self.shape, name)?;
            let content = json::string_content(scanner.value()?);
            let content = content.ok_or(Error::Header { name: EXACT })?;
            if whole || self.shape.fields[index].key {
                let cell = self.changes.push_text(&content);
                self.changes.set_cell(row, index, cell);
            }
        }
        Ok(())
    }
}

fn named(shape: &Shape, raw: &[u8]) -> Result<usize, Error> {
    shape.index(raw).ok_or_else(|| Error::UnknownField {
        field: String::from_utf8_lossy(raw).into_owned(),
        table: shape.table.full_name().to_string(),
    })
}

fn cell(shape: &Shape, index: usize, token: &[u8], changes: &mut Changes) -> Result<Cell, Error> {
    let field = &shape.fields[index];
    let of_any_type = || field.wire == Wire::Any && value::is_unavailable(token);
    if token == field.unavailable || of_any_type() {
        return Ok(Cell::UNCHANGED);
    }
    let mut valid = false;
    let cell = changes.write_text(|arena| valid = text::read(&field.wire, token, arena));
    if valid { Ok(cell) } else { Err(invalid(shape, index)) }
}

fn invalid(shape: &Shape, index: usize) -> Error {
    let column = &shape.table.columns[index];
    Error::Value { column: column.name.clone(), type_name: column.type_name.clone() }
}
