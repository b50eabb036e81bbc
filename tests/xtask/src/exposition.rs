//! Reads what `/metrics` exposes: as much of the format as the demo and the benchmarks need.

use std::collections::BTreeMap;

/// One exposition. A sample's name is the metric's with its labels, as it stands in the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exposition {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Exposition {
    /// Lines that are no samples are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { samples: lines.filter_map(sample).collect() }
    }

    /// The sum of all samples with that name and all of `labels`; zero if there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The one sample with that name and labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).map(|sample| sample.value).next()
    }

    /// A histogram's cumulative buckets.
    pub(crate) fn histogram(&self, name: &str) -> Histogram {
        let bucket = |sample: &Sample| Some((bound(sample.labels.get("le")?)?, sample.value));
        let name = format!("{name}_bucket");
        Histogram { buckets: self.matching(&name, &[]).filter_map(bucket).collect() }
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(has)
        })
    }
}

/// Cumulative counts by upper bound, in rising order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// What was observed since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| {
            let found = earlier.buckets.iter().find(|(other, _)| *other == bound);
            found.map_or(0.0, |(_, count)| *count)
        };
        let buckets = self.buckets.iter().map(|(bound, count)| (*bound, count - before(*bound)));
        Self { buckets: buckets.collect() }
    }

    /// The value that `share` (0 to 1) of the observations do not exceed, taken as evenly spread
    /// within a bucket; none without observations. Beyond the last bound it is that bound.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let rank = share * total;
        let index = self.buckets.iter().position(|(_, count)| *count >= rank)?;
        let below = |index: usize| index.checked_sub(1).map_or((0.0, 0.0), |i| self.buckets[i]);
        let ((low, before), (high, count)) = (below(index), self.buckets[index]);
        if high.is_infinite() {
            return Some(low);
        }
        Some(low + (high - low) * (rank - before) / (count - before).max(f64::MIN_POSITIVE))
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `a="b",c="d"`. None of the values shown here holds a quote.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        labels.insert(key.trim_start_matches(',').to_owned(), value.to_owned());
        rest = after;
    }
    Some(labels)
}

fn bound(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP tailwater_changes changes that passed a step.
# TYPE tailwater_changes counter
tailwater_changes_total{step=\"stored\",table=\"public.users\",op=\"insert\"} 7
tailwater_changes_total{step=\"stored\",table=\"public.users\",op=\"delete\"} 2
tailwater_changes_total{step=\"sent\",table=\"public.users\",op=\"delete\"} 40
tailwater_slot_safe 1
wait_seconds_sum 3.5
wait_seconds_bucket{le=\"0.1\"} 50
wait_seconds_bucket{le=\"0.2\"} 90
wait_seconds_bucket{le=\"+Inf\"} 100
# EOF
";

    #[test]
    fn samples_are_summed_over_the_labels_that_are_not_asked_for() {
        let exposition = Exposition::parse(TEXT);
        assert_eq!(exposition.sum("tailwater_changes_total", &[("step", "stored")]), 9.0);
        assert_eq!(exposition.sum("tailwater_changes_total", &[("step", "none")]), 0.0);
        assert_eq!(exposition.value("tailwater_slot_safe", &[]), Some(1.0));
    }

    #[test]
    fn quantiles_are_interpolated_in_their_bucket() {
        let histogram = Exposition::parse(TEXT).histogram("wait_seconds");
        let close = |found: Option<f64>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-9;
        assert!(close(histogram.quantile(0.25), 0.05));
        assert!(close(histogram.quantile(0.7), 0.15));
        assert!(close(histogram.quantile(0.99), 0.2));
        assert_eq!(histogram.since(&histogram).quantile(0.5), None);
    }
}
