//! The source's address: a libpq URL or keyword string, unix sockets and `sslmode` included.
//!
//! `tokio-postgres` parses the string; the `ssl*` words it does not know are taken out first and
//! kept as [`TlsOptions`].

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::error::Error;
use crate::config::REDACTED;

/// Output settings under which every type's text form is the one the encoders read; and a policy that
/// hides rows is an error, since the stream knows of none.
const SESSION: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex \
     -c extra_float_digits=3 -c TimeZone=UTC -c lc_monetary=C -c client_encoding=UTF8 \
     -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0 \
     -c row_security=off";

/// Said once connected, because servers before version 17 refuse a start-up with a word that they do not know.
/// A copy is one transaction, and the replication connection keeps its snapshot in another one.
pub(super) const NO_TRANSACTION_TIMEOUT: &str = "
    SELECT set_config('transaction_timeout', '0', false)
    WHERE current_setting('transaction_timeout', true) IS NOT NULL";

/// How long to wait for a host to take a connection, unless the URL has a `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// When an idle connection is asked whether it lives, how often, and when the answer is too late,
/// unless the URL says (`keepalives_idle`, `_interval`, `_retries`). The system's own are hours, and a
/// firewall forgets a connection long before.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);
/// When what was sent and not confirmed ends a connection, unless the URL has a `tcp_user_timeout`.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// What `tokio-postgres` has where the URL says nothing.
const LIBRARY_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

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

/// One place where a server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's name or the socket's directory.
    pub host: Host,
    /// Where the name leads, if that is known: the URL has a `hostaddr`, or it was looked up.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
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
        if let Some((scheme, _)) = text.split_once("://")
            && !["postgres", "postgresql"].contains(&scheme)
        {
            return Err(Error::Url("it does not begin with postgres:// or postgresql://".into()));
        }
        let (rest, words) = take_tls_words(text);
        let mut config: Config = rest.parse().map_err(|error| Error::Url(describe(&error)))?;
        let is_cut = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(is_cut) {
            return Err(Error::Url(
                "its host has an `@`; write one in a user's name or password as %40".into(),
            ));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        let mut tls = TlsOptions::from_words(&words)?;
        let unix = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(unix) {
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
        bound_waiting(&mut config);
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
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let (hosts, addresses) = (self.config.get_hosts(), self.config.get_hostaddrs());
        let ports = self.config.get_ports();
        (0..hosts.len().max(addresses.len())).map(move |index| {
            let address = addresses.get(index).copied();
            let named = || address.map(|address| Host::Tcp(address.to_string()));
            let host = hosts.get(index).cloned().or_else(named);
            Endpoint {
                host: host.expect("one of the two lists is that long"),
                address,
                port: *ports.get(index).or(ports.first()).unwrap_or(&5432),
            }
        })
    }

    /// The same source by one endpoint alone.
    #[must_use]
    pub fn only(&self, endpoint: &Endpoint) -> SourceUrl {
        let (from, mut config) = (&self.config, Config::new());
        match &endpoint.host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(directory) => config.host_path(directory),
        };
        if let Some(address) = endpoint.address {
            config.hostaddr(address);
        }
        config.port(endpoint.port).user(self.user()).dbname(self.database());
        if let Some(password) = from.get_password() {
            config.password(password);
        }
        config
            .options(from.get_options().unwrap_or_default())
            .application_name(from.get_application_name().unwrap_or_default())
            .ssl_mode(from.get_ssl_mode())
            .ssl_negotiation(from.get_ssl_negotiation())
            .channel_binding(from.get_channel_binding())
            .target_session_attrs(from.get_target_session_attrs())
            .connect_timeout(self.connect_timeout())
            .keepalives(from.get_keepalives())
            .keepalives_idle(from.get_keepalives_idle());
        if let Some(timeout) = from.get_tcp_user_timeout() {
            config.tcp_user_timeout(*timeout);
        }
        if let Some(interval) = from.get_keepalives_interval() {
            config.keepalives_interval(interval);
        }
        if let Some(retries) = from.get_keepalives_retries() {
            config.keepalives_retries(retries);
        }
        SourceUrl { config, tls: self.tls.clone() }
    }

    /// How long to wait for a host to take a connection.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT)
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.endpoints().next().expect("a URL that was parsed names a host");
        write!(f, "postgres://{}@{first}/{}", self.user(), self.database())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(directory) => write!(f, "{}:{}", directory.display(), self.port),
        }
    }
}

