//! One value of PostgreSQL, written as the envelope has it.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::json;
use super::time::{self, Moment};
use super::wire::{Unit, Wire};
use super::{UNAVAILABLE, text};
use crate::decode::array::{Token, Tokens, unquote};

/// Whether the written form says all that the text said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Reading it back gives the text.
    Whole,
    /// The text has to travel beside it.
    Partly,
}

/// What stands for arrays that were not sent.
static UNSENT_ARRAYS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [Wire::Digits, Wire::Text].map(|element| unavailable(&Wire::Array(Box::new(element))))
});

/// Whether a value of an unknown type stands for one that was not sent, as Debezium writes it for any type.
pub(super) fn is_unavailable(token: &[u8]) -> bool {
    static PLAIN: LazyLock<[Vec<u8>; 2]> =
        LazyLock::new(|| [Wire::Text, Wire::Bytea].map(|wire| unavailable(&wire)));
    PLAIN.iter().chain(&*UNSENT_ARRAYS).any(|unsent| unsent == token)
}

/// Writes a value's JSON; `None` if the text is not of the type (`out` may then hold half of it).
pub(super) fn write(wire: &Wire, text: &[u8], out: &mut Vec<u8>) -> Option<Kept> {
    let start = out.len();
    let kept = write_form(wire, text, out)?;
    if !wire.may_lose() {
        return Some(kept);
    }
    let mut back = Vec::with_capacity(text.len());
    let is_sentinel = matches!(wire, Wire::Array(_))
        && UNSENT_ARRAYS.iter().any(|unsent| *unsent == out[start..]);
    let whole = !is_sentinel && text::read(wire, &out[start..], &mut back) && back == text;
    Some(if whole { Kept::Whole } else { Kept::Partly })
}

fn write_form(wire: &Wire, text: &[u8], out: &mut Vec<u8>) -> Option<Kept> {
    match wire {
        Wire::Text => return Some(write_text(text, out)),
        Wire::Digits => out.extend_from_slice(integer(text)?),
        Wire::Bool => out.extend_from_slice(truth(text, b"t", b"f")?),
        Wire::BitFlag => out.extend_from_slice(truth(text, b"1", b"0")?),
        Wire::Float => write_float(text, out)?,
        Wire::Numeric => write_numeric(text, out),
        Wire::Money => write_money(text, out)?,
        Wire::Bytea => return write_bytea(text, out),
        Wire::Date => return write_date(text, out),
        Wire::Timestamp(unit) => return write_timestamp(*unit, text, out),
        Wire::Timestamptz(digits) => write_timestamptz(*digits, text, out)?,
        Wire::Time(unit) => {
            let (micros, _) = time::parse_time(text)?;
            json::write_int(out, scaled(*unit, micros));
        }
        Wire::Timetz => write_timetz(text, out)?,
        Wire::Interval => json::write_int(out, time::parse_interval(text)?),
        Wire::Bits(bits) => write_bits(*bits, text, out)?,
        Wire::Point => write_point(text, out)?,
        Wire::Array(element) => write_array(element, text, out)?,
        Wire::Decimal(_) | Wire::VariableDecimal | Wire::Any => return None,
    }
    Some(Kept::Whole)
}

fn write_text(text: &[u8], out: &mut Vec<u8>) -> Kept {
    json::write_string(out, text);
    if text == UNAVAILABLE.as_bytes() { Kept::Partly } else { Kept::Whole }
}

fn integer(text: &[u8]) -> Option<&[u8]> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(text)
}

fn truth(text: &[u8], yes: &[u8], no: &[u8]) -> Option<&'static [u8]> {
    match text {
        _ if text == yes => Some(b"true"),
        _ if text == no => Some(b"false"),
        _ => None,
    }
}

/// Java always shows a fraction or an exponent, and consumers tell floats from integers by it.
fn write_float(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        json::write_string(out, text);
        return Some(());
    }
    let number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e');
    if text.is_empty() || !text.iter().all(number) {
        return None;
    }
    out.extend_from_slice(text);
    if !text.iter().any(|byte| matches!(byte, b'.' | b'e')) {
        out.extend_from_slice(b".0");
    }
    Some(())
}

fn write_numeric(text: &[u8], out: &mut Vec<u8>) {
    let text: &[u8] = match text {
        b"NaN" => b"NAN",
        b"Infinity" => b"POSITIVE_INFINITY",
        b"-Infinity" => b"NEGATIVE_INFINITY",
        _ => text,
    };
    json::write_string(out, text);
}

/// The server prints money as its locale says; the decimal separator is the last `.` or `,` that
/// has at most two digits after it.
fn write_money(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let is_separator = |byte: &u8| matches!(byte, b'.' | b',');
    let last_digit = text.iter().rposition(u8::is_ascii_digit)?;
    let text = &text[..=last_digit];
    let separator = text.iter().rposition(is_separator).filter(|at| last_digit - at <= 2);
    let negative = text.iter().any(|byte| matches!(byte, b'-' | b'('));
    out.extend_from_slice(if negative { b"\"-" } else { b"\"" });
    for (at, byte) in text.iter().enumerate() {
        if byte.is_ascii_digit() {
            out.push(*byte);
        } else if Some(at) == separator {
            out.push(b'.');
        }
    }
    out.push(b'"');
    Some(())
}

