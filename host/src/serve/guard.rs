//! What `/v0/sql` lets through to ClickHouse.
//!
//! `readonly = 1` already forbids to write and to change settings. It does not keep a statement from
//! reading what is not in a table: files, other servers, programs. So the words of a statement are
//! looked at as well: no call of a table function that reaches outside (the engine itself says which
//! it has; [`HARMLESS`] are let through), no quoted path in place of a table, no `OUTFILE`, and no
//! `SETTINGS`, which a subquery may have in spite of `readonly`.
//!
//! Time is checked between blocks of rows only, so functions whose work grows with the square of a
//! value's length, [`SLOW`], would outrun it: two texts of 65 kB take 14 seconds. Others do so for values
//! that nobody has (`position` in a text that is all one letter), and are too useful to refuse; the embedded
//! engine is ended when such a statement does not end.
//!
//! That works only as long as both sides see the same words. What ClickHouse's lexer reads in a way
//! of its own is therefore refused outside of quotes: `$` (a heredoc, or part of a name), `//` and
//! `#` (comments), a comment within a comment (they nest), a number that runs into a word (`.5FROM`
//! is two words there), and all that is not ASCII (some of it quotes, some of it space).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::answer::Refusal;
use super::clickhouse::{ClickHouse, ClickHouseError, Statement};

