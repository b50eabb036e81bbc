//! Golden events: of every plugin in `plugins/`, and what keeps a bad build out.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tailwater::plugin::{Golden, GoldenReport, Grant, Options, Runtime, golden_beside, rehearse};
use tailwater::telemetry::metrics::PluginKindLabels;
use tailwater_test_support::{Scratch, wait_until, workspace_root};

use tracing::Level;

use crate::chains::{Loaded, RUNTIME, load, options, plugin_file, test_guest_file};
use crate::log_lines::logged;

const DEADLINE: Duration = Duration::from_secs(60);

const USERS: &str =
    r#"{"table": "public.users", "columns": [["id", "bigint"], ["email", "text"]], "key": ["id"]}"#;
const WHERE_TOTAL: &str =
    r#"{"config": {"where": [{"column": "total", "op": "ge", "value": 10}]}}"#;
const MASKED: &str = r#"{"table": "public.users", "op": "c", "after": {"id": "1", "email": "ann@x.org"}, "expect": [{"table": "public.users", "op": "c", "after": {"id": "1", "email": "a***@x.org"}}]}"#;

fn report(plugin: &str, golden: &str) -> GoldenReport {
    let golden = Golden::parse(golden).expect("golden events");
    let options = Options::of_component(&plugin_file(plugin), Grant::ALL.to_vec());
    // The heaps of scripts are larger than the default, and compiling their engines takes seconds.
    let options = Options { memory_mb: 256, deadline_ms: 20_000, ..options };
    golden.run(&RUNTIME, &options).expect("the plugin loads")
}

#[test]
fn every_plugin_makes_of_its_golden_events_what_they_say() {
    let mut tested = 0;
    for entry in fs::read_dir(workspace_root().join("plugins")).expect("the plugins") {
        let directory = entry.expect("an entry").path();
        let Ok(text) = fs::read_to_string(directory.join("golden.jsonl")) else { continue };
        let name = directory.file_name().expect("a name").to_string_lossy().into_owned();
        let report = report(&name, &text);
        assert!(report.events > 2, "{name}");
        assert_eq!(report.differences, [], "{name}");
        tested += 1;
    }
    assert!(tested >= 15, "only {tested} plugins have golden events");
}

#[test]
fn what_differs_is_shown_line_by_line() {
    let golden = format!("{{\"config\": {{}}}}\n{USERS}\n{}", MASKED.replace("a***", "ann"));
    let report = report("mask-email", &golden);
    let [difference] = &report.differences[..] else { panic!("{report:?}") };
    let change = |mail| {
        let after = json!({ "id": "1", "email": mail });
        json!({ "table": "public.users", "op": "c", "after": after })
    };
    let (expected, actual) = (change("ann@x.org"), change("a***@x.org"));
    assert_eq!(difference.to_string(), format!("event 1\n  - {expected}\n  + {actual}\n"));
}

#[test]
fn a_change_that_is_expected_twice_is_shown_with_what_came() {
    let change =
        r#"{"table": "public.users", "op": "c", "after": {"id": "1", "email": "a***@x.org"}}"#;
    let twice = MASKED.replace(change, &format!("{change}, {change}"));
    let report = report("mask-email", &format!("{USERS}\n{twice}"));
    let [difference] = &report.differences[..] else { panic!("{report:?}") };
    let shown = difference.to_string();
    let begins = |sign: &str| shown.lines().filter(|line| line.starts_with(sign)).count();
    assert_eq!((begins("  - {"), begins("  + {")), (2, 1), "{shown}");
}

