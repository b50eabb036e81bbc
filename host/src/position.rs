//! Where a change stands in the write-ahead log.
//!
//! A lone change LSN does not order changes: rows written by `COPY` share one. Tailwater therefore
//! orders by the commit's LSN and the change's ordinal within its transaction, and that pair is
//! what every hop carries, what ClickHouse stores as `_version`, and what a restart resumes from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte offset in the write-ahead log; printed as PostgreSQL prints it (`16/B374D848`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text was not of the form `16/B374D848`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN such as 16/B374D848")]
pub struct LsnSyntax(String);

impl FromStr for Lsn {
    type Err = LsnSyntax;

    fn from_str(text: &str) -> Result<Self, LsnSyntax> {
        let halves = || {
            let (high, low) = text.split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Lsn(u64::from(high) << 32 | u64::from(low)))
        };
        halves().ok_or_else(|| LsnSyntax(text.to_owned()))
    }
}

/// The place of one change: the LSN of its transaction's commit record, then its ordinal within
/// the transaction (1 for the first streamed change, before any plugin dropped one).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// LSN of the commit record.
    pub commit: Lsn,
    /// Ordinal within the transaction.
    pub ordinal: u64,
}

impl Position {
    /// The `_version` column of ClickHouse: `commit << 64 | ordinal`.
    #[must_use]
    pub fn version(self) -> u128 {
        u128::from(self.commit.0) << 64 | u128::from(self.ordinal)
    }

    /// Appends what [`Display`](fmt::Display) shows, for the hot path: every record has it.
    pub fn write(self, out: &mut Vec<u8>) {
        let lsn = self.commit.0;
        write_hex(out, lsn >> 32);
        out.push(b'/');
        write_hex(out, lsn & 0xFFFF_FFFF);
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(self.ordinal).as_bytes());
    }
}

/// The commit of a `_version`.
#[must_use]
pub fn commit_of(version: u128) -> Lsn {
    Lsn(u64::try_from(version >> 64).expect("half of the bits"))
}

/// Upper-case digits without leading zeros.
fn write_hex(out: &mut Vec<u8>, value: u64) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = (67 - (value | 1).leading_zeros()) / 4;
    for digit in (0..digits).rev() {
        out.push(DIGITS[(value >> (4 * digit) & 15) as usize]);
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.commit, self.ordinal)
    }
}

impl FromStr for Position {
    type Err = LsnSyntax;

    fn from_str(text: &str) -> Result<Self, LsnSyntax> {
        let syntax = || LsnSyntax(text.to_owned());
        let (commit, ordinal) = text.split_once(':').ok_or_else(syntax)?;
        let ordinal = ordinal.parse().map_err(|_| syntax())?;
        Ok(Position { commit: commit.parse()?, ordinal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_prints_and_parses_as_postgres_does() {
        let lsn = Lsn(0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("16/B374D848".parse(), Ok(lsn));
        let error = "16B374D848".parse::<Lsn>().unwrap_err().to_string();
        assert_eq!(error, "`16B374D848` is not an LSN such as 16/B374D848");
        assert!("1/1FFFFFFFF".parse::<Lsn>().is_err());
    }

    #[test]
    fn position_round_trips_through_text() {
        let position = Position { commit: Lsn(0x1_0000_0002), ordinal: 7 };
        assert_eq!(position.to_string(), "1/2:7");
        assert_eq!("1/2:7".parse(), Ok(position));
    }

    #[test]
    fn the_hot_path_writes_positions_as_they_are_shown() {
        for lsn in [0, 1, 0xF, 0x10, 0xFFFF_FFFF, 0x1_0000_0000, 0x16_B374_D848, u64::MAX] {
            let position = Position { commit: Lsn(lsn), ordinal: lsn };
            let mut written = Vec::new();
            position.write(&mut written);
            assert_eq!(String::from_utf8(written).unwrap(), position.to_string());
        }
    }

    #[test]
    fn versions_order_as_positions_do() {
        let at = |commit, ordinal| Position { commit: Lsn(commit), ordinal };
        assert!(at(1, u64::MAX).version() < at(2, 0).version());
        assert!(at(2, 1).version() < at(2, 2).version());
    }
}
