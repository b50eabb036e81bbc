//! Values that must never be printed.

use std::fmt;

use serde::Deserialize;

/// What stands in place of a secret wherever one would be printed.
pub const REDACTED: &str = "***";

/// A string that neither `Debug` nor `Display` shows. It is not `Serialize` on purpose.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Secret {
        Secret(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A connection URL (or libpq `key=value` string) that is safe to print: passwords become `***`.
/// Where it is unclear how far a password reaches, more is hidden, never less.
///
/// ```
/// let shown = tailwater::config::redact_url("postgres://app:s3cret@db.example/shop?sslmode=require");
/// assert_eq!(shown, "postgres://app:***@db.example/shop?sslmode=require");
/// ```
#[must_use]
pub fn redact_url(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", redact_query(&redact_user(rest))),
        None => redact_pairs(url),
    }
}

/// Hides what stands between the first `:` and the last `@`: a password may hold `/`, `?` or `@`
/// that nobody encoded.
fn redact_user(rest: &str) -> String {
    let Some((user, host)) = rest.rsplit_once('@') else {
        return rest.to_owned();
    };
    match user.split_once(':') {
        Some((name, _)) => format!("{name}:{REDACTED}@{host}"),
        None => format!("{user}@{host}"),
    }
}

fn redact_query(rest: &str) -> String {
    let Some((path, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if is_secret_key(key) => format!("{key}={REDACTED}"),
        _ => pair.to_owned(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// `host=db password='it''s secret' user=app`. Everything after a password key is hidden up to the
/// next ` key=`, quoted or not. White space around a `=` says nothing.
fn redact_pairs(text: &str) -> String {
    let text = text.split('=').map(str::trim).collect::<Vec<_>>().join("=");
    let mut shown = Vec::new();
    let mut hiding = false;
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some((key, _)) if is_secret_key(key) => {
                hiding = true;
                shown.push(format!("{key}={REDACTED}"));
            }
            Some((key, _)) if is_plain_key(key) => {
                hiding = false;
                shown.push(word.to_owned());
            }
            _ if hiding => {}
            _ => shown.push(word.to_owned()),
        }
    }
    shown.join(" ")
}

fn is_plain_key(key: &str) -> bool {
    const KEYS: [&str; 10] = [
        "host",
        "hostaddr",
        "port",
        "user",
        "dbname",
        "sslmode",
        "sslrootcert",
        "options",
        "application_name",
        "connect_timeout",
    ];
    KEYS.contains(&key)
}

/// Whether a setting of that name is one that nobody may see.
pub(crate) fn is_secret_key(key: &str) -> bool {
    const WORDS: [&str; 5] = ["password", "secret", "token", "passphrase", "api_key"];
    let key = key.to_ascii_lowercase();
    WORDS.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn no_password_survives_redaction() {
        let cases = [
            ("postgres://u:pw@h/d", "postgres://u:***@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres:///shop?host=/run/postgresql", "postgres:///shop?host=/run/postgresql"),
            ("postgres://u:p@w/d?x@h/d", "postgres://u:***@h/d"),
            ("postgres:///d?user=u&password=pw", "postgres:///d?user=u&password=***"),
            ("postgres://h/d?sslpassword=pw&a=b", "postgres://h/d?sslpassword=***&a=b"),
            ("host=h password=pw user=u", "host=h password=*** user=u"),
            ("host=h password='p w' user=u", "host=h password=*** user=u"),
            ("user=u password='p a=b'", "user=u password=***"),
            ("http://default:pw@127.0.0.1:8123", "http://default:***@127.0.0.1:8123"),
        ];
        for (url, shown) in cases {
            assert_eq!(redact_url(url), shown);
        }
    }
}
