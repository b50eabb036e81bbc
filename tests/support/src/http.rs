//! The least HTTP client that a test needs: one request, one whole answer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The body as text; broken UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header field of that lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// GETs `http://host:port/path`.
pub fn http_get(url: &str) -> Result<HttpResponse> {
    http_request("GET", url, &[], b"")
}

/// Sends one request with further header fields and a body to `http://host:port/path`.
pub fn http_request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<HttpResponse> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is no http URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.parse().with_context(|| format!("{host} is no address and port"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("connect to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // Version 1.0, so that the body ends with the connection and comes in no chunks.
    let mut head = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read the answer of {url}"))?;
    parse(&answer).with_context(|| format!("understand the answer of {url}"))
}

/// A server on loopback that gives every request the same answer, for as long as the process lives; its
/// address.
pub fn answer_everything(answer: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || exchange(stream, answer));
        }
    });
    Ok(address)
}

/// Whoever asked may go away at any time.
fn exchange(mut stream: TcpStream, answer: &str) {
    let mut piece = [0; 64 << 10];
    if stream.read(&mut piece).is_ok() && stream.write_all(answer.as_bytes()).is_ok() {
        drop(stream.shutdown(Shutdown::Write));
        // A connection that is closed with something unread is reset, and the answer with it.
        while stream.read(&mut piece).is_ok_and(|read| read > 0) {}
    }
}

fn parse(answer: &[u8]) -> Result<HttpResponse> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no end of head")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(HttpResponse { status: status.parse()?, headers, body: answer[end + 4..].to_vec() })
}
