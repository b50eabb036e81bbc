//! ClickHouse's HTTP interface, asked with typed parameters. Values never become SQL text.

use std::error::Error;
use std::time::Duration;

use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use url::form_urlencoded::Serializer;

use super::answer::Refusal;
use crate::config::Secret;
use crate::disposition::Disposition;
use crate::sink;

/// The largest part of an error answer that is read, in bytes.
const ERROR_BYTES: usize = 64 * 1024;

/// The longest text of ClickHouse's that is passed on, in bytes: it may repeat a whole statement.
const LONGEST_TEXT: usize = 1000;

/// Where ClickHouse is and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://127.0.0.1:8123`
    pub url: String,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database with the views.
    pub database: String,
}

impl Endpoint {
    /// The server that the settings name, and the one database that is there before the first run; none if
    /// they name no server.
    #[must_use]
    pub fn named_by(options: &sink::Options) -> Option<Endpoint> {
        Some(Endpoint {
            url: options.url.clone()?,
            user: options.user.clone(),
            password: Secret::new(options.password.clone()),
            database: "system".to_owned(),
        })
    }
}

/// One statement. `parameters` are the values of its `{name:Type}`, plain; `settings` are
/// ClickHouse's.
#[derive(Debug, Clone, Default)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) settings: Vec<(&'static str, String)>,
    pub(super) format: &'static str,
    pub(super) first_byte: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseError {
    /// The engine begins, or a server was not reached yet.
    #[error("clickhouse is not started yet")]
    NotStarted,
    /// Nobody is there.
    #[error("clickhouse does not answer")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing comes.
    #[error("clickhouse did not answer within {0} s")]
    Silent(u64),
    /// It answered with an error.
    #[error("clickhouse refused the statement (code {code}): {message}")]
    Refused {
        /// ClickHouse's, or 0 if it gave none.
        code: u32,
        /// In its words.
        message: String,
    },
    /// Another server answers.
    #[error(
        "what answers at `[clickhouse] url` is not ClickHouse, or a proxy that does not reach it; name its \
         HTTP interface there, as in http://host:8123"
    )]
    Foreign,
}

/// ClickHouse's code for `name`d errors that a handler tells apart.
pub(super) mod code {
    pub(crate) const TIMEOUT_EXCEEDED: u32 = 159;
    pub(crate) const READONLY: u32 = 164;
    pub(crate) const MEMORY_LIMIT_EXCEEDED: u32 = 241;
    pub(crate) const TOO_MANY_ROWS_OR_BYTES: u32 = 396;
    pub(crate) const AUTHENTICATION_FAILED: u32 = 516;
}

type Pool = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

fn pool() -> Pool {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    connector.set_nodelay(true);
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// A pool of connections to wherever ClickHouse is at the moment.
#[derive(Debug, Clone)]
pub(super) struct ClickHouse {
    pool: Pool,
    endpoint: watch::Receiver<Option<Endpoint>>,
}

impl ClickHouse {
    pub(super) fn new(endpoint: watch::Receiver<Option<Endpoint>>) -> ClickHouse {
        ClickHouse { pool: pool(), endpoint }
    }

    /// The database that views are in.
    pub(super) fn database(&self) -> Result<String, ClickHouseError> {
        let endpoint = self.endpoint.borrow();
        Ok(endpoint.as_ref().ok_or(ClickHouseError::NotStarted)?.database.clone())
    }

    /// Runs a statement; the body streams while ClickHouse works.
    pub(super) async fn ask(
        &self,
        statement: &Statement,
    ) -> Result<Response<Incoming>, ClickHouseError> {
        let endpoint = self.endpoint.borrow().clone().ok_or(ClickHouseError::NotStarted)?;
        let request = request(&endpoint, statement)
            .map_err(|error| ClickHouseError::Unreachable(error.into()))?;
        let response = tokio::time::timeout(statement.first_byte, self.pool.request(request))
            .await
            .map_err(|_| ClickHouseError::Silent(statement.first_byte.as_secs()))?
            .map_err(|error| ClickHouseError::Unreachable(error.into()))?;
        let told = response.headers().get("x-clickhouse-exception-code");
        if response.status() == StatusCode::OK && told.is_none() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }
}

fn request(
    endpoint: &Endpoint,
    statement: &Statement,
) -> Result<Request<Full<Bytes>>, axum::http::Error> {
    let mut query = Serializer::new(String::new());
    query.append_pair("database", &endpoint.database);
    query.append_pair("default_format", statement.format);
    for (name, value) in &statement.parameters {
        query.append_pair(&format!("param_{name}"), &escaped(value));
    }
    // In this order: once `readonly` is set, nothing else can be.
    for (name, value) in &statement.settings {
        query.append_pair(name, value);
    }
    Request::builder()
        .method(Method::POST)
        .uri(format!("{}/?{}", endpoint.url.trim_end_matches('/'), query.finish()))
        .header("x-clickhouse-user", endpoint.user.as_str())
        .header("x-clickhouse-key", endpoint.password.expose())
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Full::from(statement.text.clone()))
}

/// The form in which ClickHouse reads a parameter: its `Escaped` text.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\0' => text.push_str("\\0"),
            _ => text.push(c),
        }
    }
    text
}

async fn refusal(response: Response<Incoming>) -> ClickHouseError {
    let header = response.headers().get("x-clickhouse-exception-code");
    let code = header.and_then(|code| code.to_str().ok()?.parse().ok());
    let status = response.status();
    let body = match Limited::new(response.into_body(), ERROR_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::from(format!("an error without a text (http status {status})")),
    };
    let text = String::from_utf8_lossy(&body);
    let code = code.or_else(|| code_of(&text)).unwrap_or(0);
    ClickHouseError::Refused { code, message: plain(&text) }
}

