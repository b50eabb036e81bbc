//! Where a statement ends and its rows begin.
//!
//! The engine would look for further statements in the rows of an `INSERT`, so rows never reach its
//! parser: they are cut off here and streamed in. Nothing else is understood of SQL than words,
//! strings, comments and parentheses.

/// A statement as it is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// An insert whose rows follow.
    Insert {
        /// Bytes of the statement, without its `FORMAT` or `VALUES`.
        head: usize,
        /// Offset of the first byte of the rows.
        rows: usize,
        /// The rows' format, if the statement names it.
        format: Option<String>,
    },
    /// An insert that selects and yet has a format for rows that follow (`input()`).
    InsertFromInput,
    /// Anything else.
    Other {
        /// The output format that the statement itself names.
        format: Option<String>,
        /// Whether it only reads rows and may be answered piece by piece.
        selects: bool,
    },
}

/// Reads a statement; for an insert only up to its rows.
pub(super) fn read(sql: &[u8]) -> Statement {
    let mut tokens = Tokens::new(sql);
    match tokens.next() {
        Some(first) if first.is("INSERT") => insert(tokens),
        first => other(tokens, first),
    }
}

/// Whether the text can still turn out to be an insert when more of it comes.
pub(super) fn may_be_insert(sql: &[u8]) -> bool {
    let mut tokens = Tokens::new(sql);
    tokens.next().is_none_or(|first| first.is("INSERT") || tokens.at >= sql.len())
}

fn insert(mut tokens: Tokens<'_>) -> Statement {
    let mut token = target(&mut tokens);
    let (mut selects, mut from_file, mut operand_is_due) = (false, false, false);
    while let Some(found) = token {
        let top = found.depth == 0;
        selects |= top && (found.is("SELECT") || found.is("WITH") || found.is("WATCH"));
        from_file |= top && !selects && found.is("FROM");
        let is_clause = !operand_is_due && !calls(&tokens);
        if top && !from_file && is_clause && found.is("FORMAT") {
            return match tokens.next() {
                _ if selects => Statement::InsertFromInput,
                Some(name) => Statement::Insert {
                    head: found.start,
                    rows: after_format(tokens.sql, tokens.at),
                    format: Some(String::from_utf8_lossy(name.text).into_owned()),
                },
                None => break,
            };
        }
        if top && !selects && !from_file && found.is("VALUES") {
            let format = Some("Values".to_owned());
            return Statement::Insert { head: found.start, rows: tokens.at, format };
        }
        if top {
            operand_is_due = leaves_operand_due(found, operand_is_due);
        }
        token = tokens.next();
    }
    if selects || from_file {
        return Statement::Other { format: None, selects: false };
    }
    let end = tokens.sql.len();
    Statement::Insert { head: end, rows: end, format: None }
}

/// Whether the last token is a function's name.
fn calls(tokens: &Tokens<'_>) -> bool {
    tokens.clone().next().is_some_and(|next| next.text == b"(")
}

/// Words behind which a value, a name or a table comes.
const BEFORE_OPERANDS: [&str; 28] = [
    "SELECT", "DISTINCT", "FROM", "WHERE", "PREWHERE", "HAVING", "QUALIFY", "BY", "AND", "OR",
    "NOT", "ON", "USING", "JOIN", "IN", "LIKE", "ILIKE", "BETWEEN", "AS", "LIMIT", "OFFSET",
    "CASE", "WHEN", "THEN", "ELSE", "WITH", "SETTINGS", "INTERVAL",
];
/// Those of them that may stand where an operand is due; the others are names there.
const BEGIN_OPERANDS: [&str; 5] = ["DISTINCT", "NOT", "CASE", "WHEN", "INTERVAL"];

/// Whether an operand must follow this token of a select. The word `format` is one there, such as a column's
/// name, and a clause where an operand has ended. What is in parentheses counts as one token.
fn leaves_operand_due(token: Token<'_>, is_due: bool) -> bool {
    match token.text {
        b"*" => !is_due,
        [sign] if b",=<>+-/%|?:.!".contains(sign) => true,
        _ if is_due => BEGIN_OPERANDS.iter().any(|word| token.is(word)),
        _ => BEFORE_OPERANDS.iter().any(|word| token.is(word)),
    }
}

