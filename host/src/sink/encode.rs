//! One value: PostgreSQL's text in, ClickHouse's RowBinary out, with no allocation on the way.
//!
//! One rule holds for every value that its ClickHouse type has no place for (`infinity`, BC, a year
//! above 2299 or before 1900, `NaN` in a `Decimal`, an array of several dimensions or with bounds
//! of its own, NULL in a column that cannot be `Nullable`): **the column gets the nearest value it
//! has, in PostgreSQL's order, and the row's `_exact` map keeps PostgreSQL's text under the
//! column's name** (NULL for a NULL). Nothing wraps, nothing is lost, no row is held up. An array's
//! nearest value is its elements in storage order, a NULL's is the type's default.
//!
//! In a key column two rows would become one that way; such a change is a dead letter, and so is
//! one whose text is not of the column's type at all (a plugin can write one).

use super::array::{Element, Elements};
use super::types::{Kind, Type};
use super::{datetime, decimal};
use crate::decode::array::unquote;
use crate::table::{Column, ColumnType};

/// Whether the type had a place for the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Exact,
    Nearest,
}

impl Fit {
    pub(super) fn exact_if(exact: bool) -> Fit {
        match exact {
            true => Fit::Exact,
            false => Fit::Nearest,
        }
    }

    fn and(self, other: Fit) -> Fit {
        Fit::exact_if(self == Fit::Exact && other == Fit::Exact)
    }
}

/// The text is not of the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Writes one column's values.
#[derive(Debug, Clone)]
pub(super) struct Codec {
    kind: Writer,
    nullable: bool,
}

/// How a present value is written.
#[derive(Debug, Clone)]
enum Writer {
    Bool,
    Int16,
    Int32,
    Int64,
    UInt32,
    Float32,
    Float64,
    Decimal {
        precision: u32,
        scale: u32,
    },
    Text,
    /// Text that is not the hex form of bytes.
    NoHex,
    Hex,
    Uuid,
    Date32,
    DateTime64,
    Array(Box<Codec>),
}

impl Codec {
    /// For a column's values. Of a type that the source has dropped, text that looks like bytes may be text or
    /// bytes.
    pub(super) fn of(target: &Type, source: &Column) -> Codec {
        let codec = Codec::new(target, &source.kind);
        if source.has_unknown_type() { codec.without_hex() } else { codec }
    }

    fn without_hex(self) -> Codec {
        let kind = match self.kind {
            Writer::Text => Writer::NoHex,
            Writer::Array(element) => Writer::Array(Box::new(element.without_hex())),
            kind => kind,
        };
        Codec { kind, ..self }
    }

    /// Into a ClickHouse type, from a source type that it takes.
    pub(super) fn new(target: &Type, source: &ColumnType) -> Codec {
        let kind = match (&target.kind, source) {
            (Kind::String | Kind::LowCardinality, ColumnType::Bytea) => Writer::Hex,
            (Kind::String | Kind::LowCardinality, _) => Writer::Text,
            (Kind::Array(element), ColumnType::Array(of)) => {
                Writer::Array(Box::new(Codec::new(element, of)))
            }
            (Kind::Array(element), _) => {
                Writer::Array(Box::new(Codec::new(element, &ColumnType::Other)))
            }
            (Kind::Bool, _) => Writer::Bool,
            (Kind::Int16, _) => Writer::Int16,
            (Kind::Int32, _) => Writer::Int32,
            (Kind::Int64, _) => Writer::Int64,
            (Kind::UInt32, _) => Writer::UInt32,
            (Kind::Float32, _) => Writer::Float32,
            (Kind::Float64, _) => Writer::Float64,
            (Kind::Decimal { precision, scale }, _) => {
                Writer::Decimal { precision: *precision, scale: *scale }
            }
            (Kind::Uuid, _) => Writer::Uuid,
            (Kind::Date32, _) => Writer::Date32,
            (Kind::DateTime64, _) => Writer::DateTime64,
        };
        Codec { kind, nullable: target.nullable }
    }