/// Appends base64 in quotes.
fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = BASE64.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.expect("there is room for all of it"));
    out.push(b'"');
}

fn write_bytea(text: &[u8], out: &mut Vec<u8>) -> Option<Kept> {
    let hex = text.strip_prefix(b"\\x")?;
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let byte = |pair: &[u8]| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?);
    let bytes = hex.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?;
    write_base64(&bytes, out);
    Some(if bytes == UNAVAILABLE.as_bytes() { Kept::Partly } else { Kept::Whole })
}

fn write_date(text: &[u8], out: &mut Vec<u8>) -> Option<Kept> {
    let days = match text {
        b"infinity" => time::DATE_INFINITY,
        b"-infinity" => time::DATE_NEGATIVE_INFINITY,
        _ => time::parse_date(text)?,
    };
    json::write_int(out, days);
    Some(Kept::Whole)
}

fn scaled(unit: Unit, micros: i64) -> i64 {
    match unit {
        Unit::Millis => micros.div_euclid(1000),
        Unit::Micros => micros,
        Unit::Nanos => micros.saturating_mul(1000),
    }
}

/// Past the year 294247 microseconds do not fit; the number is then the largest there is.
fn write_timestamp(unit: Unit, text: &[u8], out: &mut Vec<u8>) -> Option<Kept> {
    let (number, kept) = match text {
        b"infinity" => (time::TIMESTAMP_INFINITY, Kept::Whole),
        b"-infinity" => (time::TIMESTAMP_NEGATIVE_INFINITY, Kept::Whole),
        _ => match time::parse_timestamp(text)?.unix_micros() {
            Some(time::TIMESTAMP_INFINITY) => (time::TIMESTAMP_INFINITY, Kept::Partly),
            Some(micros) => (scaled(unit, micros), Kept::Whole),
            None => (i64::MAX, Kept::Partly),
        },
    };
    json::write_int(out, number);
    Some(kept)
}

fn write_timestamptz(digits: u8, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.push(b'"');
    if matches!(text, b"infinity" | b"-infinity") {
        out.extend_from_slice(text);
    } else if !time::write_iso_of_utc(out, text, digits) {
        time::write_iso(out, time::parse_timestamp(text)?, digits);
    }
    out.push(b'"');
    Some(())
}

fn write_timetz(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (micros, offset) = time::parse_time(text)?;
    let utc = Moment { days: 0, micros, offset }.utc();
    out.push(b'"');
    time::write_clock(out, utc.micros, None);
    out.extend_from_slice(b"Z\"");
    Some(())
}

/// The last bit is bit 0 of byte 0.
fn write_bits(bits: Option<u32>, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.iter().all(|bit| matches!(bit, b'0' | b'1')) {
        return None;
    }
    let chunk = |bits: &[u8]| bits.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
    let mut bytes: Vec<u8> = text.rchunks(8).map(chunk).collect();
    if bits.is_none() {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used);
    }
    write_base64(&bytes, out);
    Some(())
}

