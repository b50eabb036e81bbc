//! PostgreSQL's array text, `{1,NULL,"a \"b\""}`, element by element.

use super::encode::Unreadable;

/// One element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Null,
    /// As it stands.
    Plain(&'a [u8]),
    /// Between quotes; backslashes still stand before what they protect.
    Quoted(&'a [u8]),
}

/// The elements of an array in storage order, whatever its dimensions.
#[derive(Debug, Clone)]
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Elements<'a> {
    /// The elements, and whether ClickHouse's flat array says all there is to say: one dimension
    /// whose first index is 1.
    pub(super) fn of(text: &'a [u8]) -> Result<(Elements<'a>, bool), Unreadable> {
        let open = memchr::memchr(b'{', text).ok_or(Unreadable)?;
        let bounds_told = match &text[..open] {
            [] => false,
            [b'[', .., b']', b'='] => true,
            _ => return Err(Unreadable),
        };
        let nested = text.get(open + 1) == Some(&b'{');
        Ok((Elements { rest: &text[open..], depth: 0 }, !bounds_told && !nested))
    }

    /// How many elements there are.
    pub(super) fn count_all(mut self) -> Result<u64, Unreadable> {
        let mut count = 0;
        while self.next_element()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// The next element, `None` at the end.
    pub(super) fn next_element(&mut self) -> Result<Option<Element<'a>>, Unreadable> {
        loop {
            let Some((&first, after)) = self.rest.split_first() else {
                return if self.depth == 0 { Ok(None) } else { Err(Unreadable) };
            };
            match first {
                b'{' => self.depth += 1,
                b'}' => self.depth = self.depth.checked_sub(1).ok_or(Unreadable)?,
                b',' => (),
                b'"' => return self.quoted(after).map(Some),
                _ => return self.plain().map(Some),
            }
            self.rest = after;
            if self.depth == 0 && !self.rest.is_empty() {
                return Err(Unreadable);
            }
        }
    }

    fn quoted(&mut self, text: &'a [u8]) -> Result<Element<'a>, Unreadable> {
        let mut at = 0;
        loop {
            at += memchr::memchr2(b'"', b'\\', text.get(at..).ok_or(Unreadable)?)
                .ok_or(Unreadable)?;
            if text[at] == b'"' {
                self.rest = &text[at + 1..];
                return Ok(Element::Quoted(&text[..at]));
            }
            at += 2;
        }
    }

    fn plain(&mut self) -> Result<Element<'a>, Unreadable> {
        let end = memchr::memchr3(b',', b'}', b'{', self.rest).ok_or(Unreadable)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(match text.eq_ignore_ascii_case(b"NULL") {
            true => Element::Null,
            false => Element::Plain(text),
        })
    }
}

/// Appends quoted text without its backslashes.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend(rest.get(at + 1));
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Result<(Vec<Option<String>>, bool), Unreadable> {
        let (mut elements, flat) = Elements::of(text.as_bytes())?;
        let count = elements.clone().count_all()?;
        let mut found = Vec::new();
        while let Some(element) = elements.next_element()? {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            found.push(match element {
                Element::Null => None,
                Element::Plain(plain) => Some(text(plain)),
                Element::Quoted(quoted) => {
                    let mut out = Vec::new();
                    unescape(quoted, &mut out);
                    Some(text(&out))
                }
            });
        }
        assert_eq!(found.len() as u64, count);
        Ok((found, flat))
    }

    #[test]
    fn elements_come_out_as_they_went_in() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(all("{}"), Ok((vec![], true)));
        let mixed = vec![some("1"), None, some(r#"a "b\"#), some("NULL"), some("")];
        assert_eq!(all(r#"{1,NULL,"a \"b\\","NULL",""}"#), Ok((mixed, true)));
        assert_eq!(all("{{1,2},{3,4}}").unwrap().0.len(), 4);
        assert!(!all("{{1,2},{3,4}}").unwrap().1);
        assert_eq!(all("[2:3]={1,2}"), Ok((vec![some("1"), some("2")], false)));
    }

    #[test]
    fn broken_arrays_are_refused() {
        for text in ["", "1", "{1", "{\"a}", "{1}}", "{1}x", "x{1}", "{\"a\\"] {
            assert_eq!(all(text), Err(Unreadable), "{text}");
        }
    }

    fn printed(elements: &[Option<String>]) -> String {
        let one = |element: &Option<String>| match element {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        format!("{{{}}}", elements.iter().map(one).collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn any_texts_round_trip(elements in prop::collection::vec(any::<Option<String>>(), 0..8)) {
            prop_assert_eq!(all(&printed(&elements)), Ok((elements, true)));
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",\\\\a1=:]{0,30}") {
            let _elements_or_not = all(&text);
        }
    }
}