    /// Appends a value.
    pub(super) fn write(&self, text: &[u8], out: &mut Vec<u8>) -> Result<Fit, Unreadable> {
        if self.nullable {
            out.push(0);
        }
        match &self.kind {
            Writer::NoHex if text.starts_with(b"\\x") => return Err(Unreadable),
            Writer::Text | Writer::NoHex => write_string(text, out),
            Writer::Int16 => out.extend_from_slice(&integer::<i16>(text)?.to_le_bytes()),
            Writer::Int32 => out.extend_from_slice(&integer::<i32>(text)?.to_le_bytes()),
            Writer::Int64 => out.extend_from_slice(&integer::<i64>(text)?.to_le_bytes()),
            Writer::UInt32 => out.extend_from_slice(&integer::<u32>(text)?.to_le_bytes()),
            Writer::Float32 => out.extend_from_slice(&parsed::<f32>(text)?.to_le_bytes()),
            Writer::Float64 => out.extend_from_slice(&parsed::<f64>(text)?.to_le_bytes()),
            Writer::Bool => out.push(boolean(text)?),
            Writer::Uuid => write_uuid(text, out)?,
            Writer::Hex => write_hex(text, out)?,
            Writer::Decimal { precision, scale } => {
                return decimal::write(text, *precision, *scale, out);
            }
            Writer::Date32 => {
                let (day, fit) = datetime::days(text)?;
                out.extend_from_slice(&day.to_le_bytes());
                return Ok(fit);
            }
            Writer::DateTime64 => {
                let (micros, fit) = datetime::micros(text)?;
                out.extend_from_slice(&micros.to_le_bytes());
                return Ok(fit);
            }
            Writer::Array(element) => return element.write_array(text, out),
        }
        Ok(Fit::Exact)
    }

    /// Appends NULL, or the default where there is no NULL.
    pub(super) fn write_null(&self, out: &mut Vec<u8>) -> Fit {
        match self.nullable {
            true => out.push(1),
            false => self.write_default(out),
        }
        Fit::exact_if(self.nullable)
    }

    /// Appends NULL or zero, for a row that marks a deletion.
    pub(super) fn write_default(&self, out: &mut Vec<u8>) {
        let zeros = match &self.kind {
            _ if self.nullable => return out.push(1),
            Writer::Bool | Writer::Text | Writer::NoHex | Writer::Hex | Writer::Array(_) => 1,
            Writer::Int16 => 2,
            Writer::Int32 | Writer::UInt32 | Writer::Float32 | Writer::Date32 => 4,
            Writer::Int64 | Writer::Float64 | Writer::DateTime64 => 8,
            Writer::Uuid => 16,
            Writer::Decimal { precision, .. } => super::types::decimal_width(*precision),
        };
        out.resize(out.len() + zeros, 0);
    }

    /// Appends an array of this codec's values.
    fn write_array(&self, text: &[u8], out: &mut Vec<u8>) -> Result<Fit, Unreadable> {
        let (mut elements, flat) = Elements::of(text);
        write_varint(elements.clone().count_all()?, out);
        let mut fit = Fit::exact_if(flat);
        while let Some(element) = elements.next_element()? {
            fit = fit.and(match element {
                Element::Null => self.write_null(out),
                Element::Plain(text) => self.write(text, out)?,
                Element::Quoted(text) if memchr::memchr(b'\\', text).is_none() => {
                    self.write(text, out)?
                }
                Element::Quoted(text) => self.write_escaped(text, out)?,
            });
        }
        Ok(fit)
    }

    /// The only values that are copied first: elements in which something is escaped.
    fn write_escaped(&self, text: &[u8], out: &mut Vec<u8>) -> Result<Fit, Unreadable> {
        let mut plain = Vec::with_capacity(text.len());
        unquote(&mut plain, text);
        self.write(&plain, out)
    }
}

