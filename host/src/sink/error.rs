//! What can go wrong between a change and its row.

use crate::disposition::Disposition;
use crate::table::TableName;

/// Why the sink could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ClickHouse answered with an error, or not at all.
    #[error("ClickHouse could not {task}")]
    Server {
        /// What was tried.
        task: String,
        /// ClickHouse's code, 0 when there was no answer.
        code: u32,
        /// What it said.
        #[source]
        cause: Cause,
    },
    /// ClickHouse does not know the user, or not with that password.
    #[error("ClickHouse at {url} refuses user `{user}`; set clickhouse.user and .password")]
    Login {
        /// The server.
        url: String,
        /// Who was refused.
        user: String,
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
        /// Who has it: `schema.table`.
        first: String,
        /// Who wants it.
        second: TableName,
    },
    /// The table holds rows of the same table of another source.
    #[error(
        "`{name}` in ClickHouse holds {table} of another source, `{other}`; set [clickhouse] database or \
         clickhouse.tables.\"{table}\".name to another name, or drop it there"
    )]
    OtherSource {
        /// The name in ClickHouse.
        name: String,
        /// The source table.
        table: TableName,
        /// Whose rows are there: a database's name, or a prefix of topics.
        other: String,
    },
    /// Plugins put rows of two tables into one.
    #[error(
        "rows of {first} and of {second} would both go into {target}, where a truncate or a copy of one \
         would take those of the other along; have the plugin route them to different tables"
    )]
    RouteClash {
        /// Where they would go.
        target: String,
        /// Whose rows are there.
        first: String,
        /// Whose rows would come.
        second: String,
    },
    /// Somebody else's object has the name of a table's view.
    #[error(
        "`{name}` in ClickHouse is a {engine} that tailwater did not make, and {table} would be shown under \
         that name; rename it or drop it there, or set clickhouse.tables.\"{table}\".name to another name"
    )]
    NameTaken {
        /// The name in ClickHouse.
        name: String,
        /// What has it: an engine's name, `View` among them.
        engine: String,
        /// The source table.
        table: TableName,
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
    /// Another process altered a table for which rows were written already.
    #[error("`{name}` was altered by another process; its rows are read again")]
    Altered {
        /// The versions table.
        name: String,
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
    /// ClickHouse writes the name into names of files, which file systems limit.
    #[error(
        "`{name}` is too long for the names of ClickHouse's files, where a letter that is not ASCII takes six \
         bytes; set clickhouse.tables.\"{table}\".name to a shorter one"
    )]
    LongName {
        /// What its table there would be called.
        name: String,
        /// The table.
        table: TableName,
    },
    /// The table in ClickHouse cannot hold the source's rows.
    #[error(
        "`{name}` in ClickHouse does not fit {table}: {differences}; to drop it and copy the table \
         again run `tailwater snapshot {table} --replace`, or set clickhouse.tables.\"{table}\".name \
         to another name"
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

/// ClickHouse's codes that say who asks is not let in.
const LOGIN: &[u32] = &[192, 193, 194, 516];

/// Its codes that say an answer is larger than the limit of it, or than the memory there is.
const TOO_LARGE: &[u32] = &[241, 396];

/// The longest text of ClickHouse's that is passed on, in bytes.
const LONGEST_TEXT: usize = 400;

/// What ClickHouse said, or what kept it from saying anything. Holds no row value.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    text: String,
    /// The request itself is at fault.
    unusable: bool,
}

impl Cause {
    fn new(error: &clickhouse::error::Error, text: String) -> Cause {
        use clickhouse::error::Error as Http;
        let unusable = matches!(error, Http::InvalidParams(_) | Http::Unsupported(_));
        Cause { text, unusable }
    }
}

impl Error {
    /// About a statement that is all schema: ClickHouse's own words help.
    pub(super) fn server(task: &str, error: &clickhouse::error::Error) -> Error {
        let mut text = error.to_string();
        let mut deeper = std::error::Error::source(error);
        while let Some(error) = deeper {
            let said = error.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            deeper = error.source();
        }
        let end = text.floor_char_boundary(LONGEST_TEXT);
        text.truncate(text[..end].find(['\n', '\r']).unwrap_or(end));
        let cause = Cause::new(error, text);
        Error::Server { task: task.to_owned(), code: code_of(error), cause }
    }

