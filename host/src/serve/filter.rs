//! The conditions of a pipe: `?column=value` and `?column.is=null`. Values travel as typed
//! parameters; nothing that a client sends becomes SQL text.

use super::answer::Refusal;
use super::clickhouse::ClickHouseError;
use super::tables::{Mirrored, MirroredColumn};
use crate::sink::{is_exact, quoted};

/// A `WHERE` clause, or nothing, and the values of its parameters.
pub(super) type Filters = (String, Vec<(String, String)>);

/// The conditions that the parameters ask for, all of which must hold.
pub(super) fn filters(
    table: &Mirrored,
    parameters: Vec<(String, String)>,
) -> Result<Filters, Refusal> {
    let mut conditions: Vec<String> = Vec::new();
    let mut values: Vec<(String, String)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (key, value) in parameters {
        let (index, about) = subject(table, &key)?;
        let column = &table.columns[index];
        if seen.contains(&column.name.as_str()) {
            return Err(Refusal::bad(format!("the column `{}` is filtered twice", column.name)));
        }
        seen.push(&column.name);
        match about {
            About::Value => {
                let parameter = format!("f{index}");
                conditions.push(condition(column, &parameter));
                values.push((parameter, plain_value(column, value)?));
            }
            About::Null => conditions.push(null_condition(column, &value)?),
        }
    }
    let text = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    Ok((text, values))
}

/// What a parameter asks about a column.
enum About {
    /// `column=value`
    Value,
    /// `column.is=null`
    Null,
}

/// A column whose own name ends in `.is` goes first.
fn subject(table: &Mirrored, key: &str) -> Result<(usize, About), Refusal> {
    let named = |name: &str| table.columns.iter().position(|column| column.name == name);
    let value = named(key).map(|index| (index, About::Value));
    let null = || Some((named(key.strip_suffix(".is")?)?, About::Null));
    value.or_else(null).ok_or_else(|| {
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        Refusal::bad(format!(
            "`{key}` is neither a column of `{}` nor a parameter; allowed: limit, offset, token, \
             and the columns {} (also as <column>.is=null)",
            table.view,
            names.join(", ")
        ))
    })
}

fn null_condition(column: &MirroredColumn, value: &str) -> Result<String, Refusal> {
    let name = quoted(&column.name);
    match value {
        "null" => Ok(format!("isNull({name})")),
        "not-null" => Ok(format!("isNotNull({name})")),
        _ => Err(Refusal::bad(format!("`{}.is` is null or not-null", column.name))),
    }
}

/// Compares in the column's own type, which lets ClickHouse use its index. Types that a parameter
/// cannot have are compared as text, and bytes as they are shown.
fn condition(column: &MirroredColumn, parameter: &str) -> String {
    let name = quoted(&column.name);
    match plain_type(&column.kind) {
        Some(_) if column.binary => format!("{} = {{{parameter}:String}}", column.as_text()),
        None if column.binary => format!("toString({}) = {{{parameter}:String}}", column.as_text()),
        Some(kind) => format!("{name} = {{{parameter}:{kind}}}"),
        None => format!("toString({name}) = {{{parameter}:String}}"),
    }
}

/// The type inside `Nullable(…)` and `LowCardinality(…)`, if values of it can be compared.
fn plain_type(kind: &str) -> Option<&str> {
    let mut kind = kind.trim();
    for wrapper in ["LowCardinality(", "Nullable("] {
        if let Some(inner) = kind.strip_prefix(wrapper) {
            kind = inner.strip_suffix(')')?.trim();
        }
    }
    let base = kind.split('(').next()?;
    let comparable = base == "String"
        || base == "UUID"
        || base == "Bool"
        || ["Int", "UInt", "Float", "Decimal", "Date", "IPv"].iter().any(|p| base.starts_with(p));
    comparable.then_some(kind)
}

/// The value as ClickHouse reads it. It takes times without a zone only, and of a whole number that
/// is too large it would silently take the lowest bits.
fn plain_value(column: &MirroredColumn, value: String) -> Result<String, Refusal> {
    let Some(kind) = plain_type(&column.kind) else {
        return Ok(value);
    };
    let bare = ["Z", "+00", "+00:00"].iter().find_map(|utc| value.strip_suffix(utc));
    let bare = bare.filter(|_| kind.starts_with("DateTime")).map(str::to_owned);
    let value = bare.unwrap_or(value);
    match fits(kind, &value) {
        true => Ok(value),
        false => Err(unfit(column)),
    }
}

