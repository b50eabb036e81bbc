//! The table version of a record that tells none: inferred from its values.
//!
//! Whole numbers are `bigint`, numbers with a fraction or an exponent `double precision`, booleans
//! `boolean`, all else `text`. Of a column that has only been null the type is unknown: the sink leaves it
//! what it is in the copy, where an earlier process, or the reader before this one, may have known it.
//! A value that does not fit widens its column to `text`; a whole number fits one with a fraction, and so
//! does a text that says NaN or infinity. A `bigint` does not become `double precision`, into which not every
//! one fits. A column that appears is added; one that is gone is dropped only with the next new version. Key
//! columns are the fields of the record's key.

use std::sync::Arc;

use super::json::{self, Scanner};
use super::plan::Field;
use super::reader::{Envelope, Shape};
use super::wire::Wire;
use super::{Error, value};
use crate::table::{Column, ColumnType, ReplicaIdentity, Table, UNKNOWN_TYPE};

/// What Debezium writes for numbers that JSON has no form for.
const NOT_FINITE: [&[u8]; 3] = [b"\"NaN\"", b"\"Infinity\"", b"\"-Infinity\""];

/// The shape that fits the record's rows, if the known one does not.
pub(super) fn shape(
    (schema, name): &(String, String),
    known: Option<&Shape>,
    envelope: &Envelope<'_>,
    key: Option<&[u8]>,
) -> Result<Option<Shape>, Error> {
    let mut columns = known.map(|shape| shape.table.columns.clone()).unwrap_or_default();
    let mut changed = known.is_none();
    for row in [envelope.before, envelope.after].into_iter().flatten() {
        changed |= fit(row, &mut columns)?;
    }
    if !changed {
        return Ok(None);
    }
    let keys = key_columns(key)?;
    for column in &mut columns {
        column.key |= keys.contains(&column.name);
        column.nullable = !column.key;
    }
    let fields = columns.iter().map(|column| Field::new(column, wire(&column.kind))).collect();
    let identity = ReplicaIdentity::Default;
    let table = Table::new(0, schema.clone(), name.clone(), columns, identity);
    Ok(Some(Shape { table: Arc::new(table), fields }))
}

/// Widens the columns to what the row holds; true if one changed.
fn fit(row: &[u8], columns: &mut Vec<Column>) -> Result<bool, Error> {
    let mut changed = false;
    let mut scanner = Scanner::new(row);
    if !scanner.enter(b'{') {
        return Err(scanner.error());
    }
    let mut expected = 0;
    while let Some(raw) = scanner.field()? {
        let token = scanner.value()?;
        let same = |column: &Column| column.name.as_bytes() == raw;
        let found = match columns.get(expected) {
            Some(column) if same(column) => Some(expected),
            _ => find(raw, columns),
        };
        let seen = match found.map(|index| &columns[index].kind) {
            Some(_) if value::is_unavailable(token) => None,
            Some(ColumnType::Float8) if NOT_FINITE.contains(&token) => Some(ColumnType::Float8),
            _ => kind(token),
        };
        expected = 1 + match (found, seen) {
            (Some(index), Some(seen)) => {
                let column = &mut columns[index];
                let wider = widen(column, seen);
                if wider != column.kind {
                    column.type_name = type_name(&wider);
                    column.kind = wider;
                    changed = true;
                }
                index
            }
            (Some(index), None) => index,
            (None, seen) => {
                columns.push(new_column(raw, seen)?);
                changed = true;
                columns.len() - 1
            }
        };
    }
    Ok(changed)
}

fn find(raw: &[u8], columns: &[Column]) -> Option<usize> {
    let mut name = Vec::new();
    let valid = json::unescape(&mut name, raw);
    columns.iter().position(|column| valid && column.name.as_bytes() == name)
}

fn new_column(raw: &[u8], seen: Option<ColumnType>) -> Result<Column, Error> {
    let mut name = Vec::new();
    let valid = json::unescape(&mut name, raw);
    let name = String::from_utf8(name).ok().filter(|_| valid);
    let name = name.ok_or(Error::Envelope { field: "after" })?;
    Ok(match seen {
        Some(kind) => Column::new(name, kind.clone(), type_name(&kind)),
        None => Column::new(name, ColumnType::Other, UNKNOWN_TYPE),
    })
}

