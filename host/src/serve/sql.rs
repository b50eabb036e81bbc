//! `/v0/sql`: one statement that reads.

use std::collections::HashSet;

use super::answer::Refusal;
use super::clickhouse::Statement;
use super::guard;
use super::options::Options;
use super::parameters::take;
use super::pipe::{Format, bounds, first_byte};

/// The format asked for; `json` unless there is a `format=`.
pub(super) fn format(mut parameters: Vec<(String, String)>) -> Result<Format, Refusal> {
    let named = take(&mut parameters, "format")?;
    if let Some((key, _)) = parameters.iter().find(|(key, _)| key != "token") {
        return Err(Refusal::bad(format!("`{key}` is not a parameter; allowed: q, format, token")));
    }
    named.map_or(Ok(Format::Json), |name| {
        let wrong = || Refusal::bad("`format` is one of json, csv, ndjson, parquet");
        Format::named(&name).ok_or_else(wrong)
    })
}

/// The statement with its bounds, if it only reads what ClickHouse stores.
pub(super) fn statement(
    text: &str,
    refused: &HashSet<String>,
    format: Format,
    options: &Options,
) -> Result<Statement, Refusal> {
    guard::check(text, refused).map_err(|error| Refusal::bad(error.to_string()))?;
    let mut settings = vec![
        ("max_result_rows", options.sql_max_rows.to_string()),
        ("result_overflow_mode", "throw".to_owned()),
        ("allow_introspection_functions", "0".to_owned()),
        ("allow_ddl", "0".to_owned()),
    ];
    settings.extend(bounds(options));
    Ok(Statement {
        text: text.to_owned(),
        parameters: Vec::new(),
        settings,
        format: format.clickhouse(),
        first_byte: first_byte(options),
    })
}