    /// About a statement that carries rows: ClickHouse quotes what it cannot read, so only the
    /// error's number and name are kept.
    pub(super) fn server_with_rows(task: &str, error: &clickhouse::error::Error) -> Error {
        use clickhouse::error::Error as Http;
        let code = code_of(error);
        let text = match error {
            Http::BadResponse(answer) if code != 0 => match name_of(answer) {
                Some(name) => format!("code {code}, {name}"),
                None => format!("code {code}"),
            },
            Http::Network(_) | Http::TimedOut | Http::InvalidParams(_) | Http::Unsupported(_) => {
                return Error::server(task, error);
            }
            _ => "its answer is not one of ClickHouse's".to_owned(),
        };
        Error::Server { task: task.to_owned(), code, cause: Cause::new(error, text) }
    }

    /// Whether an answer was larger than was asked for, or than ClickHouse may hold.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Error::Server { code, .. } if TOO_LARGE.contains(code))
    }

    /// Whether ClickHouse refused the user.
    pub(super) fn is_login(&self) -> bool {
        matches!(self, Error::Server { code, .. } if LOGIN.contains(code))
    }

    /// The error and its causes in one sentence.
    pub(crate) fn sentence(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// Trouble with the server may pass; a table of another shape does not.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Error::Server { code, cause, .. } => match cause.unusable || LASTING.contains(code) {
                true => Disposition::Halt,
                false => Disposition::Retry,
            },
            Error::Altered { .. } => Disposition::Retry,
            Error::Answer { .. }
            | Error::Login { .. }
            | Error::NameClash { .. }
            | Error::OtherSource { .. }
            | Error::RouteClash { .. }
            | Error::NameTaken { .. }
            | Error::ReservedName { .. }
            | Error::ReservedColumn { .. }
            | Error::LongName { .. }
            | Error::Shape { .. } => Disposition::Halt,
        }
    }

    /// Whether there is no place for this table's rows, whatever becomes of others.
    pub(super) fn is_of_the_table(&self) -> bool {
        matches!(
            self,
            Error::NameClash { .. }
                | Error::OtherSource { .. }
                | Error::RouteClash { .. }
                | Error::NameTaken { .. }
                | Error::ReservedName { .. }
                | Error::ReservedColumn { .. }
                | Error::LongName { .. }
                | Error::Shape { .. }
        )
    }

    /// Whether the table may have been altered behind our back.
    pub(super) fn doubts_shape(&self) -> bool {
        matches!(self, Error::Server { code, .. } if SHAPE.contains(code))
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

/// Reads the name at the end of `Code: 60. DB::Exception: … (UNKNOWN_TABLE) (version …)`.
fn name_of(answer: &str) -> Option<&str> {
    let is_name = |text: &&str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let mut candidates = answer.rsplit('(').filter_map(|text| text.split_once(')'));
    candidates.next().into_iter().chain(candidates.next()).map(|(name, _)| name).find(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> clickhouse::error::Error {
        clickhouse::error::Error::BadResponse(text.into())
    }

    #[test]
    fn full_servers_are_retried_and_wrong_passwords_are_not() {
        let of = |text: &str| Error::server("insert", &answer(text)).disposition();
        assert_eq!(of("Code: 252. DB::Exception: Too many parts"), Disposition::Retry);
        assert_eq!(of("Code: 241. DB::Exception: Memory limit"), Disposition::Retry);
        assert_eq!(of("Code: 516. DB::Exception: Authentication"), Disposition::Halt);
        assert_eq!(of("<html>bad gateway</html>"), Disposition::Retry);
    }

    #[test]
    fn what_a_proxy_says_when_it_gives_up_is_not_repeated() {
        let said =
            Error::server_with_rows("insert", &answer("<html>bad gateway</html>")).sentence();
        assert_eq!(said, "ClickHouse could not insert: its answer is not one of ClickHouse's");
    }

    #[test]
    fn what_is_said_about_rows_is_a_number_and_a_name() {
        let of = |text: &str| Error::server_with_rows("insert", &answer(text)).sentence();
        let parse = "Code: 27. DB::Exception: Cannot parse input: expected ',' before: 'SECRET': \
                     (at row 1) (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.7.2.1)";
        assert_eq!(
            of(parse),
            "ClickHouse could not insert: code 27, CANNOT_PARSE_INPUT_ASSERTION_FAILED"
        );
        assert!(!of("Code: 27. DB::Exception: (SECRET) 'x'").contains("'x'"));
        assert!(!of("<html>SECRET</html>").contains("SECRET"));
    }
}
