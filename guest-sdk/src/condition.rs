//! Conditions on columns, as a configuration says them:
//! `{ column = "state", op = "in", value = ["open", "paid"] }`.
//!
//! ```
//! use tailwater_guest::condition::Condition;
//! # use tailwater_guest::testing::TestTable;
//! # let orders = TestTable::new("public.orders").column("total", "numeric(18,4)").into_record();
//!
//! let condition: Condition =
//!     serde_json::from_str(r#"{"column": "total", "op": "ge", "value": 10}"#).unwrap();
//! let predicate = condition.predicate(&orders).unwrap();
//! assert!(predicate.holds(Some("10.0000")));
//! assert!(!predicate.holds(None), "as in SQL, NULL satisfies nothing but `is-null`");
//! ```

use std::cmp::Ordering;

use serde::Deserialize;

use crate::compare::{Constant, Order, Scalar};
use crate::moment::Form;
use crate::types::Table;

/// A condition on one column, with as many values as its comparison takes.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(try_from = "Said")]
pub struct Condition {
    /// The column's name.
    pub column: String,
    /// The comparison.
    pub op: Op,
    /// What to compare with: one value; any number of them for `in` and `not-in`; none for `is-null` and
    /// `is-not-null`.
    pub values: Vec<Scalar>,
}

/// A comparison.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq, Debug)]
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

/// A condition on the column of a table, made ready once.
#[derive(Clone, Debug)]
pub struct Predicate(Test);

#[derive(Clone, Debug)]
enum Test {
    /// Whether it is to be equal to one of them.
    Among(Vec<Constant>, bool),
    /// How it is to stand to one.
    Beside(Constant, fn(Ordering) -> bool),
    /// Whether it is to be NULL.
    Null(bool),
}

/// A condition as it stands in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    column: String,
    #[serde(default)]
    op: Op,
    value: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl TryFrom<Said> for Condition {
    type Error = String;

    fn try_from(Said { column, op, value }: Said) -> Result<Condition, String> {
        let values = match (op, value) {
            (Op::IsNull | Op::IsNotNull, None) => Vec::new(),
            (Op::In | Op::NotIn, Some(Value::Many(values))) if !values.is_empty() => values,
            (Op::IsNull | Op::IsNotNull | Op::In | Op::NotIn, _) => return Err(takes(&column, op)),
            (_, Some(Value::One(value))) => vec![value],
            _ => return Err(takes(&column, op)),
        };
        Ok(Condition { column, op, values })
    }
}

fn takes(column: &str, op: Op) -> String {
    let takes = match op {
        Op::IsNull | Op::IsNotNull => "no `value`",
        Op::In | Op::NotIn => "a list as `value`",
        _ => "one `value`",
    };
    format!("the condition on {column} takes {takes}")
}

