//! Copy frames out of the socket, into the very buffer that becomes the batch's arena.

use super::error::Error;
use crate::position::Lsn;

/// The room a batch begins with; a larger frame makes it grow.
pub const BUFFER_BYTES: usize = 512 * 1024;
/// With less room than this a read is not worth its system call.
const MIN_READ: usize = 16 * 1024;
/// A batch of no more than this is copied out: a fresh buffer of full size would cost more.
const SMALL_BATCH: usize = 64 * 1024;
/// Tag, length.
const HEADER: usize = 5;
/// `w`, start, end, time.
const XLOG_HEADER: usize = 25;

/// Bytes read and not yet given away.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    filled: usize,
    parsed: usize,
}

/// One frame of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A pgoutput message at `start..end` of the buffer.
    Wal {
        /// First byte of the message.
        start: usize,
        /// One past its last.
        end: usize,
        /// LSN of the record.
        lsn: Lsn,
        /// The server's end of log.
        server_end: Lsn,
    },
    /// The server is alive, and everything before this LSN has been sent.
    Keepalive {
        /// The server's position.
        server_end: Lsn,
        /// Whether it wants an answer now.
        reply: bool,
    },
    /// A message of no interest, such as a notice.
    Skipped,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { bytes: vec![0; BUFFER_BYTES], filled: 0, parsed: 0 }
    }
}

impl Frames {
    /// Room for the next read.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// That much was read into the room.
    pub fn advance(&mut self, count: usize) {
        self.filled += count;
    }

    /// The bytes of a frame.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> &[u8] {
        &self.bytes[start..end]
    }

    /// Whether the buffer should be given away before the next read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() - self.filled < MIN_READ
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The server's error, or a message that has no place in the stream.
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        let rest = &self.bytes[self.parsed..self.filled];
        let Some((header, _)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if !(4..=1 << 30).contains(&len) {
            return Err(Error::Protocol(char::from(header[0])));
        }
        let whole = len + 1;
        let Some(message) = rest.get(..whole) else {
            self.reserve(whole);
            return Ok(None);
        };
        let frame = match message[0] {
            b'd' => copy_data(&message[HEADER..], self.parsed + HEADER)?,
            b'E' => return Err(refusal(&message[HEADER..])),
            // A server that shuts down completes the command without ending the copy.
            b'c' | b'C' => return Err(Error::Ended),
            b'N' | b'S' => Frame::Skipped,
            other => return Err(Error::Protocol(char::from(other))),
        };
        self.parsed += whole;
        Ok(Some(frame))
    }

    fn reserve(&mut self, whole: usize) {
        let needed = self.parsed + whole;
        if needed > self.bytes.len() {
            self.bytes.resize(needed + MIN_READ, 0);
        }
    }

    /// Gives the parsed bytes away and goes on in `fresh`, to which a frame that is not yet whole
    /// is carried over.
    pub fn take(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        if self.parsed <= SMALL_BATCH {
            let taken = self.bytes[..self.parsed].to_vec();
            self.forget_parsed();
            return taken;
        }
        let rest = &self.bytes[self.parsed..self.filled];
        let room = (rest.len() + MIN_READ).max(BUFFER_BYTES);
        if fresh.len() < room {
            fresh.resize(room, 0);
        }
        fresh[..rest.len()].copy_from_slice(rest);
        let filled = rest.len();
        let mut taken = std::mem::replace(&mut self.bytes, fresh);
        taken.truncate(self.parsed);
        (self.filled, self.parsed) = (filled, 0);
        taken
    }

    /// Forgets parsed bytes that no batch points into (keepalives of an idle stream).
    pub fn forget_parsed(&mut self) {
        self.bytes.copy_within(self.parsed..self.filled, 0);
        self.filled -= self.parsed;
        self.parsed = 0;
    }
}

fn copy_data(payload: &[u8], offset: usize) -> Result<Frame, Error> {
    let lsn = |at: usize| {
        let bytes = payload.get(at..at + 8)?;
        Some(Lsn(u64::from_be_bytes(bytes.try_into().ok()?)))
    };
    let kind = payload.first().copied().unwrap_or_default();
    let frame = match kind {
        b'w' if payload.len() > XLOG_HEADER => Some(Frame::Wal {
            start: offset + XLOG_HEADER,
            end: offset + payload.len(),
            lsn: lsn(1).unwrap_or_default(),
            server_end: lsn(9).unwrap_or_default(),
        }),
        b'k' => lsn(1)
            .zip(payload.get(17))
            .map(|(server_end, reply)| Frame::Keepalive { server_end, reply: *reply == 1 }),
        _ => None,
    };
    frame.ok_or(Error::Protocol(char::from(kind)))
}

/// The fields of an error message: a type byte and a C string each.
fn refusal(body: &[u8]) -> Error {
    let field = |kind| {
        let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&kind));
        found.map_or_else(String::new, |field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    Error::Server { code: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn copy(payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len() + 4).unwrap().to_be_bytes();
        [&b"d"[..], &len, payload].concat()
    }

    fn wal(message: &[u8]) -> Vec<u8> {
        let header = [&b"w"[..], &1u64.to_be_bytes(), &9u64.to_be_bytes(), &[0; 8]].concat();
        copy(&[&header, message].concat())
    }

    fn feed(frames: &mut Frames, mut bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let count = step.min(bytes.len()).min(frames.spare().len());
            let (now, later) = bytes.split_at(count);
            frames.spare()[..count].copy_from_slice(now);
            frames.advance(count);
            bytes = later;
            while let Some(frame) = frames.next().unwrap() {
                if let Frame::Wal { start, end, .. } = frame {
                    messages.push(frames.slice(start, end).to_vec());
                }
            }
            if frames.is_full() {
                let _taken = frames.take(Vec::new());
            }
        }
        messages
    }

    #[test]
    fn a_keepalive_tells_where_the_server_is() {
        let mut frames = Frames::default();
        let payload = [&b"k"[..], &0x77u64.to_be_bytes(), &[0; 8], &[1]].concat();
        let bytes = copy(&payload);
        frames.spare()[..bytes.len()].copy_from_slice(&bytes);
        frames.advance(bytes.len());
        let keepalive = Frame::Keepalive { server_end: Lsn(0x77), reply: true };
        assert_eq!(frames.next().unwrap(), Some(keepalive));
        assert_eq!(frames.next().unwrap(), None);
    }

    #[test]
    fn a_server_that_completes_its_command_has_ended_the_stream() {
        let mut frames = Frames::default();
        let bytes = b"C\0\0\0\x0bCOPY 0\0";
        frames.spare()[..bytes.len()].copy_from_slice(bytes);
        frames.advance(bytes.len());
        assert!(matches!(frames.next(), Err(Error::Ended)));
    }

    #[test]
    fn a_server_error_is_told_in_its_own_words() {
        let body = b"SFATAL\0C57P01\0Mterminating connection\0\0";
        let error = refusal(body);
        assert!(matches!(error, Error::Server { ref code, .. } if code == "57P01"), "{error}");
    }

    #[test]
    fn a_frame_larger_than_the_buffer_makes_it_grow() {
        let large = vec![7; BUFFER_BYTES * 2];
        let bytes = wal(&large);
        let messages = feed(&mut Frames::default(), &bytes, 100_000);
        assert_eq!(messages, [large]);
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_the_reads_cut_them(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..40),
            step in 1usize..70,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| wal(message)).collect();
            prop_assert_eq!(feed(&mut Frames::default(), &bytes, step), messages);
        }
    }
}
