//! SHA-256, by which components are known.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Bytes that are read at once for a digest: they stay in the processor's cache.
const READ_BYTES: usize = 64 << 10;

/// That of a text, hex.
pub(crate) fn of(content: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(content))
}

/// That of a file, hex, and its size in bytes.
pub(crate) fn of_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let digest = hex(&of_reader(&mut file)?);
    Ok((digest, file.stream_position()?))
}

/// That of what is left to read, without all of it in memory.
pub(crate) fn of_reader(mut content: impl Read) -> io::Result<Vec<u8>> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_vec()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
