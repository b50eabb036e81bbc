//! How PostgreSQL writes dates and times, with the session's zone UTC. By its bytes such a text compares
//! as what it stands for, but only with one that is written the same way.

/// The form of a type's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Date,
    Time,
    Timestamp,
    TimestampWithZone,
}

impl Form {
    /// That of a type, by its name; none if it is none of these.
    pub(crate) fn of(type_name: &str) -> Option<Form> {
        // `timestamp(3) with time zone`
        let (head, rest) = type_name.split_once('(').unwrap_or((type_name, ""));
        let tail = rest.split_once(')').map_or(rest, |(_, tail)| tail);
        Some(match (head, tail) {
            ("date", "") => Form::Date,
            ("time without time zone", "") | ("time", " without time zone") => Form::Time,
            ("timestamp without time zone", "") | ("timestamp", " without time zone") => {
                Form::Timestamp
            }
            ("timestamp with time zone", "") | ("timestamp", " with time zone") => {
                Form::TimestampWithZone
            }
            _ => return None,
        })
    }

    /// A value.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Form::Date => "2026-01-31",
            Form::Time => "08:30:00",
            Form::Timestamp => "2026-01-31 08:30:00",
            Form::TimestampWithZone => "2026-01-31 08:30:00+00",
        }
    }

    /// Whether a text is written so. A fraction of a second may follow, without zeros at its end.
    pub(crate) fn is_of(self, text: &str) -> bool {
        if self != Form::Time && ["infinity", "-infinity"].contains(&text) {
            return true;
        }
        let zone = if self == Form::TimestampWithZone { "+00" } else { "" };
        let Some(moment) = text.strip_suffix(zone) else { return false };
        let example = self.example().strip_suffix(zone).unwrap_or_default();
        let (moment, fraction) = moment.split_once('.').unwrap_or((moment, "1"));
        let digit = |byte: u8| byte.is_ascii_digit();
        let alike = |(one, other): (u8, u8)| one == other || digit(one) && digit(other);
        moment.len() == example.len()
            && moment.bytes().zip(example.bytes()).all(alike)
            && (self != Form::Date || !text.contains('.'))
            && (1..=6).contains(&fraction.len())
            && fraction.bytes().all(digit)
            && !fraction.ends_with('0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_a_form_whatever_its_precision() {
        assert_eq!(Form::of("date"), Some(Form::Date));
        assert_eq!(Form::of("time(0) without time zone"), Some(Form::Time));
        assert_eq!(Form::of("timestamp without time zone"), Some(Form::Timestamp));
        assert_eq!(Form::of("timestamp(3) with time zone"), Some(Form::TimestampWithZone));
        for name in ["text", "date[]", "time with time zone", "timestamp without time zone[]"] {
            assert_eq!(Form::of(name), None, "{name}");
        }
    }

    #[test]
    fn only_what_postgres_would_print_is_of_a_form() {
        use Form::{Date, Time, Timestamp, TimestampWithZone as Zoned};
        for form in [Date, Time, Timestamp, Zoned] {
            assert!(form.is_of(form.example()), "{form:?}");
        }
        let printed = [
            (Timestamp, "2026-01-01 08:00:00.5"),
            (Zoned, "2026-01-01 08:00:00.000001+00"),
            (Zoned, "infinity"),
            (Date, "-infinity"),
        ];
        for (form, text) in printed {
            assert!(form.is_of(text), "{text}");
        }
        let others = [
            (Zoned, "2026-01-01T08:00:00Z"),
            (Zoned, "2026-01-01 08:00:00"),
            (Zoned, "2026-01-01 10:00:00+02"),
            (Zoned, "2026-01-01"),
            (Timestamp, "2026-01-01 08:00:00+00"),
            (Timestamp, "2026-01-01 08:00:00.50"),
            (Timestamp, "2026-01-01 08:00:00."),
            (Date, "2026-1-1"),
            (Date, "2026-01-01.5"),
            (Time, "infinity"),
        ];
        for (form, text) in others {
            assert!(!form.is_of(text), "{text}");
        }
    }
}