/// Skips the table, which may have any name, and returns the token after it.
fn target<'a>(tokens: &mut Tokens<'a>) -> Option<Token<'a>> {
    let mut token = tokens.next()?;
    for word in ["INTO", "TABLE", "FUNCTION"] {
        if token.is(word) {
            token = tokens.next()?;
        }
    }
    loop {
        token = tokens.next()?;
        if token.text != b"." {
            return Some(token);
        }
        tokens.next()?;
    }
}

/// ClickHouse's rule: blanks, then at most one line end, belong to the statement.
fn after_format(sql: &[u8], mut at: usize) -> usize {
    while matches!(sql.get(at), Some(b' ' | b'\t' | b'\x0c')) {
        at += 1;
    }
    if sql.get(at) == Some(&b'\r') {
        at += 1;
    }
    if sql.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

fn other(mut tokens: Tokens<'_>, first: Option<Token<'_>>) -> Statement {
    let selects = first.is_some_and(|first| {
        first.is("SELECT") || first.is("WITH") || first.is("FROM") || first.text == b"("
    });
    let mut format = None;
    let mut token = first;
    while let Some(found) = token {
        token = tokens.next();
        let Some(name) = token.filter(|name| found.depth == 0 && name.is_word()) else { continue };
        if found.is("FORMAT") && ends_output_clause(tokens.clone().next()) {
            format = Some(String::from_utf8_lossy(name.text).into_owned());
        }
    }
    Statement::Other { format, selects }
}

/// A column may be called `format` as well: the clause is followed by nothing else than these.
fn ends_output_clause(next: Option<Token<'_>>) -> bool {
    next.is_none_or(|next| next.text == b";" || next.is("SETTINGS"))
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    text: &'a [u8],
    start: usize,
    depth: usize,
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word.as_bytes())
    }

    fn is_word(&self) -> bool {
        self.text.first().is_some_and(|first| is_word_byte(*first))
    }
}

/// Words, strings and quoted names whole, and everything else byte by byte.
#[derive(Debug, Clone)]
struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
    depth: usize,
    /// Whether the last token is one whose part may be named behind a point.
    names: bool,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a [u8]) -> Tokens<'a> {
        Tokens { sql, at: 0, depth: 0, names: false }
    }

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks_and_comments();
        let start = self.at;
        let first = *self.sql.get(start)?;
        self.at = match first {
            b'\'' | b'"' | b'`' => self.after_quoted(first),
            b'$' => self.after_heredoc().unwrap_or_else(|| self.after_word()),
            _ if is_word_byte(first) => self.after_word(),
            // A number that begins with its point ends with its digits: `.5FORMAT` is two words.
            b'.' if !self.names => self.after_fraction(),
            _ => start + 1,
        };
        let number = first == b'.' && self.at > start + 1;
        self.names = number || is_word_byte(first) || b"`\"$)]".contains(&first);
        match first {
            b'(' | b'[' | b'{' => self.depth += 1,
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Some(Token { text: &self.sql[start..self.at], start, depth: self.depth })
    }

    fn rest(&self) -> &'a [u8] {
        &self.sql[self.at..]
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let skipped = if starts_line_comment(rest) {
                rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1)
            } else if rest.starts_with(b"/*") {
                after_comment(rest)
            } else {
                rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count()
            };
            if skipped == 0 {
                return;
            }
            self.at += skipped;
        }
    }

    /// Both `\'` and `''` stand for a quote.
    fn after_quoted(&self, quote: u8) -> usize {
        let mut at = self.at + 1;
        while let Some(byte) = self.sql.get(at) {
            at += match byte {
                b'\\' => 2,
                byte if *byte != quote => 1,
                _ if self.sql.get(at + 1) == Some(&quote) => 2,
                _ => return at + 1,
            };
        }
        self.sql.len()
    }

    /// `$tag$ ... $tag$`
    fn after_heredoc(&self) -> Option<usize> {
        let rest = self.rest();
        let tag = rest[1..].iter().position(|byte| !is_word_byte(*byte))? + 1;
        if rest[tag] != b'$' {
            return None;
        }
        let (open, body) = rest.split_at(tag + 1);
        memchr::memmem::find(body, open).map(|end| self.at + 2 * open.len() + end)
    }

    /// A word may hold `$`, and then no heredoc begins there.
    fn after_word(&self) -> usize {
        let in_word = |byte: &&u8| is_word_byte(**byte) || **byte == b'$';
        self.at + self.rest().iter().take_while(in_word).count()
    }

    /// `.5`, `.5_0`, `.5e3` or `.5e-3`; a point that no digit follows is only itself.
    fn after_fraction(&self) -> usize {
        let is_digit = |at: usize| self.sql.get(at).is_some_and(u8::is_ascii_digit);
        let digits = |mut at: usize| {
            while is_digit(at) || self.sql.get(at) == Some(&b'_') && is_digit(at + 1) {
                at += 1;
            }
            at
        };
        let end = digits(self.at + 1);
        if end == self.at + 1 || !matches!(self.sql.get(end), Some(b'e' | b'E')) {
            return end;
        }
        let signed = matches!(self.sql.get(end + 1), Some(b'+' | b'-'));
        digits(end + 1 + usize::from(signed))
    }
}

