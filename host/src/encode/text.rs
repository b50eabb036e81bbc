//! One value of an envelope, written as PostgreSQL's text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::array;
use super::json::{self, Scanner};
use super::time::{self, Moment};
use super::wire::{Unit, Wire};

/// PostgreSQL's bound on an array's dimensions.
const DIMENSIONS: u8 = 6;

/// PostgreSQL's bounds on the digits before a numeric's point and after it. They also keep a damaged
/// number from asking for gigabytes of zeros, or for hours of division.
const WHOLE_DIGITS_MAX: usize = 131_072;
const SCALE_MAX: usize = 16_383;

/// More bytes than an integer of so many digits has.
const INTEGER_BYTES_MAX: usize = (WHOLE_DIGITS_MAX + SCALE_MAX) * 5 / 12 + 1;

/// What the texts of so many bytes of JSON may take. The forms of PostgreSQL's types take eleven times as
/// much at most, a list of moments that are one digit each; but a number's scale can ask for thousands of
/// zeros, in every element of a list.
pub(super) fn most(json_bytes: usize) -> usize {
    (16 << 20) + json_bytes.saturating_mul(16)
}

/// Appends the text of a JSON value that is not null; false if it is not of the form (`out` may
/// then hold half of it).
#[must_use]
pub(super) fn read(wire: &Wire, token: &[u8], out: &mut Vec<u8>) -> bool {
    read_form(wire, token, out).is_some()
}

fn read_form(wire: &Wire, token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match wire {
        Wire::Text | Wire::Money | Wire::Any => read_text(token, out)?,
        Wire::Digits => out.extend_from_slice(integer(token)?),
        Wire::Bool => out.push(truth(token, b't', b'f')?),
        Wire::BitFlag => out.push(truth(token, b'1', b'0')?),
        Wire::Float => read_float(token, out)?,
        Wire::Numeric => read_numeric(token, out)?,
        Wire::Bytea => read_bytea(token, out)?,
        Wire::Date => match number(token)? {
            time::DATE_INFINITY => out.extend_from_slice(b"infinity"),
            time::DATE_NEGATIVE_INFINITY => out.extend_from_slice(b"-infinity"),
            days => time::write_date(out, within(days, -1_000_000_000..=i32::MAX.into())?),
        },
        Wire::Time(unit) => {
            let micros = within(micros(*unit, number(token)?)?, 0..=time::DAY)?;
            time::write_clock(out, micros, None);
        }
        Wire::Timestamp(unit) => read_timestamp(*unit, token, out)?,
        Wire::Timestamptz(_) => read_timestamptz(token, out)?,
        Wire::Timetz => read_timetz(token, out)?,
        Wire::Interval => match number(token) {
            Some(micros) => time::write_interval(out, micros),
            None => read_text(token, out)?,
        },
        Wire::Bits(bits) => read_bits(*bits, token, out)?,
        Wire::Point => read_point(token, out)?,
        Wire::Array(element) => {
            let end = out.len() + most(token.len());
            read_array(element, (DIMENSIONS, end), &mut Scanner::new(token), out)?;
        }
        Wire::Decimal(scale) => write_decimal(&base64(token)?, *scale, out)?,
        Wire::VariableDecimal => read_variable_decimal(token, out)?,
    }
    Some(())
}

fn within(value: i64, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    range.contains(&value).then_some(value)
}

