//! The `source` of an envelope: where Debezium says of which transaction and table a change is.

use std::ops::Range;

use super::Error;
use super::json::Scanner;

/// What the envelope that was read last says. A transaction's changes of a table say all the same but for `lsn`, which
/// Debezium and Tailwater write twice; so of most envelopes nothing else is read.
#[derive(Debug, Default)]
pub(super) struct Source {
    form: Form,
    /// Without quotes; empty if it is not there, like the next one.
    pub(super) schema: Vec<u8>,
    pub(super) table: Vec<u8>,
    pub(super) lsn: Option<u64>,
    /// The end of the commit before its transaction's, as far as its writer had seen one.
    pub(super) previous_commit: Option<u64>,
    pub(super) xid: u32,
    /// Microseconds since the Unix epoch.
    pub(super) committed_at: Option<i64>,
}

/// How it was written, around `lsn`.
#[derive(Debug, Default)]
struct Form {
    /// Up to the second number of `sequence`, which is `lsn`; empty if that was not so.
    head: Vec<u8>,
    /// From there to `lsn` itself.
    middle: Vec<u8>,
    tail: Vec<u8>,
}

impl Source {
    /// Forgets everything: an envelope has none.
    pub(super) fn clear(&mut self) {
        let Source { form, schema, table, lsn, previous_commit, xid, committed_at } = self;
        form.head.clear();
        [schema, table].into_iter().for_each(Vec::clear);
        (*lsn, *previous_commit, *xid, *committed_at) = (None, None, 0, None);
    }

    /// Reads the value that comes next.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Error> {
        let start = *scanner;
        if let Some(lsn) = self.form.lsn(scanner) {
            self.lsn = Some(lsn);
            return Ok(());
        }
        *scanner = start;
        self.clear();
        if !scanner.enter(b'{') {
            return scanner.value().map(drop);
        }
        let (mut sequence, mut lsn) = (None, None);
        while let Some(name) = scanner.field()? {
            let token = scanner.value()?;
            self.take(name, token);
            let at = scanner.since(&start).len() - token.len();
            let within = |of: Range<usize>| at + of.start..at + of.end;
            match name {
                b"sequence" => sequence = second_number(token).map(within),
                b"lsn" => lsn = Some(within(0..token.len())),
                _ => {}
            }
        }
        if let (Some(sequence), Some(lsn)) = (sequence, lsn) {
            self.form.learn(scanner.since(&start), sequence, lsn);
        }
        Ok(())
    }

    fn take(&mut self, name: &[u8], token: &[u8]) {
        let string = || token.strip_prefix(b"\"")?.strip_suffix(b"\"");
        match name {
            b"schema" => self.schema.extend_from_slice(string().unwrap_or_default()),
            b"table" => self.table.extend_from_slice(string().unwrap_or_default()),
            b"lsn" => self.lsn = number(token),
            b"sequence" => self.previous_commit = previous_commit(token),
            b"txId" => self.xid = number(token).unwrap_or(0),
            b"ts_us" => self.committed_at = number(token),
            b"ts_ms" if self.committed_at.is_none() => {
                self.committed_at = number(token).map(|ms: i64| ms.saturating_mul(1000));
            }
            _ => {}
        }
    }
}

impl Form {
    /// The `lsn` of what comes next, if it is written in this form; else the cursor is anywhere.
    fn lsn(&self, scanner: &mut Scanner<'_>) -> Option<u64> {
        if self.head.is_empty() || !scanner.eat(&self.head) {
            return None;
        }
        let digits = scanner.digits();
        let same = scanner.eat(&self.middle) && scanner.eat(digits) && scanner.eat(&self.tail);
        if same { number(digits) } else { None }
    }

    /// Takes the form of a block, and where `lsn` is in it: in `sequence`, and by itself.
    fn learn(&mut self, block: &[u8], sequence: Range<usize>, lsn: Range<usize>) {
        if sequence.end > lsn.start || block[sequence.clone()] != block[lsn.clone()] {
            return;
        }
        let Form { head, middle, tail } = self;
        let parts = [&block[..sequence.start], &block[sequence.end..lsn.start], &block[lsn.end..]];
        for (kept, part) in [head, middle, tail].into_iter().zip(parts) {
            kept.clear();
            kept.extend_from_slice(part);
        }
    }
}

