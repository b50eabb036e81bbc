//! `tests/guests/trapper-c`: where in its source a plugin trapped.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailwater::table::ColumnType;

use crate::batch::{Batch, table};
use crate::chains::{load, options, test_guest_file};

/// How a plugin came to trap on a row.
fn backtrace(component: &Path) -> String {
    let members = table("members", &[("id", ColumnType::Int4), ("name", ColumnType::Text)]);
    let mut changes = Batch::at(7).insert(&members, &["1", "poison"]).done();
    let mut chain = load(vec![options(component, "")]).expect("the plugin loads");
    let mut letters = chain.run(&mut changes);
    assert_eq!(letters.len(), 1);
    letters.remove(0).backtrace.expect("the way to the trap")
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
    let line = |text: &str| source.lines().position(|line| line.contains(text)).expect("it is") + 1;
    let backtrace = backtrace(&test_guest_file("trapper-c"));
    for (function, text) in [
        ("taste", "__builtin_trap()"),
        ("look_at_all", "taste(name, length)"),
        ("exports_tailwater_process", "look_at_all(&batch"),
    ] {
        let expected = format!("plugin.c:{})", line(text));
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