/// Appends an unsigned LEB128 number.
/// Whether a text of a date, a time or a decimal number is a value of this ClickHouse type, and no other one
/// than it says. Of other types nothing is said.
#[must_use]
pub fn is_exact(kind: &str, text: &str) -> bool {
    let Some(ty) = Type::parse(kind) else { return true };
    let text = match ty.kind {
        Kind::Decimal { .. } => text.to_owned(),
        Kind::Date32 | Kind::DateTime64 if !datetime::is_day(text) => return false,
        Kind::Date32 => text.to_owned(),
        // The day alone is its beginning.
        Kind::DateTime64 if !text.contains(':') => format!("{text} 00:00:00"),
        Kind::DateTime64 => text.replacen('T', " ", 1),
        _ => return true,
    };
    Codec::new(&ty, &ColumnType::Other).write(text.as_bytes(), &mut Vec::new()) == Ok(Fit::Exact)
}

pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a `String`.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    write_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn boolean(text: &[u8]) -> Result<u8, Unreadable> {
    match text {
        b"t" | b"true" => Ok(1),
        b"f" | b"false" => Ok(0),
        _ => Err(Unreadable),
    }
}

fn integer<T: TryFrom<i64>>(text: &[u8]) -> Result<T, Unreadable> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Unreadable);
    }
    // Counted downwards: the least number has no positive counterpart.
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Unreadable);
        }
        let next = value.checked_mul(10).and_then(|value| value.checked_sub(digit.into()));
        value = next.ok_or(Unreadable)?;
    }
    let value = if negative { Some(value) } else { value.checked_neg() };
    value.and_then(|value| T::try_from(value).ok()).ok_or(Unreadable)
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Result<T, Unreadable> {
    let text = std::str::from_utf8(text).map_err(|_| Unreadable)?;
    text.parse().map_err(|_| Unreadable)
}

/// ClickHouse keeps a UUID as two little-endian words, the high one first.
fn write_uuid(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let mut digits = text.iter().filter(|byte| **byte != b'-');
    let mut value = 0u128;
    for _ in 0..32 {
        let digit = nibble(*digits.next().ok_or(Unreadable)?)?;
        value = value << 4 | u128::from(digit);
    }
    if digits.next().is_some() {
        return Err(Unreadable);
    }
    let bytes = value.to_le_bytes();
    out.extend_from_slice(&bytes[8..]);
    out.extend_from_slice(&bytes[..8]);
    Ok(())
}