/// No connection may be open and dead for long without that being noticed.
fn bound_waiting(config: &mut Config) {
    let (idle, interval, retries) = KEEPALIVE;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(USER_TIMEOUT);
    }
    if config.get_keepalives_idle() == LIBRARY_IDLE {
        config.keepalives_idle(idle);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(interval);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(retries);
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
                let other = if is_word(other) { other } else { REDACTED };
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

/// The parser's errors name the offending key, never its value. What it takes for a key of a URL without its colon
/// may hold the password.
fn describe(error: &tokio_postgres::Error) -> String {
    let said =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match said.strip_prefix("unknown option `") {
        Some(name) if !is_word(name.trim_end_matches('`')) => {
            format!("unknown option {REDACTED}; a URL begins with postgres://")
        }
        Some(_) | None => said,
    }
}

/// Whether it looks like an option of libpq's, or one of its values.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_cut_at_an_at_sign_is_not_taken_for_a_host() {
        for url in ["postgres://me@pass@word@db/shop", "postgres://me:pass@word@db:5432/shop"] {
            let error = SourceUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains("write one in a user's name or password as %40"), "{error}");
            assert!(!error.contains("word@"), "{error}");
        }
        let error = SourceUrl::parse("mysql://me@db/shop").unwrap_err().to_string();
        assert!(error.contains("does not begin with postgres://"), "{error}");
    }

    #[test]
    fn a_unix_socket_is_named_by_the_host_parameter() {
        let url = SourceUrl::parse("postgres://ann@/shop?host=/run/pg&port=5433").unwrap();
        assert_eq!(url.database(), "shop");
        let endpoints: Vec<_> = url.endpoints().collect();
        let socket = Endpoint { host: Host::Unix("/run/pg".into()), address: None, port: 5433 };
        assert_eq!(endpoints, [socket]);
    }

    #[test]
    fn every_host_has_its_own_address_and_port() {
        let text = "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=ann password=p dbname=shop";
        let url = SourceUrl::parse(text).unwrap();
        let second = url.endpoints().nth(1).unwrap();
        let address = Some("10.0.0.2".parse().unwrap());
        assert_eq!(second, Endpoint { host: Host::Tcp("b".into()), address, port: 2 });
        let only = url.only(&second);
        assert_eq!(only.endpoints().collect::<Vec<_>>(), [second]);
        assert_eq!(only.config().get_password(), Some(&b"p"[..]));
        let address_alone = SourceUrl::parse("hostaddr=10.0.0.1 user=ann").unwrap();
        assert_eq!(address_alone.to_string(), "postgres://ann@10.0.0.1:5432/ann");
        assert_eq!(address_alone.tls.mode, Tls::Prefer);
    }

    /// One host is the URL but for the others.
    #[test]
    fn the_url_of_one_host_keeps_every_word() {
        let text = "host=a,b port=1 user=ann password=p dbname=shop options=-cx=1 \
             application_name=me target_session_attrs=read-write channel_binding=disable \
             connect_timeout=3 tcp_user_timeout=4 keepalives=0 keepalives_idle=5 \
             keepalives_interval=6 keepalives_retries=7 sslmode=require";
        let two = SourceUrl::parse(text).unwrap();
        let one = SourceUrl::parse(&text.replace("host=a,b", "host=b")).unwrap();
        let second = two.endpoints().nth(1).unwrap();
        assert_eq!(two.only(&second).config(), one.config());
        assert_eq!(one.config().get_keepalives_idle(), Duration::from_secs(5));
        assert_eq!(one.connect_timeout(), Duration::from_secs(3));
    }

    #[test]
    fn no_connection_waits_for_hours_unless_the_url_says_so() {
        let url = SourceUrl::parse("postgres://ann@db/shop").unwrap();
        let config = url.config();
        assert_eq!(config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(config.get_tcp_user_timeout(), Some(&USER_TIMEOUT));
        assert_eq!(config.get_keepalives_idle(), KEEPALIVE.0);
        let url = SourceUrl::parse("postgres://ann@db/shop?keepalives_idle=600").unwrap();
        assert_eq!(url.config().get_keepalives_idle(), Duration::from_secs(600));
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
        for (mistyped, advice) in [
            ("postgres//ann:s3cret@db/shop?x=1", "; a URL begins with postgres://"),
            ("host=db user=ann sslmode=s3cret", "is none of disable, allow"),
        ] {
            let error = SourceUrl::parse(mistyped).unwrap_err().to_string();
            assert!(!error.contains("s3cret") && error.contains(REDACTED), "{error}");
            assert!(error.contains(advice), "{error}");
        }
    }
}
