//! Which ClickHouse type holds a PostgreSQL type, and which types a column may have become.
//!
//! | PostgreSQL | ClickHouse |
//! | --- | --- |
//! | `boolean` | `Bool` |
//! | `smallint`, `integer`, `bigint`, `oid` | `Int16`, `Int32`, `Int64`, `UInt32` |
//! | `real`, `double precision` | `Float32`, `Float64` |
//! | `numeric(p,s)` with p <= 76 | `Decimal(p, s)` |
//! | `numeric` and wider ones | `String`, as PostgreSQL prints it |
//! | `uuid` | `UUID` |
//! | `date` | `Date32` |
//! | `timestamp`, `timestamptz` | `DateTime64(6, 'UTC')` |
//! | enumerations | `LowCardinality(String)` |
//! | `bytea` | `String`, the bytes themselves |
//! | `T[]` | `Array(Nullable(T))` |
//! | everything else | `String`, as PostgreSQL prints it |
//!
//! A nullable column is `Nullable`, except arrays, which ClickHouse cannot make so. A `timestamp`
//! without zone names UTC too: without a zone ClickHouse would shift it by the server's. `json` and
//! `jsonb` stay text because ClickHouse's `JSON` reorders keys and rounds long numbers, and `time`
//! because its text sorts as the times do and `24:00:00` has a place in it on every server version.

use std::fmt;

use crate::table::{Column, ColumnType};

/// The largest precision of ClickHouse's `Decimal`.
const DECIMAL_DIGITS: u32 = 76;

/// A ClickHouse column type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Type {
    /// What a present value is.
    pub(super) kind: Kind,
    /// Whether it is wrapped in `Nullable`.
    pub(super) nullable: bool,
}

/// What a value is, NULL aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    UInt32,
    Float32,
    Float64,
    Decimal { precision: u32, scale: u32 },
    String,
    LowCardinality,
    Uuid,
    Date32,
    DateTime64,
    Array(Box<Type>),
}

impl Type {
    /// The type that a source column gets.
    pub(super) fn of(column: &Column) -> Type {
        let kind = Kind::of(&column.kind);
        let nullable = column.nullable && !column.key && !matches!(kind, Kind::Array(_));
        Type { kind, nullable }
    }

    /// Reads a type as `system.columns` prints it; `None` when it is not one that we write.
    pub(super) fn parse(text: &str) -> Option<Type> {
        if let Some(inner) = inner_of(text, "LowCardinality(") {
            let inner = Type::parse(inner)?;
            let kind = (inner.kind == Kind::String).then_some(Kind::LowCardinality)?;
            return Some(Type { kind, nullable: inner.nullable });
        }
        if let Some(inner) = inner_of(text, "Nullable(") {
            let inner = Type::parse(inner)?;
            return (!inner.nullable).then_some(Type { nullable: true, ..inner });
        }
        Some(Type { kind: Kind::parse(text)?, nullable: false })
    }

    /// Whether this type of an existing column takes every value that `wanted` does, so that rows
    /// can go in as it is: an older table version replayed after a widening finds one.
    pub(super) fn takes(&self, wanted: &Type) -> bool {
        (self.nullable || !wanted.nullable) && self.kind.takes(&wanted.kind)
    }

    /// The narrowest type that takes what `self` and `wanted` do, for `MODIFY COLUMN`.
    pub(super) fn widened_to(&self, wanted: &Type) -> Option<Type> {
        let kind = match (self.kind.takes(&wanted.kind), wanted.kind.takes(&self.kind)) {
            (true, _) => self.kind.clone(),
            (false, true) if self.kind.prints_as_postgres(&wanted.kind) => wanted.kind.clone(),
            (false, _) => return None,
        };
        let nullable = (self.nullable || wanted.nullable) && !matches!(kind, Kind::Array(_));
        Some(Type { kind, nullable })
    }

    /// The length of the RowBinary value that `bytes` begins with.
    pub(super) fn span(&self, bytes: &[u8]) -> Option<usize> {
        if !self.nullable {
            return self.kind.span(bytes);
        }
        match bytes.first()? {
            0 => Some(1 + self.kind.span(&bytes[1..])?),
            _ => Some(1),
        }
    }
}

