//! Who asks, and what they may.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Refusal;
use super::parameters;
use super::routes::App;
use super::token::{Scope, Token, find};

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// No token is configured: everybody on this machine, but no web page.
    Local,
    /// Somebody without a token.
    Nobody,
    /// The owner of a token.
    Known(Token),
}

impl Caller {
    /// Passes if the caller may do what `scope` names.
    pub(super) fn require(&self, scope: &Scope) -> Result<(), Refusal> {
        match self {
            Caller::Local => Ok(()),
            Caller::Nobody => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "this needs a token: send `Authorization: Bearer <token>` or `?token=<token>`",
            )),
            Caller::Known(token) if token.may(scope) => Ok(()),
            Caller::Known(token) => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                format!("the token `{}` lacks the scope `{scope}`", token.name),
            )),
        }
    }
}

/// Finds out who asks, and refuses unknown tokens, rebound names and foreign web pages.
pub(super) async fn identify(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match caller(&app, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Paths that anybody may ask, whatever token comes along: a probe has none, or an old one.
const OPEN: [&str; 2] = ["/livez", "/readyz"];

fn caller(app: &App, request: &Request) -> Result<Caller, Refusal> {
    let tokens = app.tokens.current();
    if tokens.is_empty() {
        guard_host(request)?;
        guard_origin(request)?;
        return Ok(Caller::Local);
    }
    if OPEN.contains(&request.uri().path()) {
        return Ok(Caller::Nobody);
    }
    let Some(presented) = presented(request.headers(), request.uri())? else {
        return Ok(Caller::Nobody);
    };
    match find(&tokens, &presented) {
        Some(token) => Ok(Caller::Known(token.clone())),
        None => Err(Refusal::new(StatusCode::UNAUTHORIZED, "this token is not known here")),
    }
}

/// The token that comes along: in the header, or else in the query.
pub(super) fn presented(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, Refusal> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        return token.map(Some).ok_or_else(|| {
            Refusal::new(
                StatusCode::UNAUTHORIZED,
                "the header `Authorization` is not of the form `Bearer <token>`",
            )
        });
    }
    parameters::take(&mut parameters::parse(uri.query())?, "token")
}

/// Without tokens, a web page could point its own name at 127.0.0.1 and read everything through its
/// visitor's browser. Such a request still carries the page's name as `Host`. No browser leaves that out, as
/// simple probes do.
fn guard_host(request: &Request) -> Result<(), Refusal> {
    let host = host(request.headers(), request.uri().host());
    if host.is_none_or(is_local_name) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "without a token this answers only to `localhost` or an IP address as the host; add a \
         [[http.token]] to use a name",
    ))
}

/// A page of any site can send requests to this machine through its visitor's browser, though not
/// read the answers. The browser says so, in headers that the page cannot change.
fn guard_origin(request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| headers.get(header::HOST).map(HeaderValue::as_bytes));
    let own_origin = |origin: &HeaderValue| {
        let of = origin.as_bytes().strip_prefix(b"http://");
        of.zip(host).is_some_and(|(of, host)| of.eq_ignore_ascii_case(host))
    };
    let own_site = |site: &HeaderValue| site == "same-origin" || site == "none";
    if headers.get_all(header::ORIGIN).iter().all(own_origin)
        && headers.get_all("sec-fetch-site").iter().all(own_site)
    {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "without a token this answers no web page of another site, and the browser says that one \
         asks; put a proxy in front that adds CORS headers to let other sites' pages ask",
    ))
}

fn host<'a>(headers: &'a HeaderMap, uri: Option<&'a str>) -> Option<&'a str> {
    let named = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    uri.or(named)
}

fn is_local_name(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None if host.matches(':').count() > 1 => host,
        None => host.split(':').next().unwrap_or(""),
    };
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_names_pass_without_a_token() {
        for host in ["localhost", "LOCALHOST:7447", "127.0.0.1:7447", "[::1]:7447", "::1"] {
            assert!(is_local_name(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:7447", "localhost.evil.example", "?"] {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
