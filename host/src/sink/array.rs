//! The elements of an array, whatever its dimensions: ClickHouse's arrays are flat.

use super::encode::Unreadable;
use crate::decode::array::{Token, Tokens};

/// One element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Null,
    /// As it stands.
    Plain(&'a [u8]),
    /// Between quotes; backslashes still stand before what they protect.
    Quoted(&'a [u8]),
}

/// The elements in storage order.
#[derive(Debug, Clone)]
pub(super) struct Elements<'a>(Tokens<'a>);

impl<'a> Elements<'a> {
    /// The elements, and whether ClickHouse's flat array says all there is to say: one dimension
    /// whose first index is 1.
    pub(super) fn of(text: &'a [u8]) -> (Elements<'a>, bool) {
        let (tokens, bounded) = Tokens::of(text);
        (Elements(tokens), !bounded && !text.starts_with(b"{{"))
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
        for token in &mut self.0 {
            return match token {
                Token::Open | Token::Close => continue,
                Token::Null => Ok(Some(Element::Null)),
                Token::Plain(text) => Ok(Some(Element::Plain(text))),
                Token::Quoted(text) => Ok(Some(Element::Quoted(text))),
                Token::Invalid => Err(Unreadable),
            };
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::array::unquote;

    fn all(text: &str) -> Result<(Vec<Option<String>>, bool), Unreadable> {
        let (mut elements, flat) = Elements::of(text.as_bytes());
        let count = elements.clone().count_all()?;
        let mut found = Vec::new();
        while let Some(element) = elements.next_element()? {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            found.push(match element {
                Element::Null => None,
                Element::Plain(plain) => Some(text(plain)),
                Element::Quoted(quoted) => {
                    let mut out = Vec::new();
                    unquote(&mut out, quoted);
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
    }
}
