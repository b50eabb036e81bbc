//! The source's address: a libpq URL or keyword string, unix sockets and `sslmode` included.
//!
//! `tokio-postgres` parses the string; the `ssl*` words it does not know are taken out first and
//! kept as [`TlsOptions`].

use std::fmt;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::error::Error;

/// Output settings under which every type's text form is the one the encoders read.
const SESSION: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex \
     -c extra_float_digits=3 -c TimeZone=UTC -c lc_monetary=C -c client_encoding=UTF8 \
     -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0";

/// How far the server's certificate is trusted; the words are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain text only.
    Disable,
    /// TLS if the server offers it, unverified. Also what `allow` becomes.
    Prefer,
    /// TLS; verified against `sslrootcert` if that is set.
    Require,
    /// TLS by a certificate that a trusted authority signed.
    VerifyCa,
    /// The same, and it must name the host.
    VerifyFull,
}

/// The `ssl*` words of the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// `sslmode`
    pub mode: Tls,
    /// `sslrootcert`, PEM; the system's store if unset.
    pub root_cert: Option<PathBuf>,
    /// `sslcert`, PEM.
    pub client_cert: Option<PathBuf>,
    /// `sslkey`, PEM.
    pub client_key: Option<PathBuf>,
}

/// A parsed source address. Printing it shows neither password nor parameters.
#[derive(Clone)]
pub struct SourceUrl {
    config: Config,
    /// The TLS words.
    pub tls: TlsOptions,
}

impl SourceUrl {
    /// Parses a libpq URL (`postgres://user@host:port/db?sslmode=…`) or keyword string.
    ///
    /// # Errors
    /// [`Error::Url`] names what is wrong without repeating the text, which may hold a password.
    pub fn parse(text: &str) -> Result<SourceUrl, Error> {
        let (rest, words) = take_tls_words(text);
        let mut config: Config = rest.parse().map_err(|error| Error::Url(describe(&error)))?;
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        let mut tls = TlsOptions::from_words(&words)?;
        if config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            // As libpq has it: sslmode says nothing about unix sockets.
            tls.mode = Tls::Disable;
        }
        config.ssl_mode(match tls.mode {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
        if config.get_user().is_none() {
            let user = std::env::var("PGUSER").or_else(|_| std::env::var("USER"));
            config.user(user.map_err(|_| {
                Error::Url("it names no user: postgres://USER@host/database".into())
            })?);
        }
        if config.get_dbname().is_none() {
            let user = config.get_user().unwrap_or_default().to_owned();
            config.dbname(user);
        }
        let options = config.get_options().map_or_else(String::new, |own| format!("{own} "));
        config.options(format!("{options}{SESSION}")).application_name("tailwater");
        Ok(SourceUrl { config, tls })
    }

    /// The parameters for `tokio-postgres`.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// The user's name.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// Every host with its port, in the order to try them.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Host, u16)> {
        let ports = self.config.get_ports();
        let port = move |index: usize| *ports.get(index).or(ports.first()).unwrap_or(&5432);
        self.config.get_hosts().iter().enumerate().map(move |(index, host)| (host, port(index)))
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = match self.endpoints().next() {
            Some((Host::Tcp(host), port)) => (host.clone(), port),
            Some((Host::Unix(path), port)) => (path.display().to_string(), port),
            None => (String::new(), 5432),
        };
        write!(f, "postgres://{}@{host}:{port}/{}", self.user(), self.database())
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceUrl({self})")
    }
}

impl TlsOptions {
    fn from_words(words: &[(String, String)]) -> Result<TlsOptions, Error> {
        let word = |key| words.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let file = |key| word(key).map(PathBuf::from);
        let mode = match word("sslmode") {
            Some("disable") => Tls::Disable,
            None | Some("allow" | "prefer") => Tls::Prefer,
            Some("require") => Tls::Require,
            Some("verify-ca") => Tls::VerifyCa,
            Some("verify-full") => Tls::VerifyFull,
            Some(other) => {
                return Err(Error::Url(format!(
                    "sslmode `{other}` is none of disable, allow, prefer, require, verify-ca, \
                     verify-full"
                )));
            }
        };
        Ok(TlsOptions {
            mode,
            root_cert: file("sslrootcert").filter(|path| path.as_os_str() != "system"),
            client_cert: file("sslcert"),
            client_key: file("sslkey"),
        })
    }
}

const TLS_WORDS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Parts the `ssl*` words from the rest of the string.
fn take_tls_words(text: &str) -> (String, Vec<(String, String)>) {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let (head, tail, separator) = match (is_url, text.split_once('?')) {
        (true, Some((head, tail))) => (head, tail, '&'),
        (true, None) => return (text.to_owned(), Vec::new()),
        (false, _) => ("", text, ' '),
    };
    let mut words = Vec::new();
    let mut rest = Vec::new();
    for pair in tail.split(separator) {
        match pair.split_once('=') {
            Some((key, value)) if TLS_WORDS.contains(&key) => {
                let value = value.trim_matches('\'');
                let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
                words.push((key.to_owned(), value.into_owned()));
            }
            _ => rest.push(pair),
        }
    }
    let rest = rest.join(&separator.to_string());
    let join = if is_url && !rest.is_empty() { "?" } else { "" };
    (format!("{head}{join}{rest}"), words)
}

/// The parser's errors name the offending key, never its value.
fn describe(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_named_by_the_host_parameter() {
        let url = SourceUrl::parse("postgres://ann@/shop?host=/run/pg&port=5433").unwrap();
        assert_eq!(url.database(), "shop");
        let endpoints: Vec<_> = url.endpoints().collect();
        assert_eq!(endpoints, [(&Host::Unix("/run/pg".into()), 5433)]);
    }

    #[test]
    fn tls_words_are_read_in_both_forms() {
        let url = "postgres://ann@db/shop?sslmode=verify-full&sslrootcert=%2Fca.pem&port=1";
        let words = "host=db user=ann dbname=shop sslmode=verify-full sslrootcert=/ca.pem";
        for text in [url, words] {
            let tls = SourceUrl::parse(text).unwrap().tls;
            assert_eq!(tls.mode, Tls::VerifyFull);
            assert_eq!(tls.root_cert, Some(PathBuf::from("/ca.pem")));
        }
    }

    #[test]
    fn an_unknown_sslmode_names_the_known_ones() {
        let error = SourceUrl::parse("postgres://ann@db/shop?sslmode=maybe").unwrap_err();
        assert!(error.to_string().contains("sslmode `maybe` is none of disable, allow"), "{error}");
    }

    #[test]
    fn neither_printing_nor_an_error_shows_the_password() {
        let url = SourceUrl::parse("postgres://ann:s3cret@db/shop").unwrap();
        assert_eq!(url.to_string(), "postgres://ann@db:5432/shop");
        assert!(!format!("{url:?}").contains("s3cret"));
        let error = SourceUrl::parse("postgres://ann:s3cret@db/shop?nonsense=1").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
