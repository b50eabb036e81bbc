//! `/v0/pipes/<view>_snapshot.<format>`: a mirrored table's current rows.

use std::time::Duration;

use super::answer::Refusal;
use super::clickhouse::Statement;
use super::filter::filters;
use super::options::{Int64, Options};
use super::parameters::number;
use super::tables::Mirrored;
use crate::sink::quoted;

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
    Ndjson,
    Parquet,
}

impl Format {
    /// By the extension, or the value of `format=`.
    pub(super) fn named(name: &str) -> Option<Format> {
        match name {
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "ndjson" => Some(Format::Ndjson),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }

    /// ClickHouse's name.
    pub(super) fn clickhouse(self) -> &'static str {
        match self {
            Format::Json => "JSON",
            Format::Csv => "CSVWithNames",
            Format::Ndjson => "JSONEachRow",
            Format::Parquet => "Parquet",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json; charset=UTF-8",
            Format::Csv => "text/csv; charset=UTF-8; header=present",
            Format::Ndjson => "application/x-ndjson; charset=UTF-8",
            Format::Parquet => "application/octet-stream",
        }
    }
}

/// Splits `users_snapshot.json`.
pub(super) fn split_name(file: &str) -> Result<(&str, Format), Refusal> {
    let unknown = || {
        Refusal::absent(format!(
            "`{file}` is not a pipe's file; it ends in .json, .csv, .ndjson or .parquet"
        ))
    };
    let (name, extension) = file.rsplit_once('.').ok_or_else(unknown)?;
    Ok((name, Format::named(extension).ok_or_else(unknown)?))
}