#[test]
fn calls_that_did_not_come_to_their_end_are_told_apart_from_faults() {
    let golden = |deed: &str| {
        let text = [
            &format!(r#"{{"config": {{"deed": "{deed}"}}}}"#),
            r#"{"table": "public.t", "columns": [["id", "bigint"], ["name", "text"]], "key": ["id"]}"#,
            r#"{"table": "public.t", "op": "c", "after": {"id": "1", "name": "poison"}}"#,
        ];
        let options = Options::of_component(&test_guest_file("hostile"), Grant::ALL.to_vec());
        let golden = Golden::parse(&text.join("\n")).expect("golden events");
        golden.run(&RUNTIME, &options).expect("the plugin loads")
    };
    assert_eq!(golden("fault-on-poison").cut_off, 0);
    assert!(golden("panic-on-poison").cut_off > 0);
    assert!(golden("loop-on-poison").cut_off > 0);
}

#[test]
fn a_line_that_is_no_event_is_told_by_its_number() {
    let cases = [
        ("{", "line 1: EOF while parsing an object at column 1"),
        (r#"{"op": "c"}"#, "line 1: it has neither `config`, `table` nor `envelope`"),
        (
            r#"{"table": "public.t", "op": "c", "after": {}}"#,
            "no line before says what public.t is",
        ),
        (
            r#"{"table": "public.t", "columns": [["id", "number"]]}"#,
            "`number` is none of PostgreSQL's types",
        ),
        (r#"{"table": "t", "columns": []}"#, "a table's name is like"),
        (r#"{"wrong": 1}"#, "unknown field `wrong`"),
        (r#"{"config": {"a": null}}"#, "its `config` cannot be said in TOML: "),
        (
            r#"{"config": {}, "table": "public.t", "op": "t", "expect": []}"#,
            "a line with `config` has no `table`; give that a line of its own",
        ),
        (
            r#"{"table": "public.t", "columns": [["id", "bigint"]], "op": "t"}"#,
            "a line with `columns` has no `op`; give that a line of its own",
        ),
        (r#"{"columns": [["id", "bigint"]]}"#, "a line with `columns` has the `table` that they"),
        (r#"{"envelope": {}, "op": "t"}"#, "a line with `envelope` has no `op`; give"),
        (
            r#"{"table": "public.t", "columns": [["id", "bigint"]], "key": "id"}"#,
            "its `key` is a list of column names",
        ),
        (
            r#"{"table": "public.t", "columns": [["id", "bigint"]], "key": ["ID"]}"#,
            "public.t has no column ID",
        ),
    ];
    for (text, expected) in cases {
        let error = Golden::parse(text).expect_err(text);
        assert!(error.contains(expected), "{error}");
    }
    let rows = [
        (r#""op": "x""#, "its `op` is none of r, c, u, d and t"),
        (r#""op": "c""#, "r, c and u have an `after`, d and t have none"),
        (r#""op": "c", "after": {"nowhere": "1"}"#, "has no column nowhere"),
        (r#""op": "t", "key": ["id"]"#, "a line with `op` has no `key`; give that a line"),
        (r#""op": "t", "expect": {"op": "t"}"#, "its `expect` is neither a list of changes nor"),
        (r#""op": "t", "expect": {"fault": 7}"#, "its `expect` is neither a list of changes nor"),
        (r#""op": "t", "expect": null"#, "its `expect` is neither a list of changes nor"),
    ];
    for (rest, expected) in rows {
        let text = format!("{USERS}\n{{\"table\": \"public.users\", {rest}}}");
        let error = Golden::parse(&text).expect_err(rest);
        assert!(error.starts_with("line 2: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_version_whose_golden_events_do_not_come_out_does_not_take_over() {
    let scratch = Scratch::new("golden").expect("a directory");
    let file = scratch.join("it.wasm");
    fs::copy(test_guest_file("identity"), &file).expect("a copy");
    let mask = || options(&file, "config = { columns = ['email'] }");
    let loaded = load(vec![mask()]).expect("the plugin loads");
    let wrong = format!("{USERS}\n{}", MASKED.replace("a***", "b***"));
    fs::write(golden_beside(&file), wrong).expect("a file");
    let fresh = scratch.join("fresh");
    fs::copy(plugin_file("mask-email"), &fresh).expect("a copy");
    fs::rename(&fresh, &file).expect("the same directory");
    let versions = loaded.chain.versions();
    let refused = versions.reload("it", Some(&mask())).expect("there is one").expect_err("refused");
    assert!(refused.starts_with("the golden events in "), "{refused}");
    assert!(refused.contains("1 of 1 events became something else"), "{refused}");
    assert!(refused.contains("b***@x.org"), "it shows the difference: {refused}");
    fs::write(golden_beside(&file), format!("{USERS}\n{MASKED}")).expect("a file");
    versions.reload("it", Some(&mask())).expect("there is one").expect("it takes over");
}

/// A chain of `identity`, whose file then becomes `mask-email` with golden events that come out wrong.
fn rejected_by_its_events(scratch: &Scratch) -> Loaded {
    let file = scratch.join("it.wasm");
    fs::copy(test_guest_file("identity"), &file).expect("a copy");
    let loaded = load(vec![options(&file, "")]).expect("the plugin loads");
    let wrong = format!("{USERS}\n{}", MASKED.replace("a***", "b***"));
    fs::write(golden_beside(&file), wrong).expect("a file");
    let fresh = scratch.join("fresh");
    fs::copy(plugin_file("mask-email"), &fresh).expect("a copy");
    fs::rename(&fresh, &file).expect("the same directory");
    loaded
}

#[test]
fn a_version_takes_over_once_its_golden_events_are_mended() {
    let scratch = Scratch::new("golden").expect("a directory");
    let loaded = rejected_by_its_events(&scratch);
    let error = || loaded.chain.versions().list().remove(0).last_reload_error;
    let rejected = || error().is_some_and(|why| why.contains("1 of 1 events became"));
    wait_until(DEADLINE, "the rejection", rejected).expect("it is rejected");
    let accepted = PluginKindLabels { plugin: "it".to_owned(), kind: "accepted" };
    let accepted = || loaded.metrics.plugin_reloads.get_or_create(&accepted).get();
    assert_eq!(accepted(), 0);
    // As a build does it: the component is the same, so its file stays as it is.
    let fresh = scratch.join("it.golden.jsonl.part");
    fs::write(&fresh, format!("{USERS}\n{MASKED}")).expect("a file");
    fs::rename(&fresh, golden_beside(&scratch.join("it.wasm"))).expect("the same directory");
    wait_until(DEADLINE, "the new version", || accepted() == 1).expect("it takes over");
    assert_eq!(error(), None);
}

#[test]
fn a_start_refuses_a_version_whose_golden_events_do_not_come_out() {
    let scratch = Scratch::new("golden").expect("a directory");
    let file = scratch.join("it.wasm");
    fs::copy(plugin_file("mask-email"), &file).expect("a copy");
    let write = |events: String| fs::write(golden_beside(&file), events).expect("a file");
    let mask = || options(&file, "config = { columns = ['email'] }");
    write(format!("{USERS}\n{}", MASKED.replace("a***", "b***")));
    let refused = load(vec![mask()]).err().expect("it is not loaded").to_string();
    assert!(refused.contains("1 of 1 events became something else"), "{refused}");
    let checked = rehearse(&RUNTIME, &mask()).expect_err("no run would start").to_string();
    assert_eq!(checked, refused, "as `check` says it");
    write(format!("{USERS}\n{MASKED}"));
    load(vec![mask()]).expect("they come out");
}

/// What the running version is expected to make of which changes is changed beside it.
#[test]
fn golden_events_that_the_running_version_does_not_pass_are_told_before_the_next_start() {
    let scratch = Scratch::new("golden").expect("a directory");
    let file = scratch.join("it.wasm");
    fs::copy(plugin_file("mask-email"), &file).expect("a copy");
    let write = |events: &str| fs::write(golden_beside(&file), events).expect("a file");
    write(&format!("{USERS}\n{MASKED}"));
    let loaded = load(vec![options(&file, "")]).expect("the plugin loads");
    let versions = loaded.chain.versions();
    let error = || versions.list().remove(0).last_reload_error;
    write(&format!("{USERS}\n{}", MASKED.replace("a***", "b***")));
    let told = || error().is_some_and(|why| why.contains("1 of 1 events became something else"));
    wait_until(DEADLINE, "the difference", told).expect("it is told");
    let why = error().expect("it is told");
    assert!(why.ends_with("the version goes on, but the next start will refuse it"), "{why}");
    let asked = versions.reload("it", None).expect("there is one");
    assert_eq!(asked.expect_err("no start would take it"), why);
    write("{");
    let told = || error().is_some_and(|why| why.contains("line 1: EOF"));
    wait_until(DEADLINE, "the broken line", told).expect("it is told");
    assert!(load(vec![options(&file, "")]).is_err(), "as a start says");
    write(&format!("{USERS}\n{MASKED}"));
    wait_until(DEADLINE, "the error to go", || error().is_none()).expect("it goes");
    let rejected = PluginKindLabels { plugin: "it".to_owned(), kind: "rejected" };
    assert_eq!(loaded.metrics.plugin_reloads.get_or_create(&rejected).get(), 0, "no version was");
}

#[test]
fn golden_events_that_came_out_are_not_shown_again_until_they_or_the_settings_are_others() {
    let scratch = Scratch::new("golden").expect("a directory");
    let file = scratch.join("it.wasm");
    let runtime = Runtime::new(Some(scratch.join("cache"))).expect("this machine runs WebAssembly");
    fs::copy(test_guest_file("hostile"), &file).expect("a copy");
    let text = concat!(
        r#"{"config": {"deed": "log-at-each-level"}}"#,
        "\n",
        r#"{"table": "public.t", "columns": [["id", "bigint"], ["name", "text"]], "key": ["id"]}"#,
        "\n",
        r#"{"table": "public.t", "op": "c", "after": {"id": "1", "name": "ann"}}"#,
    );
    fs::write(golden_beside(&file), text).expect("a file");
    let are_shown = |settings: &str| {
        let options = options(&file, &format!("{settings}\nconfig = {{ deed = 'nothing' }}"));
        let (loaded, lines) = logged(Level::DEBUG, || rehearse(&runtime, &options));
        loaded.expect("they come out");
        let of_plugin = lines.iter().filter(|line| line["target"] == "plugin");
        assert_eq!(of_plugin.count(), 0, "what it says of them is about nothing that flows");
        lines.iter().any(|line| line["message"] == "plugin was shown its golden events")
    };
    assert!(are_shown(""));
    assert!(!are_shown(""), "nothing has changed");
    assert!(are_shown("deadline_ms = 900"));
    fs::write(golden_beside(&file), format!("{text}\n")).expect("a file");
    assert!(are_shown(""));
    assert!(!are_shown(""));
}

#[test]
fn what_a_leg_does_about_faults_does_not_matter_to_golden_events() {
    let scratch = Scratch::new("golden").expect("a directory");
    let file = scratch.join("it.wasm");
    let golden = fs::read_to_string(workspace_root().join("plugins/outbox-router/golden.jsonl"));
    let golden = golden.expect("golden events");
    assert!(golden.contains("\"fault\""), "one of them is a fault");
    for on_error in ["halt", "skip"] {
        fs::copy(plugin_file("outbox-router"), &file).expect("a copy");
        let settings =
            |more| options(&file, &format!("on_error = '{on_error}'\nbreaker_rows = 1\n{more}"));
        let loaded = load(vec![settings("")]).expect("the plugin loads");
        fs::write(golden_beside(&file), &golden).expect("a file");
        let versions = loaded.chain.versions();
        let reloaded = versions.reload("it", Some(&settings("retries = 1"))).expect("there is one");
        assert!(reloaded.is_ok(), "{on_error}: {reloaded:?}");
        fs::remove_file(golden_beside(&file)).expect("a file");
    }
}

#[test]
fn golden_events_that_cannot_be_read_keep_a_version_out() {
    let scratch = Scratch::new("golden").expect("a directory");
    let file = scratch.join("it.wasm");
    fs::copy(plugin_file("mask-email"), &file).expect("a copy");
    let loaded = load(vec![options(&file, "")]).expect("the plugin loads");
    fs::write(golden_beside(&file), b"{\"config\": \xff}").expect("a file");
    let other = options(&file, "retries = 1");
    let versions = loaded.chain.versions();
    let refused = versions.reload("it", Some(&other)).expect("there is one").expect_err("refused");
    assert!(refused.contains("it.golden.jsonl: stream did not contain valid UTF-8"), "{refused}");
}

#[test]
fn events_that_are_all_faults_are_compared_and_measured_all_the_same() {
    let text = fs::read_to_string(workspace_root().join("plugins/outbox-router/golden.jsonl"));
    let text = text.expect("golden events");
    let lines = text.lines().filter(|line| !line.contains("expect") || line.contains("\"fault\""));
    let golden = Golden::parse(&lines.collect::<Vec<_>>().join("\n")).expect("golden events");
    let options = Options::of_component(&plugin_file("outbox-router"), Vec::new());
    let report = golden.run(&RUNTIME, &options).expect("the plugin loads");
    assert_eq!((report.events, &report.differences[..]), (1, &[][..]));
    let costs = golden.costs(None, &options, &[256]).expect("a failure is an outcome");
    assert!(costs.iter().all(|cost| cost.instructions > 0.0), "{costs:?}");
}

#[test]
fn what_a_plugin_says_of_each_table_is_told_in_words() {
    let outlines = |plugin: &str, golden: &str| -> Vec<String> {
        let golden = Golden::parse(golden).expect("golden events");
        let options = Options::of_component(&plugin_file(plugin), Grant::ALL.to_vec());
        let outlines = golden.outlines(&RUNTIME, &options).expect("the plugin loads");
        outlines.iter().map(ToString::to_string).collect()
    };
    let of_repository = |plugin: &str| {
        let file = workspace_root().join("plugins").join(plugin).join("golden.jsonl");
        outlines(plugin, &fs::read_to_string(file).expect("golden events"))
    };
    let other = r#"{"table": "public.log", "columns": [["id", "bigint"]], "key": ["id"]}"#;
    let config = r#"{"config": {"columns": ["email"]}}"#;
    assert_eq!(
        outlines("mask-email", &format!("{config}\n{USERS}\n{other}\n{MASKED}")),
        [
            "table    public.users\n  wants    email (packed), old email (packed)",
            "table    public.log\n  is never shown to it",
        ]
    );
    assert_eq!(
        of_repository("outbox-router"),
        [
            "table    public.outbox\n  wants    aggregatetype (packed)\n  beside   ops\n  keyed by aggregateid\n  itself   goes no further"
        ]
    );
    assert_eq!(
        of_repository("route-by-value"),
        [
            "table    public.users\n  wants    region (packed)\n  beside   ops\n  homes    america.users, europe.users"
        ]
    );
    let refused = &outlines("filter-rows", &format!("{WHERE_TOTAL}\n{USERS}"))[0];
    assert!(refused.contains("\n  refused  it does not take table public.users: "), "{refused}");
}
