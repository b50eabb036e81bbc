//! One value of an envelope, written as PostgreSQL's text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::array;
use super::json::{self, Scanner};
use super::time::{self, Moment};
use super::wire::{Unit, Wire};

/// PostgreSQL's bound on an array's dimensions.
const DIMENSIONS: u8 = 6;

/// PostgreSQL's bound on the digits after a numeric's point; also keeps a damaged scale from
/// asking for gigabytes of zeros.
const SCALE_MAX: i32 = 16_383;

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
        Wire::Array(element) => read_array(element, DIMENSIONS, &mut Scanner::new(token), out)?,
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

fn read_array(
    element: &Wire,
    dimensions: u8,
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    if dimensions == 0 || !scanner.enter(b'[') {
        return None;
    }
    out.push(b'{');
    let mut scratch = Vec::new();
    while scanner.more(b']').ok()? {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        if scanner.peek() == Some(b'[') {
            read_array(element, dimensions - 1, scanner, out)?;
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

/// Writes a big-endian two's complement integer divided by a power of ten.
fn write_decimal(bytes: &[u8], scale: i32, out: &mut Vec<u8>) -> Option<()> {
    if !(-SCALE_MAX..=SCALE_MAX).contains(&scale) {
        return None;
    }
    let negative = bytes.first()? & 0x80 != 0;
    let digits = decimal_digits(bytes, negative);
    if negative {
        out.push(b'-');
    }
    let Ok(scale) = usize::try_from(scale) else {
        out.extend_from_slice(&digits);
        out.extend(std::iter::repeat_n(b'0', usize::try_from(-scale).ok()?));
        return Some(());
    };
    let padded = digits.len().max(scale + 1);
    let zeros = std::iter::repeat_n(b'0', padded - digits.len());
    let digits: Vec<u8> = zeros.chain(digits).collect();
    let (whole, fraction) = digits.split_at(padded - scale);
    out.extend_from_slice(whole);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Some(())
}

/// The decimal digits of the integer's magnitude.
fn decimal_digits(bytes: &[u8], negative: bool) -> Vec<u8> {
    let mut magnitude: Vec<u8> =
        bytes.iter().map(|byte| if negative { !byte } else { *byte }).collect();
    if negative {
        for byte in magnitude.iter_mut().rev() {
            let (sum, overflow) = byte.overflowing_add(1);
            *byte = sum;
            if !overflow {
                break;
            }
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut magnitude {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 10).unwrap_or(0);
            remainder = value % 10;
        }
        digits.push(b'0' + u8::try_from(remainder).unwrap_or(0));
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    digits.reverse();
    digits
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
        let token = r#"{"scale":9,"value":"XODppWAV/sWq36MorjmBFQ=="}"#;
        let text = "123456789012345678901234567890.123456789";
        assert_eq!(read_as(&Wire::VariableDecimal, token).as_deref(), Some(text));
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
