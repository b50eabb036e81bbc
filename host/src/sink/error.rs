//! What can go wrong between a change and its row.

use crate::disposition::Disposition;
use crate::table::TableName;

/// Why the sink could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server was named and no embedded engine stands in.
    #[error("no ClickHouse server is named; set clickhouse.url, such as http://localhost:8123")]
    NoUrl,
    /// ClickHouse answered with an error, or not at all.
    #[error("ClickHouse could not {task}")]
    Server {
        /// What was tried.
        task: String,
        /// ClickHouse's code, 0 when there was no answer.
        code: u32,
        /// The client's error.
        #[source]
        source: clickhouse::error::Error,
    },
    /// ClickHouse's answer was not what the statement promises.
    #[error("ClickHouse's answer to `{task}` could not be read: {detail}")]
    Answer {
        /// What was tried.
        task: String,
        /// What was wrong with it.
        detail: String,
    },
    /// Two source tables would get one name.
    #[error(
        "{first} and {second} would both be called `{name}` in ClickHouse; set \
         clickhouse.tables.\"{second}\".name to another name"
    )]
    NameClash {
        /// The name.
        name: String,
        /// Who has it.
        first: TableName,
        /// Who wants it.
        second: TableName,
    },
    /// The name is one of the sink's own.
    #[error(
        "{table} cannot be called `{name}` in ClickHouse, the prefix belongs to tailwater; set \
         clickhouse.tables.\"{table}\".name to another name"
    )]
    ReservedName {
        /// The name.
        name: String,
        /// Who wants it.
        table: TableName,
    },
    /// A source column has the name of one of the sink's.
    #[error(
        "{table} has a column `{column}`, which tailwater needs for itself in ClickHouse; rename \
         it or leave it out of the publication"
    )]
    ReservedColumn {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// The table in ClickHouse cannot hold the source's rows.
    #[error(
        "`{name}` in ClickHouse does not fit {table}: {differences}; drop or rename it there, or \
         set clickhouse.tables.\"{table}\".name to another name, and take the snapshot again"
    )]
    Shape {
        /// The name in ClickHouse.
        name: String,
        /// The source table.
        table: TableName,
        /// Each column or property that differs, with both sides.
        differences: String,
    },
}

/// ClickHouse's codes that no later attempt will change: a person must.
const LASTING: &[u32] = &[
    6, 16, 20, 27, 33, 36, 38, 42, 43, 44, 46, 47, 48, 50, 53, 57, 60, 62, 70, 81, 115, 117, 164,
    192, 193, 194, 291, 344, 349, 372, 497, 516, 524,
];

/// ClickHouse's codes that say the table is not what it was taken for.
const SHAPE: &[u32] = &[10, 16, 27, 33, 47, 53, 117, 349];

impl Error {
    pub(super) fn server(task: impl Into<String>, source: clickhouse::error::Error) -> Error {
        let code = code_of(&source);
        Error::Server { task: task.into(), code, source }
    }

    /// Trouble with the server may pass; a table of another shape does not.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Error::Server { code, source, .. } => server_disposition(*code, source),
            Error::Answer { .. }
            | Error::NoUrl
            | Error::NameClash { .. }
            | Error::ReservedName { .. }
            | Error::ReservedColumn { .. }
            | Error::Shape { .. } => Disposition::Halt,
        }
    }

    /// Whether the table may have been altered behind our back.
    pub(super) fn doubts_shape(&self) -> bool {
        matches!(self, Error::Server { code, .. } if SHAPE.contains(code))
    }
}

fn server_disposition(code: u32, source: &clickhouse::error::Error) -> Disposition {
    let unusable = matches!(
        source,
        clickhouse::error::Error::InvalidParams(_) | clickhouse::error::Error::Unsupported(_)
    );
    match unusable || LASTING.contains(&code) {
        true => Disposition::Halt,
        false => Disposition::Retry,
    }
}

/// Reads `Code: 60. DB::Exception: …`.
fn code_of(error: &clickhouse::error::Error) -> u32 {
    let clickhouse::error::Error::BadResponse(text) = error else {
        return 0;
    };
    let digits = text.split_once("Code: ").map_or("", |(_, rest)| rest);
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_servers_are_retried_and_wrong_passwords_are_not() {
        let answer = |text: &str| {
            let source = clickhouse::error::Error::BadResponse(text.into());
            Error::server("insert", source).disposition()
        };
        assert_eq!(answer("Code: 252. DB::Exception: Too many parts"), Disposition::Retry);
        assert_eq!(answer("Code: 241. DB::Exception: Memory limit"), Disposition::Retry);
        assert_eq!(answer("Code: 516. DB::Exception: Authentication"), Disposition::Halt);
        assert_eq!(answer("<html>bad gateway</html>"), Disposition::Retry);
    }
}