/// The type a value shows; `None` for null.
fn kind(token: &[u8]) -> Option<ColumnType> {
    match token.first()? {
        b'n' => None,
        b't' | b'f' => Some(ColumnType::Bool),
        b'-' | b'0'..=b'9' => {
            let text = std::str::from_utf8(token).ok()?;
            let whole = text.parse::<i64>().is_ok();
            let fraction = text.contains(['.', 'e', 'E']);
            Some(match (whole, fraction) {
                (true, _) => ColumnType::Int8,
                (false, true) => ColumnType::Float8,
                (false, false) => ColumnType::Text,
            })
        }
        _ => Some(ColumnType::Text),
    }
}

/// The type that takes what a column holds and what was seen in it.
fn widen(column: &Column, seen: ColumnType) -> ColumnType {
    match (&column.kind, seen) {
        (_, seen) if column.has_unknown_type() => seen,
        (known, seen) if *known == seen => seen,
        (ColumnType::Float8, ColumnType::Int8) => ColumnType::Float8,
        _ => ColumnType::Text,
    }
}

fn wire(kind: &ColumnType) -> Wire {
    match kind {
        ColumnType::Bool => Wire::Bool,
        ColumnType::Int8 => Wire::Digits,
        ColumnType::Float8 => Wire::Float,
        _ => Wire::Any,
    }
}

/// The names of a key's fields; none without a key.
pub(super) fn key_columns(key: Option<&[u8]>) -> Result<Vec<String>, Error> {
    let Some(key) = key else { return Ok(Vec::new()) };
    let unreadable = |_| Error::Envelope { field: "key" };
    let key: serde_json::Value = serde_json::from_slice(key).map_err(unreadable)?;
    let payload = if key["schema"].is_object() { &key["payload"] } else { &key };
    Ok(payload.as_object().map(|key| key.keys().cloned().collect()).unwrap_or_default())
}

/// The type as PostgreSQL prints it, as far as a foreign record tells.
pub(super) fn type_name(kind: &ColumnType) -> String {
    let name = match kind {
        ColumnType::Bool => "boolean",
        ColumnType::Int2 => "smallint",
        ColumnType::Int4 => "integer",
        ColumnType::Int8 => "bigint",
        ColumnType::Oid => "oid",
        ColumnType::Float4 => "real",
        ColumnType::Float8 => "double precision",
        ColumnType::Numeric(Some((precision, scale))) => {
            return format!("numeric({precision},{scale})");
        }
        ColumnType::Numeric(None) => "numeric",
        ColumnType::Money => "money",
        ColumnType::Bytea => "bytea",
        ColumnType::Uuid => "uuid",
        ColumnType::Json => "json",
        ColumnType::Jsonb => "jsonb",
        ColumnType::Xml => "xml",
        ColumnType::Date => "date",
        ColumnType::Time(digits) => return format!("time({digits}) without time zone"),
        ColumnType::Timetz(digits) => return format!("time({digits}) with time zone"),
        ColumnType::Timestamp(digits) => return format!("timestamp({digits}) without time zone"),
        ColumnType::Timestamptz(digits) => return format!("timestamp({digits}) with time zone"),
        ColumnType::Interval => "interval",
        ColumnType::Bit(bits) => return format!("bit({bits})"),
        ColumnType::Varbit(_) => "bit varying",
        ColumnType::Point => "point",
        ColumnType::Array(element) => return format!("{}[]", type_name(element)),
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Other => "text",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column's types, one after each of these values of it.
    fn types(values: &[&str]) -> Vec<String> {
        let mut columns = Vec::new();
        let mut after = |value: &&str| {
            fit(format!("{{\"c\":{value}}}").as_bytes(), &mut columns).expect("a row");
            columns[0].type_name.clone()
        };
        values.iter().map(&mut after).collect()
    }

    #[test]
    fn a_column_is_of_the_first_type_that_is_seen_in_it_and_of_none_before() {
        for (value, found) in
            [("true", "boolean"), ("1", "bigint"), ("1.0", "double precision"), ("\"a\"", "text")]
        {
            assert_eq!(types(&["null", value, "null"]), [UNKNOWN_TYPE, found, found]);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_makes_a_column_text_which_takes_all_that_was_in_it() {
        assert_eq!(types(&["1", "1.5", "2"]), ["bigint", "text", "text"]);
        assert_eq!(types(&["1.5", "2", "\"NaN\""]), ["double precision"; 3]);
        assert_eq!(types(&["true", "0"]), ["boolean", "text"]);
    }
}