/// Table functions that read nothing from outside.
const HARMLESS: [&str; 18] = [
    "numbers",
    "numbers_mt",
    "zeros",
    "zeros_mt",
    "generate_series",
    "generateseries",
    "values",
    "sqlstandardvalues",
    "null",
    "view",
    "viewifpermitted",
    "viewexplain",
    "format",
    "primes",
    "generaterandom",
    "mergetreeindex",
    "mergetreeprojection",
    "merge",
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

/// Functions that compare every part of a value with every other one.
const SLOW: [&str; 10] = [
    "editdistance",
    "editdistanceutf8",
    "levenshteindistance",
    "levenshteindistanceutf8",
    "dameraulevenshteindistance",
    "jarosimilarity",
    "jarowinklersimilarity",
    "arraylevenshteindistance",
    "arraylevenshteindistanceweighted",
    "arraysimilarity",
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
    #[error("`{0}` cannot be stopped when its time is up and is not allowed here")]
    Slow(String),
    #[error("a comment within a comment is not allowed here; end the first one before")]
    Nested,
    #[error("`{0}` is neither a number nor a name; put a space in between, or quote it")]
    Number(String),
    #[error("a path in place of a table's name is not allowed here")]
    Path,
    #[error("SETTINGS are the operator's; write a column of that name in backticks")]
    Settings,
    #[error("`{0}` is not allowed outside of quotes; write comments as -- or /* */")]
    Sign(char),
}

/// How long what was asked for is taken for granted: a server may be another one after an upgrade.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long the question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The table functions of the engine that are refused, and when they were asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct TableFunctions(Arc<Mutex<Option<Asked>>>);

#[derive(Debug)]
struct Asked {
    at: Instant,
    refused: Arc<HashSet<String>>,
}

impl TableFunctions {
    pub(super) async fn of(
        &self,
        clickhouse: &ClickHouse,
    ) -> Result<Arc<HashSet<String>>, Refusal> {
        let mut known = self.0.lock().await;
        if let Some(Asked { at, refused }) = &*known
            && at.elapsed() < KNOWN_FOR
        {
            return Ok(Arc::clone(refused));
        }
        let silent = |_| Err(ClickHouseError::Silent(ANSWER.as_secs()));
        let asked = timeout(ANSWER, table_functions(clickhouse)).await.unwrap_or_else(silent);
        let refused = match (asked, &*known) {
            (Ok(names), _) => Arc::new(refused(&names)),
            // It is not that old, and nothing else would go on.
            (Err(_), Some(Asked { refused, .. })) => Arc::clone(refused),
            (Err(error), None) => return Err(error.into()),
        };
        *known = Some(Asked { at: Instant::now(), refused: Arc::clone(&refused) });
        Ok(refused)
    }
}

/// Beside the table functions, those that ask a language model or start a program.
const FUNCTIONS: &str = "SELECT name FROM system.table_functions UNION ALL SELECT name FROM \
                         system.functions WHERE startsWith(name, 'ai') OR origin = \
                         'ExecutableUserDefined'";

async fn table_functions(clickhouse: &ClickHouse) -> Result<String, ClickHouseError> {
    let statement = Statement {
        text: FUNCTIONS.to_owned(),
        format: "TabSeparated",
        first_byte: ANSWER,
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
    let names_table = table_places(&words);
    words.iter().enumerate().try_for_each(|(at, word)| match word {
        Word::Text if names_table[at] => Err(Forbidden::Path),
        word => check_word(word, &words, at, refused),
    })
}

/// For each word, whether it stands where a table is named: behind FROM or JOIN, and behind the
/// commas and within the parentheses of such a list.
///
/// A list ends with its parenthesis or the SELECT behind a UNION. No other word ends it, for most
/// can be aliases: a text behind a comma of an ORDER BY counts as well.
fn table_places(words: &[Word]) -> Vec<bool> {
    let mut lists = vec![false];
    let mut places = Vec::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        let within = lists.last().copied().unwrap_or(false);
        let place = at.checked_sub(1).is_some_and(|before| {
            let before = &words[before];
            before.begins_table() || within && matches!(before, Word::Sign(',' | '('))
        });
        places.push(place);
        match word {
            Word::Sign('(') => lists.push(place),
            Word::Sign('[' | '{') => lists.push(false),
            Word::Sign(')' | ']' | '}') if lists.len() > 1 => lists.truncate(lists.len() - 1),
            Word::Bare(name) => {
                let begins = ["from", "join"].contains(&name.as_str());
                if let Some(list) = lists.last_mut() {
                    *list = begins || *list && !begins_query(words, at);
                }
            }
            Word::Sign(_) | Word::Quoted(_) | Word::Text => {}
        }
    }
    places
}

/// Whether the word is the SELECT or WITH of a query in parentheses or behind a UNION, and no table
/// or alias of that name.
fn begins_query(words: &[Word], at: usize) -> bool {
    let ahead = |back: usize| at.checked_sub(back).map(|ahead| &words[ahead]);
    let is = |word: Option<&Word>, names: &[&str]| matches!(word, Some(Word::Bare(name)) if names.contains(&name.as_str()));
    if !is(ahead(0), &["select", "with"])
        || matches!(words.get(at + 1), None | Some(Word::Sign(',' | '.' | ')')))
    {
        return false;
    }
    let back = if is(ahead(1), &["all", "distinct"]) { 2 } else { 1 };
    let before_union = ahead(back + 1);
    let named = is(before_union, &["as"])
        || before_union.is_some_and(|word| word.begins_table() || *word == Word::Sign(','));
    ahead(1) == Some(&Word::Sign('('))
        || is(ahead(back), &["union", "except", "intersect"]) && !named
}

fn check_word(
    word: &Word,
    words: &[Word],
    at: usize,
    refused: &HashSet<String>,
) -> Result<(), Forbidden> {
    let called = words.get(at + 1) == Some(&Word::Sign('('));
    match word {
        Word::Bare(name) if ["outfile", "infile"].contains(&name.as_str()) => {
            Err(Forbidden::Outside(name.clone()))
        }
        Word::Bare(name) | Word::Quoted(name)
            if called && refused.contains(&name.to_ascii_lowercase()) =>
        {
            Err(Forbidden::Outside(name.clone()))
        }
        Word::Bare(name) | Word::Quoted(name)
            if called && SLOW.contains(&name.to_ascii_lowercase().as_str()) =>
        {
            Err(Forbidden::Slow(name.clone()))
        }
        // A column `settings` of a table is left: `t.settings`.
        Word::Bare(name)
            if name == "settings"
                && !is_qualified(words, at)
                && matches!(words.get(at + 1), Some(Word::Bare(_) | Word::Quoted(_))) =>
        {
            Err(Forbidden::Settings)
        }
        Word::Quoted(name) if name.contains(['/', '\0']) || name.contains("..") => {
            Err(Forbidden::Path)
        }
        Word::Bare(_) | Word::Quoted(_) | Word::Text | Word::Sign(_) => Ok(()),
    }
}

/// Whether a name and a point stand in front. The point of `1.` belongs to the number.
fn is_qualified(words: &[Word], at: usize) -> bool {
    match &words[..at] {
        [.., Word::Bare(name), Word::Sign('.')] => !name.starts_with(|c: char| c.is_ascii_digit()),
        [.., Word::Quoted(_), Word::Sign('.')] => true,
        _ => false,
    }
}

/// A word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A name, keyword or number, in lower case.
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
    if c.is_ascii_whitespace() || c == '\x0B' {
        return Ok((None, &rest[1..]));
    }
    if rest.starts_with("--") {
        let end = rest.find('\n').unwrap_or(rest.len());
        return Ok((None, &rest[end..]));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        let end = comment.find("*/").ok_or(Forbidden::Unfinished)?;
        // The end may share its asterisk with what looks like another begin: `/*/`.
        if comment[..=end].contains("/*") {
            return Err(Forbidden::Nested);
        }
        return Ok((None, &comment[end + 2..]));
    }
    if rest.starts_with("//") {
        return Err(Forbidden::Sign('/'));
    }
    match c {
        '\'' => quoted(rest, c).map(|(_, after)| (Some(Word::Text), after)),
        '`' | '"' => quoted(rest, c).map(|(name, after)| (Some(Word::Quoted(name)), after)),
        c if c.is_ascii_alphanumeric() || c == '_' => bare(rest),
        c if c.is_ascii_graphic() && !"$#\\".contains(c) => Ok((Some(Word::Sign(c)), &rest[1..])),
        c => Err(Forbidden::Sign(c)),
    }
}

