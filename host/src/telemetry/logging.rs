//! Log lines: lowercase, structured, on standard error; never a row value, never a secret.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// `[log]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `text` or `json` (one object a line). Default: `text`.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or per module as in
    /// `info,tailwater::sink=debug`. Default: `info`.
    pub level: Level,
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// A filter that is known to be well formed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Level(String);

impl Default for Level {
    fn default() -> Level {
        Level("info".to_owned())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Level, String> {
        // A word that is no level would be taken for a module, of which everything is shown, and of others
        // nothing.
        let is_plain = |part: &str| part.contains(['=', ':', '[']) || LEVELS.contains(&part);
        let parsed = EnvFilter::builder().parse(&text).ok();
        let known = parsed.filter(|_| text.split(',').all(|part| is_plain(part.trim())));
        known.map(|_| Level(text.clone())).ok_or_else(|| {
            "not a log level; allowed: error, warn, info, debug, trace, or per module as in \
             `info,tailwater::sink=debug`"
                .to_owned()
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        text.to_owned().try_into()
    }
}

/// Starts logging for the process. A second call changes nothing.
pub fn start(options: &Options) {
    let filter = EnvFilter::builder()
        .parse(&options.level.0)
        .expect("a `Level` was parsed when it was made");
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(terminal);
    let lines = lines.with_writer(std::io::stderr);
    let started = match options.format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
}

/// A failure that repeats, such as a broker that stays down: logged when it begins, when its text
/// changes, and when it ends with the number of attempts; counted in between.
#[derive(Debug)]
pub struct Repeated {
    what: &'static str,
    state: Mutex<Option<(String, u64)>>,
}

/// What [`Repeated::failed`] made of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Logged: the first of its kind.
    Logged,
    /// Only counted: the n-th in a row.
    Counted(u64),
}

impl Repeated {
    /// `what` was being tried, as in `connect to kafka`.
    #[must_use]
    pub fn new(what: &'static str) -> Repeated {
        Repeated { what, state: Mutex::new(None) }
    }

    /// Notes a failure.
    pub fn failed(&self, error: &dyn std::error::Error) -> Noted {
        let text = chain(error);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, count)) = &mut *state {
            *count += 1;
            if *last == text {
                return Noted::Counted(*count);
            }
        }
        let count = state.as_ref().map_or(1, |(_, count)| *count);
        tracing::warn!(what = self.what, error = %text, attempts = count, "failed, trying again");
        *state = Some((text, count));
        Noted::Logged
    }

    /// Notes a success; the number of failures it ended.
    pub fn succeeded(&self) -> u64 {
        let ended = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((_, failures)) = ended else { return 0 };
        tracing::info!(what = self.what, failures, "works again");
        failures
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    match text.contains('\n') {
        true => text.split_whitespace().collect::<Vec<_>>().join(" "),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_none() {
        for text in ["info", "info,tailwater::sink=debug", "tailwater::sink", "off", "warn,a=trace"]
        {
            assert!(text.parse::<Level>().is_ok(), "{text}");
        }
        for text in ["inof", "WARNING", "info,deubg", ""] {
            assert!(text.parse::<Level>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_repeated_failure_is_logged_once_and_counted() {
        let repeated = Repeated::new("connect");
        let refused = std::io::Error::other("refused");
        assert_eq!(repeated.failed(&refused), Noted::Logged);
        assert_eq!(repeated.failed(&refused), Noted::Counted(2));
        assert_eq!(repeated.failed(&std::io::Error::other("reset")), Noted::Logged);
        assert_eq!(repeated.failed(&refused), Noted::Logged);
        assert_eq!(repeated.succeeded(), 4);
        assert_eq!(repeated.succeeded(), 0);
        assert_eq!(repeated.failed(&refused), Noted::Logged);
    }

    #[test]
    fn an_error_of_many_lines_becomes_one() {
        let error = std::io::Error::other("bad number [\n    0x0,\n]");
        assert_eq!(chain(&error), "bad number [ 0x0, ]");
    }

    #[test]
    fn a_level_is_checked_when_it_is_read() {
        assert!("info,tailwater::sink=debug".parse::<Level>().is_ok());
        assert!("lo=ud=er".parse::<Level>().is_err());
    }
}
