//! PostgreSQL's array text, `{1,NULL,"a,b"}`.

/// A piece of an array's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// An unquoted NULL.
    Null,
    /// An element that stands for itself.
    Plain(&'a [u8]),
    /// The inside of a quoted element, backslashes still in it.
    Quoted(&'a [u8]),
    /// Not an array.
    Invalid,
}

/// The pieces of an array's text; explicit bounds (`[0:2]=`) are skipped.
pub(super) fn tokens(text: &[u8]) -> impl Iterator<Item = Token<'_>> {
    let start = text.iter().position(|byte| *byte == b'{').unwrap_or(text.len());
    let mut rest = &text[start..];
    std::iter::from_fn(move || {
        while let Some(b',') = rest.first() {
            rest = &rest[1..];
        }
        let (token, after) = next(rest)?;
        rest = after;
        Some(token)
    })
}

fn next(rest: &[u8]) -> Option<(Token<'_>, &[u8])> {
    Some(match rest.first()? {
        b'{' => (Token::Open, &rest[1..]),
        b'}' => (Token::Close, &rest[1..]),
        b'"' => match quoted_end(rest) {
            Some(end) => (Token::Quoted(&rest[1..end]), &rest[end + 1..]),
            None => (Token::Invalid, &[]),
        },
        _ => {
            let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'));
            let (element, after) = rest.split_at(end.unwrap_or(rest.len()));
            let null = element.eq_ignore_ascii_case(b"null");
            (if null { Token::Null } else { Token::Plain(element) }, after)
        }
    })
}

fn quoted_end(rest: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Appends a quoted element's content.
pub(super) fn unquote(out: &mut Vec<u8>, mut quoted: &[u8]) {
    while let Some(at) = memchr::memchr(b'\\', quoted) {
        out.extend_from_slice(&quoted[..at]);
        out.extend(quoted.get(at + 1));
        quoted = quoted.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(quoted);
}

/// Appends an element, quoted exactly where PostgreSQL quotes.
pub(super) fn write_element(out: &mut Vec<u8>, element: &[u8]) {
    let special = |byte: &u8| {
        matches!(
            byte,
            b'{' | b'}' | b'"' | b',' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C
        )
    };
    let null = element.eq_ignore_ascii_case(b"null");
    if !element.is_empty() && !null && !element.iter().any(special) {
        out.extend_from_slice(element);
        return;
    }
    out.push(b'"');
    for byte in element {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_told_from_structure() {
        let found: Vec<_> = tokens(br#"[0:1]={{a,"b,\"c"},{NULL,""}}"#).collect();
        use Token::{Close, Null, Open, Plain, Quoted};
        let expected = [
            Open,
            Open,
            Plain(b"a"),
            Quoted(br#"b,\"c"#),
            Close,
            Open,
            Null,
            Quoted(b""),
            Close,
            Close,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unfinished_quote_is_invalid() {
        assert_eq!(tokens(br#"{"a\"#).last(), Some(Token::Invalid));
    }
}