impl Kind {
    fn of(kind: &ColumnType) -> Kind {
        match kind {
            ColumnType::Bool => Kind::Bool,
            ColumnType::Int2 => Kind::Int16,
            ColumnType::Int4 => Kind::Int32,
            ColumnType::Int8 => Kind::Int64,
            ColumnType::Oid => Kind::UInt32,
            ColumnType::Float4 => Kind::Float32,
            ColumnType::Float8 => Kind::Float64,
            ColumnType::Numeric(Some((precision, scale))) => decimal(*precision, *scale),
            ColumnType::Uuid => Kind::Uuid,
            ColumnType::Date => Kind::Date32,
            ColumnType::Timestamp(_) | ColumnType::Timestamptz(_) => Kind::DateTime64,
            ColumnType::Enum(_) => Kind::LowCardinality,
            ColumnType::Array(element) => {
                Kind::Array(Box::new(Type { kind: Kind::of(element), nullable: true }))
            }
            ColumnType::Numeric(None)
            | ColumnType::Money
            | ColumnType::Text
            | ColumnType::Bytea
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Xml
            | ColumnType::Time(_)
            | ColumnType::Timetz(_)
            | ColumnType::Interval
            | ColumnType::Bit(_)
            | ColumnType::Varbit(_)
            | ColumnType::Point
            | ColumnType::Other => Kind::String,
        }
    }

    fn parse(text: &str) -> Option<Kind> {
        if let Some(inner) = inner_of(text, "Array(") {
            return Some(Kind::Array(Box::new(Type::parse(inner)?)));
        }
        if let Some(inner) = inner_of(text, "Decimal(") {
            let (precision, scale) = inner.split_once(',')?;
            let (precision, scale) = (precision.parse().ok()?, scale.trim().parse().ok()?);
            return Some(Kind::Decimal { precision, scale });
        }
        Some(match text {
            "Bool" => Kind::Bool,
            "Int16" => Kind::Int16,
            "Int32" => Kind::Int32,
            "Int64" => Kind::Int64,
            "UInt32" => Kind::UInt32,
            "Float32" => Kind::Float32,
            "Float64" => Kind::Float64,
            "String" => Kind::String,
            "UUID" => Kind::Uuid,
            "Date32" => Kind::Date32,
            "DateTime64(6, 'UTC')" => Kind::DateTime64,
            _ => return None,
        })
    }

    /// Whether every value of `other` is exact in this type, written from PostgreSQL's text.
    fn takes(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Array(ours), Kind::Array(theirs)) => ours.takes(theirs),
            (Kind::String, Kind::LowCardinality) | (Kind::LowCardinality, Kind::String) => true,
            (Kind::String, wanted) => !matches!(wanted, Kind::Array(_)),
            (Kind::Int32, Kind::Int16)
            | (Kind::Int64, Kind::Int16 | Kind::Int32 | Kind::UInt32)
            | (Kind::Float64, Kind::Float32) => true,
            (
                Kind::Decimal { precision, scale },
                Kind::Decimal { precision: narrow, scale: coarse },
            ) => scale >= coarse && precision - scale >= narrow - coarse,
            _ => self == other,
        }
    }

    /// Whether ClickHouse's own conversion of stored values gives what PostgreSQL's text would.
    fn prints_as_postgres(&self, wider: &Kind) -> bool {
        match (self, wider) {
            (Kind::Array(ours), Kind::Array(theirs)) => ours.kind.prints_as_postgres(&theirs.kind),
            (Kind::Bool | Kind::Float32 | Kind::Float64, Kind::String | Kind::LowCardinality)
            | (Kind::Decimal { .. } | Kind::DateTime64, Kind::String | Kind::LowCardinality) => {
                false
            }
            _ => true,
        }
    }

    fn span(&self, bytes: &[u8]) -> Option<usize> {
        let fixed = match self {
            Kind::Bool => 1,
            Kind::Int16 => 2,
            Kind::Int32 | Kind::UInt32 | Kind::Float32 | Kind::Date32 => 4,
            Kind::Int64 | Kind::Float64 | Kind::DateTime64 => 8,
            Kind::Uuid => 16,
            Kind::Decimal { precision, .. } => decimal_width(*precision),
            Kind::String | Kind::LowCardinality => {
                let (length, prefix) = read_varint(bytes)?;
                prefix.checked_add(usize::try_from(length).ok()?)?
            }
            Kind::Array(element) => return array_span(element, bytes),
        };
        (fixed <= bytes.len()).then_some(fixed)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, self.nullable) {
            (Kind::LowCardinality, false) => write!(f, "LowCardinality(String)"),
            (Kind::LowCardinality, true) => write!(f, "LowCardinality(Nullable(String))"),
            (kind, false) => write!(f, "{kind}"),
            (kind, true) => write!(f, "Nullable({kind})"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Decimal { precision, scale } => write!(f, "Decimal({precision}, {scale})"),
            Kind::LowCardinality => write!(f, "LowCardinality(String)"),
            Kind::Uuid => write!(f, "UUID"),
            Kind::DateTime64 => write!(f, "DateTime64(6, 'UTC')"),
            Kind::Array(element) => write!(f, "Array({element})"),
            plain => write!(f, "{plain:?}"),
        }
    }
}