fn write_point(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let inside = text.strip_prefix(b"(")?.strip_suffix(b")")?;
    let comma = inside.iter().position(|byte| *byte == b',')?;
    let (x, y) = (&inside[..comma], &inside[comma + 1..]);
    let mut wkb = vec![1, 1, 0, 0, 0];
    for coordinate in [x, y] {
        let number: f64 = std::str::from_utf8(coordinate).ok()?.parse().ok()?;
        wkb.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(b"{\"x\":");
    write_float(x, out)?;
    out.extend_from_slice(b",\"y\":");
    write_float(y, out)?;
    out.extend_from_slice(b",\"wkb\":");
    write_base64(&wkb, out);
    out.extend_from_slice(b",\"srid\":null}");
    Some(())
}

fn write_array(element: &Wire, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (start, mut unquoted) = (out.len(), Vec::new());
    for token in Tokens::of(text).0 {
        if token == Token::Close {
            out.push(b']');
            continue;
        }
        if out.len() > start && out.last() != Some(&b'[') {
            out.push(b',');
        }
        match token {
            Token::Open => {
                out.push(b'[');
            }
            Token::Null => out.extend_from_slice(b"null"),
            Token::Plain(plain) => _ = write_form(element, plain, out)?,
            Token::Quoted(quoted) => {
                unquoted.clear();
                unquote(&mut unquoted, quoted);
                write_form(element, &unquoted, out)?;
            }
            Token::Close | Token::Invalid => return None,
        }
    }
    Some(())
}

/// What stands for a TOASTed value that was not sent.
pub(super) fn unavailable(wire: &Wire) -> Vec<u8> {
    let mut out = Vec::new();
    match wire {
        Wire::Bytea => write_base64(UNAVAILABLE.as_bytes(), &mut out),
        Wire::Array(element) if **element == Wire::Digits => {
            let bytes: Vec<String> = UNAVAILABLE.bytes().map(|byte| byte.to_string()).collect();
            out = format!("[{}]", bytes.join(",")).into_bytes();
        }
        Wire::Array(_) => out = format!("[\"{UNAVAILABLE}\"]").into_bytes(),
        _ => json::write_string(&mut out, UNAVAILABLE.as_bytes()),
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::array::write_element;

    fn round_trip(wire: &Wire, text: &str) -> (String, Kept) {
        let mut out = Vec::new();
        let kept = write(wire, text.as_bytes(), &mut out).unwrap_or_else(|| panic!("{text}"));
        let mut back = Vec::new();
        assert!(text::read(wire, &out, &mut back), "{text}");
        if kept == Kept::Whole {
            assert_eq!(String::from_utf8(back).unwrap(), text);
        }
        (String::from_utf8(out).unwrap(), kept)
    }

    fn array_of(wire: Wire) -> Wire {
        Wire::Array(Box::new(wire))
    }

    #[test]
    fn what_the_form_loses_is_told() {
        let lossy = [
            (Wire::Interval, "1 mon", "2629800000000"),
            (Wire::Timetz, "13:14:15+02", "\"11:14:15Z\""),
            (Wire::Bits(None), "0011", "\"Aw==\""),
            (Wire::Text, UNAVAILABLE, "\"__debezium_unavailable_value\""),
            (Wire::Timestamp(Unit::Micros), "294276-12-31 23:59:59", "9223372036854775807"),
            (array_of(Wire::Digits), "[0:1]={1,2}", "[1,2]"),
            (array_of(Wire::Interval), "{\"1 mon\"}", "[2629800000000]"),
        ];
        for (wire, text, json) in lossy {
            assert_eq!(round_trip(&wire, text), (json.to_owned(), Kept::Partly), "{wire:?}");
        }
    }

    #[test]
    fn what_the_form_keeps_is_read_back() {
        let whole = [
            (Wire::Interval, "-365:25:06.789", "-1315506789000"),
            (Wire::Timetz, "13:14:15+00", "\"13:14:15Z\""),
            (Wire::Float, "1e+20", "1e+20"),
            (Wire::Float, "-0", "-0.0"),
            (Wire::Timestamp(Unit::Millis), "1969-12-31 23:59:59.999", "-1"),
            (Wire::Timestamptz(0), "2024-01-01 00:00:00+00", "\"2024-01-01T00:00:00Z\""),
            (array_of(Wire::Text), "{{a,\"b,\\\"c\"},{NULL,\"\"}}", r#"[["a","b,\"c"],[null,""]]"#),
            (array_of(Wire::Bool), "{}", "[]"),
            (Wire::Bits(Some(9)), "100000001", "\"AQE=\""),
            (Wire::Date, "infinity", "-2147472692"),
        ];
        for (wire, text, json) in whole {
            assert_eq!(round_trip(&wire, text), (json.to_owned(), Kept::Whole), "{wire:?}");
        }
    }

    #[test]
    fn money_is_read_in_other_locales_too() {
        for text in ["-$1,234.56", "($1,234.56)", "-1.234,56 €", "-1234.56"] {
            let mut out = Vec::new();
            write(&Wire::Money, text.as_bytes(), &mut out).unwrap();
            assert_eq!(out, b"\"-1234.56\"", "{text}");
        }
    }

    #[test]
    fn text_of_another_type_is_refused() {
        for wire in [Wire::Digits, Wire::Float, Wire::Bool, Wire::Date, Wire::Point, Wire::Bytea] {
            assert_eq!(write(&wire, b"x\"", &mut Vec::new()), None, "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn arrays_of_any_text_are_read_back(elements in proptest::collection::vec(any::<Option<String>>(), 0..6)) {
            let mut text = Vec::from(b"{");
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                match element {
                    Some(element) => write_element(&mut text, element.as_bytes()),
                    None => text.extend_from_slice(b"NULL"),
                }
            }
            text.push(b'}');
            let mut out = Vec::new();
            prop_assert_eq!(write(&array_of(Wire::Text), &text, &mut out), Some(Kept::Whole));
            prop_assert_eq!(serde_json::from_slice::<Vec<Option<String>>>(&out).unwrap(), elements);
        }

        #[test]
        fn no_text_makes_a_form_panic(text in any::<Vec<u8>>()) {
            let forms = [
                Wire::Interval, Wire::Timetz, Wire::Point, Wire::Money, Wire::Date, Wire::Bytea,
                Wire::Timestamptz(3), Wire::Timestamp(Unit::Millis), array_of(Wire::Digits),
            ];
            for wire in forms {
                let mut out = Vec::new();
                let _kept = write(&wire, &text, &mut out);
                let _valid = text::read(&wire, &text, &mut out);
            }
        }
    }
}
