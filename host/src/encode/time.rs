//! Dates and times between PostgreSQL's ISO text and numbers, in the proleptic Gregorian calendar.

/// Microseconds of a day.
pub(super) const DAY: i64 = 86_400_000_000;

/// Debezium's numbers for what lies beyond all dates; the driver it reads through overflows for
/// dates, and consumers know the result by these values.
pub(super) const DATE_INFINITY: i64 = -2_147_472_692;
pub(super) const DATE_NEGATIVE_INFINITY: i64 = -2_147_472_691;
pub(super) const TIMESTAMP_INFINITY: i64 = 9_223_372_036_825_200_000;
pub(super) const TIMESTAMP_NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;

/// A moment as PostgreSQL prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Days since 1970.
    pub(super) days: i64,
    /// Microseconds since midnight.
    pub(super) micros: i64,
    /// Seconds east of UTC, 0 without a zone.
    pub(super) offset: i64,
}

impl Moment {
    /// Microseconds since 1970 in UTC, if they fit.
    pub(super) fn unix_micros(self) -> Option<i64> {
        let local = i128::from(self.days) * i128::from(DAY) + i128::from(self.micros);
        i64::try_from(local - i128::from(self.offset) * 1_000_000).ok()
    }

    /// The same moment in UTC.
    pub(super) fn utc(self) -> Moment {
        let micros = self.micros - self.offset * 1_000_000;
        Moment {
            days: self.days + micros.div_euclid(DAY),
            micros: micros.rem_euclid(DAY),
            offset: 0,
        }
    }

    /// From microseconds since 1970.
    pub(super) fn from_unix_micros(micros: i64) -> Moment {
        Moment { days: micros.div_euclid(DAY), micros: micros.rem_euclid(DAY), offset: 0 }
    }
}

/// Days since 1970 of a day in the astronomical year count (year 0 is 1 BC).
#[inline]
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970.
pub(super) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// Reads digits off the front; `None` without one or past 12, so that no sum below overflows.
fn digits(text: &mut &[u8]) -> Option<i64> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > 12 {
        return None;
    }
    let (number, rest) = text.split_at(count);
    *text = rest;
    Some(number.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}

fn literal(text: &mut &[u8], expected: u8) -> Option<()> {
    let (first, rest) = text.split_first()?;
    (*first == expected).then(|| *text = rest)
}

fn date(text: &mut &[u8]) -> Option<(i64, i64, i64)> {
    let year = digits(text)?;
    literal(text, b'-')?;
    let month = digits(text)?;
    literal(text, b'-')?;
    let day = digits(text)?;
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some((year, month, day))
}

/// Microseconds of `HH:MM:SS[.ffffff]`; the hours are not bounded.
pub(super) fn clock(text: &mut &[u8]) -> Option<i64> {
    let hours = digits(text)?;
    literal(text, b':')?;
    let minutes = digits(text)?;
    literal(text, b':')?;
    let seconds = digits(text)?;
    let seconds = hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?;
    seconds.checked_mul(1_000_000)?.checked_add(fraction(text)?)
}

fn fraction(text: &mut &[u8]) -> Option<i64> {
    if text.first() != Some(&b'.') {
        return Some(0);
    }
    literal(text, b'.')?;
    let before = text.len();
    let value = digits(text)?;
    let missing = 6_usize.checked_sub(before - text.len())?;
    Some(value * 10_i64.pow(u32::try_from(missing).ok()?))
}

/// `+02`, `-03:30`, `+00:19:32`, `Z`; seconds.
fn offset(text: &mut &[u8]) -> Option<i64> {
    let sign = match text.first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(b'Z') => {
            *text = &text[1..];
            return Some(0);
        }
        _ => return Some(0),
    };
    *text = &text[1..];
    let mut seconds = digits(text)? * 3600;
    for unit in [60, 1] {
        if text.first() == Some(&b':') {
            literal(text, b':')?;
            seconds += digits(text)? * unit;
        }
    }
    (seconds < 1_000_000).then_some(sign * seconds)
}

fn era(text: &[u8], year: i64) -> Option<i64> {
    match text {
        b"" => Some(year),
        b" BC" => Some(1 - year),
        _ => None,
    }
}

