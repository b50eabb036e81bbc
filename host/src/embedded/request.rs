//! What a request asks for: the URL's parameters, the headers, a form.

use base64::Engine as _;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use subtle::ConstantTimeEq as _;

use super::refusal::Refusal;

/// Parameters of the HTTP interface that are no settings of the engine.
const NO_SETTINGS: [&str; 15] = [
    "query",
    "database",
    "default_format",
    "query_id",
    "compress",
    "decompress",
    "user",
    "password",
    "quota_key",
    "session_timeout",
    "session_check",
    "stacktrace",
    "buffer_size",
    "client_protocol_version",
    "role",
];

/// A request's head, understood.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The statement, or its beginning; the body goes on with it.
    pub(super) query: String,
    pub(super) database: Option<String>,
    pub(super) default_format: Option<String>,
    pub(super) query_id: Option<String>,
    /// Answer in compressed blocks.
    pub(super) compress: bool,
    /// The body is compressed blocks.
    pub(super) decompress: bool,
    /// The body is gzip.
    pub(super) gzip: bool,
    /// Hold the whole answer before the first byte, so that its status is final.
    pub(super) wait_end: bool,
    /// GET must not change anything.
    pub(super) read_only: bool,
    pub(super) settings: Vec<(String, String)>,
    pub(super) parameters: Vec<(String, String)>,
    /// The boundary of a form in the body.
    pub(super) form: Option<String>,
    user: Option<String>,
    password: Option<String>,
}

impl Request {
    pub(super) fn read(head: &Parts) -> Result<Request, Refusal> {
        let mut request = Request {
            read_only: head.method == Method::GET || head.method == Method::HEAD,
            form: form_boundary(&head.headers),
            ..Request::default()
        };
        request.read_coding(&head.headers)?;
        let query = head.uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            request.set(name.into_owned(), value.into_owned())?;
        }
        request.read_headers(&head.headers);
        Ok(request)
    }

    /// Takes one parameter of the URL or field of a form.
    pub(super) fn set(&mut self, name: String, value: String) -> Result<(), Refusal> {
        if let Some(parameter) = name.strip_prefix("param_") {
            self.parameters.push((parameter.to_owned(), value));
            return Ok(());
        }
        match name.as_str() {
            "query" => self.query.push_str(&value),
            "database" => self.database = Some(value).filter(|name| !name.is_empty()),
            "default_format" => self.default_format = Some(value),
            "query_id" => self.query_id = Some(value).filter(|id| !id.is_empty()),
            "compress" => self.compress = is_on(&value),
            "decompress" => self.decompress = is_on(&value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "session_id" => return Err(Refusal::sessions()),
            "wait_end_of_query" => self.wait_end = is_on(&value),
            _ if NO_SETTINGS.contains(&name.as_str()) => {}
            _ if is_setting_name(&name) => self.settings.push((name, value)),
            _ => return Err(Refusal::unknown_setting(&name)),
        }
        Ok(())
    }

    fn read_coding(&mut self, headers: &HeaderMap) -> Result<(), Refusal> {
        match text(headers, CONTENT_ENCODING.as_str()).unwrap_or_default() {
            "" | "identity" => {}
            "gzip" => self.gzip = true,
            other => return Err(Refusal::content_encoding(other)),
        }
        Ok(())
    }

    fn read_headers(&mut self, headers: &HeaderMap) {
        let owned = |name| text(headers, name).map(str::to_owned);
        if let Some((user, password)) = basic(headers) {
            (self.user, self.password) = (Some(user), Some(password));
        }
        self.user = owned("x-clickhouse-user").or(self.user.take());
        self.password = owned("x-clickhouse-key").or(self.password.take());
        self.database = self.database.take().or_else(|| owned("x-clickhouse-database"));
        self.default_format = self.default_format.take().or_else(|| owned("x-clickhouse-format"));
    }

    /// Whether the engine was told to let the statement change nothing, as it is for those of strangers.
    pub(super) fn is_bound_to_read(&self) -> bool {
        self.settings.iter().any(|(name, value)| name == "readonly" && value != "0")
    }

    /// Whether the request knows the password. Takes as long for a wrong one as for a right one.
    pub(super) fn is_allowed(&self, user: &str, password: &str) -> bool {
        let given = self.user.as_deref().unwrap_or(user);
        let known = given.as_bytes().ct_eq(user.as_bytes());
        let given = self.password.as_deref().unwrap_or_default();
        (known & given.as_bytes().ct_eq(password.as_bytes())).into()
    }
}

fn is_on(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn is_setting_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = text(headers, AUTHORIZATION.as_str())?.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn form_boundary(headers: &HeaderMap) -> Option<String> {
    let kind = text(headers, CONTENT_TYPE.as_str())?.strip_prefix("multipart/form-data")?;
    let (_, boundary) = kind.split_once("boundary=")?;
    let boundary = boundary.split(';').next()?.trim().trim_matches('"');
    Some(boundary.to_owned()).filter(|boundary| !boundary.is_empty())
}

/// The fields of a form, in order: name and value.
pub(super) fn form_fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut fields = Vec::new();
    let delimiter = format!("--{boundary}");
    let mut rest = body.strip_prefix(delimiter.as_bytes()).ok_or_else(Refusal::form)?;
    let separator = format!("\r\n{delimiter}");
    while let Some(field) = rest.strip_prefix(b"\r\n") {
        let end = memchr::memmem::find(field, separator.as_bytes()).ok_or_else(Refusal::form)?;
        fields.push(form_field(&field[..end]).ok_or_else(Refusal::form)?);
        rest = &field[end + separator.len()..];
    }
    if rest.starts_with(b"--") { Ok(fields) } else { Err(Refusal::form()) }
}

fn form_field(field: &[u8]) -> Option<(String, String)> {
    let end = memchr::memmem::find(field, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&field[..end]).ok()?;
    let (_, name) = head.split_once("; name=\"")?;
    let (name, _) = name.split_once('"')?;
    let value = std::str::from_utf8(&field[end + 4..]).ok()?;
    Some((name.to_owned(), value.to_owned()))
}
