//! `tests/guests/trapper-c` and others: where in its source a plugin trapped, or did not catch an exception.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailwater::dead_letter::DeadLetter;
use tailwater::table::ColumnType;
use tailwater::telemetry::metrics::PluginKindLabels;

use crate::batch::{Batch, table};
use crate::chains::{Loaded, load, options, test_guest_file};

/// Shows a plugin a row with that name, which it fails on.
fn letter(chain: &mut Loaded, name: &str) -> DeadLetter {
    let members = table("members", &[("id", ColumnType::Int4), ("name", ColumnType::Text)]);
    let mut letters = chain.run(&mut Batch::at(7).insert(&members, &["1", name]).done());
    assert_eq!(letters.len(), 1, "{name}");
    letters.remove(0)
}

/// How a plugin came to trap on a row.
fn backtrace(component: &Path) -> String {
    let mut chain = load(vec![options(component, "")]).expect("the plugin loads");
    letter(&mut chain, "poison").backtrace.expect("the way to the trap")
}

/// Where in the source of a plugin a line is.
fn line(source: &str, text: &str) -> usize {
    source.lines().position(|line| line.contains(text)).expect("it is there") + 1
}

/// The contents of the sections with debug information: behind their ids, lengths and names.
fn debug_sections(component: &[u8]) -> Vec<Range<usize>> {
    let names = [".debug_info", ".debug_line", ".debug_abbrev", ".debug_ranges", ".debug_str"];
    let section = |name: &&str| {
        let mut at = component.windows(name.len()).position(|found| found == name.as_bytes())?;
        let begin = at + name.len();
        at -= 1;
        let mut first = at - 1;
        while component[first - 1] >= 0x80 {
            first -= 1;
        }
        let digits = component[first..at].iter().rev();
        let length = digits.fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        Some(begin..at + length)
    };
    names.iter().filter_map(section).collect()
}

#[test]
fn a_trap_is_told_with_file_and_line_and_what_was_inlined() {
    let source = include_str!("../../../tests/guests/trapper-c/plugin.c");
    let backtrace = backtrace(&test_guest_file("trapper-c"));
    for (function, text) in [
        ("taste", "__builtin_trap()"),
        ("look_at_all", "taste(name, length)"),
        ("exports_tailwater_process", "look_at_all(&batch"),
    ] {
        let expected = format!("plugin.c:{})", line(source, text));
        let told =
            |told: &str| told.contains(&format!("   {function} (")) && told.ends_with(&expected);
        assert!(backtrace.lines().any(told), "{function} at {expected} is not in\n{backtrace}");
    }
}

#[test]
fn damaged_debug_information_costs_the_lines_and_nothing_else() {
    let component = fs::read(test_guest_file("trapper-c")).unwrap();
    let sections = debug_sections(&component);
    assert!(sections.len() >= 4, "{sections:?}");
    let scratch = tempfile::tempdir().unwrap();
    for seed in 0..24 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut damaged = component.clone();
        for section in &sections {
            for _ in 0..=section.len() / random.random_range(8..200) {
                damaged[random.random_range(section.clone())] = random.random();
            }
        }
        let file = scratch.path().join("damaged.wasm");
        fs::write(&file, damaged).unwrap();
        let started = Instant::now();
        let backtrace = backtrace(&file);
        assert!(backtrace.contains("look_at_all at 0x"), "seed {seed}: {backtrace}");
        assert!(started.elapsed() < Duration::from_secs(20), "seed {seed} took too long");
    }
}

#[test]
fn a_file_that_was_replaced_meanwhile_says_nothing_of_the_version_that_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("trapper.wasm");
    fs::copy(test_guest_file("trapper-c"), &file).unwrap();
    let members = table("members", &[("id", ColumnType::Int4), ("name", ColumnType::Text)]);
    let mut chain = load(vec![options(&file, "")]).expect("the plugin loads");
    fs::write(&file, "half a component").unwrap();
    let mut changes = Batch::at(7).insert(&members, &["1", "poison"]).done();
    let backtrace = chain.run(&mut changes)[0].backtrace.clone().expect("the way to the trap");
    assert!(
        backtrace.contains("look_at_all at 0x") && !backtrace.contains("plugin.c"),
        "{backtrace}"
    );
}

#[test]
fn a_panic_in_go_is_told_with_the_functions_that_led_to_it() {
    let mut chain = load(vec![options(&test_guest_file("trapper-go"), "")]).unwrap();
    let letter = letter(&mut chain, "poison");
    let package = "wit_component_export_wit_world";
    let way = ["taste", "lookAtAll", "Process"].map(|function| format!("{package}.{function}"));
    assert!(letter.reason.ends_with(&format!(" in {}", way.join(" < "))), "{}", letter.reason);
    let backtrace = letter.backtrace.expect("the way to the trap");
    for function in way {
        assert!(backtrace.contains(&format!(": {function} at 0x")), "{function}: {backtrace}");
    }
}