fn write_hex(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let digits = text.strip_prefix(b"\\x").ok_or(Unreadable)?;
    if digits.len() % 2 != 0 {
        return Err(Unreadable);
    }
    write_varint(digits.len() as u64 / 2, out);
    for pair in digits.chunks_exact(2) {
        out.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Ok(())
}

fn nibble(digit: u8) -> Result<u8, Unreadable> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(target: &str, source: &ColumnType, text: &str) -> Result<(Vec<u8>, Fit), Unreadable> {
        let target = Type::parse(target).unwrap();
        let mut out = Vec::new();
        let fit = Codec::new(&target, source).write(text.as_bytes(), &mut out)?;
        assert_eq!(target.span(&out), Some(out.len()), "{target} {text}");
        Ok((out, fit))
    }

    #[test]
    fn booleans_uuids_and_bytes_have_their_layout() {
        assert_eq!(encode("Bool", &ColumnType::Bool, "t").unwrap().0, [1]);
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let expected = [
            0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99,
            0x88,
        ];
        assert_eq!(encode("UUID", &ColumnType::Uuid, uuid).unwrap().0, expected);
        let bytes = encode("Nullable(String)", &ColumnType::Bytea, "\\x00ff7C").unwrap().0;
        assert_eq!(bytes, [0, 3, 0, 0xFF, 0x7C]);
        for bad in ["", "\\x0", "00ff", "\\xzz"] {
            assert_eq!(encode("String", &ColumnType::Bytea, bad), Err(Unreadable), "{bad}");
        }
    }

    #[test]
    fn of_a_dropped_type_what_may_be_bytes_is_refused_and_the_rest_is_read_as_the_column_has_it() {
        let write = |target: &str, text: &str| {
            let source = Column::new("c", ColumnType::Other, crate::table::UNKNOWN_TYPE);
            let mut out = Vec::new();
            let codec = Codec::of(&Type::parse(target).unwrap(), &source);
            codec.write(text.as_bytes(), &mut out).map(|_| out)
        };
        assert_eq!(write("String", "\\x00ff"), Err(Unreadable));
        assert_eq!(write("Array(Nullable(String))", r#"{"\\x00ff"}"#), Err(Unreadable));
        assert_eq!(write("LowCardinality(String)", "x"), Ok(vec![1, b'x']));
        assert_eq!(
            write("Array(LowCardinality(Nullable(String)))", "{a}"),
            Ok(vec![1, 0, 1, b'a'])
        );
        assert_eq!(write("Int16", "7"), Ok(vec![7, 0]));
        assert_eq!(write("Int16", "seven"), Err(Unreadable));
    }

    #[test]
    fn an_integer_that_overflows_is_refused_never_wrapped() {
        let int = |target, text| encode(target, &ColumnType::Int4, text).map(|(bytes, _)| bytes);
        assert_eq!(int("Int16", "-32768"), Ok((-32768i16).to_le_bytes().to_vec()));
        assert_eq!(int("Int16", "32768"), Err(Unreadable));
        assert_eq!(int("Int64", "-9223372036854775808"), Ok(i64::MIN.to_le_bytes().to_vec()));
        assert_eq!(int("Int64", "9223372036854775808"), Err(Unreadable));
        assert_eq!(int("UInt32", "-1"), Err(Unreadable));
        assert_eq!(int("UInt32", "4294967295"), Ok(u32::MAX.to_le_bytes().to_vec()));
        assert_eq!(int("Int32", ""), Err(Unreadable));
    }

    #[test]
    fn floats_keep_their_special_values() {
        let float = |text| {
            let bytes = encode("Float64", &ColumnType::Float8, text).unwrap().0;
            f64::from_le_bytes(bytes.try_into().unwrap())
        };
        assert!(float("NaN").is_nan());
        assert_eq!(float("-Infinity"), f64::NEG_INFINITY);
        assert_eq!(float("1e-320"), 1e-320);
        assert!(float("-0").is_sign_negative());
    }

    #[test]
    fn arrays_hold_nulls_and_say_when_they_lose_their_shape() {
        let kind = ColumnType::Array(Box::new(ColumnType::Int4));
        let array = |text| encode("Array(Nullable(Int16))", &kind, text).unwrap();
        assert_eq!(array("{1,NULL}"), (vec![2, 0, 1, 0, 1], Fit::Exact));
        assert_eq!(array("{{1},{2}}"), (vec![2, 0, 1, 0, 0, 2, 0], Fit::Nearest));
        let kind = ColumnType::Array(Box::new(ColumnType::Date));
        let (_, fit) = encode("Array(Nullable(Date32))", &kind, "{infinity}").unwrap();
        assert_eq!(fit, Fit::Nearest);
        let kind = ColumnType::Array(Box::new(ColumnType::Text));
        let (bytes, _) = encode("Array(Nullable(String))", &kind, r#"{"a\"b"}"#).unwrap();
        assert_eq!(bytes, [1, 0, 3, b'a', b'"', b'b']);
    }

    #[test]
    fn null_where_there_is_none_becomes_the_default_and_says_so() {
        let mut out = Vec::new();
        let codec = |target| Codec::new(&Type::parse(target).unwrap(), &ColumnType::Other);
        assert_eq!(codec("Nullable(Int32)").write_null(&mut out), Fit::Exact);
        assert_eq!(codec("Int32").write_null(&mut out), Fit::Nearest);
        assert_eq!(codec("Array(Nullable(Int32))").write_null(&mut out), Fit::Nearest);
        assert_eq!(out, [1, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn integers_agree_with_the_standard_library(value: i64) {
            let (bytes, _) = encode("Int64", &ColumnType::Int8, &value.to_string()).unwrap();
            prop_assert_eq!(bytes, value.to_le_bytes().to_vec());
            let narrow = encode("Int32", &ColumnType::Int4, &value.to_string());
            prop_assert_eq!(narrow.is_ok(), i32::try_from(value).is_ok());
        }

        #[test]
        fn strings_of_any_length_keep_their_bytes(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            let (length, prefix) = super::super::types::read_varint(&out).unwrap();
            prop_assert_eq!(usize::try_from(length).unwrap(), text.len());
            prop_assert_eq!(&out[prefix..], &text[..]);
        }
    }
}
