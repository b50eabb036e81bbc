//! The `source` of an envelope: where Debezium says of which transaction and table a change is.

use super::Error;
use super::json::Scanner;

/// What the envelope that was read last says. All of a transaction's changes of a table say the same
/// as Tailwater writes them, so most envelopes repeat it, and what is repeated is not read again.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// As it was written; empty if it could not be read.
    block: Vec<u8>,
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

impl Source {
    /// Forgets everything: an envelope has none.
    pub(super) fn clear(&mut self) {
        let Source { block, schema, table, lsn, previous_commit, xid, committed_at } = self;
        [block, schema, table].into_iter().for_each(Vec::clear);
        (*lsn, *previous_commit, *xid, *committed_at) = (None, None, 0, None);
    }

    /// Reads the value that comes next.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Error> {
        if !self.block.is_empty() && scanner.eat(&self.block) {
            return Ok(());
        }
        self.clear();
        let start = *scanner;
        if !scanner.enter(b'{') {
            return scanner.value().map(drop);
        }
        while let Some(name) = scanner.field()? {
            self.take(name, scanner.value()?);
        }
        self.block.extend_from_slice(scanner.since(&start));
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
