//! Values in PostgreSQL's text form, compared as PostgreSQL compares what they stand for.
//!
//! A plugin whose configuration names values makes a [`Constant`] of each when it is told of the table,
//! and compares rows with these:
//!
//! ```
//! use tailwater_guest::compare::{Constant, Order, Scalar};
//!
//! let limit: Scalar = serde_json::from_str("99.5").unwrap();
//! let limit = Constant::new(Order::Decimal, &limit).expect("it is a number");
//! assert!(limit.order_of("100").is_gt());
//! assert!(limit.is("99.50"));
//! ```

use std::cmp::Ordering;

use serde::Deserialize;

use crate::types::{Column, Kind};

/// Bytes of a text that are compared one by one.
const SHORT_BYTES: usize = 16;

/// How the values of a column compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// By bytes, as under the collation `C`. Dates and times of years 1 to 9999 are then in the order of
    /// time.
    Bytes,
    /// As `character(n)`, whose blanks at the end do not count.
    Padded,
    /// As exact decimal numbers, however long.
    Decimal,
    /// As floating-point numbers.
    Float,
    /// `f` before `t`.
    Boolean,
}

impl Order {
    /// That of a column.
    #[must_use]
    pub fn of(column: &Column) -> Order {
        match column.kind {
            Kind::Integer => Order::Decimal,
            Kind::Float => Order::Float,
            Kind::Boolean => Order::Boolean,
            Kind::Text if column.type_name.ends_with("[]") => Order::Bytes,
            Kind::Text if column.type_name.starts_with("numeric") => Order::Decimal,
            Kind::Text if column.type_name.starts_with("character(") => Order::Padded,
            Kind::Text => Order::Bytes,
        }
    }

    /// How two values of the column stand to each other. As in PostgreSQL, `NaN` equals itself and is
    /// greater than any other number, `Infinity` included.
    #[must_use]
    pub fn compare(self, left: &str, right: &str) -> Ordering {
        match self {
            Order::Bytes | Order::Boolean => left.cmp(right),
            Order::Padded => unpadded(left).cmp(unpadded(right)),
            Order::Decimal => Decimal::of(left).compare(&Decimal::of(right)),
            Order::Float => compare_floats(float(left), float(right)),
        }
    }
}

/// A value of a configuration: text, a number or a truth value.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(untagged)]
pub enum Scalar {
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Text, also of a number, a date, a UUID, …
    Text(String),
}

impl Scalar {
    /// As PostgreSQL would print it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Scalar::Boolean(truth) => if *truth { "t" } else { "f" }.to_owned(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        }
    }
}

/// What the values of a column are compared with, made ready once.
#[derive(Clone, PartialEq, Debug)]
pub struct Constant(Ready);

#[derive(Clone, PartialEq, Debug)]
enum Ready {
    Bytes(String),
    Padded(String),
    Decimal { text: String, number: Decimal<String> },
    Float(f64),
}

impl Constant {
    /// Of a value of the configuration; none if a column of that order holds no such value.
    #[must_use]
    pub fn new(order: Order, value: &Scalar) -> Option<Constant> {
        let text = value.text();
        let ready = match (order, value) {
            (Order::Boolean, Scalar::Boolean(_)) => Ready::Bytes(text),
            (Order::Bytes, Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_)) => {
                Ready::Bytes(text)
            }
            (Order::Padded, Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_)) => {
                Ready::Padded(unpadded(&text).to_owned())
            }
            (Order::Decimal, _) if is_decimal(&text) => {
                let Decimal { rank, whole, fraction } = Decimal::of(&text);
                let (whole, fraction) = (whole.to_owned(), fraction.to_owned());
                Ready::Decimal { number: Decimal { rank, whole, fraction }, text }
            }
            (Order::Float, _) => Ready::Float(text.parse().ok()?),
            _ => return None,
        };
        Some(Constant(ready))
    }

    /// Whether a value of the column equals it; faster than [`order_of`](Self::order_of).
    #[inline]
    #[must_use]
    pub fn is(&self, value: &str) -> bool {
        match &self.0 {
            Ready::Bytes(text) => is_same(text, value),
            Ready::Padded(text) => is_same(text, unpadded(value)),
            Ready::Decimal { text, .. } if is_same(text, value) => true,
            _ => self.order_of(value).is_eq(),
        }
    }

    /// How a value of the column stands to it: [`Ordering::Less`] if the value is less.
    #[inline(never)]
    #[must_use]
    pub fn order_of(&self, value: &str) -> Ordering {
        match &self.0 {
            Ready::Bytes(text) => value.cmp(text),
            Ready::Padded(text) => unpadded(value).cmp(text),
            Ready::Decimal { number, .. } => Decimal::of(value).compare(number),
            Ready::Float(number) => compare_floats(float(value), *number),
        }
    }
}

/// As `==`, which is a call; in WebAssembly that costs more than to compare a few bytes.
#[inline]
fn is_same(left: &str, right: &str) -> bool {
    let bytes = || left.bytes().zip(right.bytes()).all(|(left, right)| left == right);
    left.len() == right.len() && if left.len() > SHORT_BYTES { left == right } else { bytes() }
}

fn unpadded(text: &str) -> &str {
    text.trim_end_matches(' ')
}