/// Calls that failed, by kind.
fn faults(chain: &Loaded, plugin: &str, kind: &'static str) -> u64 {
    let labels = PluginKindLabels { plugin: plugin.to_owned(), kind };
    chain.metrics.plugin_faults.get_or_create(&labels).get()
}

/// A plugin in a language that brings its engine.
fn interpreted(guest: &str) -> Loaded {
    let settings = "memory_mb = 256\ndeadline_ms = 10000";
    load(vec![options(&test_guest_file(guest), settings)]).expect("the plugin loads")
}

#[test]
fn an_exception_in_python_is_told_with_its_way_and_without_its_message() {
    let source = include_str!("../../../tests/guests/raiser-py/app.py");
    let at = |function: &str, text: &str| format!("{function} (app.py:{})", line(source, text));
    let process = at("WitWorld.process", "            taste(name)");
    let mut chain = interpreted("raiser-py");
    for (name, exception, place) in [
        ("poison", "Spoiled", at("taste", "raise Spoiled(f")),
        ("error", "Err", at("taste", "raise Err(Spoiled")),
        ("exit", "SystemExit", at("taste", "raise SystemExit")),
    ] {
        let letter = letter(&mut chain, name);
        assert_eq!(letter.reason, format!("it raised {exception} in {place} < {process}"));
        assert_eq!(letter.backtrace, None);
    }
    let reason = letter(&mut chain, "{poison").reason;
    let library = "it raised JSONDecodeError in JSONDecoder.raw_decode (json/decoder.py:";
    let own = format!(" < {} < {process}", at("taste", "json.loads(name)"));
    assert!(reason.starts_with(library) && reason.ends_with(&own), "{reason}");
    let recursion = [at("recurse", "    recurse(name)").as_str(); 6].join(" < ");
    let reason = letter(&mut chain, "poisoned").reason;
    assert_eq!(reason, format!("it raised RecursionError in {recursion}"));
    assert_eq!(letter(&mut chain, "refused").reason, "the plugin's own sentence");
    let faults = |kind| faults(&chain, "raiser-py", kind);
    assert_eq!((faults("refused"), faults("trap")), (6, 0));
}

#[test]
fn an_error_in_javascript_is_told_with_its_way_and_without_its_message() {
    let plugin = include_str!("../../../tests/guests/thrower-js/plugin.js");
    let spoiled = include_str!("../../../tests/guests/thrower-js/spoiled.ts");
    let at = |function: &str, text: &str| format!("{function} (plugin.js:{})", line(plugin, text));
    let process = at("process", "taste(name);");
    let mut chain = interpreted("thrower-js");
    let [class, call] = ["class Spoiled", "new Spoiled"].map(|text| line(spoiled, text));
    let thrown = format!("Spoiled (spoiled.js:{class}) < spoil (spoiled.js:{call})");
    let way = format!("{thrown} < {} < {process}", at("taste", "spoil(name)"));
    assert_eq!(letter(&mut chain, "poison").reason, format!("it threw Spoiled in {way}"));
    let way = format!("{} < {process}", at("taste", "JSON.parse"));
    assert_eq!(letter(&mut chain, "{poison").reason, format!("it threw SyntaxError in {way}"));
    let recursion = [at("recurse", "return recurse").as_str(); 6].join(" < ");
    let reason = letter(&mut chain, "poisoned").reason;
    assert_eq!(reason, format!("it threw InternalError in {recursion}"));
    let reason = letter(&mut chain, "later poison").reason;
    let [later, awaited] = [at("later", "spoil(names[0])"), at("async*process", "? later(names)")];
    let way = format!("{thrown} < {later} < {awaited}");
    assert_eq!(reason, format!("it threw Spoiled in {way}"));
    let reason = letter(&mut chain, "object").reason;
    assert_eq!(reason, "it threw what is no Error (object) and knows no place");
    assert_eq!(letter(&mut chain, "refused").reason, "the plugin's own sentence");
    let faults = |kind| faults(&chain, "thrower-js", kind);
    assert_eq!((faults("refused"), faults("trap")), (6, 0));
}

#[test]
fn an_exception_in_init_is_told_when_the_plugin_is_loaded() {
    for (guest, place) in [
        ("raiser-py", "raised Spoiled in WitWorld.init (app.py:"),
        ("thrower-js", "threw RangeError in init (plugin.js:"),
    ] {
        let settings = "memory_mb = 256\ndeadline_ms = 10000\nconfig = { secret = 'poison' }";
        let refused =
            load(vec![options(&test_guest_file(guest), settings)]).err().expect("it does not load");
        let said = refused.to_string();
        assert!(
            said.contains(&format!("does not start: it {place}")) && !said.contains("poison"),
            "{said}"
        );
    }
}
