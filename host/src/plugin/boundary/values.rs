//! The values of an answer: whether they are sound, whether columns can hold them, and their text as
//! PostgreSQL writes it.

use std::io::Write as _;

use crate::change::{Cell, Changes};
use crate::plugin::boundary::columns::fits;
use crate::plugin::boundary::plan::Kind;
use crate::plugin::guest::bindings::types::{Fault, ValuesResult};
use crate::table::Column;

/// One value of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'a> {
    Null,
    Text(&'a [u8]),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// Refuses values that are not one for each of `count` rows.
pub(super) fn check_values(values: &ValuesResult, count: usize) -> Result<(), String> {
    let (len, nulls) = match values {
        ValuesResult::Strings(items) => (items.len(), None),
        ValuesResult::Packed(packed) => {
            check_packed(&packed.ends, &packed.data)?;
            (packed.ends.len(), packed.nulls.as_ref())
        }
        ValuesResult::Integers(column) => (column.items.len(), column.nulls.as_ref()),
        ValuesResult::Floats(column) => (column.items.len(), column.nulls.as_ref()),
        ValuesResult::Booleans(column) => (column.items.len(), column.nulls.as_ref()),
    };
    if len != count {
        return Err(format!("{len} values for {count} rows"));
    }
    match nulls {
        Some(bits) if bits.len() != count.div_ceil(8) => {
            Err(format!("{} bytes of nulls for {count} rows", bits.len()))
        }
        _ => Ok(()),
    }
}

fn check_packed(ends: &[u32], data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|_| "packed data is not UTF-8")?;
    let mut start = 0;
    for end in ends {
        if *end < start || !text.is_char_boundary(*end as usize) {
            return Err(format!("end {end} is not ascending, inside the data, or at a character"));
        }
        start = *end;
    }
    if start as usize != data.len() {
        return Err(format!("{} bytes of packed data, the last end is {start}", data.len()));
    }
    Ok(())
}

/// Bytes that the text of values may take.
pub(super) fn text_bytes(values: &ValuesResult) -> usize {
    match values {
        ValuesResult::Strings(items) => items.iter().flatten().map(String::len).sum(),
        ValuesResult::Packed(packed) => packed.data.len(),
        // The longest number is a double of 24 characters.
        ValuesResult::Integers(column) => column.items.len() * 20,
        ValuesResult::Floats(column) => column.items.len() * 25,
        ValuesResult::Booleans(column) => column.items.len(),
    }
}

/// The value of a row, of values that are sound.
pub(super) fn item(values: &ValuesResult, index: usize) -> Item<'_> {
    let null = |nulls: &Option<Vec<u8>>| {
        nulls.as_ref().is_some_and(|bits| bits[index >> 3] & (1 << (index & 7)) != 0)
    };
    match values {
        ValuesResult::Strings(items) => {
            items[index].as_ref().map_or(Item::Null, |text| Item::Text(text.as_bytes()))
        }
        ValuesResult::Packed(packed) if !null(&packed.nulls) => {
            let start = index.checked_sub(1).map_or(0, |before| packed.ends[before]);
            Item::Text(&packed.data[start as usize..packed.ends[index] as usize])
        }
        ValuesResult::Integers(column) if !null(&column.nulls) => {
            Item::Integer(column.items[index])
        }
        ValuesResult::Floats(column) if !null(&column.nulls) => Item::Float(column.items[index]),
        ValuesResult::Booleans(column) if !null(&column.nulls) => {
            Item::Boolean(column.items[index])
        }
        _ => Item::Null,
    }
}

/// Why a column of that kind cannot hold a value.
pub(super) fn misfit(item: Item<'_>, kind: Kind, nullable: bool) -> Option<&'static str> {
    let why = match (item, kind) {
        (Item::Null, _) if nullable => return None,
        (Item::Null, _) => "NULL where none may be",
        (Item::Text(text), kind) if fits(kind, text) => return None,
        (Item::Integer(item), Kind::Integer { min, max }) if (min..=max).contains(&item) => {
            return None;
        }
        (Item::Float(_), Kind::Float { .. }) | (Item::Boolean(_), Kind::Boolean) => return None,
        _ => "a value that its type cannot hold",
    };
    Some(why)
}

/// What is said of a row to which a plugin gave a value that a column cannot hold.
pub(super) fn unfit(row: u32, why: &str, column: &Column) -> Fault {
    let message = format!("it gave {why} to {}, a {}", column.name, column.type_name);
    Fault { row, message, retryable: false }
}

/// A cell of a value that its column can hold.
pub(super) fn push_item(changes: &mut Changes, item: Item<'_>, kind: Kind) -> Cell {
    match item {
        Item::Null => Cell::NULL,
        Item::Text(text) => changes.push_text(text),
        native => changes.write_text(|text| {
            write_native(native, kind == Kind::Float { single: true }, text);
        }),
    }
}

/// The double whose shortest text is the float's.
fn shortest(item: f32) -> f64 {
    item.to_string().parse().unwrap_or_else(|_| item.into())
}

/// From `large` on PostgreSQL writes an exponent, with its sign and two digits at least.
fn write_float(item: f64, large: f64, text: &mut Vec<u8>) -> std::io::Result<()> {
    if item == 0.0 || (1e-4..large).contains(&item.abs()) {
        return write!(text, "{item}");
    }
    let plain = format!("{item:e}");
    let (digits, exponent) = plain.split_once('e').expect("the form has an exponent");
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    write!(text, "{digits}e{sign}{exponent:0>2}")
}

/// PostgreSQL's text form of a native value.
pub(super) fn write_native(item: Item<'_>, single: bool, text: &mut Vec<u8>) {
    let written = match item {
        Item::Integer(item) => write!(text, "{item}"),
        Item::Boolean(item) => write!(text, "{}", if item { 't' } else { 'f' }),
        Item::Float(item) if item.is_nan() => write!(text, "NaN"),
        Item::Float(item) if item.is_infinite() => {
            write!(text, "{}Infinity", if item < 0.0 { "-" } else { "" })
        }
        #[expect(clippy::cast_possible_truncation, reason = "the column holds no more")]
        Item::Float(item) if single => write_float(shortest(item as f32), 1e6, text),
        Item::Float(item) => write_float(item, 1e15, text),
        Item::Null | Item::Text(_) => Ok(()),
    };
    written.expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(item: Item<'_>, single: bool) -> String {
        let mut text = Vec::new();
        write_native(item, single, &mut text);
        String::from_utf8(text).unwrap()
    }

    /// As `SELECT item::double precision` and `::real` print them.
    #[test]
    fn floats_are_written_as_postgres_writes_them() {
        let doubles = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (-1.25e300, "-1.25e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (item, expected) in doubles {
            assert_eq!(text(Item::Float(item), false), expected);
        }
        for (item, expected) in [(0.1_f32, "0.1"), (123_456.0, "123456"), (1e6, "1e+06")] {
            assert_eq!(text(Item::Float(item.into()), true), expected);
        }
    }

    #[test]
    fn whole_numbers_and_truth_values_are_written_as_postgres_writes_them() {
        assert_eq!(text(Item::Integer(i64::MIN), false), "-9223372036854775808");
        assert_eq!(text(Item::Boolean(true), false), "t");
        assert_eq!(text(Item::Boolean(false), false), "f");
    }
}