impl Condition {
    /// The condition on a table's column.
    ///
    /// # Errors
    /// The table has no such column, or one that holds no such values.
    pub fn predicate(&self, table: &Table) -> Result<Predicate, String> {
        let (name, column) = (format!("{}.{}", table.schema, table.name), &self.column);
        let found = table.columns.iter().find(|known| known.name == *column);
        let found = found.ok_or_else(|| {
            format!("{name} has no column {column}; name the plugin's tables in `tables`")
        })?;
        let order = Order::of(found);
        let is_order = matches!(self.op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
        let is_number = |value: &Scalar| matches!(value, Scalar::Integer(_) | Scalar::Float(_));
        // `money`, and domains over `numeric`: by their text 9 would be more than 10.
        if is_order && order == Order::Bytes && self.values.iter().any(is_number) {
            let type_name = &found.type_name;
            return Err(format!(
                "{name}.{column} is {type_name}, which is not ordered as numbers are"
            ));
        }
        if let Some(form) = Form::of(&found.type_name)
            && !self.values.iter().all(|value| form.is_of(&value.text()))
        {
            let (type_name, example) = (&found.type_name, form.example());
            return Err(format!(
                "{name}.{column} is {type_name}, whose `value` is written like \"{example}\""
            ));
        }
        let constants = self.values.iter().map(|value| Constant::new(order, value));
        let constants: Option<Vec<_>> = constants.collect();
        let mut constants = constants.ok_or_else(|| {
            format!("{name}.{column} is {}, which its `value` is not", found.type_name)
        })?;
        let mut limit = || constants.pop().ok_or_else(|| takes(column, self.op));
        Ok(Predicate(match self.op {
            Op::Eq | Op::In => Test::Among(constants, true),
            Op::Ne | Op::NotIn => Test::Among(constants, false),
            Op::Lt => Test::Beside(limit()?, Ordering::is_lt),
            Op::Le => Test::Beside(limit()?, Ordering::is_le),
            Op::Gt => Test::Beside(limit()?, Ordering::is_gt),
            Op::Ge => Test::Beside(limit()?, Ordering::is_ge),
            Op::IsNull => Test::Null(true),
            Op::IsNotNull => Test::Null(false),
        }))
    }
}

impl Predicate {
    /// Whether it holds for a value of the column in PostgreSQL's text form; none is NULL, which
    /// satisfies nothing but `is-null`.
    #[inline]
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        match (&self.0, value) {
            (Test::Among(constants, wanted), Some(value)) => {
                constants.iter().any(|constant| constant.is(value)) == *wanted
            }
            (Test::Beside(limit, wanted), Some(value)) => wanted(limit.order_of(value)),
            (Test::Null(wanted), value) => value.is_none() == *wanted,
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestTable;

    fn orders() -> Table {
        let table = TestTable::new("public.orders").key("id", "bigint").column("state", "text");
        let table = table.column("total", "numeric(18,4)").column("paid", "boolean");
        table.column("made", "timestamp with time zone").into_record()
    }

    fn refusal(json: &str) -> String {
        match serde_json::from_str::<Condition>(json) {
            Ok(_) => panic!("{json} is accepted"),
            Err(error) => error.to_string(),
        }
    }

    /// Which of the values satisfy `total OP value`.
    fn which(op: &str, value: &str) -> Vec<&'static str> {
        let json = format!(r#"{{"column": "total", "op": "{op}"{value}}}"#);
        let condition: Condition = serde_json::from_str(&json).unwrap();
        let predicate = condition.predicate(&orders()).unwrap();
        let values = [None, Some("9.0000"), Some("10.0000"), Some("11.0000")];
        let holds = values.into_iter().filter(|value| predicate.holds(*value));
        holds.map(|value| value.unwrap_or("NULL")).collect()
    }

    #[test]
    fn each_comparison_holds_for_what_its_name_says() {
        let value = r#", "value": 10"#;
        assert_eq!(which("eq", value), ["10.0000"]);
        assert_eq!(which("ne", value), ["9.0000", "11.0000"]);
        assert_eq!(which("lt", value), ["9.0000"]);
        assert_eq!(which("le", value), ["9.0000", "10.0000"]);
        assert_eq!(which("gt", value), ["11.0000"]);
        assert_eq!(which("ge", value), ["10.0000", "11.0000"]);
        let list = r#", "value": [9, "11.0"]"#;
        assert_eq!(which("in", list), ["9.0000", "11.0000"]);
        assert_eq!(which("not-in", list), ["10.0000"]);
        assert_eq!(which("is-null", ""), ["NULL"]);
        assert_eq!(which("is-not-null", ""), ["9.0000", "10.0000", "11.0000"]);
    }

    #[test]
    fn a_comparison_takes_as_many_values_as_it_says() {
        assert!(refusal(r#"{"column": "a", "op": "in", "value": 1}"#).contains("a list"));
        assert!(refusal(r#"{"column": "a", "op": "in", "value": []}"#).contains("a list"));
        assert!(refusal(r#"{"column": "a", "op": "is-null", "value": 1}"#).contains("no `value`"));
        assert!(refusal(r#"{"column": "a", "value": [1, 2]}"#).contains("one `value`"));
        assert!(refusal(r#"{"column": "a"}"#).contains("on a takes one `value`"));
        assert!(refusal(r#"{"column": "a", "op": "like", "value": "b"}"#).contains("like"));
        assert!(refusal(r#"{"column": "a", "values": [1]}"#).contains("values"));
    }

    #[test]
    fn a_table_without_the_column_or_with_another_type_is_refused() {
        let refusal = |json: &str| {
            let condition: Condition = serde_json::from_str(json).unwrap();
            condition.predicate(&orders()).expect_err("it is refused")
        };
        let missing = refusal(r#"{"column": "lang", "value": "en"}"#);
        assert!(missing.contains("public.orders has no column lang"), "{missing}");
        let wrong = refusal(r#"{"column": "paid", "value": "yes"}"#);
        assert!(wrong.contains("public.orders.paid is boolean"), "{wrong}");
        for value in ["2026-01-01T08:00:00Z", "2026-01-01 08:00:00", "2026-01-01"] {
            let json = format!(r#"{{"column": "made", "op": "ge", "value": "{value}"}}"#);
            let time = refusal(&json);
            let written = "whose `value` is written like \"2026-01-31 08:30:00+00\"";
            assert!(time.contains("made is timestamp with time zone") && time.ends_with(written));
        }
        let text = refusal(r#"{"column": "state", "op": "ge", "value": 10}"#);
        assert!(text.contains("text, which is not ordered as numbers are"), "{text}");
    }
}