/// Bytes of a `Decimal` of that precision.
pub(super) fn decimal_width(precision: u32) -> usize {
    match precision {
        ..=9 => 4,
        10..=18 => 8,
        19..=38 => 16,
        _ => 32,
    }
}

/// Reads an unsigned LEB128 number: its value and its length.
pub(super) fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// PostgreSQL's scale may be negative or above the precision; ClickHouse's may not.
fn decimal(precision: u16, scale: i16) -> Kind {
    let digits_after = u32::from(scale.max(0).unsigned_abs());
    let rounded_away = u32::from(scale.min(0).unsigned_abs());
    let precision = (u32::from(precision) + rounded_away).max(digits_after);
    match precision <= DECIMAL_DIGITS {
        true => Kind::Decimal { precision, scale: digits_after },
        false => Kind::String,
    }
}

fn inner_of<'a>(text: &'a str, opening: &str) -> Option<&'a str> {
    text.strip_prefix(opening)?.strip_suffix(')')
}

fn array_span(element: &Type, bytes: &[u8]) -> Option<usize> {
    let (count, mut at) = read_varint(bytes)?;
    for _ in 0..count {
        at += element.span(bytes.get(at..)?)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnType, nullable: bool) -> Column {
        Column { nullable, ..Column::new("c", kind, "") }
    }

    #[test]
    fn printed_types_parse_back() {
        let kinds = [
            ColumnType::Bool,
            ColumnType::Oid,
            ColumnType::Numeric(Some((18, 4))),
            ColumnType::Uuid,
            ColumnType::Timestamptz(6),
            ColumnType::Enum(vec!["a".into()]),
            ColumnType::Array(Box::new(ColumnType::Enum(vec![]))),
            ColumnType::Array(Box::new(ColumnType::Numeric(Some((76, 38))))),
        ];
        for nullable in [false, true] {
            for kind in &kinds {
                let wanted = Type::of(&column(kind.clone(), nullable));
                assert_eq!(Type::parse(&wanted.to_string()), Some(wanted));
            }
        }
    }

    #[test]
    fn numeric_becomes_the_decimal_that_holds_all_of_it() {
        let of = |precision, scale| {
            let kind = ColumnType::Numeric(Some((precision, scale)));
            Type::of(&column(kind, false)).to_string()
        };
        assert_eq!(of(18, 4), "Decimal(18, 4)");
        assert_eq!(of(2, 5), "Decimal(5, 5)");
        assert_eq!(of(2, -3), "Decimal(5, 0)");
        assert_eq!(of(76, 76), "Decimal(76, 76)");
        assert_eq!(of(77, 0), "String");
    }

    #[test]
    fn a_column_widens_but_never_narrows() {
        let parse = |text| Type::parse(text).unwrap();
        let widened = |actual, wanted| {
            parse(actual).widened_to(&parse(wanted)).map(|widened: Type| widened.to_string())
        };
        assert_eq!(widened("Int32", "Int64").as_deref(), Some("Int64"));
        assert_eq!(widened("Int64", "Nullable(Int32)").as_deref(), Some("Nullable(Int64)"));
        assert_eq!(widened("Decimal(10, 2)", "Decimal(12, 2)").as_deref(), Some("Decimal(12, 2)"));
        assert_eq!(widened("Decimal(10, 2)", "Decimal(10, 4)"), None);
        assert_eq!(widened("Int32", "String").as_deref(), Some("String"));
        assert_eq!(widened("Date32", "Int32"), None);
        assert!(parse("Nullable(Int64)").takes(&parse("Int16")));
        assert!(!parse("Int64").takes(&parse("Nullable(Int16)")));
    }
}
