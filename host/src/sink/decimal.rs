//! PostgreSQL's `numeric` text as ClickHouse's `Decimal`: a little-endian integer of 4 to 32 bytes.

use super::encode::{Fit, Unreadable};
use super::types::decimal_width;

/// Appends the `Decimal(precision, scale)` nearest to the text, in PostgreSQL's order: `NaN` is
/// above everything.
pub(super) fn write(
    text: &[u8],
    precision: u32,
    scale: u32,
    out: &mut Vec<u8>,
) -> Result<Fit, Unreadable> {
    let (negative, digits) = match text {
        b"NaN" | b"Infinity" => return Ok(saturate(false, precision, out)),
        b"-Infinity" => return Ok(saturate(true, precision, out)),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let point = memchr::memchr(b'.', digits).unwrap_or(digits.len());
    let whole = &digits[..point];
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let all_digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if !all_digits || whole.len() + fraction.len() == 0 {
        return Err(Unreadable);
    }
    let scale = scale as usize;
    let (kept, cut) = fraction.split_at(fraction.len().min(scale));
    let leading_zeros = whole.iter().take_while(|digit| **digit == b'0').count();
    let whole = &whole[leading_zeros..];
    if whole.len() + scale > precision as usize {
        return Ok(saturate(negative, precision, out));
    }
    let zeros = std::iter::repeat_n(&b'0', scale - kept.len());
    let digits = whole.iter().chain(kept).chain(zeros);
    append(Magnitude::of(digits, precision), negative, precision, out);
    Ok(Fit::exact_if(cut.iter().all(|digit| *digit == b'0')))
}

fn saturate(negative: bool, precision: u32, out: &mut Vec<u8>) -> Fit {
    let nines = std::iter::repeat_n(&b'9', precision as usize);
    append(Magnitude::of(nines, precision), negative, precision, out);
    Fit::Nearest
}

/// An absolute value: most fit a machine word, `Decimal256` needs four.
enum Magnitude {
    Narrow(u128),
    Wide([u64; 4]),
}

impl Magnitude {
    fn of<'a>(digits: impl Iterator<Item = &'a u8>, precision: u32) -> Magnitude {
        let digits = digits.map(|digit| u64::from(digit - b'0'));
        match precision {
            ..=18 => Magnitude::Narrow(digits.fold(0u64, |sum, digit| sum * 10 + digit).into()),
            19..=38 => {
                Magnitude::Narrow(digits.fold(0u128, |sum, digit| sum * 10 + u128::from(digit)))
            }
            _ => Magnitude::Wide(digits.fold([0; 4], shift_in)),
        }
    }
}

fn shift_in(mut limbs: [u64; 4], digit: u64) -> [u64; 4] {
    let mut carry = u128::from(digit);
    for limb in &mut limbs {
        let sum = u128::from(*limb) * 10 + carry;
        let bytes = sum.to_le_bytes();
        *limb = u64::from_le_bytes(bytes[..8].try_into().expect("8 of 16 bytes"));
        carry = sum >> 64;
    }
    limbs
}

fn append(magnitude: Magnitude, negative: bool, precision: u32, out: &mut Vec<u8>) {
    let mut bytes = [0; 32];
    match magnitude {
        Magnitude::Narrow(value) => bytes[..16].copy_from_slice(&value.to_le_bytes()),
        Magnitude::Wide(limbs) => {
            for (place, limb) in bytes.chunks_exact_mut(8).zip(limbs) {
                place.copy_from_slice(&limb.to_le_bytes());
            }
        }
    }
    if negative {
        negate(&mut bytes);
    }
    out.extend_from_slice(&bytes[..decimal_width(precision)]);
}

/// Two's complement.
fn negate(bytes: &mut [u8; 32]) {
    let mut carry = true;
    for byte in bytes {
        let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
        *byte = sum;
        carry = overflow;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str, precision: u32, scale: u32) -> (Vec<u8>, Fit) {
        let mut out = Vec::new();
        let fit = write(text.as_bytes(), precision, scale, &mut out).unwrap();
        (out, fit)
    }

    #[test]
    fn each_width_holds_its_extremes() {
        assert_eq!(encoded("-1.5", 9, 4), ((-15_000i32).to_le_bytes().to_vec(), Fit::Exact));
        let most = "99999999999999.9999";
        assert_eq!(encoded(most, 18, 4).0, 999_999_999_999_999_999i64.to_le_bytes());
        let nines = "9".repeat(38);
        assert_eq!(encoded(&nines, 38, 0).0, (10i128.pow(38) - 1).to_le_bytes());
        let wide = encoded("-1", 76, 0).0;
        assert_eq!(wide, [0xFF; 32]);
    }

    #[test]
    fn what_does_not_fit_saturates_and_says_so() {
        let most = 99_999i32.to_le_bytes().to_vec();
        for large in ["NaN", "Infinity", "1000.00", "123456789012345678901234567890"] {
            assert_eq!(encoded(large, 5, 2), (most.clone(), Fit::Nearest), "{large}");
        }
        let least = (-99_999i32).to_le_bytes().to_vec();
        assert_eq!(encoded("-Infinity", 5, 2), (least, Fit::Nearest));
        assert_eq!(encoded("1.239", 5, 2), (123i32.to_le_bytes().to_vec(), Fit::Nearest));
        assert_eq!(encoded("1.2300", 5, 2), (123i32.to_le_bytes().to_vec(), Fit::Exact));
        for text in ["", "-", ".", "1e5", "1.2.3", "12a"] {
            assert_eq!(write(text.as_bytes(), 5, 2, &mut Vec::new()), Err(Unreadable), "{text}");
        }
    }

    proptest! {
        #[test]
        fn values_agree_with_integers(value in -(10i128.pow(37))..10i128.pow(37), scale in 0u32..=10) {
            let unit = 10i128.pow(scale);
            let sign = if value < 0 { "-" } else { "" };
            let (whole, rest) = (value.abs() / unit, value.abs() % unit);
            let text = match scale {
                0 => format!("{sign}{whole}"),
                _ => format!("{sign}{whole}.{rest:0width$}", width = scale as usize),
            };
            prop_assert_eq!(encoded(&text, 38, scale), (value.to_le_bytes().to_vec(), Fit::Exact));
            let wide = encoded(&text, 76, scale).0;
            let extension = if value < 0 { 0xFF } else { 0 };
            prop_assert_eq!(&wide[..16], &value.to_le_bytes());
            prop_assert!(wide[16..].iter().all(|byte| *byte == extension));
        }
    }
}
