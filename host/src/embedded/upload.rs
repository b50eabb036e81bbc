//! A request's body, read by the thread that runs the statement, as fast as the engine takes it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::block::Unpacker;
use super::refusal::Refusal;
use super::request::Request;

/// The bytes that the client meant, unpacked.
pub(super) struct Upload {
    body: Incoming,
    runtime: Handle,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    blocks: Option<Unpacker>,
    /// What was read already and is to be read again.
    put_back: Option<Bytes>,
    ended: bool,
}

impl Upload {
    pub(super) fn new(body: Incoming, request: &Request, runtime: Handle) -> Upload {
        Upload {
            body,
            runtime,
            gzip: request.gzip.then(|| MultiGzDecoder::new(Vec::new())),
            blocks: request.decompress.then(Unpacker::default),
            put_back: None,
            ended: false,
        }
    }

    /// The next bytes, not empty; `None` at the end. A body that stops before its end is an error.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if let Some(bytes) = self.put_back.take() {
            return Ok(Some(bytes));
        }
        loop {
            if let Some(bytes) = self.unpacked()? {
                return Ok(Some(bytes));
            }
            if self.ended {
                return Ok(None);
            }
            match self.received()? {
                Some(bytes) if self.blocks.is_none() && !bytes.is_empty() => {
                    return Ok(Some(bytes));
                }
                Some(bytes) => self.blocks.iter_mut().for_each(|blocks| blocks.push(&bytes)),
                None => self.end()?,
            }
        }
    }

    /// All that is left, up to a limit.
    pub(super) fn rest(&mut self, mut start: Vec<u8>, limit: usize) -> Result<Vec<u8>, Refusal> {
        while let Some(bytes) = self.next()? {
            if start.len() + bytes.len() > limit {
                return Err(Refusal::too_long(limit));
            }
            start.extend_from_slice(&bytes);
        }
        Ok(start)
    }

    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.put_back = Some(bytes).filter(|bytes| !bytes.is_empty());
    }

    fn unpacked(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some(blocks) = &mut self.blocks else { return Ok(None) };
        while let Some(bytes) = blocks.next().map_err(|error| Refusal::compression(&error))? {
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.ended = true;
        match &self.blocks {
            Some(blocks) => blocks.finish().map_err(|error| Refusal::compression(&error)),
            None => Ok(()),
        }
    }

    fn received(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let frame = match self.runtime.block_on(self.body.frame()) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Err(Refusal::body_cut_short()),
                None => return self.gzip_end(),
            };
            // Trailers mean nothing here.
            let Ok(bytes) = frame.into_data() else { continue };
            return match &mut self.gzip {
                None => Ok(Some(bytes)),
                Some(gzip) => inflated(gzip, &bytes).map(Some),
            };
        }
    }

    fn gzip_end(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some(mut gzip) = self.gzip.take() else { return Ok(None) };
        let ended = gzip.try_finish().map_err(|error| Refusal::compression(&error));
        ended.map(|()| Some(std::mem::take(gzip.get_mut()).into()))
    }
}

fn inflated(gzip: &mut MultiGzDecoder<Vec<u8>>, bytes: &[u8]) -> Result<Bytes, Refusal> {
    let written = gzip.write_all(bytes).and_then(|()| gzip.flush());
    written.map_err(|error| Refusal::compression(&error))?;
    Ok(std::mem::take(gzip.get_mut()).into())
}
