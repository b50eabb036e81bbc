//! What a plugin logs, and how much of it: a plugin that logs without end must not hide what others
//! say, nor fill a disk.
//!
//! The bound is one for all versions and instances of a plugin, because a new instance is what a
//! trap makes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::telemetry::metrics::{Metrics, PluginKindLabels};

/// How long `log_lines_per_second` lines last, and the shortest time between two summaries.
const WINDOW: Duration = Duration::from_secs(1);

/// The lines of one plugin.
pub(crate) struct LogLines {
    plugin: String,
    /// None is written, and none is counted.
    muted: bool,
    logged: Counter,
    suppressed: Counter,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    /// When it began; none: no line was written yet.
    since: Option<Instant>,
    written: u32,
    /// Lines that were not written, and that no summary told yet.
    untold: u64,
    told_at: Option<Instant>,
}

impl LogLines {
    pub(crate) fn new(plugin: &str, metrics: &Metrics) -> LogLines {
        let counter = |kind| {
            let labels = PluginKindLabels { plugin: plugin.to_owned(), kind };
            metrics.plugin_log_lines.get_or_create(&labels).clone()
        };
        LogLines {
            plugin: plugin.to_owned(),
            muted: false,
            logged: counter("logged"),
            suppressed: counter("suppressed"),
            window: Mutex::default(),
        }
    }

    /// Those of a plugin that is only tried: what it says there is about no row that flows.
    pub(crate) fn muted(plugin: &str, metrics: &Metrics) -> LogLines {
        LogLines { muted: true, ..LogLines::new(plugin, metrics) }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another line may be written. Counts it either way.
    pub(crate) fn admit(&self, per_second: u32, now: Instant) -> bool {
        if self.muted {
            return false;
        }
        let mut window = self.window();
        if window.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            window.since = Some(now);
            window.written = 0;
        }
        if window.written < per_second {
            window.written += 1;
            self.logged.inc();
            return true;
        }
        window.untold += 1;
        self.suppressed.inc();
        false
    }

    /// Says how many lines were not written, at most once in a window; whether any are left to tell.
    pub(crate) fn settle(&self, now: Instant) -> bool {
        let mut window = self.window();
        let is_due = window.told_at.is_none_or(|told| now.duration_since(told) >= WINDOW);
        if window.untold > 0 && is_due {
            window.told_at = Some(now);
            self.tell(std::mem::take(&mut window.untold));
        }
        window.untold > 0
    }

    /// Says it at the end, however short the time since.
    pub(crate) fn finish(&self) {
        let untold = std::mem::take(&mut self.window().untold);
        if untold > 0 {
            self.tell(untold);
        }
    }

    fn tell(&self, lines: u64) {
        let plugin = &*self.plugin;
        tracing::warn!(plugin, lines, "{lines} lines of plugin {plugin} were not logged");
    }
}

/// A message without line breaks and without what a terminal obeys: a guest could else write lines
/// that look like the host's.
pub(crate) fn one_line(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> LogLines {
        LogLines::new("p", &Metrics::default())
    }

    fn admitted(lines: &LogLines, count: u32, now: Instant) -> usize {
        (0..count).filter(|_| lines.admit(10, now)).count()
    }

    #[test]
    fn each_second_has_its_lines_and_all_others_are_counted() {
        let (lines, start) = (lines(), Instant::now());
        assert_eq!(admitted(&lines, 25, start), 10);
        assert_eq!(admitted(&lines, 5, start + WINDOW / 2), 0);
        assert_eq!(admitted(&lines, 25, start + WINDOW), 10);
        assert_eq!((lines.logged.get(), lines.suppressed.get()), (20, 35));
    }

    #[test]
    fn of_lines_that_are_muted_none_is_written_counted_or_told() {
        let (lines, start) = (LogLines::muted("p", &Metrics::default()), Instant::now());
        assert_eq!(admitted(&lines, 25, start), 0);
        assert!(!lines.settle(start));
        assert_eq!((lines.logged.get(), lines.suppressed.get()), (0, 0));
    }

    #[test]
    fn a_summary_is_told_once_a_second_and_the_last_one_at_the_end() {
        let (lines, start) = (lines(), Instant::now());
        assert!(!lines.settle(start), "there is nothing to tell");
        admitted(&lines, 11, start);
        assert!(!lines.settle(start), "the first one at once");
        admitted(&lines, 3, start);
        assert!(lines.settle(start + WINDOW / 2), "not yet");
        assert_eq!(lines.window().untold, 3);
        assert!(!lines.settle(start + WINDOW));
        admitted(&lines, 30, start + WINDOW);
        lines.finish();
        assert_eq!(lines.window().untold, 0);
    }

    #[test]
    fn a_message_cannot_look_like_another_line() {
        let forged = one_line("fine\n\u{1b}[31mERROR all is lost".to_owned());
        assert_eq!(forged, "fine\\n\\u{1b}[31mERROR all is lost");
        assert_eq!(one_line("näher".to_owned()), "näher");
    }
}
