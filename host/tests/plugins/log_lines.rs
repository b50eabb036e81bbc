//! What an operator reads of what a plugin logs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value as Json;
use tailwater::change::Changes;
use tailwater::table::ColumnType;
use tailwater::telemetry::metrics::PluginKindLabels;
use tracing::Level;

use crate::batch::{Batch, table};
use crate::chains::{Loaded, load, options, test_guest_file};
use crate::parallel::hear_everything;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test wrote half a line").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs something; what this thread logged meanwhile, as in `[log] format = "json"`.
pub fn logged<T>(level: Level, run: impl FnOnce() -> T) -> (T, Vec<Json>) {
    hear_everything();
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_max_level(level);
    let subscriber = lines.with_writer(move || writer.clone()).finish();
    let done = tracing::subscriber::with_default(subscriber, run);
    let text = log.0.lock().expect("as above").clone();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (done, lines.map(|line| serde_json::from_slice(line).expect("one object a line")).collect())
}

fn hostile(deed: &str, settings: &str) -> Loaded {
    let settings = format!("{settings}\nconfig = {{ deed = '{deed}' }}");
    load(vec![options(&test_guest_file("hostile"), &settings)]).expect("the plugin loads")
}

/// Members 1 to `rows`, of whom the third may be poison.
fn members(rows: u64, third: &str) -> Changes {
    let members = table("members", &[("id", ColumnType::Int4), ("name", ColumnType::Text)]);
    let name = |row| if row == 3 { third } else { "ann" };
    let insert = |batch: Batch, row: u64| batch.insert(&members, &[&row.to_string(), name(row)]);
    (1..=rows).fold(Batch::at(7), insert).done()
}

fn of_plugin(lines: &[Json]) -> Vec<&Json> {
    lines.iter().filter(|line| line["target"] == "plugin").collect()
}

impl Loaded {
    fn lines_that_were(&self, kind: &'static str) -> u64 {
        let labels = PluginKindLabels { plugin: "hostile".to_owned(), kind };
        self.metrics.plugin_log_lines.get_or_create(&labels).get()
    }
}

#[test]
fn a_line_says_who_wrote_it_and_on_what_at_the_level_the_plugin_gave_it() {
    let mut chain = hostile("log-at-each-level", "");
    let digest = chain.chain.versions().list().remove(0).digest;
    let (letters, lines) = logged(Level::DEBUG, || chain.run(&mut members(3, "bob")));
    assert_eq!(letters, []);
    let lines = of_plugin(&lines);
    let levels: Vec<&str> = lines.iter().filter_map(|line| line["level"].as_str()).collect();
    assert_eq!(levels, ["DEBUG", "INFO", "WARN", "ERROR"], "trace is not asked for");
    for line in lines {
        let level = line["level"].as_str().map(str::to_lowercase);
        assert_eq!(line["message"].as_str().map(str::to_owned), level);
        assert_eq!(line["plugin"], "hostile");
        assert_eq!(line["digest"], digest[..12]);
        assert_eq!(line["table"], "public.members");
        assert_eq!((line["position"].as_str(), line["rows"].as_u64()), (Some("0/7:1"), Some(3)));
    }
    assert_eq!((chain.lines_that_were("logged"), chain.lines_that_were("suppressed")), (4, 0));
}

#[test]
fn the_line_of_a_panic_leads_to_its_row() {
    let mut chain = hostile("panic-on-poison", "");
    let (letters, lines) = logged(Level::INFO, || chain.run(&mut members(20, "poison")));
    assert_eq!(letters.len(), 1);
    let last = *of_plugin(&lines).last().expect("a panic is logged");
    assert_eq!(last["message"], "it panicked");
    assert_eq!((last["position"].as_str(), last["rows"].as_u64()), (Some("0/7:3"), Some(1)));
}

#[test]
fn what_is_logged_before_any_row_is_shown_names_the_table_alone_or_nothing() {
    let (chain, lines) = logged(Level::INFO, || {
        let settings = "config = { deed = 'panic-in-init' }";
        load(vec![options(&test_guest_file("hostile"), settings)])
    });
    assert!(chain.is_err());
    assert_eq!(of_plugin(&lines).len(), 1);
    assert!(lines[0]["table"].is_null() && lines[0]["position"].is_null(), "{}", lines[0]);
    let mut chain = hostile("panic-in-subscribe", "");
    let (_, lines) = logged(Level::INFO, || chain.run(&mut members(1, "")));
    let line = *of_plugin(&lines).first().expect("a panic is logged");
    assert_eq!((&line["table"], &line["position"]), (&"public.members".into(), &Json::Null));
}

#[test]
fn a_flood_of_lines_is_bounded_and_every_line_of_it_is_counted() {
    let mut chain = hostile("flood-log", "deadline_ms = 60000\nlog_lines_per_second = 5");
    let started = Instant::now();
    let (letters, lines) = logged(Level::INFO, || {
        let mut letters = chain.run(&mut members(3, ""));
        letters.extend(chain.run(&mut members(3, "")));
        let counted = (chain.lines_that_were("logged"), chain.lines_that_were("suppressed"));
        drop(chain);
        (letters, counted)
    });
    let (letters, (written, suppressed)) = letters;
    assert_eq!(letters, [], "it went on");
    assert_eq!(written + suppressed, 20_000);
    assert_eq!(of_plugin(&lines).len() as u64, written);
    assert!(written >= 5 && written <= 5 * (started.elapsed().as_secs() + 1), "{written} lines");
    for line in of_plugin(&lines) {
        assert_eq!(line["message"].as_str().map(str::len), Some(2048), "cut at 2 KiB");
    }
    let summaries: Vec<&Json> = lines.iter().filter(|line| line["lines"].is_u64()).collect();
    let told: u64 = summaries.iter().filter_map(|line| line["lines"].as_u64()).sum();
    assert_eq!(told, suppressed);
    for summary in summaries {
        let count = &summary["lines"];
        let sentence = format!("{count} lines of plugin hostile were not logged");
        assert_eq!((&summary["message"], &summary["level"]), (&sentence.into(), &"WARN".into()));
    }
}
