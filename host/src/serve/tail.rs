//! ClickHouse's answer on its way to the client. Its end is held back: only there does it show
//! whether the answer is whole, and a broken one must not look like a whole one.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Response, header};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use memchr::memmem;

/// Bytes held back: ClickHouse's longest error trailer (16 KiB) and some.
const HELD: usize = 20 * 1024;

/// How long ClickHouse may say nothing in the middle of an answer, beyond the time that the statement has.
const SILENCE: Duration = Duration::from_secs(30);

/// A key of the JSON form that is not part of the pipes' shape.
const EXTRA: &[u8] = b"\"rows_before_limit_at_least\":";

struct Tail {
    incoming: Incoming,
    held: BytesMut,
    marker: Option<Vec<u8>>,
    json: bool,
    silence: Duration,
    ended: bool,
}

/// The answer for the client, of a statement that has so much time. `content_type` is for answers that name
/// none.
pub(super) fn through(
    response: Response<Incoming>,
    content_type: &str,
    time: Duration,
) -> Response<Body> {
    let (parts, incoming) = response.into_parts();
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or(content_type)
        .to_owned();
    let tail = Tail {
        incoming,
        held: BytesMut::new(),
        marker: marker(&parts.headers),
        json: content_type.starts_with("application/json"),
        silence: time + SILENCE,
        ended: false,
    };
    Response::builder()
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from_stream(stream_of(tail)))
        .expect("the content type came out of a header")
}

/// How ClickHouse ends an answer that failed half-way: it announces a random tag at the start.
fn marker(headers: &HeaderMap) -> Option<Vec<u8>> {
    let tag = headers.get("x-clickhouse-exception-tag")?;
    Some([tag.as_bytes(), b"\r\n__exception__\r\n"].concat())
}

fn stream_of(tail: Tail) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(tail, async |mut tail| {
        let chunk = tail.next().await?;
        Ok(chunk.map(|chunk| (chunk, tail)))
    })
}

impl Tail {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.ended {
            let frame = tokio::time::timeout(self.silence, self.incoming.frame())
                .await
                .map_err(|_| io::Error::other("clickhouse went silent"))?;
            let Some(frame) = frame else {
                return self.finish().map(Some);
            };
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                self.held.extend_from_slice(&data);
            }
            if self.held.len() > 2 * HELD {
                return Ok(Some(self.held.split_to(self.held.len() - HELD).freeze()));
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        self.ended = true;
        let failed = match &self.marker {
            Some(marker) => self.held.trim_ascii_end().ends_with(marker.trim_ascii_end()),
            None => false,
        };
        if failed || (self.json && !self.held.trim_ascii_end().ends_with(b"}")) {
            return Err(io::Error::other("clickhouse failed in the middle of the answer"));
        }
        let held = std::mem::take(&mut self.held).freeze();
        Ok(if self.json { without_extra(&held) } else { held })
    }
}

/// The end of a JSON answer without the count that a pipe's shape does not have.
fn without_extra(held: &Bytes) -> Bytes {
    let Some(at) = memmem::rfind(held, EXTRA) else {
        return held.clone();
    };
    let after = &held[at + EXTRA.len()..];
    let digits = after.iter().take_while(|byte| **byte == b' ' || byte.is_ascii_digit()).count();
    let rest = after[digits..].strip_prefix(b",").map(<[u8]>::trim_ascii_start);
    match rest {
        Some(rest) if rest.starts_with(b"\"statistics\"") => {
            Bytes::from([&held[..at], rest].concat())
        }
        _ => held.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_closing_count_is_taken_out() {
        let text = "{\"data\":[{\"rows_before_limit_at_least\": 5,\n \"statistics\": 1}],\n\
                    \t\"rows\": 1,\n\n\t\"rows_before_limit_at_least\": 17,\n\n\
                    \t\"statistics\":\n\t{\"elapsed\": 1}\n}\n";
        let wanted = "{\"data\":[{\"rows_before_limit_at_least\": 5,\n \"statistics\": 1}],\n\
                      \t\"rows\": 1,\n\n\t\"statistics\":\n\t{\"elapsed\": 1}\n}\n";
        assert_eq!(without_extra(&Bytes::from(text)), wanted);
        let whole = Bytes::from("{\"data\":[],\"rows\":0,\"statistics\":{}}");
        assert_eq!(without_extra(&whole), whole);
    }
}
