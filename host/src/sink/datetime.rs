//! PostgreSQL's dates and timestamps (`DateStyle` ISO) as days and microseconds since 1970.

use super::encode::{Fit, Unreadable};
use crate::encode::days_from_civil;

/// 1900-01-01 and 2299-12-31: what `Date32` holds.
const DAYS: (i64, i64) = (-25_567, 120_529);
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// What `DateTime64(6)` holds.
const MICROS: (i64, i64) = (DAYS.0 * MICROS_PER_DAY, (DAYS.1 + 1) * MICROS_PER_DAY - 1);

/// The day number of a `date`, moved to the nearest one that `Date32` holds.
pub(super) fn days(text: &[u8]) -> Result<(i32, Fit), Unreadable> {
    let (day, fit) = within(
        DAYS,
        finite(text, |reader| {
            let date = reader.date()?;
            reader.day_number(date)
        })?,
    );
    Ok((i32::try_from(day).expect("within the bounds above"), fit))
}

/// The microsecond of a `timestamp` or `timestamptz`, moved to the nearest that `DateTime64` holds.
pub(super) fn micros(text: &[u8]) -> Result<(i64, Fit), Unreadable> {
    let moment = match ordinary(text) {
        Some(moment) => moment,
        None => any_moment(text)?,
    };
    Ok(within(MICROS, moment))
}

fn any_moment(text: &[u8]) -> Result<i64, Unreadable> {
    finite(text, |reader| {
        let date = reader.date()?;
        reader.expect(b' ')?;
        let clock = reader.clock()?;
        let offset = reader.offset()?;
        let day = reader.day_number(date)?;
        // The last years of PostgreSQL are beyond what an i64 counts from 1970.
        let midnight = day.saturating_mul(MICROS_PER_DAY);
        Some(midnight.saturating_add(clock).saturating_sub(offset))
    })
}

/// [`any_moment`] for the text that nearly every moment has, `2024-02-29 13:14:15.123456+00`, whose digits
/// stand where they are looked for; nothing for any other.
fn ordinary(text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"+00").unwrap_or(text);
    let (text, fraction) = text.split_first_chunk::<19>()?;
    let digit = |at: usize| Some(text[at].wrapping_sub(b'0')).filter(|digit| *digit <= 9);
    let pair = |at: usize| Some(i64::from(digit(at)? * 10 + digit(at + 1)?));
    let parts = [text[4], text[7], text[10], text[13], text[16]];
    let (year, month, day) = (pair(0)? * 100 + pair(2)?, pair(5)?, pair(8)?);
    let (hours, minutes, seconds) = (pair(11)?, pair(14)?, pair(17)?);
    let is_date = parts == *b"-- ::" && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hours > 24 || minutes > 59 || seconds > 60 {
        return None;
    }
    let mut micros = 0;
    if let Some((point, digits)) = fraction.split_first() {
        if *point != b'.' || digits.is_empty() || digits.len() > 6 {
            return None;
        }
        for at in 0..6 {
            let digit = digits.get(at).map_or(0, |byte| byte.wrapping_sub(b'0'));
            if digit > 9 {
                return None;
            }
            micros = micros * 10 + i64::from(digit);
        }
    }
    let clock = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
    Some(days_from_civil(year, month, day) * MICROS_PER_DAY + clock)
}

