//! The commands that print something and end: `check`, `status`, `token`.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::check;
use crate::config::{Config, Exit, Role, StatusArgs, TokenCommand};
use crate::serve::{StatusError, fetch_status, hash_token, new_token};

/// `tailwater check`: one line for each thing that `role` needs. [`Exit::NotReady`] if one of them
/// is not there. The configuration must have passed [`Config::require`].
///
/// # Errors
/// `out` cannot be written to.
pub async fn check(config: &Config, role: Role, out: &mut impl Write) -> io::Result<Exit> {
    let findings = check::run(config, role).await;
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let well = findings.iter().all(|finding| finding.result.is_ok());
    Ok(if well { Exit::Done } else { Exit::NotReady })
}

/// Why `status` printed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StatusFailure {
    /// There is no status to be had.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// It cannot be written.
    #[error("the status cannot be printed")]
    Print(#[from] io::Error),
}

impl StatusFailure {
    /// What to tell the shell.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            StatusFailure::Status(StatusError::NoAnswer { .. }) => Exit::NotReady,
            StatusFailure::Status(StatusError::Refused { .. }) | StatusFailure::Print(_) => {
                Exit::Failed
            }
        }
    }
}

/// `tailwater status`: what the running instance says. [`Exit::NotReady`] while a leg of it stands
/// still.
///
/// # Errors
/// It does not answer, or refuses.
pub async fn status(
    config: &Config,
    args: &StatusArgs,
    out: &mut impl Write,
) -> Result<Exit, StatusFailure> {
    let url = args.url.clone().unwrap_or_else(|| own_url(config.http.listen));
    let status = fetch_status(&url, args.token.as_ref()).await?;
    write!(out, "{status}")?;
    let ready = !status.readiness.is_empty() && status.readiness.values().all(|leg| leg.moving);
    Ok(if ready { Exit::Done } else { Exit::NotReady })
}

/// An address that listens everywhere is asked on loopback.
fn own_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

/// `tailwater token new` prints a token and its `[[http.token]]` section, `tailwater token hash` the
/// hash of the token on the first line of `input`.
///
/// # Errors
/// `input` or `out` breaks, or there is no token.
pub fn token(
    command: TokenCommand,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> io::Result<Exit> {
    match command {
        TokenCommand::New => {
            let token = new_token();
            writeln!(out, "# the token; it is stored nowhere, so keep it: {token}")?;
            writeln!(out, "[[http.token]]\nname = \"\"\nhash = \"{}\"", hash_token(&token))?;
            writeln!(out, "scopes = [\"pipe:*\"]")?;
        }
        TokenCommand::Hash => {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let token = line.trim_end_matches(['\r', '\n']);
            if token.is_empty() {
                let what =
                    "no token on standard input; try: printf %s TOKEN | tailwater token hash";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            writeln!(out, "{}", hash_token(token))?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: TokenCommand, mut input: &[u8]) -> io::Result<String> {
        let mut out = Vec::new();
        token(command, &mut input, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_new_token_comes_with_the_section_that_admits_it() {
        let printed = run(TokenCommand::New, b"").unwrap();
        let token = printed.lines().next().unwrap().rsplit(' ').next().unwrap();
        assert!(printed.contains(&format!("hash = \"{}\"", hash_token(token))), "{printed}");
        let section = printed.replace("name = \"\"", "name = \"x\"");
        let read = crate::config::parse::<Config>(&section, "t.toml".as_ref(), &|_| None).unwrap();
        assert_eq!(read.http.token.len(), 1);
    }

    #[test]
    fn a_hash_is_of_the_first_line_without_its_end() {
        for input in [&b"abc"[..], b"abc\n", b"abc\r\nmore\n"] {
            assert_eq!(run(TokenCommand::Hash, input).unwrap().trim_end(), hash_token("abc"));
        }
        assert!(run(TokenCommand::Hash, b"\n").is_err());
    }

    #[test]
    fn a_listener_everywhere_is_asked_on_loopback() {
        for (listen, url) in [
            ("0.0.0.0:7447", "http://127.0.0.1:7447"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.1:2", "http://10.0.0.1:2"),
        ] {
            assert_eq!(own_url(listen.parse().unwrap()), url);
        }
    }
}
