//! What the readings of the last seconds come to, as a block for a terminal or as one line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reading::Reading;
use crate::exposition::Histogram;

/// Rates and latencies are those of this long.
const WINDOW: Duration = Duration::from_secs(5);

/// The steps of a change, by their names in the metrics, with what they are to the reader.
pub(super) const OVER_KAFKA: [(&str, &str); 4] = [
    ("captured", "captured"),
    ("sent", "sent to Kafka"),
    ("consumed", "read from Kafka"),
    ("stored", "stored in ClickHouse"),
];
pub(super) const DIRECT: [(&str, &str); 2] =
    [("captured", "captured"), ("stored", "stored in ClickHouse")];

#[derive(Debug)]
pub(super) struct Dashboard {
    steps: &'static [(&'static str, &'static str)],
    start: Instant,
    duration: Duration,
    /// When everything was ready: the copy of what was there before is not measured.
    first: Reading,
    /// The oldest is as old as the window, or the first.
    readings: VecDeque<Reading>,
}

impl Dashboard {
    pub(super) fn new(
        steps: &'static [(&'static str, &'static str)],
        duration: Duration,
        first: Reading,
    ) -> Self {
        let readings = VecDeque::from([first.clone()]);
        Self { steps, start: first.at, duration, first, readings }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn add(&mut self, reading: Reading) {
        let out = |other: &Reading| reading.at.duration_since(other.at) >= WINDOW;
        while self.readings.get(1).is_some_and(out) {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
    }

    /// Rewritten in place, so always as many lines.
    pub(super) fn block(&self) -> Vec<String> {
        let now = self.now();
        let mut lines = vec![
            String::new(),
            format!(
                "  {:<24}{:>11}{:>13}{:>14}{:>12}",
                self.clock(),
                "events/s",
                "events",
                "behind",
                "age"
            ),
            format!(
                "  {:<24}{:>11}{:>13}",
                "changed in PostgreSQL",
                grouped(self.rate(|reading| reading.source.total() as f64)),
                grouped(now.source.total() as f64),
            ),
        ];
        lines.extend(self.steps.iter().map(|(step, title)| self.step_line(step, title)));
        lines.push(String::new());
        lines.push(format!("  commit to visible       {}", latency(&self.recent())));
        lines.push(String::new());
        lines.push(format!(
            "  {:<24}{:>11}{:>13}{:>14}{:>12}",
            "plugin", "generation", "version", "time/event", "faults"
        ));
        lines.extend(now.plugins.iter().map(|plugin| {
            format!(
                "  {:<24}{:>11}{:>13}{:>14}{:>12}",
                format!("{} ({})", plugin.name, plugin.stage),
                plugin.generation,
                plugin.short(),
                self.plugin_time(&plugin.name),
                grouped(now.of_plugin("faults_total", &plugin.name)),
            )
        }));
        lines
    }

    pub(super) fn line(&self) -> String {
        let now = self.now();
        let source = grouped(self.rate(|reading| reading.source.total() as f64));
        let mut line = format!("{} source {source}/s", self.clock());
        for (step, _) in self.steps {
            let rate = grouped(self.rate(|reading| reading.passed(step)));
            line.push_str(&format!(", {step} {rate}/s"));
        }
        line.push_str(&format!("; visible {}", latency(&self.recent())));
        line.push_str(&format!("; lag {}", lag(now, "stored")));
        for plugin in &now.plugins {
            let (name, version) = (&plugin.name, plugin.short());
            line.push_str(&format!("; {name} #{} {version}", plugin.generation));
        }
        line
    }

    /// The whole run in one sentence.
    pub(super) fn summary(&self) -> String {
        let now = self.now();
        let stored = now.passed("stored") - self.first.passed("stored");
        let seconds = (now.at - self.first.at).as_secs_f64();
        format!(
            "{} events stored in {seconds:.0} s; commit to visible {}; {} dead letters",
            grouped(stored),
            latency(&now.visible().since(&self.first.visible())),
            grouped(now.dead_letters()),
        )
    }

    fn now(&self) -> &Reading {
        self.readings.back().unwrap_or(&self.first)
    }

    fn then(&self) -> &Reading {
        self.readings.front().unwrap_or(&self.first)
    }

    fn clock(&self) -> String {
        let elapsed = (self.now().at - self.start).as_secs();
        match Duration::from_secs(elapsed) <= self.duration {
            true => format!("{elapsed:>3} s of {} s", self.duration.as_secs()),
            false => format!("{elapsed:>3} s"),
        }
    }

    fn step_line(&self, step: &str, title: &str) -> String {
        let now = self.now();
        let rate = grouped(self.rate(|reading| reading.passed(step)));
        let (bytes, age) = (now.lag_bytes(step), now.lag_seconds(step));
        format!(
            "  {title:<24}{rate:>11}{:>13}{:>14}{:>12}",
            grouped(now.passed(step)),
            bytes.map_or_else(String::new, size),
            age.map_or_else(String::new, seconds),
        )
    }

    fn rate(&self, figure: impl Fn(&Reading) -> f64) -> f64 {
        let (then, now) = (self.then(), self.now());
        let seconds = (now.at - then.at).as_secs_f64();
        if seconds > 0.0 { (figure(now) - figure(then)) / seconds } else { 0.0 }
    }

    fn recent(&self) -> Histogram {
        self.now().visible().since(&self.then().visible())
    }

    fn plugin_time(&self, plugin: &str) -> String {
        let rows = self.now().of_plugin("rows_total", plugin);
        let busy = self.now().of_plugin("busy_seconds_total", plugin);
        if rows > 0.0 { format!("{:.2} us", busy / rows * 1e6) } else { "-".to_owned() }
    }
}

fn latency(histogram: &Histogram) -> String {
    let share = |share| histogram.quantile(share).map_or_else(|| "-".to_owned(), seconds);
    format!("p50 {}, p99 {}", share(0.5), share(0.99))
}

fn lag(reading: &Reading, step: &str) -> String {
    let bytes = reading.lag_bytes(step).map_or_else(|| "-".to_owned(), size);
    let age = reading.lag_seconds(step).map_or_else(|| "-".to_owned(), seconds);
    format!("{bytes} {age}")
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

fn size(bytes: f64) -> String {
    match bytes {
        _ if bytes < 1024.0 => format!("{bytes:.0} B"),
        _ if bytes < 1_048_576.0 => format!("{:.1} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / 1_048_576.0),
    }
}

/// Thousands apart: `1,234,567`.
pub(super) fn grouped(number: f64) -> String {
    // The sum of no numbers is -0, and what rounds to nothing has no sign either.
    let digits = format!("{:.0}", number.round() + 0.0);
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_shown_in_groups_of_three() {
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_000.0), "1,000");
        assert_eq!(grouped(-123_456.0), "-123,456");
        assert_eq!(grouped(1_234_567.4), "1,234,567");
    }

    #[test]
    fn what_rounds_to_zero_is_shown_without_a_sign() {
        assert_eq!(grouped(std::iter::empty::<f64>().sum()), "0");
        assert_eq!(grouped(-0.3), "0");
    }
}