/// Days since 1970 of `2024-02-29` or `0044-03-15 BC`.
pub(super) fn parse_date(mut text: &[u8]) -> Option<i64> {
    let (year, month, day) = date(&mut text)?;
    Some(days_from_civil(era(text, year)?, month, day))
}

/// `2024-02-29 13:14:15.123456[+02][ BC]`; ISO 8601's `T` and `Z` are taken too.
pub(super) fn parse_timestamp(mut text: &[u8]) -> Option<Moment> {
    let negative = text.first() == Some(&b'-');
    if let Some(b'-' | b'+') = text.first() {
        text = &text[1..];
    }
    let (year, month, day) = date(&mut text)?;
    let (separator, mut text) = text.split_first()?;
    if !matches!(separator, b' ' | b'T') {
        return None;
    }
    let micros = clock(&mut text)?;
    let offset = offset(&mut text)?;
    let year = if negative { -year } else { era(text, year)? };
    Some(Moment { days: days_from_civil(year, month, day), micros, offset })
}

/// `13:14:15.123456[+02]`: microseconds since midnight and seconds east of UTC.
pub(super) fn parse_time(mut text: &[u8]) -> Option<(i64, i64)> {
    let micros = clock(&mut text)?;
    let offset = offset(&mut text)?;
    text.is_empty().then_some((micros, offset))
}

/// Microseconds of an interval in PostgreSQL's default style, a month counted as 30.4375 days. One that is
/// longer than can be counted, or endless, has as many as can be.
pub(super) fn parse_interval(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    const MONTH: i64 = DAY / 10_000 * 304_375;
    let mut total: i64 = 0;
    let mut words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let (negative, mut number) = match word.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, word),
        };
        let amount = if number.contains(&b':') {
            clock(&mut number)?
        } else {
            let unit = match words.next()? {
                b"year" | b"years" => 12 * MONTH,
                b"mon" | b"mons" => MONTH,
                b"day" | b"days" => DAY,
                _ => return None,
            };
            digits(&mut number)?.saturating_mul(unit)
        };
        if !number.is_empty() {
            return None;
        }
        total = total.saturating_add(if negative { -amount } else { amount });
    }
    Some(total)
}

/// Two digits.
fn pair(out: &mut Vec<u8>, value: i64) {
    let digit = |value: i64| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

fn year(out: &mut Vec<u8>, year: i64) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(year);
    out.extend(std::iter::repeat_n(b'0', 4_usize.saturating_sub(text.len())));
    out.extend_from_slice(text.as_bytes());
}

/// `2024-02-29` of the era; true before the common one.
fn write_day(out: &mut Vec<u8>, days: i64) -> bool {
    let (y, month, day) = civil_from_days(days);
    let before = y <= 0;
    year(out, if before { 1 - y } else { y });
    out.push(b'-');
    pair(out, month);
    out.push(b'-');
    pair(out, day);
    before
}

/// PostgreSQL's text of a date.
pub(super) fn write_date(out: &mut Vec<u8>, days: i64) {
    if write_day(out, days) {
        out.extend_from_slice(b" BC");
    }
}

/// `HH:MM:SS`, then the fraction: all of `digits`, or without trailing zeros.
pub(super) fn write_clock(out: &mut Vec<u8>, micros: i64, digits: Option<u8>) {
    let seconds = micros / 1_000_000;
    if seconds >= 360_000 {
        out.extend_from_slice(itoa::Buffer::new().format(seconds / 3600).as_bytes());
    } else {
        pair(out, seconds / 3600);
    }
    out.push(b':');
    pair(out, seconds / 60 % 60);
    out.push(b':');
    pair(out, seconds % 60);
    let mut fraction = [b'0'; 7];
    fraction[0] = b'.';
    let mut rest = micros % 1_000_000;
    for slot in fraction[1..].iter_mut().rev() {
        *slot += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    let shown = match digits {
        Some(digits) => usize::from(digits.min(6)),
        None => fraction[1..].iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1),
    };
    if shown > 0 {
        out.extend_from_slice(&fraction[..=shown]);
    }
}

/// PostgreSQL's text of a timestamp; with `zone` as `timestamptz` in UTC.
pub(super) fn write_timestamp(out: &mut Vec<u8>, moment: Moment, zone: bool) {
    let before = write_day(out, moment.days);
    out.push(b' ');
    write_clock(out, moment.micros, None);
    if zone {
        out.extend_from_slice(b"+00");
    }
    if before {
        out.extend_from_slice(b" BC");
    }
}

