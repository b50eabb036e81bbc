//! The table, as text and as JSON.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::usage::Usage;

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) events: u64,
    pub(super) seconds: f64,
    /// How fast against the reference of the same rows in the same run, 1 being as fast; none for
    /// the reference itself and where there is none.
    pub(super) ratio_to_reference: Option<f64>,
    /// Of our process alone, or of the reference's client.
    pub(super) used: Option<Usage>,
    /// Commit to visible, in seconds: p50, p99, largest.
    pub(super) latency: Option<[f64; 3]>,
}

impl Line {
    /// Of measurements of the same, at least one.
    fn median(all: &[&Self]) -> Self {
        let of = |figure: fn(&Self) -> Option<f64>| {
            median(all.iter().filter_map(|line| figure(line)).collect())
        };
        let largest = |figure: fn(&Self) -> Option<f64>| {
            all.iter().filter_map(|line| figure(line)).reduce(f64::max)
        };
        let peak_rss_mb = largest(|line| line.used?.peak_rss_mb);
        let cpu_seconds = of(|line| Some(line.used?.cpu_seconds));
        let percentiles = (of(|line| Some(line.latency?[0])), of(|line| Some(line.latency?[1])));
        let max = largest(|line| Some(line.latency?[2]));
        Self {
            seconds: of(|line| Some(line.seconds)).unwrap_or(all[0].seconds),
            ratio_to_reference: of(|line| line.ratio_to_reference),
            used: cpu_seconds.map(|cpu_seconds| Usage { cpu_seconds, peak_rss_mb }),
            latency: percentiles
                .0
                .zip(percentiles.1)
                .zip(max)
                .map(|((p50, p99), max)| [p50, p99, max]),
            ..all[0].clone()
        }
    }

    fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    fn cpu_us_per_event(&self) -> Option<f64> {
        Some(self.used?.cpu_seconds * 1e6 / self.events as f64)
    }

    fn json(&self) -> Value {
        let mut line = json!({
            "name": self.name,
            "events": self.events,
            "seconds": self.seconds,
            "events_per_s": self.rate(),
            "ratio_to_reference": self.ratio_to_reference,
            "cpu_us_per_event": self.cpu_us_per_event(),
            "peak_rss_mb": self.used.and_then(|used| used.peak_rss_mb),
        });
        if let Some([p50, p99, max]) = self.latency {
            line["latency_seconds"] = json!({ "p50": p50, "p99": p99, "max": max });
        }
        line
    }

    fn text(&self) -> String {
        let figure = |figure: Option<f64>, digits: usize| {
            figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let mut text = format!(
            "{:<34}{:>10}{:>9.2}{:>11.0}{:>8}{:>9}{:>8}",
            self.name,
            self.events,
            self.seconds,
            self.rate(),
            figure(self.ratio_to_reference, 2),
            figure(self.cpu_us_per_event(), 2),
            figure(self.used.and_then(|used| used.peak_rss_mb), 0),
        );
        if let Some([p50, p99, max]) = self.latency.map(|all| all.map(|seconds| seconds * 1e3)) {
            text.push_str(&format!("   p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms"));
        }
        text
    }
}

/// The measurements of one run. Each is printed as it comes.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub(super) fn heading() -> String {
        format!(
            "{:<34}{:>10}{:>9}{:>11}{:>8}{:>9}{:>8}",
            "name", "events", "seconds", "events/s", "ratio", "cpu us", "MiB"
        )
    }

    pub(super) fn add(&mut self, line: Line) {
        println!("{}", line.text());
        self.lines.push(line);
    }

    /// One line for all of a name: the median of each figure, but the largest peak of memory and the largest
    /// latency. Each is printed as it comes.
    pub(super) fn medians(self) -> Self {
        let mut medians = Self::default();
        for line in &self.lines {
            if medians.lines.iter().all(|known| known.name != line.name) {
                let all = self.lines.iter().filter(|other| other.name == line.name);
                medians.add(Line::median(&all.collect::<Vec<_>>()));
            }
        }
        medians
    }

    /// Writes the table into `directory` as text, and to `json` if that is wanted.
    pub(super) fn save(&self, directory: &Path, json: Option<&Path>) -> Result<()> {
        let machine = machine();
        let lines = self.lines.iter().map(Line::text);
        let all: Vec<String> =
            [machine.to_string(), Self::heading()].into_iter().chain(lines).collect();
        let file = directory.join("bench.txt");
        fs::write(&file, all.join("\n") + "\n")?;
        println!("\nsaved as {}", file.display());
        if let Some(file) = json {
            let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
            let document = json!({ "machine": machine, "versions": versions(), "rows": lines });
            fs::write(file, serde_json::to_string_pretty(&document)? + "\n")
                .with_context(|| format!("write {}", file.display()))?;
            println!("saved as {}", file.display());
        }
        Ok(())
    }
}

/// The middle one, or the mean of the middle two; none of none.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let (below, above) = (figures.len().checked_sub(1)? / 2, figures.len() / 2);
    Some(f64::midpoint(figures[below], figures[above]))
}

fn machine() -> Value {
    let first = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
    };
    json!({
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": first("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
    })
}

fn versions() -> Value {
    let of = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().map(|output| output.stdout);
        String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
    };
    json!({
        "tailwater": env!("CARGO_PKG_VERSION"),
        "rustc": of("rustc", "--version"),
        "postgresql": of("/usr/lib/postgresql/15/bin/postgres", "--version"),
        "kafka": tailwater_test_support::setup::KAFKA_VERSION,
        "clickhouse": tailwater_test_support::setup::CHDB_VERSION,
        "debezium": tailwater_test_support::setup::DEBEZIUM_VERSION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, seconds: f64, peak: f64, latency: Option<[f64; 3]>) -> Line {
        Line {
            name: name.to_owned(),
            events: 10,
            seconds,
            ratio_to_reference: Some(1.0 / seconds),
            used: Some(Usage { cpu_seconds: seconds, peak_rss_mb: Some(peak) }),
            latency,
        }
    }

    #[test]
    fn of_several_runs_the_middle_counts_and_the_largest_peak() {
        let latency = |p50| Some([p50, 2.0 * p50, 3.0 * p50]);
        let runs = [(2.0, 9.0, 5.0), (8.0, 1.0, 1.0), (4.0, 3.0, 2.0)];
        let mut lines = vec![line("other", 1.0, 1.0, None)];
        lines.extend(runs.map(|(seconds, peak, p50)| line("case", seconds, peak, latency(p50))));
        let Report { lines } = Report { lines }.medians();
        let [other, case] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((other.seconds, other.latency), (1.0, None));
        assert_eq!((case.seconds, case.ratio_to_reference), (4.0, Some(0.25)));
        assert_eq!(case.used.and_then(|used| used.peak_rss_mb), Some(9.0));
        assert_eq!(case.latency, Some([2.0, 4.0, 15.0]));
    }

    #[test]
    fn of_an_even_number_the_middle_is_between_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