/// The settings that bound a statement and forbid it to write. `readonly` is the last: it forbids
/// further settings too.
pub(super) fn bounds(options: &Options) -> Vec<(&'static str, String)> {
    let int64 = u8::from(options.json_int64 == Int64::String);
    let memory = u64::from(options.sql_max_memory_mb) << 20;
    vec![
        ("max_execution_time", options.sql_max_seconds.to_string()),
        ("max_memory_usage", memory.to_string()),
        // Where a server lets sorts and groups go on on its disk, no reader fills that.
        ("max_temporary_data_on_disk_size_for_query", memory.to_string()),
        ("output_format_json_quote_64bit_integers", int64.to_string()),
        ("output_format_json_quote_decimals", "1".to_owned()),
        ("output_format_json_quote_denormals", "1".to_owned()),
        // Elsewhere than in pipes bytes may come as text; JSON that is no UTF-8 can be read by nobody.
        ("output_format_json_validate_utf8", "1".to_owned()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
        ("readonly", "1".to_owned()),
    ]
}

/// How long ClickHouse may take to begin its answer.
pub(super) fn first_byte(options: &Options) -> Duration {
    Duration::from_secs(u64::from(options.sql_max_seconds) + 5)
}

/// The statement that answers a request for `table`.
pub(super) fn statement(
    table: &Mirrored,
    database: &str,
    format: Format,
    mut parameters: Vec<(String, String)>,
    options: &Options,
) -> Result<Statement, Refusal> {
    let limit = number(&mut parameters, "limit")?.unwrap_or(options.default_rows);
    if limit > options.max_rows {
        return Err(Refusal::bad(format!("`limit` is at most {}", options.max_rows)));
    }
    let offset: u64 = number(&mut parameters, "offset")?.unwrap_or(0);
    let (condition, values) = filters(table, parameters)?;
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| match column.binary && format != Format::Parquet {
            true => format!("{} AS {}", column.as_text(), quoted(&column.name)),
            false => quoted(&column.name),
        })
        .collect();
    let columns = columns.join(", ");
    let order = match table.order.is_empty() {
        true => String::new(),
        false => format!(" ORDER BY {}", list(table.order.iter().map(String::as_str))),
    };
    let text = format!(
        "SELECT {columns} FROM {}.{}{condition}{order} LIMIT {limit} OFFSET {offset}",
        quoted(database),
        quoted(&table.view),
    );
    // Conditions and order mean the columns, not what is shown of them.
    let mut settings = vec![("prefer_column_name_to_alias", "1".to_owned())];
    settings.extend(bounds(options));
    Ok(Statement {
        text,
        parameters: values,
        settings,
        format: format.clickhouse(),
        first_byte: first_byte(options),
    })
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::MirroredColumn;

    fn users() -> Mirrored {
        let column = |name: &str, kind: &str| MirroredColumn {
            name: name.to_owned(),
            kind: kind.to_owned(),
            binary: false,
        };
        Mirrored {
            source: "public.users".to_owned(),
            view: "us`ers".to_owned(),
            columns: vec![
                column("id", "Int64"),
                column("email", "LowCardinality(Nullable(String))"),
                column("tags", "Array(String)"),
                column("at", "Nullable(DateTime64(6, 'UTC'))"),
            ],
            order: vec!["id".to_owned()],
        }
    }

    fn build(parameters: &[(&str, &str)]) -> Result<Statement, Refusal> {
        let parameters =
            parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        statement(&users(), "shop", Format::Json, parameters, &Options::default())
    }

    #[test]
    fn values_never_become_part_of_the_statement() {
        let evil = "x' OR 1=1 --";
        let built = build(&[("email", evil), ("tags", "['a']"), ("at", "2020-01-01")]).unwrap();
        assert_eq!(
            built.text,
            "SELECT `id`, `email`, `tags`, `at` FROM `shop`.`us\\`ers` WHERE \
             `email` = {f1:String} AND toString(`tags`) = {f2:String} AND \
             `at` = {f3:DateTime64(6, 'UTC')} ORDER BY `id` LIMIT 100 OFFSET 0"
        );
        assert_eq!(built.parameters[0], ("f1".to_owned(), evil.to_owned()));
    }

    #[test]
    fn any_row_can_be_begun_at() {
        for offset in ["2147483648", "18446744073709551615"] {
            let text = build(&[("offset", offset)]).unwrap().text;
            assert!(text.ends_with(&format!(" OFFSET {offset}")), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_and_compared_as_base64_where_an_answer_is_text() {
        let mut table = users();
        for column in &mut table.columns[1..3] {
            column.binary = true;
        }
        let build = |format| {
            let parameters = vec![("email".to_owned(), "/w==".to_owned())];
            statement(&table, "shop", format, parameters, &Options::default()).unwrap().text
        };
        let condition = " FROM `shop`.`us\\`ers` WHERE base64Encode(`email`) = {f1:String}";
        let shown = "SELECT `id`, base64Encode(`email`) AS `email`, \
                     arrayMap(bytes -> base64Encode(bytes), `tags`) AS `tags`, `at`";
        assert!(build(Format::Ndjson).starts_with(&format!("{shown}{condition}")));
        let plain = "SELECT `id`, `email`, `tags`, `at`";
        assert!(build(Format::Parquet).starts_with(&format!("{plain}{condition}")));
    }

    #[test]
    fn what_is_not_a_column_is_refused_with_the_columns() {
        let refusal = build(&[("emial", "x")]).unwrap_err();
        assert!(refusal.sentence.contains("id, email, tags, at"), "{}", refusal.sentence);
        for wrong in [("limit", "10001"), ("limit", "-1"), ("offset", "1e3"), ("limit", "")] {
            assert!(build(&[wrong]).is_err(), "{wrong:?}");
        }
        for wrong in ["-1", "18446744073709551616"] {
            let refusal = build(&[("offset", wrong)]).unwrap_err();
            assert_eq!(refusal.sentence, "`offset` is a whole number, 0 or more", "{wrong}");
        }
        assert!(build(&[("id", "1"), ("id", "2")]).is_err());
        assert!(build(&[("limit", "1"), ("limit", "2")]).is_err());
    }
}
