//! Type names as PostgreSQL prints them, into what their text means.

use crate::table::ColumnType;

/// The type of that name; none if it is no built-in type that columns may be made of. An array's name is the
/// same whatever its dimensions.
pub(crate) fn parse(name: &str) -> Option<ColumnType> {
    match name.strip_suffix("[]") {
        Some(element) => Some(ColumnType::Array(Box::new(parse_element(element)?))),
        None => parse_element(name),
    }
}

fn parse_element(name: &str) -> Option<ColumnType> {
    let (base, modifier) = split(name)?;
    let digits = || match modifier.as_deref() {
        None => Some(6),
        Some([digits]) => u8::try_from(*digits).ok().filter(|digits| *digits <= 6),
        Some(_) => None,
    };
    let length = |absent| match modifier.as_deref() {
        None => Some(absent),
        Some([length]) => u32::try_from(*length).ok().map(Some),
        Some(_) => None,
    };
    Some(match base.as_str() {
        "character varying" | "varchar" | "character" | "char" => {
            length(None)?;
            ColumnType::Text
        }
        "numeric" | "decimal" => ColumnType::Numeric(numeric(modifier.as_deref())?),
        "time" | "time without time zone" => ColumnType::Time(digits()?),
        "timetz" | "time with time zone" => ColumnType::Timetz(digits()?),
        "timestamp" | "timestamp without time zone" => ColumnType::Timestamp(digits()?),
        "timestamptz" | "timestamp with time zone" => ColumnType::Timestamptz(digits()?),
        "bit" => ColumnType::Bit(length(Some(1))?.unwrap_or(1)),
        "bit varying" | "varbit" => ColumnType::Varbit(length(None)?),
        plain => {
            return plain_type(plain).filter(|_| modifier.is_none());
        }
    })
}

fn plain_type(name: &str) -> Option<ColumnType> {
    Some(match name {
        "boolean" | "bool" => ColumnType::Bool,
        "smallint" | "int2" => ColumnType::Int2,
        "integer" | "int" | "int4" => ColumnType::Int4,
        "bigint" | "int8" => ColumnType::Int8,
        "oid" => ColumnType::Oid,
        "real" | "float4" => ColumnType::Float4,
        "double precision" | "float8" => ColumnType::Float8,
        "money" => ColumnType::Money,
        "text" | "name" | "citext" => ColumnType::Text,
        "bytea" => ColumnType::Bytea,
        "uuid" => ColumnType::Uuid,
        "json" => ColumnType::Json,
        "jsonb" => ColumnType::Jsonb,
        "xml" => ColumnType::Xml,
        "date" => ColumnType::Date,
        "interval" => ColumnType::Interval,
        "point" => ColumnType::Point,
        _ => return None,
    })
}

fn numeric(modifier: Option<&[i32]>) -> Option<Option<(u16, i16)>> {
    let (precision, scale) = match modifier {
        None => return Some(None),
        Some([precision]) => (*precision, 0),
        Some([precision, scale]) => (*precision, *scale),
        Some(_) => return None,
    };
    let sound = (1..=1000).contains(&precision) && (-1000..=1000).contains(&scale);
    let pair = (u16::try_from(precision).ok()?, i16::try_from(scale).ok()?);
    sound.then_some(Some(pair))
}

/// `timestamp(3) with time zone` is `timestamp with time zone` and `[3]`.
fn split(name: &str) -> Option<(String, Option<Vec<i32>>)> {
    let Some((head, rest)) = name.split_once('(') else { return Some((name.to_owned(), None)) };
    let (inside, tail) = rest.split_once(')')?;
    let numbers = inside.split(',').map(|number| number.trim().parse().ok());
    Some((format!("{}{tail}", head.trim_end()), Some(numbers.collect::<Option<_>>()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_postgres_prints_them_are_known() {
        let cases = [
            ("text", ColumnType::Text),
            ("character varying(20)", ColumnType::Text),
            ("numeric", ColumnType::Numeric(None)),
            ("numeric(18,4)", ColumnType::Numeric(Some((18, 4)))),
            ("timestamp(3) with time zone", ColumnType::Timestamptz(3)),
            ("timestamp without time zone", ColumnType::Timestamp(6)),
            ("bit varying(5)", ColumnType::Varbit(Some(5))),
            ("integer[]", ColumnType::Array(Box::new(ColumnType::Int4))),
        ];
        for (name, expected) in cases {
            assert_eq!(parse(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn an_array_of_arrays_has_the_name_of_an_array() {
        assert_eq!(parse("integer[][]"), None);
        assert_eq!(parse(&format!("text{}", "[]".repeat(1_000_000))), None);
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for name in ["", "us_zip", "text(", "numeric(x)", "numeric(0)", "date(3)", "time(9)", "[]"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