fn code_of(text: &str) -> Option<u32> {
    let rest = text.trim_start().strip_prefix("Code: ")?;
    rest.split_once('.')?.0.parse().ok()
}

/// ClickHouse's sentence without its frame: `Code: 60. DB::Exception: …. (UNKNOWN_TABLE) (version …)`,
/// on one line.
fn plain(text: &str) -> String {
    let mut text = text.trim();
    while let Some((_, rest)) = text.split_once("DB::Exception: ") {
        text = rest;
    }
    let text = text.rsplit_once(" (version ").map_or(text, |(text, _)| text);
    let words: Vec<&str> = text.trim_end_matches(['.', ' ']).split_ascii_whitespace().collect();
    let line = words.join(" ");
    match line.floor_char_boundary(LONGEST_TEXT) {
        end if end < line.len() => format!("{}…", &line[..end]),
        _ => line,
    }
}

impl ClickHouseError {
    /// All of them may be over soon: also a proxy whose server is away.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::Retry
    }

    /// Why there is no answer to a statement of ours: what is wrong with it is not the client's
    /// mistake.
    pub(super) fn of_ours(self) -> Refusal {
        let mut refusal = Refusal::from(self);
        if [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN].contains(&refusal.status) {
            refusal.status = StatusCode::BAD_GATEWAY;
        }
        refusal
    }

    fn status(&self) -> StatusCode {
        match self {
            ClickHouseError::Refused { code, .. } => match *code {
                code::AUTHENTICATION_FAILED => StatusCode::SERVICE_UNAVAILABLE,
                code::TIMEOUT_EXCEEDED => StatusCode::GATEWAY_TIMEOUT,
                code::READONLY => StatusCode::FORBIDDEN,
                code::MEMORY_LIMIT_EXCEEDED | code::TOO_MANY_ROWS_OR_BYTES => {
                    StatusCode::UNPROCESSABLE_ENTITY
                }
                _ => StatusCode::BAD_REQUEST,
            },
            ClickHouseError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            ClickHouseError::NotStarted
            | ClickHouseError::Unreachable(_)
            | ClickHouseError::Foreign => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<ClickHouseError> for Refusal {
    fn from(error: ClickHouseError) -> Refusal {
        let status = error.status();
        match error {
            // Nobody but the operator should read whom ClickHouse refused.
            ClickHouseError::Refused { code: code::AUTHENTICATION_FAILED, .. } => {
                Refusal::new(status, "clickhouse refused the configured user and password")
            }
            error => Refusal::new(status, error.to_string()),
        }
    }
}

/// The version of the server at `endpoint`, asked for once.
///
/// # Errors
/// It does not answer, refuses the user, or is no ClickHouse; the sentence holds no secret.
pub async fn clickhouse_version(endpoint: Endpoint) -> Result<String, ClickHouseError> {
    let (_known, seen) = watch::channel(Some(endpoint));
    let statement = Statement {
        text: "SELECT version()".to_owned(),
        format: "TabSeparated",
        first_byte: Duration::from_secs(10),
        ..Statement::default()
    };
    let answer = ClickHouse::new(seen).ask(&statement).await.map_err(|error| match error {
        // ClickHouse has a code for every error.
        ClickHouseError::Refused { code: 0, .. } => ClickHouseError::Foreign,
        error => error,
    })?;
    let body = Limited::new(answer.into_body(), ERROR_BYTES).collect().await;
    let text = body.map_err(ClickHouseError::Unreachable)?.to_bytes();
    let version = String::from_utf8_lossy(&text).trim().to_owned();
    if is_version(&version) { Ok(version) } else { Err(ClickHouseError::Foreign) }
}

/// Whether a text is a version of ClickHouse, which begins with a year and a month: `26.7.2.1`.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.split('.');
    let begins = parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number);
    begins && !text.contains(char::is_whitespace)
}

/// A request of another instance's interface: status and body. How long the body is was for the one to choose
/// who asked, and a dead letter's row may be as large as rows are.
pub(super) async fn http_ask(
    method: Method,
    url: &str,
    token: Option<&Secret>,
    limit: Duration,
) -> Result<(u16, Bytes), Box<dyn Error + Send + Sync>> {
    let mut request = Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let request = request.body(Full::new(Bytes::new()))?;
    let asking = async {
        let response = pool().request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::time::timeout(limit, asking).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_from_what_others_answer() {
        for version in ["26.7.2.1", "23.8.11.29.altinitystable", "20.3"] {
            assert!(is_version(version), "{version}");
        }
        for other in ["", "Ok.", "1", "<html>1.1</html>", "127.0.0.1 is\nhome", "v26.7", ".7"] {
            assert!(!is_version(other), "{other}");
        }
    }

    #[test]
    fn an_exception_is_read_without_its_frame() {
        let text = "Code: 115. DB::Exception: Code: 115. DB::Exception: Unknown setting 'x'. \
                    (UNKNOWN_SETTING) (version 26.7.2.1 (official build))\n";
        assert_eq!(code_of(text), Some(115));
        assert_eq!(plain(text), "Unknown setting 'x'. (UNKNOWN_SETTING)");
    }

    #[test]
    fn an_exception_that_repeats_a_long_statement_becomes_a_line_that_can_be_read() {
        let text = format!("Code: 62. DB::Exception: Syntax error\nin {}", "é\n".repeat(5_000));
        let line = plain(&text);
        assert!(line.starts_with("Syntax error in é é") && line.ends_with('…'), "{line}");
        assert!(line.len() < 1_010 && !line.contains('\n'), "{line}");
    }

    #[test]
    fn parameters_are_escaped_for_clickhouse() {
        assert_eq!(escaped("a\\b\tc\nd\0'é"), "a\\\\b\\tc\\nd\\0'é");
    }
}
