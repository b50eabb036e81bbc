//! Log lines: lowercase, structured, on standard error; never a row value, never a secret.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

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
    // What cannot be logged is lost: saying so on the same standard error would panic.
    let lines = lines.with_writer(std::io::stderr).log_internal_errors(false);
    let started = match options.format {
        Format::Text => lines.fmt_fields(fields()).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
}

/// The fields of a line of text. Names and messages come from the source, from servers and from plugins; a line
/// break in one of them would begin a line that looks like one of ours. JSON escapes them itself.
fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    let write = |out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let name = field.name().trim_start_matches("r#");
        let value = escaped(&format!("{value:?}"));
        match (name, out.has_ansi_escapes()) {
            ("message", _) => write!(out, "{value}"),
            // What the `log` crate brings is in the line already.
            (name, _) if name.starts_with("log.") => Ok(()),
            (name, true) => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
            (name, false) => write!(out, "{name}={value}"),
        }
    };
    debug_fn(write).delimited(" ")
}

/// The text with control characters and line breaks as they are written in Rust: `\n`, `\u{1b}`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                escaped.extend(c.escape_default());
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Failures this close behind a success belong to those before it.
const QUIET: Duration = Duration::from_secs(30);
/// The most texts of one trouble that are told apart.
const MOST_TEXTS: usize = 16;

/// A failure that repeats, such as a broker that stays down: logged when it begins, when its text
/// is a new one, and when it ends with the number of attempts; counted in between. One that comes and goes
/// is logged as one, unless it stays for long. Shared by all who try the same.
#[derive(Debug)]
pub struct Repeated {
    what: &'static str,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// Failures since the last success.
    failures: u64,
    /// When the first of them was.
    since: Option<Instant>,
    /// Whether one of them was logged.
    logged: bool,
    /// What was logged already.
    said: Vec<String>,
    /// When the last success ended some.
    ended: Option<Instant>,
}

impl Trouble {
    /// Whether a failure is to be logged.
    fn failed(&mut self, text: &str, now: Instant) -> bool {
        if self.failures == 0 {
            self.since = Some(now);
            self.logged = false;
            if self.ended.is_none_or(|ended| now.duration_since(ended) >= QUIET) {
                self.said.clear();
            }
        }
        self.failures += 1;
        let known = self.said.iter().any(|said| said == text);
        let stays = self.since.is_some_and(|since| now.duration_since(since) >= QUIET);
        let full = self.said.len() >= MOST_TEXTS;
        let logs = if known || full { !self.logged && stays } else { true };
        self.logged |= logs;
        if logs && !known && !full {
            self.said.push(text.to_owned());
        }
        logs
    }

    /// The failures that a success ended, and whether that is to be logged.
    fn succeeded(&mut self, now: Instant) -> (u64, bool) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            self.ended = Some(now);
        }
        (failures, failures > 0 && self.logged)
    }
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
        Repeated { what, trouble: Mutex::default() }
    }

    /// Notes a failure.
    pub fn failed(&self, error: &dyn std::error::Error) -> Noted {
        let text = chain(error);
        let mut trouble = self.trouble();
        if !trouble.failed(&text, Instant::now()) {
            return Noted::Counted(trouble.failures);
        }
        let attempts = trouble.failures;
        tracing::warn!(what = self.what, error = %text, attempts, "failed, trying again");
        Noted::Logged
    }

    /// Notes a success; the number of failures it ended.
    pub fn succeeded(&self) -> u64 {
        let (failures, logs) = self.trouble().succeeded(Instant::now());
        if logs {
            tracing::info!(what = self.what, failures, "works again");
        }
        failures
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(repeated.failed(&refused), Noted::Counted(4));
        assert_eq!(repeated.succeeded(), 4);
        assert_eq!(repeated.succeeded(), 0);
    }

    #[test]
    fn failures_that_come_and_go_are_one_trouble() {
        let (mut trouble, begun) = (Trouble::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(trouble.failed("refused", at(0)));
        assert_eq!(trouble.succeeded(at(1)), (1, true));
        for second in 2..20 {
            assert!(!trouble.failed("refused", at(second)));
            assert_eq!(trouble.succeeded(at(second)), (1, false));
        }
        assert!(!trouble.failed("refused", at(20)));
        assert!(!trouble.failed("refused", at(49)));
        assert!(trouble.failed("refused", at(50)), "it stays this time");
        assert_eq!(trouble.succeeded(at(60)), (3, true));
        assert!(trouble.failed("refused", at(90)), "another trouble");
    }

    #[test]
    fn a_text_that_never_repeats_is_logged_only_so_often() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        let logged = (0..100).filter(|n| trouble.failed(&n.to_string(), now)).count();
        assert_eq!(logged, MOST_TEXTS);
    }

    #[derive(Clone, Default)]
    struct Written(std::sync::Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_name_and_no_message_begins_a_line_of_the_text_log() {
        let written = Written::default();
        let lines = tracing_subscriber::fmt().with_ansi(false).fmt_fields(fields());
        let out = written.clone();
        let lines = lines.with_writer(move || out.clone()).finish();
        tracing::subscriber::with_default(lines, || {
            let forged = "x\n2026-01-01T00:00:00Z ERROR tailwater: \u{1b}[31mended\r\u{2028}\u{85}";
            tracing::warn!(table = %forged, quoted = forged, count = 2, "a {forged}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let shown = r"x\n2026-01-01T00:00:00Z ERROR tailwater: \u{1b}[31mended\r\u{2028}\u{85}";
        let fields = format!("a {shown} table={shown} quoted=\"{shown}\" count=2\n");
        assert!(text.ends_with(&fields), "{text}");
        assert_eq!(text.matches(char::is_control).count(), 1, "{text:?}");
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