/// A name, keyword or number; or a whole `x'41'` or `b'01'`, which knows no escapes.
fn bare(rest: &str) -> Result<(Option<Word>, &str), Forbidden> {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
    let name = name.to_ascii_lowercase();
    if let Some(digits) = after.strip_prefix('\'').filter(|_| ["x", "b"].contains(&name.as_str())) {
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let after = digits[end..].strip_prefix('\'').ok_or(Forbidden::Unfinished)?;
        return Ok((Some(Word::Text), after));
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) && !is_number(&name) {
        return Err(Forbidden::Number(name));
    }
    Ok((Some(Word::Bare(name)), after))
}

/// Whether it is a number without its point and signs: `10`, `1_000`, `1e5`, `1e`, `0xff`, `0b01`.
fn is_number(word: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'_');
    match word.strip_prefix("0x") {
        Some(rest) => {
            let (number, exponent) = rest.split_once('p').unwrap_or((rest, ""));
            hex(number) && digits(exponent)
        }
        None => {
            let rest = word.strip_prefix("0b").unwrap_or(word);
            let (number, exponent) = rest.split_once('e').unwrap_or((rest, ""));
            digits(number) && digits(exponent)
        }
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
            "with 1 as x select x /* file('a') */ from t -- file('b')",
            "SELECT file, url FROM t WHERE file = 'it''s \\' file('",
            "SELECT * FROM numbers(3)",
            "SELECT '$$ # // “', `é` FROM t",
            "SELECT name FROM system.settings AS s ORDER BY s.settings",
            "SELECT s.settings x, `s`.settings y, t . settings z FROM s",
            "SELECT 1. + .5 - 1e-5 * 0xfF / 1_000 + 0b01, 1.5e+3, t.1.2 FROM t",
            "SELECT 1 /* a * b / c **/ + 2 /***/",
            "SELECT a, 'b' FROM t JOIN u ON f(a, 'b') WHERE a IN ('c', 'd') AND b = ['e', 'f'][1]",
            "SELECT * FROM (SELECT a, 'b' FROM t UNION ALL SELECT 'c', 'd'), u",
            "SELECT a, 'b' FROM t EXCEPT DISTINCT WITH 'c' AS c, 'd' AS d SELECT c, 'd'",
            "SELECT 'a' IN (SELECT x FROM t), 'b'",
            "SELECT `settings` FROM t",
            "SELECT x'41', X, b FROM t",
            "SHOW TABLES",
            "SELECT ' from' FROM t",
        ] {
            assert_eq!(verdict(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_told() {
        for (text, told) in [
            ("", "there is no statement"),
            ("SELECT 1; SELECT 2", "one statement at a time: there is more after the `;`"),
            ("SELECT 'a", "a quoted text, name or comment does not end"),
            (
                "DROP TABLE t",
                "a statement here begins with SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS",
            ),
        ] {
            assert_eq!(verdict(text).unwrap_err().to_string(), told, "{text}");
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
            ("SELECT editDistance(a, b) FROM t", Slow("editdistance".to_owned())),
            ("SELECT `jaroSimilarity` (a, b)", Slow("jaroSimilarity".to_owned())),
            ("SELECT * FROM '/etc/passwd'", Path),
            ("SELECT * FROM `/etc/passwd`", Path),
            ("SELECT * FROM `default`.'x.csv'", Path),
            ("SELECT * FROM `\\x2fetc\\x2fpasswd`", Path),
            ("SELECT * FROM a JOIN 'b.csv'", Path),
            ("SELECT * FROM x'2f'", Path),
            ("SELECT * FROM a, 'b.csv'", Path),
            ("SELECT c.* FROM system.one, 'b.csv' AS c", Path),
            ("SELECT * FROM a JOIN b ON a.x = b.x, 'b.csv'", Path),
            ("SELECT * FROM (a, 'b.csv')", Path),
            ("SELECT * FROM ('b.csv' AS b, a)", Path),
            ("SELECT * FROM ((SELECT 'a', 'b'), 'b.csv')", Path),
            ("SELECT * FROM f(1, 'x'), 'b.csv'", Path),
            ("SELECT * FROM a select, 'b.csv'", Path),
            ("SELECT * FROM a AS where, 'b.csv'", Path),
            ("SELECT * FROM (select, 'b.csv')", Path),
            ("WITH where AS (SELECT 1) SELECT * FROM where, 'b.csv'", Path),
            ("WITH union AS (SELECT 1) SELECT * FROM union all select x, 'b.csv'", Path),
            ("SELECT * FROM a AS union select, 'b.csv'", Path),
            ("SELECT * FROM x'41''b.csv', 'b.csv'", Path),
            ("SELECT x'4' 1'", Unfinished),
            ("SELECT x'41\\''", Unfinished),
            ("SELECT * FROM (SELECT 1 SETTINGS max_rows_to_read = 0)", Settings),
            ("SELECT 1 settings readonly", Settings),
            ("SELECT 1. SETTINGS readonly = 0", Settings),
            ("SELECT 0x1f.SETTINGS readonly = 0", Settings),
            ("SELECT a WHERE b >= 0./**/settings `readonly` = 0", Settings),
            ("SELECT a WHERE b >= .5SETTINGS readonly = 0", Number("5settings".to_owned())),
            ("SELECT a = .5e1FROM 'b.csv'", Number("5e1from".to_owned())),
            ("SELECT a = .5e+1FROM 'b.csv'", Number("1from".to_owned())),
            ("SELECT .0b1outfile", Number("0b1outfile".to_owned())),
            ("SELECT * /* /* */ ' */ , file('x') -- '", Nested),
            ("SELECT * /* /*/ ' */ FROM file('x') -- '", Nested),
            ("SELECT * /*/*/ ' */ FROM file('x') -- '", Nested),
            ("SELECT 1 /*/", Unfinished),
            ("SELECT 1 // ' \n FROM file('/etc/passwd') -- '", Sign('/')),
            ("SELECT 1 # ' \n FROM file('/etc/passwd') -- '", Sign('#')),
            ("SELECT 1 AS a$b$, * FROM file('/etc/passwd') -- $b$", Sign('$')),
            ("SELECT * FROM “file”('/etc/passwd')", Sign('“')),
            ("SELECT * FROM file\u{200B}('/etc/passwd')", Sign('\u{200B}')),
            ("SELECT * FROM file\u{A0}('/etc/passwd')", Sign('\u{A0}')),
            ("SELECT 1 \\G", Sign('\\')),
            ("SELECT 1 \0 FROM t", Sign('\0')),
        ] {
            assert_eq!(verdict(text), Err(wanted), "{text}");
        }
    }
}