/// `infinity` lies beyond every bound.
fn finite(
    text: &[u8],
    parse: impl FnOnce(&mut Reader<'_>) -> Option<i64>,
) -> Result<i64, Unreadable> {
    match text {
        b"infinity" => return Ok(i64::MAX),
        b"-infinity" => return Ok(i64::MIN),
        _ => (),
    }
    let mut reader = Reader { rest: text };
    let value = parse(&mut reader).ok_or(Unreadable)?;
    reader.rest.is_empty().then_some(value).ok_or(Unreadable)
}

fn within((least, most): (i64, i64), value: i64) -> (i64, Fit) {
    let nearest = value.clamp(least, most);
    (nearest, Fit::exact_if(nearest == value))
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// Whether a text begins with a day that its month has. PostgreSQL sends no others.
pub(super) fn is_day(text: &str) -> bool {
    let Some((year, month, day)) = (Reader { rest: text.as_bytes() }).date() else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    day <= last
}

impl Reader<'_> {
    /// Of one to seven digits.
    fn number(&mut self) -> Option<i64> {
        let (mut number, mut digits) = (0, 0);
        for byte in self.rest.iter().take(8) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            number = number * 10 + i64::from(digit);
            digits += 1;
        }
        self.rest = &self.rest[digits..];
        (1..=7).contains(&digits).then_some(number)
    }

    fn bounded(&mut self, most: i64) -> Option<i64> {
        self.number().filter(|number| *number <= most)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.number()?;
        self.expect(b'-')?;
        let month = self.bounded(12)?;
        self.expect(b'-')?;
        let day = self.bounded(31)?;
        (month > 0 && day > 0).then_some((year, month, day))
    }

    fn clock(&mut self) -> Option<i64> {
        let hours = self.bounded(24)?;
        self.expect(b':')?;
        let minutes = self.bounded(59)?;
        self.expect(b':')?;
        let seconds = self.bounded(60)?;
        let fraction = if self.eat(b'.') { self.fraction()? } else { 0 };
        Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction)
    }

    fn fraction(&mut self) -> Option<i64> {
        let before = self.rest.len();
        let value = self.number()?;
        let digits = u32::try_from(before - self.rest.len()).ok()?;
        Some(value * 10i64.pow(6u32.checked_sub(digits)?))
    }

    /// `+02`, `-03:30`, `+00:19:32`, or nothing.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.rest.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Some(0),
        };
        self.rest = &self.rest[1..];
        let mut seconds = self.bounded(24)? * 3600;
        for unit in [60, 1] {
            if self.eat(b':') {
                seconds += self.bounded(59)? * unit;
            }
        }
        Some(sign * seconds * 1_000_000)
    }

    /// Days since 1970; the era stands at the text's end.
    fn day_number(&mut self, (year, month, day): (i64, i64, i64)) -> Option<i64> {
        let year = match self.rest.strip_prefix(b" BC") {
            Some(rest) => {
                self.rest = rest;
                1 - year
            }
            None => year,
        };
        Some(days_from_civil(year, month, day))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days_and_moments() {
        assert_eq!(days(b"1970-01-01"), Ok((0, Fit::Exact)));
        assert_eq!(days(b"2000-02-29"), Ok((11_016, Fit::Exact)));
        assert_eq!(days(b"1900-01-01"), Ok((-25_567, Fit::Exact)));
        assert_eq!(days(b"2299-12-31"), Ok((120_529, Fit::Exact)));
        assert_eq!(micros(b"1970-01-01 00:00:00.5"), Ok((500_000, Fit::Exact)));
        assert_eq!(micros(b"1970-01-01 02:00:00+02"), Ok((0, Fit::Exact)));
        assert_eq!(micros(b"1969-12-31 20:30:00-03:30"), Ok((0, Fit::Exact)));
        assert_eq!(micros(b"1969-12-31 23:59:59.999999"), Ok((-1, Fit::Exact)));
    }

    #[test]
    fn what_lies_outside_goes_to_the_nearest_bound() {
        for late in ["infinity", "2300-01-01", "10000-01-01", "5874897-12-31"] {
            assert_eq!(days(late.as_bytes()), Ok((120_529, Fit::Nearest)), "{late}");
        }
        for early in ["-infinity", "1899-12-31", "0044-03-15 BC"] {
            assert_eq!(days(early.as_bytes()), Ok((-25_567, Fit::Nearest)), "{early}");
        }
        assert_eq!(micros(b"infinity"), Ok((MICROS.1, Fit::Nearest)));
        assert_eq!(micros(b"2299-12-31 23:59:59.999999+00"), Ok((MICROS.1, Fit::Exact)));
        assert_eq!(micros(b"0001-01-01 00:00:00+00 BC"), Ok((MICROS.0, Fit::Nearest)));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "today", "2024-13-01", "2024-01-01x", "2024-01-01 10:00", "24-1"] {
            assert_eq!(micros(text.as_bytes()), Err(Unreadable), "{text}");
        }
    }

    /// Counts days one year and month at a time, slowly and plainly.
    fn counted(year: i64, month: usize, day: i64) -> i64 {
        let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let years: i64 = match year >= 1970 {
            true => (1970..year).map(|year| 365 + i64::from(leap(year))).sum(),
            false => -(year..1970).map(|year| 365 + i64::from(leap(year))).sum::<i64>(),
        };
        let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        years + lengths[..month - 1].iter().sum::<i64>() + day - 1
    }

    proptest! {
        #[test]
        fn days_agree_with_counting(year in 1900i64..2300, month in 1usize..=12, day in 1i64..=28) {
            let text = format!("{year:04}-{month:02}-{day:02}");
            let expected = i32::try_from(counted(year, month, day)).expect("four centuries");
            prop_assert_eq!(days(text.as_bytes()), Ok((expected, Fit::Exact)));
        }

        #[test]
        fn digits_in_their_places_are_read_as_any_others_are(
            day in "[01][0-9]{3}-[01][0-9]-[0-3][0-9]|[0-9-]{10}",
            clock in "[0-2][0-9]:[0-6][0-9]:[0-6][0-9]|[0-9:]{8}",
            rest in r"(\.[0-9]{0,7})?(\+00|[+-][0-9]{2}|x)?( BC)?",
        ) {
            let text = format!("{day} {clock}{rest}");
            if let Some(moment) = ordinary(text.as_bytes()) {
                prop_assert_eq!(any_moment(text.as_bytes()), Ok(moment), "{}", text);
            } else if rest.trim_end_matches("+00").is_empty() {
                prop_assert_eq!(any_moment(text.as_bytes()), Err(Unreadable), "{}", text);
            }
        }

        #[test]
        fn any_text_is_refused_or_within_bounds(text in "[-0-9: .+BCinfty]{0,40}") {
            let within = |(low, high): (i64, i64), value| (low..=high).contains(&value);
            if let Ok((moment, _)) = micros(text.as_bytes()) {
                prop_assert!(within(MICROS, moment));
            }
            if let Ok((day, _)) = days(text.as_bytes()) {
                prop_assert!(within(DAYS, day.into()));
            }
        }
    }
}
