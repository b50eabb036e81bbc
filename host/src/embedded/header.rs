//! Which formats can be answered piece by piece.
//!
//! The engine makes a whole document of every piece. Where a format is rows alone, the pieces add up
//! to the right document; where it begins with names, every later piece's copy of them is cut off;
//! all others are answered whole.

use bytes::{Buf as _, Bytes};

/// The beginning that pieces of one answer share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    shape: Shape,
    bytes: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    None,
    /// A number of columns, then as many strings this many times.
    Binary(usize),
    /// So many lines, in which line ends may be quoted.
    Lines(usize),
}

impl Header {
    /// `None` for a format that must be answered whole.
    pub(super) fn of_format(format: &str) -> Option<Header> {
        let shape = match format {
            "RowBinary" | "Native" | "CSV" | "TabSeparated" | "TSV" | "TabSeparatedRaw"
            | "TSVRaw" | "JSONEachRow" | "JSONLines" | "NDJSON" | "JSONCompactEachRow"
            | "JSONStringsEachRow" | "Null" => Shape::None,
            "RowBinaryWithNames" => Shape::Binary(1),
            "RowBinaryWithNamesAndTypes" => Shape::Binary(2),
            "CSVWithNames"
            | "TabSeparatedWithNames"
            | "TSVWithNames"
            | "JSONCompactEachRowWithNames" => Shape::Lines(1),
            "CSVWithNamesAndTypes"
            | "TabSeparatedWithNamesAndTypes"
            | "TSVWithNamesAndTypes"
            | "JSONCompactEachRowWithNamesAndTypes" => Shape::Lines(2),
            _ => return None,
        };
        Some(Header { shape, bytes: None })
    }

    /// The piece without the header, except for the first piece.
    pub(super) fn strip(&mut self, mut piece: Bytes) -> Bytes {
        match &self.bytes {
            None => {
                let length = match self.shape {
                    Shape::None => 0,
                    Shape::Binary(times) => binary_length(&piece, times).unwrap_or(0),
                    Shape::Lines(count) => lines_length(&piece, count),
                };
                // A copy: the piece itself is large and would stay in memory.
                self.bytes = Some(Bytes::copy_from_slice(&piece[..length]));
            }
            Some(header) if piece.starts_with(header) => piece.advance(header.len()),
            Some(_) => {}
        }
        piece
    }
}

fn binary_length(piece: &[u8], times: usize) -> Option<usize> {
    let mut rest = piece;
    let columns = length(&mut rest)?;
    for _ in 0..columns.checked_mul(times)? {
        let size = length(&mut rest)?;
        rest = rest.get(size..)?;
    }
    Some(piece.len() - rest.len())
}

/// LEB128.
fn length(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn lines_length(piece: &[u8], count: usize) -> usize {
    let (mut quoted, mut lines) = (false, 0);
    for (at, byte) in piece.iter().enumerate() {
        quoted ^= *byte == b'"';
        lines += usize::from(*byte == b'\n' && !quoted);
        if lines == count {
            return at + 1;
        }
    }
    piece.len()
}
