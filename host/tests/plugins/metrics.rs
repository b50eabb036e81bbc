//! What `/metrics` tells of a plugin.

use std::fs;
use std::time::Duration;

use tailwater_test_support::{Scratch, guests, wait_until};

use crate::batch::{Batch, users};
use crate::chains::{Loaded, load, options, plugin_file, test_guest_file};

const DEADLINE: Duration = Duration::from_secs(60);

impl Loaded {
    /// The lines of one metric, without its name.
    pub fn exposed(&self, metric: &str) -> Vec<String> {
        let name = format!("tailwater_plugin_{metric}");
        let text = self.metrics.expose();
        let values = text.lines().filter_map(|line| line.strip_prefix(&name));
        values.filter(|rest| rest.starts_with('{')).map(str::to_owned).collect()
    }
}

#[test]
fn a_plugin_is_counted_from_its_start_on() {
    let chain = load(vec![options(&plugin_file("mask-email"), "")]).expect("it loads");
    for metric in ["calls_total", "rows_total", "call_seconds_count"] {
        assert_eq!(chain.exposed(metric), ["{plugin=\"mask-email\"} 0"], "{metric}");
    }
    assert_eq!(chain.exposed("busy_seconds_total"), ["{plugin=\"mask-email\"} 0.0"]);
    let digest = chain.chain.versions().list().remove(0).digest;
    let info = format!("{{plugin=\"mask-email\",digest=\"{digest}\",generation=\"1\"}} 1");
    assert_eq!(chain.exposed("info"), [info]);
    let memory = chain.exposed("memory_bytes").concat();
    let bytes = memory.strip_prefix("{plugin=\"mask-email\"} ").and_then(|text| text.parse().ok());
    assert!(bytes.is_some_and(|bytes: u64| bytes >= 65_536), "{memory}");
}

#[test]
fn each_call_is_one_observation_of_its_time_and_each_row_is_counted() {
    let settings = "batch_rows = 4\nconfig = { deed = 'fault-on-poison' }";
    let mut chain = load(vec![options(&test_guest_file("hostile"), settings)]).expect("it loads");
    let users = users();
    let row = |batch: Batch, id: u32| {
        let name = if id == 5 { "poison" } else { "ann" };
        batch.insert(&users, &[&id.to_string(), name, ""])
    };
    let mut changes = (0..10).fold(Batch::at(7), row).done();
    assert_eq!(chain.run(&mut changes).len(), 1);
    for (metric, value) in [("calls_total", 3), ("rows_total", 10), ("call_seconds_count", 3)] {
        assert_eq!(chain.exposed(metric), [format!("{{plugin=\"hostile\"}} {value}")], "{metric}");
    }
    let buckets = chain.exposed("call_seconds_bucket");
    assert_eq!(buckets.len(), 13);
    assert_eq!(buckets[12], "{le=\"+Inf\",plugin=\"hostile\"} 3");
    let sum = chain.exposed("call_seconds_sum").concat();
    let seconds = sum.strip_prefix("{plugin=\"hostile\"} ").and_then(|text| text.parse().ok());
    assert!(seconds.is_some_and(|seconds: f64| seconds > 0.0 && seconds < 3.0), "{sum}");
    assert_eq!(chain.exposed("faults_total"), ["{plugin=\"hostile\",kind=\"row\"} 1"]);
}

#[test]
fn a_new_version_takes_the_place_of_the_one_before() {
    let scratch = Scratch::new("metrics").expect("a directory");
    let file = scratch.join("it.wasm");
    fs::copy(plugin_file("mask-email"), &file).expect("a copy");
    let mut chain = load(vec![options(&file, "")]).expect("it loads");
    let row = || Batch::at(7).insert(&users(), &["1", "ann", "ann@x.org"]).done();
    chain.lines(row());
    let next = guests::plugin_with_feature("mask-email", "dots").expect("it builds");
    fs::copy(next, scratch.join("fresh")).expect("a copy");
    fs::rename(scratch.join("fresh"), &file).expect("the same directory");
    let accepted = ["{plugin=\"it\",kind=\"accepted\"} 1"];
    wait_until(DEADLINE, "a reload", || chain.exposed("reloads_total") == accepted)
        .expect("it ends");
    chain.lines(row());
    let digest = chain.chain.versions().list().remove(0).digest;
    let info = format!("{{plugin=\"it\",digest=\"{digest}\",generation=\"2\"}} 1");
    assert_eq!(chain.exposed("info"), [info], "and no other");
    assert_eq!(chain.exposed("calls_total"), ["{plugin=\"it\"} 2"], "of both");
}