/// Whether a value is one of the type, exactly: ClickHouse would take the nearest that there is. Text and
/// floating point numbers are left to it.
fn fits(kind: &str, value: &str) -> bool {
    match kind {
        "Int8" => value.parse::<i8>().is_ok(),
        "Int16" => value.parse::<i16>().is_ok(),
        "Int32" => value.parse::<i32>().is_ok(),
        "Int64" => value.parse::<i64>().is_ok(),
        "Int128" => value.parse::<i128>().is_ok(),
        "UInt8" => value.parse::<u8>().is_ok(),
        "UInt16" => value.parse::<u16>().is_ok(),
        "UInt32" => value.parse::<u32>().is_ok(),
        "UInt64" => value.parse::<u64>().is_ok(),
        "UInt128" => value.parse::<u128>().is_ok(),
        _ => is_exact(kind, value),
    }
}

fn unfit(column: &MirroredColumn) -> Refusal {
    let kind = plain_type(&column.kind).unwrap_or("String");
    Refusal::bad(format!("the value for `{}` is not of the type {kind}", column.name))
}

/// Why a pipe has no answer: a value that ClickHouse could not read is the client's mistake, what
/// else it refuses is not.
pub(super) fn refusal(table: &Mirrored, error: ClickHouseError) -> Refusal {
    if let ClickHouseError::Refused { message, .. } = &error {
        let named = message.split_once("query parameter 'f").map(|(_, rest)| rest);
        let index = named.and_then(|rest| rest.split('\'').next()?.parse::<usize>().ok());
        if let Some(column) = index.and_then(|index| table.columns.get(index)) {
            return unfit(column);
        }
    }
    error.of_ours()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: &str) -> MirroredColumn {
        MirroredColumn { name: "c".to_owned(), kind: kind.to_owned(), binary: false }
    }

    #[test]
    fn a_whole_number_out_of_range_does_not_wrap_around() {
        let max = column("Nullable(Int64)");
        assert!(plain_value(&max, i64::MAX.to_string()).is_ok());
        for wrong in ["9223372036854775808", "18446744073709551617", "1.0", "", " 1", "0x1", "x"] {
            let refusal = plain_value(&max, wrong.to_owned()).unwrap_err();
            assert_eq!(refusal.sentence, "the value for `c` is not of the type Int64");
        }
        assert!(plain_value(&column("UInt32"), "-1".to_owned()).is_err());
        assert!(plain_value(&column("String"), "-1".to_owned()).is_ok());
    }

    #[test]
    fn a_value_that_a_column_cannot_have_is_none_that_is_near_it() {
        let date = column("Nullable(Date32)");
        let time = column("DateTime64(6, 'UTC')");
        let number = column("Nullable(Decimal(10, 2))");
        let is_taken =
            |column: &MirroredColumn, text: &str| plain_value(column, text.to_owned()).is_ok();
        assert!(is_taken(&date, "2024-02-29") && is_taken(&date, "1999-12-31"));
        for text in [
            "2024-02-30",
            "2023-02-29",
            "2024-13-01",
            "0000-00-00",
            "1800-01-01",
            "9999-12-31",
            "x",
        ] {
            assert!(!is_taken(&date, text), "{text}");
        }
        assert!(is_taken(&time, "2024-01-02 03:04:05") && is_taken(&time, "2024-01-02"));
        for text in ["2024-02-30 00:00:00", "2024-01-02 03:04:05.1234567", "2024-01-02 25:00:00"] {
            assert!(!is_taken(&time, text), "{text}");
        }
        assert!(is_taken(&number, "1.23") && is_taken(&number, "-7"));
        assert!(!is_taken(&number, "1.239") && !is_taken(&number, "123456789012"));
    }

    #[test]
    fn a_time_may_say_that_it_is_utc() {
        let time = column("Nullable(DateTime64(6, 'UTC'))");
        for text in ["2024-01-02T03:04:05.6Z", "2024-01-02T03:04:05.6+00:00"] {
            assert_eq!(plain_value(&time, text.to_owned()).unwrap(), "2024-01-02T03:04:05.6");
        }
        assert_eq!(plain_value(&column("String"), "Z".to_owned()).unwrap(), "Z");
    }

    #[test]
    fn null_is_asked_for_by_name() {
        let named = |name: &str| MirroredColumn {
            name: name.to_owned(),
            kind: "Int64".to_owned(),
            binary: false,
        };
        let table = Mirrored {
            source: "public.t".to_owned(),
            view: "t".to_owned(),
            columns: vec![named("a"), named("b"), named("b.is")],
            order: Vec::new(),
        };
        let ask =
            |key: &str, value: &str| filters(&table, vec![(key.to_owned(), value.to_owned())]);
        assert_eq!(ask("a.is", "null").unwrap().0, " WHERE isNull(`a`)");
        assert_eq!(ask("a.is", "not-null").unwrap().0, " WHERE isNotNull(`a`)");
        assert_eq!(ask("b.is", "1").unwrap().0, " WHERE `b.is` = {f2:Int64}");
        assert!(ask("a.is", "5").is_err());
        assert!(ask("a.is.is", "null").is_err());
        let twice = [("a", "1"), ("a.is", "null")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert!(filters(&table, twice.to_vec()).is_err());
    }
}
