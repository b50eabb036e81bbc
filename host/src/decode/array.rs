//! PostgreSQL's array text, `{1,NULL,"a \"b\""}`, piece by piece.

/// A piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// An unquoted NULL.
    Null,
    /// An element as it stands.
    Plain(&'a [u8]),
    /// The inside of a quoted element; backslashes still stand before what they protect.
    Quoted(&'a [u8]),
    /// The text is no array. Nothing comes after it.
    Invalid,
}

/// The pieces of a text, in its order. Unless the last one is [`Token::Invalid`], all braces are closed.
#[derive(Debug, Clone)]
pub(crate) struct Tokens<'a> {
    rest: &'a [u8],
    depth: u32,
    ended: bool,
}

impl<'a> Tokens<'a> {
    /// The pieces, and whether bounds stood before them, as in `[0:2]={…}`.
    #[inline]
    pub(crate) fn of(text: &'a [u8]) -> (Tokens<'a>, bool) {
        let open = text.iter().position(|byte| *byte == b'{').unwrap_or(text.len());
        let (bounds, array) = text.split_at(open);
        let bounded = matches!(bounds, [b'[', .., b']', b'=']);
        let rest = if bounded { array } else { text };
        (Tokens { rest, depth: 0, ended: false }, bounded)
    }

    #[inline]
    fn token(&mut self) -> Option<Token<'a>> {
        let (&first, mut after) = self.rest.split_first()?;
        let token = match first {
            b'{' => {
                self.depth += 1;
                Token::Open
            }
            b'}' => {
                self.depth = self.depth.checked_sub(1)?;
                self.ended = self.depth == 0;
                Token::Close
            }
            _ if self.depth == 0 => return None,
            b'"' => {
                let (quoted, behind) = after.split_at(quoted_end(after)?);
                after = &behind[1..];
                Token::Quoted(quoted)
            }
            _ => {
                // Most are short, and then no search is faster than this.
                let end = self.rest.iter().position(|byte| matches!(byte, b',' | b'}' | b'{'));
                let (element, behind) = self.rest.split_at(end?);
                after = behind;
                match after[0] {
                    b'{' => return None,
                    _ if element.eq_ignore_ascii_case(b"null") => Token::Null,
                    _ => Token::Plain(element),
                }
            }
        };
        self.rest = after;
        Some(token).filter(|_| !self.ended || after.is_empty())
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        if self.ended {
            return None;
        }
        if self.depth > 0 {
            while let [b',', after @ ..] = self.rest {
                self.rest = after;
            }
        }
        let token = self.token();
        self.ended |= token.is_none();
        Some(token.unwrap_or(Token::Invalid))
    }
}

fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Appends the inside of a quoted element without its backslashes.
pub(crate) fn unquote(out: &mut Vec<u8>, mut quoted: &[u8]) {
    while let Some(at) = memchr::memchr(b'\\', quoted) {
        out.extend_from_slice(&quoted[..at]);
        out.extend(quoted.get(at + 1));
        quoted = quoted.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(quoted);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Token::{Close, Invalid, Null, Open, Plain, Quoted};

    #[test]
    fn elements_are_told_from_structure() {
        let (tokens, bounded) = Tokens::of(br#"[0:1]={{a,"b,\"c"},{NULL,""}}"#);
        let inner = [Open, Null, Quoted(b""), Close, Close];
        let expected =
            [&[Open, Open, Plain(b"a"), Quoted(br#"b,\"c"#), Close], &inner[..]].concat();
        assert!(bounded);
        assert_eq!(tokens.collect::<Vec<_>>(), expected);
        assert!(!Tokens::of(b"{}").1);
    }

    #[test]
    fn broken_arrays_end_with_what_is_invalid() {
        for text in
            ["", "1", "{1", "{\"a}", "{1}}", "{1}x", "{}{}", "x{1}", "{\"a\\", "{a{b}}", "}"]
        {
            let tokens: Vec<_> = Tokens::of(text.as_bytes()).0.collect();
            assert_eq!(tokens.last(), Some(&Invalid), "{text}");
            assert_eq!(tokens.iter().filter(|token| **token == Invalid).count(), 1, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_goes_on_for_ever(text in "[\\[\\]{}\",\\\\a1=:]{0,30}") {
            prop_assert!(Tokens::of(text.as_bytes()).0.count() <= text.len() + 1);
        }
    }
}