/// A token's inside if it is a string.
fn quoted(token: &[u8]) -> Option<&[u8]> {
    token.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

fn read_text(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match quoted(token) {
        Some(raw) => json::unescape(out, raw).then_some(()),
        None => {
            out.extend_from_slice(token);
            Some(())
        }
    }
}

fn truth(token: &[u8], yes: u8, no: u8) -> Option<u8> {
    match token {
        b"true" => Some(yes),
        b"false" => Some(no),
        _ => None,
    }
}

fn integer(token: &[u8]) -> Option<&[u8]> {
    let text = quoted(token).unwrap_or(token);
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(text)
}

fn number(token: &[u8]) -> Option<i64> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// Java writes `1.0E20` where PostgreSQL writes `1e+20`.
fn read_float(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if let Some(special) = quoted(token) {
        return matches!(special, b"NaN" | b"Infinity" | b"-Infinity")
            .then(|| out.extend_from_slice(special));
    }
    let text = std::str::from_utf8(token).ok()?;
    let value: f64 = text.parse().ok()?;
    if text.contains('E') {
        write_float(value, out);
    } else {
        out.extend_from_slice(token.strip_suffix(b".0").unwrap_or(token));
    }
    Some(())
}

/// The shortest digits that say the number, an exponent below -4 and from 15 on.
fn write_float(value: f64, out: &mut Vec<u8>) {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let text = if (-4..15).contains(&exponent) {
        value.to_string()
    } else {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    };
    out.extend_from_slice(text.as_bytes());
}

fn read_numeric(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text: &[u8] = match quoted(token).unwrap_or(token) {
        b"NAN" | b"NaN" => b"NaN",
        b"POSITIVE_INFINITY" => b"Infinity",
        b"NEGATIVE_INFINITY" => b"-Infinity",
        other => {
            let number =
                |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
            other.iter().all(number).then_some(other)?
        }
    };
    out.extend_from_slice(text);
    Some(())
}

fn base64(token: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(quoted(token)?).ok()
}

fn read_bytea(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in base64(token)? {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    Some(())
}

fn micros(unit: Unit, number: i64) -> Option<i64> {
    match unit {
        Unit::Millis => number.checked_mul(1000),
        Unit::Micros => Some(number),
        Unit::Nanos => Some(number.div_euclid(1000)),
    }
}

fn read_timestamp(unit: Unit, token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let moment = match number(token) {
        Some(time::TIMESTAMP_INFINITY) => {
            out.extend_from_slice(b"infinity");
            return Some(());
        }
        Some(time::TIMESTAMP_NEGATIVE_INFINITY) => {
            out.extend_from_slice(b"-infinity");
            return Some(());
        }
        Some(number) => Moment::from_unix_micros(micros(unit, number)?),
        None => time::parse_timestamp(quoted(token)?)?,
    };
    time::write_timestamp(out, moment, false);
    Some(())
}

fn read_timestamptz(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = quoted(token)?;
    if matches!(text, b"infinity" | b"-infinity") {
        out.extend_from_slice(text);
    } else if !time::write_utc_of_iso(out, text) {
        time::write_timestamp(out, time::parse_timestamp(text)?.utc(), true);
    }
    Some(())
}

fn read_timetz(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (micros, offset) = time::parse_time(quoted(token)?)?;
    time::write_clock(out, Moment { days: 0, micros, offset }.utc().micros, None);
    out.extend_from_slice(b"+00");
    Some(())
}

fn read_bits(bits: Option<u32>, token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let bytes = base64(token)?;
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    let highest = (0..bytes.len() * 8).rev().find(|at| bit(*at));
    let count = match bits {
        Some(bits) => usize::try_from(bits).ok().filter(|bits| *bits <= bytes.len() * 8)?,
        None => highest.map_or(0, |at| at + 1),
    };
    out.extend((0..count).rev().map(|at| b'0' + u8::from(bit(at))));
    Some(())
}

/// The raw value of an object's field.
pub(super) fn member<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut scanner = Scanner::new(object);
    if !scanner.enter(b'{') {
        return None;
    }
    while let Some(found) = scanner.field().ok()? {
        let value = scanner.value().ok()?;
        if found == name {
            return Some(value);
        }
    }
    None
}

fn read_point(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.push(b'(');
    read_float(member(token, b"x")?, out)?;
    out.push(b',');
    read_float(member(token, b"y")?, out)?;
    out.push(b')');
    Some(())
}

/// Reads an array of at most so many dimensions, whose text has to end by `end`.
fn read_array(
    element: &Wire,
    (dimensions, end): (u8, usize),
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    if dimensions == 0 || !scanner.enter(b'[') {
        return None;
    }
    out.push(b'{');
    let mut scratch = Vec::new();
    while scanner.more(b']').ok()? {
        if out.len() > end {
            return None;
        }
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        if scanner.peek() == Some(b'[') {
            read_array(element, (dimensions - 1, end), scanner, out)?;
            continue;
        }
        match scanner.value().ok()? {
            b"null" => out.extend_from_slice(b"NULL"),
            token => {
                scratch.clear();
                read_form(element, token, &mut scratch)?;
                array::write_element(out, &scratch);
            }
        }
    }
    out.push(b'}');
    Some(())
}

fn read_variable_decimal(token: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !token.starts_with(b"{") {
        return read_numeric(token, out);
    }
    let scale = i32::try_from(number(member(token, b"scale")?)?).ok()?;
    write_decimal(&base64(member(token, b"value")?)?, scale, out)
}

/// Writes a big-endian two's complement integer divided by a power of ten, if PostgreSQL has such a number.
fn write_decimal(bytes: &[u8], scale: i32, out: &mut Vec<u8>) -> Option<()> {
    let negative = bytes.first()? & 0x80 != 0;
    let mut digits = decimal_digits(bytes, negative)?;
    let zeros = usize::try_from(scale.min(0).unsigned_abs()).ok()?;
    let scale = usize::try_from(scale.max(0)).ok()?;
    if digits.len().checked_add(zeros)? > WHOLE_DIGITS_MAX + scale || scale > SCALE_MAX {
        return None;
    }
    digits.resize(digits.len() + zeros, b'0');
    if negative {
        out.push(b'-');
    }
    let padded = digits.len().max(scale + 1);
    let leading = std::iter::repeat_n(b'0', padded - digits.len());
    let digits: Vec<u8> = leading.chain(digits).collect();
    let (whole, fraction) = digits.split_at(padded - scale);
    out.extend_from_slice(whole);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Some(())
}

/// The decimal digits of the integer's magnitude; `None` if no number of PostgreSQL's has so many.
fn decimal_digits(bytes: &[u8], negative: bool) -> Option<Vec<u8>> {
    const GROUP: u64 = 1_000_000_000;
    const GROUP_DIGITS: usize = 9;
    if bytes.len() > INTEGER_BYTES_MAX {
        return None;
    }
    // Words, the lowest first. What fills up the highest is its sign.
    let fill = if negative { 0xFF } else { 0 };
    let mut words: Vec<u32> = bytes
        .rchunks(4)
        .map(|chunk| {
            let mut word = [fill; 4];
            word[4 - chunk.len()..].copy_from_slice(chunk);
            let word = u32::from_be_bytes(word);
            if negative { !word } else { word }
        })
        .collect();
    let mut carry = negative;
    for word in &mut words {
        (*word, carry) = word.overflowing_add(u32::from(carry));
    }
    let mut digits = Vec::new();
    while let Some(highest) = words.iter().rposition(|word| *word != 0) {
        words.truncate(highest + 1);
        let mut group = 0;
        for word in words.iter_mut().rev() {
            let value = group << 32 | u64::from(*word);
            // A quotient of what is less than `GROUP << 32` fits.
            *word = u32::try_from(value / GROUP).unwrap_or(u32::MAX);
            group = value % GROUP;
        }
        for _ in 0..GROUP_DIGITS {
            digits.push(b'0' + u8::try_from(group % 10).unwrap_or(0));
            group /= 10;
        }
    }
    let count = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |highest| highest + 1);
    digits.truncate(count.max(1));
    if digits.is_empty() {
        digits.push(b'0');
    }
    digits.reverse();
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(wire: &Wire, token: &str) -> Option<String> {
        let mut out = Vec::new();
        read(wire, token.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn precise_decimals_are_exact() {
        let token = r#""AbabS6Yw804=""#;
        assert_eq!(read_as(&Wire::Decimal(4), token).as_deref(), Some("12345678901234.5678"));
        assert_eq!(read_as(&Wire::Decimal(2), r#""/w==""#).as_deref(), Some("-0.01"));
        assert_eq!(read_as(&Wire::Decimal(-2), r#""Aw==""#).as_deref(), Some("300"));
        assert_eq!(read_as(&Wire::Decimal(2), r#""AA==""#).as_deref(), Some("0.00"));
        assert_eq!(read_as(&Wire::Decimal(0), r#""/////w==""#).as_deref(), Some("-1"));
        assert_eq!(read_as(&Wire::Decimal(0), r#""gAAAAA==""#).as_deref(), Some("-2147483648"));
        assert_eq!(read_as(&Wire::Decimal(0), r#""AQAAAAA=""#).as_deref(), Some("4294967296"));
        let token = r#"{"scale":9,"value":"XODppWAV/sWq36MorjmBFQ=="}"#;
        let text = "123456789012345678901234567890.123456789";
        assert_eq!(read_as(&Wire::VariableDecimal, token).as_deref(), Some(text));
    }

    /// The text of a number whose integer is 1 followed by so many bytes of zeros.
    fn decimal(zero_bytes: usize, scale: i32) -> Option<String> {
        let integer: Vec<u8> =
            std::iter::once(1).chain(std::iter::repeat_n(0, zero_bytes)).collect();
        read_as(&Wire::Decimal(scale), &format!("\"{}\"", BASE64.encode(integer)))
    }

    #[test]
    fn a_number_that_postgres_does_not_have_is_none() {
        assert_eq!(decimal(0, 16_383).map(|text| text.len()), Some("0.".len() + 16_383));
        assert_eq!(decimal(0, 16_384), None);
        assert_eq!(decimal(0, -131_071).map(|text| text.len()), Some(131_072));
        assert_eq!(decimal(0, -131_072), None);
        assert_eq!(decimal(0, i32::MIN), None);
        // 256^3000 has 7225 digits.
        assert_eq!(decimal(3000, 0).map(|text| text.len()), Some(7225));
        assert_eq!(decimal(3000, 1).map(|text| text.len()), Some(7226));
        assert_eq!(decimal(INTEGER_BYTES_MAX, 0), None);
        // Not after hours, either.
        assert_eq!(decimal(1 << 20, 0), None);
    }

    #[test]
    fn a_list_of_numbers_does_not_grow_without_bounds() {
        let wire = Wire::Array(Box::new(Wire::VariableDecimal));
        let element = r#"{"scale":-16383,"value":"AQ=="}"#;
        let list = |elements: usize| format!("[{}]", vec![element; elements].join(","));
        let text = read_as(&wire, &list(500)).expect("what a list may take");
        assert_eq!(text.len(), 500 * (16_384 + 1) + 1);
        assert_eq!(read_as(&wire, &list(2_000)), None);
    }

    #[test]
    fn java_floats_become_postgres_floats() {
        let token = "-2.2250738585072014E-308";
        let text = "-2.2250738585072014e-308";
        assert_eq!(read_as(&Wire::Float, token).as_deref(), Some(text));
        assert_eq!(read_as(&Wire::Float, "1.0E10").as_deref(), Some("10000000000"));
        assert_eq!(read_as(&Wire::Float, "1.0E20").as_deref(), Some("1e+20"));
        assert_eq!(read_as(&Wire::Float, "x"), None);
    }
}
