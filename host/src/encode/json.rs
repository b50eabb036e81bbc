//! JSON written and scanned byte by byte; nothing here builds a tree.

use super::Error;

/// Bytes that a JSON string must escape.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Writes a string with its quotes.
pub(super) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Writes a string's inside.
pub(super) fn write_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = first_escaped(text) {
        out.extend_from_slice(&text[..at]);
        write_escape(out, text[at]);
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

/// Where the first byte is that has to be escaped. Eight bytes at a time, because there mostly is
/// none.
fn first_escaped(text: &[u8]) -> Option<usize> {
    let escaped = |byte: &u8| ESCAPED[usize::from(*byte)];
    let (words, _) = text.as_chunks::<8>();
    let plain = words.iter().take_while(|word| !may_hold_escaped(u64::from_le_bytes(**word)));
    let at = 8 * plain.count();
    text[at..].iter().position(escaped).map(|found| at + found)
}

/// Whether one of the eight bytes is below 0x20, a quote or a backslash: of a byte less than `n` the
/// top bit is set by subtracting `n` and was not set before.
fn may_hold_escaped(word: u64) -> bool {
    (below(word, 0x20) | equal(word, b'"') | equal(word, b'\\')) & TOPS != 0
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// The top bit of each byte that is less than `bound`; behind the first one also of others.
fn below(word: u64, bound: u64) -> u64 {
    word.wrapping_sub(ONES * bound) & !word
}

/// The top bit of each byte that is `byte`; behind the first one also of others.
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Where the first quote or backslash is. Names and most values are so short that a call of `memchr` would cost more
/// than they do.
fn first_quote(text: &[u8]) -> Option<usize> {
    const SHORT: usize = 4;
    let (words, _) = text.as_chunks::<8>();
    for (number, word) in words.iter().take(SHORT).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = (equal(word, b'"') | equal(word, b'\\')) & TOPS;
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let passed = 8 * words.len().min(SHORT);
    memchr::memchr2(b'"', b'\\', &text[passed..]).map(|found| passed + found)
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0C => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Writes an integer.
pub(super) fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A cursor over JSON text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, at: 0 }
    }

    /// The error of standing here.
    pub(super) fn error(&self) -> Error {
        Error::Syntax { at: self.at }
    }

    /// Whether `fragment` comes next; steps over it if so. Skips no white space.
    pub(super) fn eat(&mut self, fragment: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(fragment);
        if found {
            self.at += fragment.len();
        }
        found
    }

    /// The digits that come next, stepped over. Skips no white space.
    pub(super) fn digits(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space, not stepped over.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.error())
    }

    /// Steps into an object or array; false if it is `null` or of another kind.
    pub(super) fn enter(&mut self, open: u8) -> bool {
        let found = self.peek() == Some(open);
        if found {
            self.at += 1;
        }
        found
    }

    /// Inside an object: the next field's name as it is written, without quotes, the cursor before
    /// its value; `None` after the last one, the cursor after the object.
    pub(super) fn field(&mut self) -> Result<Option<&'a [u8]>, Error> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        self.name().map(Some)
    }

    /// A field's name after [`more`](Scanner::more) said that there is one.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Error> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// A value that is probably `block`; then it is stepped over without scanning it.
    pub(super) fn expected(&mut self, block: &[u8]) -> Result<&'a [u8], Error> {
        let start = self.at;
        if !block.is_empty() && self.eat(block) {
            return Ok(&self.bytes[start..self.at]);
        }
        self.value()
    }

    /// Inside an object or array: whether another member follows; steps over the comma or the end.
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Error> {
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Ok(true),
            None => Err(self.error()),
        }
    }

    /// A string as it is written, without quotes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Error> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = &self.bytes[self.at..];
            let found = first_quote(rest).ok_or_else(|| self.error())?;
            self.at += found;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(&self.bytes[start..self.at - 1]);
            }
            self.at = (self.at + 2).min(self.bytes.len());
        }
    }

    /// What was stepped over since `start`, a copy of this cursor.
    pub(super) fn since(&self, start: &Scanner<'_>) -> &'a [u8] {
        &self.bytes[start.at..self.at]
    }

    /// Any value as it is written.
    pub(super) fn value(&mut self) -> Result<&'a [u8], Error> {
        let first = self.peek().ok_or_else(|| self.error())?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.skip_nested()?,
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.skip_plain(),
            _ => return Err(self.error()),
        }
        Ok(&self.bytes[start..self.at])
    }

    fn skip_plain(&mut self) {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')));
        self.at += end.unwrap_or(rest.len());
    }

    fn skip_nested(&mut self) -> Result<(), Error> {
        let mut depth = 0_u32;
        loop {
            match self.bytes.get(self.at).ok_or_else(|| self.error())? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Only white space is left.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error()) }
    }
}

/// Appends the content of a string that is written between quotes; false if it is no valid one.
#[must_use]
pub(super) fn unescape(out: &mut Vec<u8>, mut raw: &[u8]) -> bool {
    while let Some(at) = memchr::memchr(b'\\', raw) {
        out.extend_from_slice(&raw[..at]);
        let Some((escape, rest)) = raw[at + 1..].split_first() else { return false };
        raw = rest;
        let plain = match escape {
            b'"' | b'\\' | b'/' => *escape,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let Some(character) = unicode(&mut raw) else { return false };
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return false,
        };
        out.push(plain);
    }
    out.extend_from_slice(raw);
    true
}

/// The character after `\u`, a surrogate pair taken together.
fn unicode(raw: &mut &[u8]) -> Option<char> {
    let high = hex4(raw)?;
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high);
    }
    *raw = raw.strip_prefix(b"\\u")?;
    let low = hex4(raw)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)
}

fn hex4(raw: &mut &[u8]) -> Option<u32> {
    let (digits, rest) = raw.split_at_checked(4)?;
    *raw = rest;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The content of a string token (with quotes); `None` if it is none.
pub(super) fn string_content(token: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    unescape(&mut out, token.strip_prefix(b"\"")?.strip_suffix(b"\"")?).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_string_is_read_back_and_serde_agrees(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
            prop_assert_eq!(string_content(&out), Some(text.into_bytes()));
        }

        #[test]
        fn the_first_quote_is_found_wherever_it_is(
            text in vec(prop_oneof![20 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\')], 0..80)
        ) {
            let wanted = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(first_quote(&text), wanted);
        }

        #[test]
        fn no_bytes_make_the_scanner_panic(bytes in any::<Vec<u8>>()) {
            let mut scanner = Scanner::new(&bytes);
            while scanner.enter(b'{') || scanner.enter(b'[') {}
            while let Ok(Some(_)) = scanner.field() {
                if scanner.value().is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn surrogate_pairs_are_one_character() {
        assert_eq!(string_content(br#""\uD83D\uDE80""#), Some("🚀".into()));
        assert_eq!(string_content(br#""\uD83D""#), None);
    }
}