fn float(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

/// A number as its digits.
#[derive(Clone, PartialEq, Debug)]
struct Decimal<S> {
    /// By sign, and what is beyond the numbers beyond them.
    rank: i8,
    /// Digits before the point, without zeros in front.
    whole: S,
    /// Digits behind the point, without zeros at the end.
    fraction: S,
}

impl<'a> Decimal<&'a str> {
    /// Of what PostgreSQL printed.
    fn of(text: &'a str) -> Self {
        let beyond = |rank| Decimal { rank, whole: "", fraction: "" };
        match text {
            "-Infinity" => return beyond(-2),
            "Infinity" => return beyond(2),
            "NaN" => return beyond(3),
            _ => {}
        }
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let rank = match (whole, fraction) {
            ("", "") => 0,
            _ if text.starts_with('-') => -1,
            _ => 1,
        };
        Decimal { rank, whole, fraction }
    }
}

impl<S: AsRef<str>> Decimal<S> {
    fn compare(&self, other: &Decimal<impl AsRef<str>>) -> Ordering {
        let (left, right) = ((self.whole.as_ref(), self.fraction.as_ref()), other.digits());
        let magnitudes = || (left.0.len(), left).cmp(&(right.0.len(), right));
        self.rank.cmp(&other.rank).then_with(|| match self.rank {
            -1 => magnitudes().reverse(),
            _ => magnitudes(),
        })
    }

    fn digits(&self) -> (&str, &str) {
        (self.whole.as_ref(), self.fraction.as_ref())
    }
}

fn is_decimal(text: &str) -> bool {
    if ["-Infinity", "Infinity", "NaN"].contains(&text) {
        return true;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty() && plain(whole) && plain(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(order: Order, json: &str) -> Option<Constant> {
        Constant::new(order, &serde_json::from_str(json).unwrap())
    }

    /// Whether each value is less than those behind it and equal to itself, however it is compared.
    fn assert_ascending(order: Order, values: &[&str]) {
        for (left_at, left) in values.iter().enumerate() {
            for (right_at, right) in values.iter().enumerate() {
                let expected = left_at.cmp(&right_at);
                assert_eq!(order.compare(left, right), expected, "{left} and {right}");
                let scalar = Scalar::Text((*right).to_owned());
                let constant = Constant::new(order, &scalar).unwrap();
                assert_eq!(constant.order_of(left), expected, "{left} and {right}");
                assert_eq!(constant.is(left), expected.is_eq(), "{left} and {right}");
            }
        }
    }

    #[test]
    fn decimals_are_in_the_order_of_their_values() {
        let long = ["12345678901234567890.1", "12345678901234567890.11"];
        let negative = ["-Infinity", "-100", "-99.5001", "-99.5", "-9", "-0.1", "-0.09"];
        let positive = ["0", "0.001", "0.01", "9", "10", "99.5", "99.5001"];
        let values = [&negative[..], &positive, &long, &["Infinity", "NaN"]].concat();
        assert_ascending(Order::Decimal, &values);
    }

    #[test]
    fn zeros_that_say_nothing_make_no_other_decimal() {
        for (left, right) in [("1", "1.00"), ("-0.00", "0"), ("007.10", "7.1"), ("-1.50", "-1.5")] {
            assert!(Order::Decimal.compare(left, right).is_eq(), "{left} and {right}");
            assert!(constant(Order::Decimal, right).unwrap().is(left), "{left} and {right}");
        }
    }

    #[test]
    fn floats_are_in_the_order_of_their_values() {
        let values = ["-Infinity", "-1e+300", "-2", "0", "1e-05", "1", "1e+15", "Infinity", "NaN"];
        assert_ascending(Order::Float, &values);
        assert!(constant(Order::Float, "1e3").unwrap().is("1000"));
    }

    #[test]
    fn text_is_in_the_order_of_its_bytes_and_dates_in_that_of_time() {
        assert_ascending(Order::Bytes, &["", "Open", "open", "opened", "été"]);
        assert_ascending(Order::Bytes, &["0099-12-31", "2025-12-31", "2026-01-01"]);
    }

    #[test]
    fn blanks_at_the_end_of_a_padded_text_do_not_count() {
        let code = constant(Order::Padded, r#""de""#).unwrap();
        assert!(code.is("de   ") && code.is("de") && !code.is("deu  ") && !code.is(" de"));
        assert!(Order::Padded.compare("de   ", "de").is_eq());
        assert!(code.order_of("da   ").is_lt());
        assert!(constant(Order::Padded, "978").unwrap().is("978  "));
    }

    #[test]
    fn a_truth_value_is_compared_with_a_truth_value_only() {
        let truth = constant(Order::Boolean, "true").unwrap();
        assert!(truth.is("t") && truth.order_of("f").is_lt());
        assert_eq!(constant(Order::Boolean, r#""t""#), None);
        assert_eq!(constant(Order::Bytes, "true"), None);
    }

    #[test]
    fn a_number_is_compared_with_numbers_only() {
        for json in [r#""many""#, r#""""#, r#""1.5x""#, r#""-""#, "true"] {
            assert_eq!(constant(Order::Decimal, json), None, "{json}");
            assert_eq!(constant(Order::Float, json), None, "{json}");
        }
        assert!(constant(Order::Decimal, r#""-Infinity""#).is_some());
    }

    #[test]
    fn a_column_compares_by_its_type() {
        let order = |kind, type_name: &str| {
            let (name, type_name) = ("it".to_owned(), type_name.to_owned());
            Order::of(&Column { name, type_name, kind, nullable: true, key: false })
        };
        assert_eq!(order(Kind::Text, "numeric(18,4)"), Order::Decimal);
        assert_eq!(order(Kind::Integer, "bigint"), Order::Decimal);
        assert_eq!(order(Kind::Float, "real"), Order::Float);
        assert_eq!(order(Kind::Boolean, "boolean"), Order::Boolean);
        assert_eq!(order(Kind::Text, "date"), Order::Bytes);
        assert_eq!(order(Kind::Text, "character(5)"), Order::Padded);
        assert_eq!(order(Kind::Text, "character varying(5)"), Order::Bytes);
        assert_eq!(order(Kind::Text, "numeric(18,4)[]"), Order::Bytes);
    }
}