/// ISO 8601 in UTC; years outside 0000 to 9999 carry a sign, as Java writes them.
pub(super) fn write_iso(out: &mut Vec<u8>, moment: Moment, digits: u8) {
    let moment = moment.utc();
    let (y, month, day) = civil_from_days(moment.days);
    match y {
        ..0 => out.push(b'-'),
        10_000.. => out.push(b'+'),
        _ => {}
    }
    year(out, y.abs());
    out.push(b'-');
    pair(out, month);
    out.push(b'-');
    pair(out, day);
    out.push(b'T');
    write_clock(out, moment.micros, Some(digits));
    out.push(b'Z');
}

/// [`write_iso`] for the text that nearly every moment has, `2024-02-29 13:14:15.123456+00`, without
/// taking it apart; false, and nothing written, for any other.
pub(super) fn write_iso_of_utc(out: &mut Vec<u8>, text: &[u8], digits: u8) -> bool {
    let parts = text.strip_suffix(b"+00").and_then(|text| ordinary(text, b' '));
    let Some((local, fraction)) = parts else { return false };
    out.extend_from_slice(&local[..10]);
    out.push(b'T');
    out.extend_from_slice(&local[11..]);
    let digits = usize::from(digits.min(6));
    if digits > 0 {
        let shown = fraction.len().min(digits);
        out.push(b'.');
        out.extend_from_slice(&fraction[..shown]);
        out.extend_from_slice(&b"000000"[..digits - shown]);
    }
    out.push(b'Z');
    true
}

/// The way back, [`write_timestamp`] with a zone for `2024-02-29T13:14:15.123456Z`; false, and nothing
/// written, for what is not of that form.
pub(super) fn write_utc_of_iso(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let parts = text.strip_suffix(b"Z").and_then(|text| ordinary(text, b'T'));
    let Some((local, fraction)) = parts else { return false };
    out.extend_from_slice(&local[..10]);
    out.push(b' ');
    out.extend_from_slice(&local[11..]);
    let shown = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    if shown > 0 {
        out.push(b'.');
        out.extend_from_slice(&fraction[..shown]);
    }
    out.extend_from_slice(b"+00");
    true
}

/// Date and time to the second, and the digits of the fraction, of a text without its zone that is
/// surely a moment of four digits' years. Whatever is not is left to who takes it apart.
fn ordinary(text: &[u8], separator: u8) -> Option<(&[u8; 19], &[u8])> {
    const FORM: &[u8; 19] = b"0000-00-00 00:00:00";
    let (local, fraction) = text.split_first_chunk::<19>()?;
    let formed = FORM.iter().zip(local).all(|(form, byte)| match form {
        b'0' => byte.is_ascii_digit(),
        b' ' => *byte == separator,
        _ => form == byte,
    });
    let fraction = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if matches!(digits.len(), 1..=6) => digits,
        _ => return None,
    };
    // Compared as text.
    let within = |at: usize, least: &[u8], most: &[u8]| {
        let part = &local[at..at + least.len()];
        least <= part && part <= most
    };
    let day = within(8, b"01", b"28") || within(8, b"29", b"30") && local[5..7] != *b"02";
    let ordinary = within(0, b"0001", b"9999")
        && within(5, b"01", b"12")
        && day
        && within(11, b"00", b"23")
        && within(14, b"00", b"59")
        && within(17, b"00", b"59");
    (formed && ordinary && fraction.iter().all(u8::is_ascii_digit)).then_some((local, fraction))
}

