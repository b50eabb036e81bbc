//! ClickHouse's compressed blocks, as `decompress=1` and `compress=1` use them.
//!
//! ```text
//! checksum, 16 bytes | method, 1 | compressed size + 9, 4 | size, 4 | compressed bytes
//! ```
//!
//! Numbers are little-endian; the checksum is CityHash 1.0.2 of all that follows it in the block.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use cityhash_rs::cityhash_102_128;

const CHECKSUM: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;
const NONE: u8 = 0x02;

/// Largest block taken, packed or unpacked: ClickHouse's own limit is as high, its clients stay at
/// a few megabytes.
const LARGEST: usize = 1 << 30;
/// Size of the blocks made here.
const MADE: usize = 1 << 20;

/// Why a block is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Corrupt {
    #[error("checksum of a compressed block does not match; the data was damaged on its way")]
    Checksum,
    #[error("compression method 0x{0:02x} is not supported; send LZ4 or uncompressed blocks")]
    Method(u8),
    #[error("a compressed block claims {0} bytes, more than the limit of {LARGEST}")]
    Size(usize),
    #[error("a compressed block cannot be unpacked")]
    Content,
    #[error("the last compressed block is cut short")]
    Truncated,
}

/// Turns bytes of blocks, cut anywhere, into what they hold.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    pending: BytesMut,
}

impl Unpacker {
    /// Takes more bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The contents of the next whole block, if it has come.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Corrupt> {
        let Some(header) = self.pending.get(CHECKSUM..CHECKSUM + HEADER) else { return Ok(None) };
        let (method, mut sizes) = (header[0], &header[1..]);
        let packed = sizes.get_u32_le() as usize;
        let unpacked = sizes.get_u32_le() as usize;
        if packed < HEADER || packed.max(unpacked) > LARGEST {
            return Err(Corrupt::Size(packed.max(unpacked)));
        }
        if self.pending.len() < CHECKSUM + packed {
            return Ok(None);
        }
        let mut block = self.pending.split_to(CHECKSUM + packed).freeze();
        if checksum(&block[CHECKSUM..]) != block[..CHECKSUM] {
            return Err(Corrupt::Checksum);
        }
        block.advance(CHECKSUM + HEADER);
        contents(method, block, unpacked).map(Some)
    }

    /// An error unless the last block was whole.
    pub(super) fn finish(&self) -> Result<(), Corrupt> {
        if self.pending.is_empty() { Ok(()) } else { Err(Corrupt::Truncated) }
    }
}

fn contents(method: u8, packed: Bytes, size: usize) -> Result<Bytes, Corrupt> {
    match method {
        NONE if packed.len() == size => Ok(packed),
        NONE => Err(Corrupt::Content),
        LZ4 => match lz4_flex::block::decompress(&packed, size) {
            Ok(unpacked) if unpacked.len() == size => Ok(unpacked.into()),
            _ => Err(Corrupt::Content),
        },
        _ => Err(Corrupt::Method(method)),
    }
}

/// The bytes as blocks of LZ4.
pub(super) fn pack(bytes: &[u8]) -> Bytes {
    let mut packed = BytesMut::new();
    for piece in bytes.chunks(MADE) {
        let compressed = lz4_flex::block::compress(piece);
        let start = packed.len();
        packed.put_bytes(0, CHECKSUM);
        packed.put_u8(LZ4);
        packed.put_u32_le(size(compressed.len() + HEADER));
        packed.put_u32_le(size(piece.len()));
        packed.put_slice(&compressed);
        let checksum = checksum(&packed[start + CHECKSUM..]);
        packed[start..start + CHECKSUM].copy_from_slice(&checksum);
    }
    packed.freeze()
}

fn size(length: usize) -> u32 {
    u32::try_from(length).expect("a piece is a megabyte at most")
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    // The high half comes first in the hash's own order, each half little-endian.
    cityhash_102_128(bytes).rotate_right(64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block as a client sends it, with a checksum that is right.
    fn block(method: u8, packed: &[u8], unpacked: usize) -> Vec<u8> {
        let mut rest = vec![method];
        rest.extend(size(packed.len() + HEADER).to_le_bytes());
        rest.extend(size(unpacked).to_le_bytes());
        rest.extend(packed);
        [&checksum(&rest)[..], &rest].concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        let mut unpacker = Unpacker::default();
        unpacker.push(bytes);
        let ended = unpacker.next().and_then(|_| unpacker.finish());
        ended.expect_err("it is no block").to_string()
    }

    #[test]
    fn what_was_packed_comes_out_again() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * MADE / 2).collect();
        let mut unpacker = Unpacker::default();
        unpacker.push(&pack(&bytes));
        let mut unpacked = Vec::new();
        while let Some(piece) = unpacker.next().expect("a block") {
            unpacked.extend_from_slice(&piece);
        }
        unpacker.finish().expect("an end");
        assert_eq!(unpacked, bytes);
    }

    #[test]
    fn a_block_that_is_none_is_refused_with_the_reason() {
        let (zstd, whole) = (0x90, block(NONE, b"abc", 3));
        let mut damaged = whole.clone();
        damaged[CHECKSUM + HEADER] ^= 1;
        let cases = [
            (block(zstd, b"abc", 3), "compression method 0x90 is not supported; send LZ4"),
            (block(NONE, b"abc", 1 << 31), "a compressed block claims 2147483648 bytes, more than"),
            (block(NONE, b"abc", 4), "a compressed block cannot be unpacked"),
            (block(LZ4, b"abc", 3), "a compressed block cannot be unpacked"),
            (whole[..whole.len() - 1].to_vec(), "the last compressed block is cut short"),
            (damaged, "checksum of a compressed block does not match"),
        ];
        for (bytes, wanted) in cases {
            let said = refusal(&bytes);
            assert!(said.starts_with(wanted), "{wanted}: {said}");
        }
    }
}
