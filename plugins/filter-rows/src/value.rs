//! One condition on one column, compared as PostgreSQL would.

use std::cmp::Ordering;

use serde::Deserialize;
use tailwater_guest::{Table, types};

/// A condition. As in SQL, NULL satisfies nothing but `is-null`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The column.
    pub column: String,
    /// The comparison. Default: `eq`.
    #[serde(default)]
    pub op: Op,
    /// What to compare with: text, a number or a truth value; a list of them for `in`, `not-in`.
    #[serde(default)]
    pub value: OneOrMany,
    /// The values as PostgreSQL would print them.
    #[serde(skip)]
    texts: Vec<String>,
}

/// A comparison.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Equal.
    #[default]
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal to one of the list.
    In,
    /// Equal to none of the list.
    NotIn,
    /// NULL.
    IsNull,
    /// Not NULL.
    IsNotNull,
}

/// A value of the configuration.
#[derive(Deserialize, Clone)]
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

/// Values of the configuration.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(Scalar),
    /// Any number; none if there is no `value`.
    Many(Vec<Scalar>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        OneOrMany::Many(Vec::new())
    }
}

/// How a column's values compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// By bytes; dates and times are then in the order of time.
    Text,
    /// As exact decimal numbers.
    Decimal,
    /// As floating-point numbers.
    Float,
    /// `t` and `f`.
    Boolean,
}

/// Whether a condition holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Truth {
    /// It does not, or the value is NULL.
    No,
    /// The value is not known.
    NotSent,
    /// It does.
    Yes,
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Scalar::Boolean(truth) => if *truth { "t" } else { "f" }.to_owned(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        }
    }

    fn suits(&self, kind: Kind) -> bool {
        match kind {
            Kind::Boolean => matches!(self, Scalar::Boolean(_)),
            Kind::Decimal => number_class(&self.text()) != 0 || is_decimal(&self.text()),
            Kind::Float => self.text().parse::<f64>().is_ok(),
            Kind::Text => !matches!(self, Scalar::Boolean(_)),
        }
    }
}

impl Condition {
    fn values(&self) -> &[Scalar] {
        match &self.value {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }

    /// Checks that the comparison has as many values as it takes, and readies them.
    pub fn prepare(&mut self) -> Result<(), String> {
        self.texts = self.values().iter().map(Scalar::text).collect();
        let (takes, fits) = match (self.op, &self.value) {
            (Op::IsNull | Op::IsNotNull, value) => {
                ("no `value`", matches!(value, OneOrMany::Many(values) if values.is_empty()))
            }
            (Op::In | Op::NotIn, value) => (
                "a list as `value`",
                matches!(value, OneOrMany::Many(values) if !values.is_empty()),
            ),
            (_, value) => ("one `value`", matches!(value, OneOrMany::One(_))),
        };
        if fits { Ok(()) } else { Err(format!("the condition on {} takes {takes}", self.column)) }
    }

    /// How the column compares in a table.
    pub fn kind_in(&self, table: &Table) -> Result<Kind, String> {
        let name = format!("{}.{}", table.schema, table.name);
        let found = table.columns.iter().find(|column| column.name == self.column);
        let column = found.ok_or_else(|| {
            format!("{name} has no column {}; name the plugin's tables in `tables`", self.column)
        })?;
        let kind = match column.kind {
            types::Kind::Integer => Kind::Decimal,
            types::Kind::Float => Kind::Float,
            types::Kind::Boolean => Kind::Boolean,
            types::Kind::Text if column.type_name.starts_with("numeric") => Kind::Decimal,
            types::Kind::Text => Kind::Text,
        };
        if self.values().iter().all(|value| value.suits(kind)) {
            return Ok(kind);
        }
        let type_name = &column.type_name;
        Err(format!("{name}.{} is {type_name}, which its `value` is not", self.column))
    }

    /// Whether it holds for a value; none is NULL.
    pub fn holds(&self, kind: Kind, text: Option<&str>) -> Truth {
        let Some(text) = text else {
            return if self.op == Op::IsNull { Truth::Yes } else { Truth::No };
        };
        let orders = || self.texts.iter().map(|value| compare(kind, text, value));
        let all = |wanted: fn(Ordering) -> bool| orders().all(wanted);
        let holds = match self.op {
            Op::Eq => all(Ordering::is_eq),
            Op::Ne | Op::NotIn => all(Ordering::is_ne),
            Op::Lt => all(Ordering::is_lt),
            Op::Le => all(Ordering::is_le),
            Op::Gt => all(Ordering::is_gt),
            Op::Ge => all(Ordering::is_ge),
            Op::In => orders().any(Ordering::is_eq),
            Op::IsNull => false,
            Op::IsNotNull => true,
        };
        if holds { Truth::Yes } else { Truth::No }
    }
}

fn compare(kind: Kind, left: &str, right: &str) -> Ordering {
    match kind {
        Kind::Text | Kind::Boolean => left.cmp(right),
        Kind::Decimal => compare_decimals(left, right),
        Kind::Float => {
            let parse = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
            // As PostgreSQL: NaN equals itself and is greater than everything.
            let (left, right) = (parse(left), parse(right));
            left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
        }
    }
}

/// `-Infinity` < numbers < `Infinity` < `NaN`, as PostgreSQL orders them.
fn number_class(text: &str) -> i8 {
    match text {
        "-Infinity" => -1,
        "Infinity" => 1,
        "NaN" => 2,
        _ => 0,
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty() && plain(whole) && plain(fraction)
}

fn compare_decimals(left: &str, right: &str) -> Ordering {
    let classes = number_class(left).cmp(&number_class(right));
    if classes.is_ne() || number_class(left) != 0 {
        return classes;
    }
    let ((left_negative, left), (right_negative, right)) = (magnitude(left), magnitude(right));
    match (left_negative, right_negative) {
        (false, false) => left.cmp(&right),
        (true, true) => right.cmp(&left),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// Whether it is below zero, and what compares as the number without its sign does.
fn magnitude(text: &str) -> (bool, (usize, &str, &str)) {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let zero = whole.is_empty() && fraction.is_empty();
    (text.starts_with('-') && !zero, (whole.len(), whole, fraction))
}