/// PostgreSQL's text of an interval that is only a time.
pub(super) fn write_interval(out: &mut Vec<u8>, micros: i64) {
    if micros < 0 {
        out.push(b'-');
    }
    write_clock(out, i64::try_from(micros.unsigned_abs()).unwrap_or(i64::MAX), None);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_before_the_common_era_count_as_postgres_does() {
        assert_eq!(parse_date(b"0044-03-15 BC"), Some(-735_160));
        assert_eq!(written(|out| write_date(out, -735_160)), "0044-03-15 BC");
        let moment = parse_timestamp(b"0001-01-01 00:00:00 BC").unwrap();
        assert_eq!(moment.unix_micros(), Some(-62_167_219_200_000_000));
    }

    #[test]
    fn intervals_count_a_month_as_debezium_does() {
        let micros = parse_interval(b"1 year 2 mons 3 days 04:05:06.789");
        assert_eq!(micros, Some(37_091_106_789_000));
        let micros = parse_interval(b"-1 years +2 days -00:00:00.000001");
        assert_eq!(micros, Some(-31_384_800_000_001));
        assert_eq!(parse_interval(b"P1Y"), None);
    }

    #[test]
    fn an_offset_moves_the_day() {
        let moment = parse_timestamp(b"2024-03-01 01:30:00.5+02:30").unwrap();
        assert_eq!(written(|out| write_iso(out, moment, 6)), "2024-02-29T23:00:00.500000Z");
    }

    #[test]
    fn the_short_way_writes_what_the_long_one_does() {
        let texts = [
            "2024-02-28 13:14:15.123456+00",
            "2024-03-30 13:14:15.1+00",
            "0001-01-01 00:00:00+00",
            "9999-12-30 23:59:59.9+00",
            "2024-02-29 13:14:15.123456+00",
            "2024-12-31 13:14:15+00",
            "2024-02-29 24:00:00+00",
            "2024-13-01 00:00:00+00",
            "2024-00-10 00:00:00+00",
            "2024-02-29 13:14:15.123456+02",
            "0044-03-15 00:00:00+00 BC",
            "10000-01-01 00:00:00+00",
            "2024-02-29 13:14:15.+00",
            "2024-02-29 13:14:15.1234567+00",
            "2024-02-29T13:14:15.12+00",
            "infinity",
            "",
        ];
        let mut short_ways = 0;
        for (text, digits) in texts.iter().flat_map(|text| [0, 3, 6].map(|digits| (text, digits))) {
            let mut short = Vec::new();
            if write_iso_of_utc(&mut short, text.as_bytes(), digits) {
                let moment = parse_timestamp(text.as_bytes()).unwrap();
                let long = written(|out| write_iso(out, moment, digits));
                assert_eq!(String::from_utf8(short).unwrap(), long, "{text}");
                short_ways += 1;
            } else {
                assert_eq!(short, b"", "{text}");
            }
        }
        assert_eq!(short_ways, 12);
    }

    #[test]
    fn the_short_way_back_writes_what_the_long_one_does() {
        let texts = [
            "2024-02-28T13:14:15.123456Z",
            "2024-03-30T13:14:15.120000Z",
            "0001-01-01T00:00:00.000Z",
            "9999-12-30T23:59:59Z",
            "2024-02-31T13:14:15.123456Z",
            "2024-12-31T13:14:15Z",
            "2024-02-28T24:00:00Z",
            "2024-02-28T13:14:15+02:00",
            "+12024-02-28T13:14:15Z",
            "-0044-03-15T00:00:00Z",
            "2024-02-28T13:14:15.Z",
            "2024-02-28T13:14:15.123456789Z",
            "2024-02-28 13:14:15Z",
            "",
        ];
        let mut short_ways = 0;
        for text in texts {
            let mut short = Vec::new();
            if write_utc_of_iso(&mut short, text.as_bytes()) {
                let moment = parse_timestamp(text.as_bytes()).unwrap();
                let long = written(|out| write_timestamp(out, moment.utc(), true));
                assert_eq!(String::from_utf8(short).unwrap(), long, "{text}");
                short_ways += 1;
            } else {
                assert_eq!(short, b"", "{text}");
            }
        }
        assert_eq!(short_ways, 4);
    }

    proptest! {
        #[test]
        fn timestamps_round_trip(micros in -210_000_000_000_000_000_i64..9_223_300_000_000_000_000) {
            let moment = Moment::from_unix_micros(micros);
            let text = written(|out| write_timestamp(out, moment, true));
            prop_assert_eq!(parse_timestamp(text.as_bytes()).unwrap().unix_micros(), Some(micros));
            let iso = written(|out| write_iso(out, moment, 6));
            prop_assert_eq!(parse_timestamp(iso.as_bytes()).unwrap().unix_micros(), Some(micros));
        }

        #[test]
        fn days_round_trip(days in -2_500_000_i64..110_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
            let text = written(|out| write_date(out, days));
            prop_assert_eq!(parse_date(text.as_bytes()), Some(days));
        }
    }
}