/// Where the second number of `"[\"110\",\"90\"]"` is.
fn second_number(token: &[u8]) -> Option<Range<usize>> {
    let comma = token.iter().position(|byte| *byte == b',')?;
    let digits = token[comma..].strip_prefix(b",\\\"")?;
    let start = token.len() - digits.len();
    let end = start + digits.iter().position(|byte| !byte.is_ascii_digit())?;
    Some(start..end)
}

/// The first number of `"[\"110\",\"90\"]"`.
fn previous_commit(token: &[u8]) -> Option<u64> {
    let first = token.strip_prefix(b"\"[\\\"")?;
    let end = first.iter().position(|byte| !byte.is_ascii_digit())?;
    number(&first[..end])
}

fn number<T: std::str::FromStr>(token: &[u8]) -> Option<T> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a source says after it was read from these envelopes' values, one after the other.
    fn last(values: &[&str]) -> (String, Option<u64>, u32, Option<i64>) {
        let mut source = Source::default();
        for value in values {
            // Errors are the envelope's to tell.
            source.read(&mut Scanner::new(value.as_bytes())).ok();
        }
        let table = String::from_utf8(source.table).expect("it is UTF-8");
        (table, source.lsn, source.xid, source.committed_at)
    }

    #[test]
    fn what_is_repeated_is_known_and_what_differs_is_read_anew() {
        const USERS: &str = "{\"table\":\"users\",\"lsn\":7,\"txId\":3,\"ts_ms\":2}";
        let users = ("users".to_owned(), Some(7), 3, Some(2000));
        assert_eq!(last(&[USERS, USERS]), users);
        assert_eq!(last(&["{\"ts_us\":5}", USERS]), users);
        assert_eq!(last(&[USERS, "{\"lsn\":8}"]), (String::new(), Some(8), 0, None));
        assert_eq!(last(&[USERS, "null"]), (String::new(), None, 0, None));
    }

    /// As Debezium and Tailwater write it, but for some fields.
    fn written(xid: u32, sequence: u64, lsn: u64) -> String {
        format!(
            r#"{{"ts_ms":1,"sequence":"[\"110\",\"{sequence}\"]","table":"users","txId":{xid},"lsn":{lsn},"xmin":null}}"#
        )
    }

    #[test]
    fn of_a_change_of_the_same_transaction_the_lsn_alone_is_another() {
        let of = |xid, lsn| ("users".to_owned(), Some(lsn), xid, Some(1000));
        let (first, other) = (written(3, 120, 120), written(4, 140, 140));
        for (xid, lsn) in [(3, 120), (3, 1300), (3, 7), (4, 120), (4, 9)] {
            let next = written(xid, lsn, lsn);
            assert_eq!(last(&[&first, &next]), of(xid, lsn), "{next}");
            assert_eq!(last(&[&first, &other, &next]), of(xid, lsn), "{next}");
        }
        // Whoever writes two that differ means the one called so.
        assert_eq!(last(&[&first, &written(3, 130, 13)]), of(3, 13));
        assert_eq!(last(&[&written(3, 130, 13), &written(3, 130, 14)]), of(3, 14));
        assert_eq!(last(&[&first, "{\"lsn\":8}", &first]), of(3, 120));
    }

    #[test]
    fn numbers_that_are_none_are_not_known_from_the_change_before() {
        let first = written(3, 120, 120);
        for digits in ["", "99999999999999999999", "12x"] {
            let next = first.replace("120", digits);
            let mut source = Source::default();
            source.read(&mut Scanner::new(first.as_bytes())).expect("it is an object");
            source.read(&mut Scanner::new(next.as_bytes())).ok();
            assert_eq!(source.lsn, None, "{next}");
        }
    }

    #[test]
    fn the_commit_before_is_the_first_of_the_sequence_if_there_was_one() {
        for (sequence, wanted) in [
            (r#""[\"110\",\"90\"]""#, Some(110)),
            (r#""[null,\"90\"]""#, None),
            (r#""[\"\",\"90\"]""#, None),
            ("null", None),
            ("7", None),
        ] {
            let mut source = Source::default();
            let value = format!("{{\"sequence\":{sequence}}}");
            source.read(&mut Scanner::new(value.as_bytes())).expect("it is an object");
            assert_eq!(source.previous_commit, wanted, "{sequence}");
        }
    }

    #[test]
    fn what_breaks_off_is_not_taken_for_known_later() {
        const WHOLE: &str = "{\"lsn\":8,\"txId\":3}";
        for cut in 0..WHOLE.len() {
            let after = last(&[&WHOLE[..cut], WHOLE]);
            assert_eq!(after, (String::new(), Some(8), 3, None), "{cut}");
        }
    }
}
