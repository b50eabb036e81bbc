//! The commands that look, print and end: `check`, `status`, `plugin`, `dlq`, `snapshot`,
//! `embedded fetch`, `token`.

mod dlq;
mod plugin;
mod snapshot;

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub use dlq::dlq;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
pub use plugin::plugin;
pub use snapshot::snapshot;

use crate::check;
use crate::config::{Config, Exit, InstanceArgs, Role, TokenCommand};
use crate::embedded;
use crate::serve::{StatusError, fetch_status, hash_token, new_token};
use crate::telemetry::logging::chain;

/// How long an answer may take that waits for rows to be stored.
const LONG: Duration = Duration::from_secs(3600);

/// `check`: one line for each thing that the role needs.
pub async fn check(config: &Config, role: Role) -> Exit {
    if let Err(error) = config.require(role) {
        complain(&chain(&error));
        return Exit::Usage;
    }
    let findings = check::run(config, role).await;
    for finding in &findings {
        print(&finding.to_string());
    }
    match findings.iter().all(|finding| finding.result.is_ok()) {
        true => Exit::Done,
        false => Exit::NotReady,
    }
}

/// `status`: what a running instance does.
pub async fn status(config: &Config, arguments: &InstanceArgs) -> Exit {
    match status_text(config, arguments).await {
        Ok((text, exit)) => {
            print(text.trim_end());
            exit
        }
        Err(error) => unanswered(&error),
    }
}

/// What `status` prints, and [`Exit::NotReady`] while a leg stands still.
///
/// # Errors
/// The instance does not answer, or refuses.
pub async fn status_text(
    config: &Config,
    arguments: &InstanceArgs,
) -> Result<(String, Exit), StatusError> {
    let status = fetch_status(&instance(config, arguments), arguments.token.as_ref()).await?;
    let ready = !status.readiness.is_empty() && status.readiness.values().all(|leg| leg.moving);
    Ok((status.to_string(), if ready { Exit::Done } else { Exit::NotReady }))
}

/// The URL of the running instance that is meant: the one named, else the one that these settings make.
fn instance(config: &Config, named: &InstanceArgs) -> String {
    named.url.clone().unwrap_or_else(|| own_url(config.http.listen))
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

/// A text as a part of a URL, whatever is in it.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `embedded fetch`: downloads the engine's library.
pub async fn fetch(config: &Config) -> Exit {
    let options = config.embedded.clone();
    let fetched = tokio::task::spawn_blocking(move || embedded::fetch(&options)).await;
    match fetched.expect("a download does not panic") {
        Ok(path) => {
            print(&format!("the engine's library is {}", path.display()));
            Exit::Done
        }
        Err(error) => {
            complain(&chain(&error));
            Exit::Failed
        }
    }
}

/// `token new` and `token hash`.
pub fn token(command: TokenCommand) -> Exit {
    let text = match command {
        TokenCommand::New => new_token_text(),
        TokenCommand::Hash => match first_line_hash(&mut io::stdin().lock()) {
            Ok(hash) => hash,
            Err(error) => {
                complain(&format!("cannot read a token from standard input: {error}"));
                return Exit::Usage;
            }
        },
    };
    print(&text);
    Exit::Done
}

/// A token, and the section of the configuration that admits it.
fn new_token_text() -> String {
    let token = new_token();
    format!(
        "# the token, which is stored nowhere: {token}\n[[http.token]]\nname = \"\"\nhash = \
         \"{}\"\nscopes = [\"pipe:*\"]",
        hash_token(&token)
    )
}

fn first_line_hash(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::other("there is none")),
        token => Ok(hash_token(token)),
    }
}

/// Says on standard error why the program ends.
pub fn complain(sentence: &str) {
    // There is nobody left to tell if standard error is closed.
    drop(writeln!(io::stderr(), "tailwater: {sentence}"));
}

/// Says why a running instance did not do what it was asked for.
fn unanswered(error: &StatusError) -> Exit {
    complain(&chain(error));
    match error {
        StatusError::NoAnswer { .. } => Exit::NotReady,
        StatusError::Refused { .. } => Exit::Failed,
    }
}

fn print(text: &str) {
    // A closed pipe (`tailwater status | head -1`) is the reader's choice.
    drop(writeln!(io::stdout(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_comes_with_the_section_that_admits_it() {
        let printed = new_token_text();
        let token = printed.lines().next().unwrap().rsplit(' ').next().unwrap();
        assert!(printed.contains(&format!("hash = \"{}\"", hash_token(token))), "{printed}");
        let section = printed.replace("name = \"\"", "name = \"x\"");
        let read = crate::config::parse::<Config>(&section, "t.toml".as_ref(), &|_| None).unwrap();
        assert_eq!(read.http.token.len(), 1);
    }

    #[test]
    fn a_hash_is_of_the_first_line_without_its_end() {
        for mut input in [&b"abc"[..], b"abc\n", b"abc\r\nmore\n"] {
            assert_eq!(first_line_hash(&mut input).unwrap(), hash_token("abc"));
        }
        assert!(first_line_hash(&mut &b"\n"[..]).is_err());
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
