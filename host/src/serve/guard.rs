//! What `/v0/sql` lets through to ClickHouse.
//!
//! `readonly = 1` already forbids to write and to change settings. It does not keep a statement from
//! reading what is not in a table: files, other servers, programs. So the words of a statement are
//! looked at as well: no call of a table function that reaches outside (the engine itself says which
//! it has; [`HARMLESS`] are let through), no quoted path in place of a table, no `OUTFILE`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use tokio::sync::OnceCell;

use super::answer::Refusal;
use super::clickhouse::{ClickHouse, ClickHouseError, Statement};

/// Table functions that read nothing from outside.
const HARMLESS: [&str; 16] = [
    "numbers",
    "numbers_mt",
    "zeros",
    "zeros_mt",
    "generate_series",
    "generateseries",
    "values",
    "null",
    "view",
    "viewifpermitted",
    "viewexplain",
    "format",
    "primes",
    "generaterandom",
    "mergetreeindex",
    "mergetreeprojection",
];

/// Functions that read outside and are no table functions, or might be missing from the list.
const ALWAYS_REFUSED: [&str; 14] = [
    "file",
    "url",
    "s3",
    "remote",
    "remotesecure",
    "executable",
    "python",
    "cluster",
    "clusterallreplicas",
    "input",
    "postgresql",
    "mysql",
    "sqlite",
    "catboostevaluate",
];

/// Statements that read.
const READING: [&str; 7] = ["select", "with", "show", "describe", "desc", "explain", "exists"];

/// Why a statement is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forbidden {
    #[error("there is no statement")]
    Empty,
    #[error("one statement at a time: there is more after the `;`")]
    Several,
    #[error("a quoted text, name or comment does not end")]
    Unfinished,
    #[error("a statement here begins with SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS")]
    NotReading,
    #[error("`{0}` reaches outside of the mirrored tables and is not allowed here")]
    Outside(String),
    #[error("a path in place of a table's name is not allowed here")]
    Path,
}

/// The table functions of the engine that are refused, asked for once.
#[derive(Debug, Clone, Default)]
pub(super) struct TableFunctions(Arc<OnceCell<Arc<HashSet<String>>>>);

impl TableFunctions {
    pub(super) async fn of(
        &self,
        clickhouse: &ClickHouse,
    ) -> Result<Arc<HashSet<String>>, Refusal> {
        let refused = self.0.get_or_try_init(|| async {
            let names = table_functions(clickhouse).await?;
            Ok::<_, ClickHouseError>(Arc::new(refused(&names)))
        });
        Ok(Arc::clone(refused.await?))
    }
}

async fn table_functions(clickhouse: &ClickHouse) -> Result<String, ClickHouseError> {
    let statement = Statement {
        text: "SELECT name FROM system.table_functions".to_owned(),
        format: "TabSeparated",
        first_byte: Duration::from_secs(10),
        ..Statement::default()
    };
    let body = clickhouse.ask(&statement).await?.into_body();
    let body = Limited::new(body, 1 << 20).collect().await;
    let bytes = body.map_err(ClickHouseError::Unreachable)?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn refused(names: &str) -> HashSet<String> {
    let engine = names.lines().map(str::to_ascii_lowercase);
    let mut refused: HashSet<String> =
        engine.filter(|name| !HARMLESS.contains(&name.as_str())).collect();
    refused.extend(ALWAYS_REFUSED.map(str::to_owned));
    refused
}

/// Passes a statement that only reads what ClickHouse stores.
pub(super) fn check(text: &str, refused: &HashSet<String>) -> Result<(), Forbidden> {
    let words = words(text)?;
    let first = words.iter().find(|word| **word != Word::Sign('('));
    match first {
        None => return Err(Forbidden::Empty),
        Some(Word::Bare(word)) if READING.contains(&word.as_str()) => {}
        Some(_) => return Err(Forbidden::NotReading),
    }
    let end = words.iter().position(|word| *word == Word::Sign(';'));
    if end.is_some_and(|end| words[end..].iter().any(|word| *word != Word::Sign(';'))) {
        return Err(Forbidden::Several);
    }
    words.iter().enumerate().try_for_each(|(at, word)| check_word(word, &words, at, refused))
}

fn check_word(
    word: &Word,
    words: &[Word],
    at: usize,
    refused: &HashSet<String>,
) -> Result<(), Forbidden> {
    let called = words.get(at + 1) == Some(&Word::Sign('('));
    let before = at.checked_sub(1).and_then(|before| words.get(before));
    match word {
        Word::Bare(name) if ["outfile", "infile"].contains(&name.as_str()) => {
            Err(Forbidden::Outside(name.clone()))
        }
        Word::Bare(name) | Word::Quoted(name)
            if called && refused.contains(&name.to_ascii_lowercase()) =>
        {
            Err(Forbidden::Outside(name.clone()))
        }
        Word::Text if before.is_some_and(Word::begins_table) => Err(Forbidden::Path),
        Word::Quoted(name) if name.contains(['/', '\0']) || name.contains("..") => {
            Err(Forbidden::Path)
        }
        Word::Bare(_) | Word::Quoted(_) | Word::Text | Word::Sign(_) => Ok(()),
    }
}

/// A word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A name or keyword, in lower case.
    Bare(String),
    /// A name in backticks or double quotes, as it is.
    Quoted(String),
    /// A literal text.
    Text,
    /// Any other character.
    Sign(char),
}

