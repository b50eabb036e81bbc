//! HTTP answers: whole, or piece by piece.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::library::Summary;
use super::refusal::Refusal;

/// An answer's body.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub(super) type Answer = Response<AnswerBody>;

const QUERY_ID: HeaderName = HeaderName::from_static("x-clickhouse-query-id");
const FORMAT: HeaderName = HeaderName::from_static("x-clickhouse-format");
const SUMMARY: HeaderName = HeaderName::from_static("x-clickhouse-summary");
const EXCEPTION_CODE: HeaderName = HeaderName::from_static("x-clickhouse-exception-code");
const EXCEPTION_TAG: HeaderName = HeaderName::from_static("x-clickhouse-exception-tag");

/// What an answer says beside its body.
#[derive(Debug, Clone)]
pub(super) struct Title {
    pub(super) query_id: String,
    pub(super) format: String,
    /// Marks an error that comes after the first rows.
    pub(super) exception_tag: String,
}

/// A text of the server's own.
pub(super) fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(whole(Bytes::from(text.to_owned())));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// An error as the answer.
pub(super) fn refused(refusal: &Refusal, query_id: &str) -> Answer {
    let mut answer = plain(refusal.status(), &format!("{}\n", refusal.text));
    set(&mut answer, EXCEPTION_CODE, &refusal.code.to_string());
    set(&mut answer, QUERY_ID, query_id);
    answer
}

/// An answer that is good so far.
pub(super) fn given(title: &Title, summary: Summary, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let kind = HeaderValue::from_static(content_type(&title.format));
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    set(&mut answer, QUERY_ID, &title.query_id);
    set(&mut answer, FORMAT, &title.format);
    set(&mut answer, EXCEPTION_TAG, &title.exception_tag);
    set(&mut answer, SUMMARY, &summary_text(summary));
    answer
}

/// The trailer of a body that ends with an error, after `\r\n`.
pub(super) fn exception_trailer(refusal: &Refusal, tag: &str) -> Bytes {
    let text = format!("{}\n", refusal.text);
    let length = text.len();
    format!("\r\n__exception__\r\n{tag}\r\n{text}{length} {tag}\r\n__exception__\r\n").into()
}

pub(super) fn whole(bytes: Bytes) -> AnswerBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    // A query id is the client's text: what is no header is not repeated.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a query")]
fn summary_text(summary: Summary) -> String {
    serde_json::json!({
        "read_rows": summary.rows_read.to_string(),
        "read_bytes": summary.bytes_read.to_string(),
        "written_rows": summary.rows_written.to_string(),
        "written_bytes": summary.bytes_written.to_string(),
        "result_rows": summary.result_rows.to_string(),
        "elapsed_ns": ((summary.elapsed_seconds * 1e9) as u64).to_string(),
    })
    .to_string()
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" | "JSONStrings" | "JSONColumns" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONLines" | "NDJSON" | "JSONCompactEachRow" => {
            "application/x-ndjson; charset=UTF-8"
        }
        "CSV" => "text/csv; charset=UTF-8; header=absent",
        names if names.starts_with("CSVWithNames") => "text/csv; charset=UTF-8; header=present",
        "TabSeparated" | "TSV" => "text/tab-separated-values; charset=UTF-8",
        "XML" => "application/xml; charset=UTF-8",
        "RowBinary"
        | "RowBinaryWithNames"
        | "RowBinaryWithNamesAndTypes"
        | "Native"
        | "Parquet"
        | "Arrow"
        | "ArrowStream"
        | "ORC"
        | "Avro" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

/// A body whose pieces come from the thread that runs the query. `guard` lives as long as somebody
/// wants the rest.
pub(super) struct Pieces<G> {
    pub(super) pieces: mpsc::Receiver<io::Result<Bytes>>,
    #[expect(dead_code, reason = "what counts is when it is dropped")]
    pub(super) guard: G,
}

impl<G: Unpin + Send + 'static> Pieces<G> {
    pub(super) fn into_body(self) -> AnswerBody {
        self.boxed_unsync()
    }
}

impl<G: Unpin> Body for Pieces<G> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::content_type;

    #[test]
    fn a_row_of_names_is_told_where_there_is_one() {
        for (format, header) in
            [("CSV", "absent"), ("CSVWithNames", "present"), ("CSVWithNamesAndTypes", "present")]
        {
            let wanted = format!("text/csv; charset=UTF-8; header={header}");
            assert_eq!(content_type(format), wanted, "{format}");
        }
    }
}
