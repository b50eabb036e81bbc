//! How a column's value looks in an envelope.

use crate::table::ColumnType;

/// What a number of time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Thousandths of a second.
    Millis,
    /// Millionths.
    Micros,
    /// Billionths; only Debezium's, never ours.
    Nanos,
}

impl Unit {
    /// Debezium's adaptive precision: a column with up to three fractional digits counts
    /// milliseconds.
    fn adaptive(digits: u8) -> Unit {
        if digits <= 3 { Unit::Millis } else { Unit::Micros }
    }
}

/// The JSON form of a value; one per column, decided once per table version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wire {
    /// `true`, `false`
    Bool,
    /// An integer.
    Digits,
    /// A number with a fraction or an exponent; `"NaN"`, `"Infinity"`, `"-Infinity"`
    Float,
    /// A string of decimal digits; `"NAN"`, `"POSITIVE_INFINITY"`, `"NEGATIVE_INFINITY"`
    Numeric,
    /// A string of decimal digits without currency sign and grouping.
    Money,
    /// The text itself.
    Text,
    /// Base64.
    Bytea,
    /// Days since 1970.
    Date,
    /// Time since midnight.
    Time(Unit),
    /// ISO time in UTC.
    Timetz,
    /// Time since 1970.
    Timestamp(Unit),
    /// ISO timestamp in UTC with so many fractional digits.
    Timestamptz(u8),
    /// Microseconds, a month counted as 30.4375 days.
    Interval,
    /// `bit(1)`: `true`, `false`
    BitFlag,
    /// Base64 of little-endian bytes; how many bits, if fixed.
    Bits(Option<u32>),
    /// `{"x":…,"y":…,"wkb":…,"srid":null}`
    Point,
    /// A JSON array, possibly nested.
    Array(Box<Wire>),
    /// Base64 of a big-endian integer with this scale; only Debezium's.
    Decimal(i32),
    /// `{"scale":…,"value":…}`; only Debezium's.
    VariableDecimal,
    /// Whatever JSON there is: a string as its content, the rest as it stands. Only of others.
    Any,
}

impl Wire {
    /// The form that Tailwater writes, and Debezium with `decimal.handling.mode=string`.
    pub(super) fn of(kind: &ColumnType) -> Wire {
        match kind {
            ColumnType::Bool => Wire::Bool,
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => {
                Wire::Digits
            }
            ColumnType::Float4 | ColumnType::Float8 => Wire::Float,
            ColumnType::Numeric(_) => Wire::Numeric,
            ColumnType::Money => Wire::Money,
            ColumnType::Bytea => Wire::Bytea,
            ColumnType::Date => Wire::Date,
            ColumnType::Time(digits) => Wire::Time(Unit::adaptive(*digits)),
            ColumnType::Timetz(_) => Wire::Timetz,
            ColumnType::Timestamp(digits) => Wire::Timestamp(Unit::adaptive(*digits)),
            ColumnType::Timestamptz(digits) => Wire::Timestamptz(*digits),
            ColumnType::Interval => Wire::Interval,
            ColumnType::Bit(1) => Wire::BitFlag,
            ColumnType::Bit(bits) => Wire::Bits(Some(*bits)),
            ColumnType::Varbit(_) => Wire::Bits(None),
            ColumnType::Array(element) => Wire::Array(Box::new(Wire::of(element))),
            ColumnType::Point => Wire::Point,
            ColumnType::Text
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Xml
            | ColumnType::Enum(_)
            | ColumnType::Other => Wire::Text,
        }
    }

    /// What Debezium fills in for a NOT NULL column whose value it does not know.
    pub(super) fn zero(&self) -> &'static str {
        match self {
            Wire::Bool | Wire::BitFlag => "false",
            Wire::Digits | Wire::Date | Wire::Time(_) | Wire::Timestamp(_) | Wire::Interval => "0",
            Wire::Float => "0.0",
            Wire::Numeric | Wire::Money => "\"0\"",
            Wire::Timetz => "\"00:00:00Z\"",
            Wire::Timestamptz(_) => "\"1970-01-01T00:00:00.000000Z\"",
            Wire::Point => {
                "{\"x\":0.0,\"y\":0.0,\"wkb\":\"AQEAAAAAAAAAAAAAAAAAAAAAAAAA\",\"srid\":null}"
            }
            Wire::Array(_) => "[]",
            Wire::Text
            | Wire::Bytea
            | Wire::Bits(_)
            | Wire::Decimal(_)
            | Wire::VariableDecimal
            | Wire::Any => "\"\"",
        }
    }

    /// Whether the form may lose something, so that it has to be read back to know.
    pub(super) fn may_lose(&self) -> bool {
        matches!(
            self,
            Wire::Timetz
                | Wire::Interval
                | Wire::Bits(_)
                | Wire::Point
                | Wire::Money
                | Wire::Array(_)
        )
    }
}