fn starts_line_comment(rest: &[u8]) -> bool {
    [&b"--"[..], b"//", b"# ", b"#!"].iter().any(|sign| rest.starts_with(sign))
}

/// The length of the comment that `rest` begins with. The engine's comments nest.
fn after_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at + 2 <= rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Option<(&str, &str, Option<String>)> {
        match read(sql.as_bytes()) {
            Statement::Insert { head, rows, format } => Some((&sql[..head], &sql[rows..], format)),
            _ => None,
        }
    }

    fn output(sql: &str) -> (Option<String>, bool) {
        match read(sql.as_bytes()) {
            Statement::Other { format, selects } => (format, selects),
            found => panic!("{found:?}"),
        }
    }

    #[test]
    fn rows_begin_after_the_format_and_one_line_end() {
        let cases = [
            ("INSERT INTO t FORMAT CSV\n1,2", "INSERT INTO t ", "1,2", "CSV"),
            ("insert into t(a) format CSV \t\r\n\n1", "insert into t(a) ", "\n1", "CSV"),
            ("INSERT INTO t FORMAT RowBinary\n\n\n", "INSERT INTO t ", "\n\n", "RowBinary"),
            ("INSERT INTO t VALUES (1);", "INSERT INTO t ", " (1);", "Values"),
            ("INSERT INTO t (values) VALUES(1)", "INSERT INTO t (values) ", "(1)", "Values"),
            ("INSERT INTO format.values FORMAT TSV\n", "INSERT INTO format.values ", "", "TSV"),
            ("/* SELECT */ INSERT t FORMAT TSV\n", "/* SELECT */ INSERT t ", "", "TSV"),
            ("/*/**/ SELECT */ INSERT t FORMAT TSV\n", "/*/**/ SELECT */ INSERT t ", "", "TSV"),
            (
                "INSERT t /* /*/ */ FORMAT CSV */ VALUES 1",
                "INSERT t /* /*/ */ FORMAT CSV */ ",
                " 1",
                "Values",
            ),
            (
                "INSERT INTO t SETTINGS a = ' FORMAT ' FORMAT TSV\nx",
                "INSERT INTO t SETTINGS a = ' FORMAT ' ",
                "x",
                "TSV",
            ),
        ];
        for (sql, head, rows, format) in cases {
            assert_eq!(split(sql), Some((head, rows, Some(format.to_owned()))), "{sql}");
        }
        assert_eq!(split("INSERT INTO t (a)"), Some(("INSERT INTO t (a)", "", None)));
    }

    #[test]
    fn an_insert_that_selects_carries_no_rows() {
        assert_eq!(output("INSERT INTO t SELECT 1 AS values"), (None, false));
        assert_eq!(output("INSERT INTO t FROM INFILE 'f' FORMAT CSV"), (None, false));
        for select in [
            "* FROM input('a Int8') FORMAT CSV\n1",
            "*, format('{}', a) FROM input('a Int8') FORMAT CSV\n1",
            "t.* FROM input('a Int8') AS t FORMAT CSV\n1",
            "a AS format FROM input('a Int8') ORDER BY format DESC FORMAT TSV\n1",
            "a AS by FROM input('a Int8') WHERE a IS NOT NULL FORMAT TSV\n1",
            "3 AS from FORMAT TSV\n1",
        ] {
            let sql = format!("INSERT INTO t SELECT {select}");
            assert_eq!(read(sql.as_bytes()), Statement::InsertFromInput, "{sql}");
        }
    }

    #[test]
    fn a_function_or_a_column_called_format_is_no_clause() {
        for select in [
            "SELECT format('{}', 1)",
            "SELECT FORMAT ('{}', 1) AS a FROM s",
            "WITH format('{}', 1) AS a SELECT a",
            "SELECT format FROM s",
            "SELECT DISTINCT format, a FROM s",
            "SELECT a, format FROM s",
            "SELECT s.format FROM s",
            "SELECT a * format FROM s",
            "SELECT -format FROM s",
            "SELECT a AS format, b FROM s",
            "SELECT a FROM format WHERE b = 1",
            "SELECT a FROM s WHERE NOT format AND format LIKE 'x'",
            "SELECT a FROM s ORDER BY format LIMIT 1",
            "SELECT CASE WHEN format = 1 THEN format ELSE b END FROM s",
        ] {
            assert_eq!(output(&format!("INSERT INTO t {select}")), (None, false), "{select}");
        }
        let by_format = "INSERT INTO FUNCTION file('f') PARTITION BY format FORMAT CSV\n1";
        let head = "INSERT INTO FUNCTION file('f') PARTITION BY format ";
        assert_eq!(split(by_format), Some((head, "1", Some("CSV".to_owned()))));
    }

    #[test]
    fn the_output_format_is_the_clause_and_no_column() {
        assert_eq!(output("SELECT 1 FORMAT JSON").0.as_deref(), Some("JSON"));
        assert_eq!(output("SELECT 1 FORMAT JSON; -- end").0.as_deref(), Some("JSON"));
        assert_eq!(output("SELECT 1 FORMAT CSV SETTINGS a = 1").0.as_deref(), Some("CSV"));
        assert_eq!(output("SELECT 1 AS format FROM t"), (None, true));
        assert_eq!(output("SELECT ' FORMAT CSV'"), (None, true));
        assert_eq!(output("SELECT $x$ FORMAT CSV $x$ -- FORMAT TSV"), (None, true));
        assert_eq!(output("SELECT a FROM (SELECT 1 FORMAT CSV)"), (None, true));
        assert_eq!(output("SELECT 1 AS a$b$, 2 AS c$b$ FORMAT CSV").0.as_deref(), Some("CSV"));
        assert_eq!(output("SELECT 1 // ' \n FORMAT CSV // '").0.as_deref(), Some("CSV"));
        assert_eq!(output("SELECT 1=.5FORMAT CSV").0.as_deref(), Some("CSV"));
        assert_eq!(output("SELECT 1=.5_0e-1FORMAT CSV").0.as_deref(), Some("CSV"));
        assert_eq!(output("SHOW TABLES"), (None, false));
    }

    #[test]
    fn more_text_may_turn_it_into_an_insert() {
        assert!(may_be_insert(b"") && may_be_insert(b"  INS") && may_be_insert(b"INSERT INTO"));
        assert!(!may_be_insert(b"SELECT 1"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(sql: Vec<u8>) {
            if let Statement::Insert { head, rows, .. } = read(&sql) {
                assert!(head <= rows && rows <= sql.len());
            }
        }
    }
}