impl Word {
    /// Whether a table's name stands next.
    fn begins_table(&self) -> bool {
        match self {
            Word::Bare(word) => {
                ["from", "join", "table", "describe", "desc"].contains(&word.as_str())
            }
            Word::Sign(sign) => *sign == '.',
            Word::Quoted(_) | Word::Text => false,
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, Forbidden> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (word, after) = word(rest, c)?;
        words.extend(word);
        rest = after;
    }
    Ok(words)
}

fn word(rest: &str, c: char) -> Result<(Option<Word>, &str), Forbidden> {
    let line = |rest: &str| rest.find('\n').map_or(rest.len(), |end| end + 1);
    if c.is_whitespace() {
        return Ok((None, &rest[c.len_utf8()..]));
    }
    if rest.starts_with("--") || rest.starts_with("#!") || rest.starts_with("# ") {
        return Ok((None, &rest[line(rest)..]));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        let end = comment.find("*/").ok_or(Forbidden::Unfinished)?;
        return Ok((None, &comment[end + 2..]));
    }
    match c {
        '\'' => quoted(rest, c).map(|(_, after)| (Some(Word::Text), after)),
        '`' | '"' => quoted(rest, c).map(|(name, after)| (Some(Word::Quoted(name)), after)),
        '$' => heredoc(rest),
        c if c.is_alphanumeric() || c == '_' => {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            Ok((Some(Word::Bare(name.to_ascii_lowercase())), after))
        }
        c => Ok((Some(Word::Sign(c)), &rest[c.len_utf8()..])),
    }
}

/// What stands between the quotes, and what follows. A backslash or a doubled quote keeps a quote.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), Forbidden> {
    let mut inner = String::new();
    let mut chars = rest[1..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            let (_, escaped) = chars.next().ok_or(Forbidden::Unfinished)?;
            // `\x2f` and its like could spell a path or a function: only plain escapes pass.
            if quote != '\'' && escaped.is_alphanumeric() {
                return Err(Forbidden::Path);
            }
            inner.push(escaped);
        } else if c != quote {
            inner.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Ok((inner, &rest[1 + at + 1..]));
        }
    }
    Err(Forbidden::Unfinished)
}

/// `$tag$ … $tag$`, a literal text; a `$` that begins none is a sign.
fn heredoc(rest: &str) -> Result<(Option<Word>, &str), Forbidden> {
    let tag = rest[1..].find('$').map(|end| &rest[..end + 2]);
    match tag {
        Some(tag) if tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_') => {
            let inner = &rest[tag.len()..];
            let end = inner.find(tag).ok_or(Forbidden::Unfinished)?;
            Ok((Some(Word::Text), &inner[end + tag.len()..]))
        }
        _ => Ok((Some(Word::Sign('$')), &rest[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Result<(), Forbidden> {
        check(text, &refused("file\nurl\nnumbers\nmongodb\nurlCluster\n"))
    }

    #[test]
    fn reading_statements_pass() {
        for text in [
            "SELECT 1",
            " (SELECT 1) ;",
            "-- a comment\nselect 'a; b', `c;d`, \"e\" from t",
            "with 1 as x select x /* file('a') */ from t # file('b')",
            "SELECT file, url FROM t WHERE file = 'it''s \\' file('",
            "SELECT * FROM numbers(3)",
            "SELECT $$file('x')$$, $a$;$a$",
            "SHOW TABLES",
            "SELECT ' from' FROM t",
        ] {
            assert_eq!(verdict(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn everything_else_does_not() {
        use Forbidden::*;
        let outside = |name: &str| Outside(name.to_owned());
        for (text, wanted) in [
            ("", Empty),
            (" ; ", NotReading),
            ("SELECT 1; SELECT 2", Several),
            ("SELECT 'a", Unfinished),
            ("SELECT 1 /* a", Unfinished),
            ("INSERT INTO t VALUES (1)", NotReading),
            ("SET readonly = 0", NotReading),
            ("SYSTEM SHUTDOWN", NotReading),
            ("SELECT * FROM file('/etc/passwd')", outside("file")),
            ("SELECT * FROM FILE/**/('/etc/passwd')", outside("file")),
            ("SELECT * FROM `file` ('/etc/passwd')", outside("file")),
            ("SELECT * FROM \"uRl\"('http://x')", outside("uRl")),
            ("SELECT * FROM urlCluster('http://x')", outside("urlcluster")),
            ("SELECT * FROM Python(x)", outside("python")),
            ("SELECT 1 INTO OUTFILE '/tmp/x'", outside("outfile")),
            ("SELECT * FROM '/etc/passwd'", Path),
            ("SELECT * FROM `/etc/passwd`", Path),
            ("SELECT * FROM `default`.'x.csv'", Path),
            ("SELECT * FROM `\\x2fetc\\x2fpasswd`", Path),
            ("SELECT * FROM a JOIN 'b.csv'", Path),
        ] {
            assert_eq!(verdict(text), Err(wanted), "{text}");
        }
    }
}
