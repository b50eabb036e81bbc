//! `plugins/mask-email`, and the same in C, Go, JavaScript and Python.

use std::sync::{LazyLock, Mutex};

use proptest::prelude::*;
use tailwater::table::ColumnType;

use crate::batch::{Batch, NULL, UNCHANGED, table, users};
use crate::chains::{Loaded, load, options, plugin, plugin_file};
use crate::golden_envelopes;

#[test]
fn addresses_are_masked_in_new_and_old_rows() {
    let users = users();
    let batch = Batch::at(7)
        .insert(&users, &["1", "ann", "ann@example.com"])
        .replace(&users, &["1", "ann", "ann@example.com"], &["1", "ann", "a.b@example.org"])
        .update(&users, &["1", "ann", UNCHANGED])
        .update(&users, &["1", "ann", NULL])
        .delete(&users, &["1", NULL, NULL])
        .delete_full(&users, &["2", "bob", "bob@example.com"]);
    assert_eq!(
        plugin("mask-email", "").lines(batch.done()),
        [
            "c 7:1 users -> (1,ann,a***@example.com)",
            "u 7:2 users (1,ann,a***@example.com) -> (1,ann,a***@example.org)",
            "u 7:3 users -> (1,ann,=)",
            "u 7:4 users -> (1,ann,-)",
            "d 7:5 users [1,-,-]",
            "d 7:6 users (2,bob,b***@example.com)",
        ]
    );
}

#[test]
fn the_columns_are_configurable_and_other_tables_left_alone() {
    let contacts = table(
        "contacts",
        &[("id", ColumnType::Int4), ("primary", ColumnType::Text), ("second", ColumnType::Text)],
    );
    let batch = Batch::at(7)
        .insert(&contacts, &["1", "a@example.com", "b@example.com"])
        .insert(&users(), &["1", "ann", "ann@example.com"]);
    assert_eq!(
        plugin("mask-email", "config = { columns = ['second'] }").lines(batch.done()),
        [
            "c 7:1 contacts -> (1,a@example.com,b***@example.com)",
            "c 7:2 users -> (1,ann,ann@example.com)",
        ]
    );
}

/// What is the same plugin as `mask-email`, in other languages.
const OTHERS: [&str; 4] = ["mask-email-c", "mask-email-go", "mask-email-js", "mask-email-py"];

/// Compiling takes the engines of scripts seconds; their heaps are larger than the default.
const SCRIPT: &str = "deadline_ms = 20000\nmemory_mb = 256\n";

/// One chain per language, started once.
static LOADED: LazyLock<Vec<Mutex<Loaded>>> =
    LazyLock::new(|| OTHERS.iter().map(|name| Mutex::new(plugin(name, SCRIPT))).collect());

#[test]
fn every_language_makes_the_same_of_the_golden_events() {
    golden_envelopes::check("mask-email", &mut plugin("mask-email", ""));
    for loaded in LOADED.iter() {
        golden_envelopes::check("mask-email", &mut loaded.lock().expect("no test panicked"));
    }
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-zé\u{10FFFF}.+]{0,8}@[a-z]{1,8}\\.(com|org)",
        2 => "\\PC{0,12}",
        1 => Just(String::new()),
        1 => Just("a@b@c".to_owned()),
        1 => Just(NULL.to_owned()),
        1 => Just(UNCHANGED.to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_language_gives_the_same_cells(rows in prop::collection::vec((address(), address()), 1..30)) {
        let users = users();
        let batch = || {
            let one = |batch: Batch, (old, new): &(String, String)| {
                let batch = batch.insert(&users, &["1", "ann", new]);
                batch.replace(&users, &["1", "ann", old], &["1", "bob", new])
            };
            rows.iter().fold(Batch::at(7), one).delete(&users, &["1", NULL, NULL]).done()
        };
        let expected = plugin("mask-email", "").lines(batch());
        for (name, loaded) in OTHERS.iter().zip(LOADED.iter()) {
            let lines = loaded.lock().expect("no test panicked").lines(batch());
            prop_assert_eq!(&lines, &expected, "{}", name);
        }
    }
}

#[test]
fn the_columns_are_configurable_in_every_language() {
    let batch = || Batch::at(7).insert(&users(), &["1", "ann@x.org", "ann@example.com"]).done();
    for name in OTHERS {
        // The escape and the white space are for readers of JSON that are written by hand.
        let settings = format!("{SCRIPT}config = {{ columns = ['naïve\\\"\t', 'name'] }}");
        assert_eq!(
            plugin(name, &settings).lines(batch()),
            ["c 7:1 users -> (1,a***@x.org,ann@example.com)"],
            "{name}"
        );
    }
}

#[test]
fn every_language_refuses_what_it_does_not_know() {
    for name in ["mask-email"].into_iter().chain(OTHERS) {
        let settings = format!("{SCRIPT}config = {{ colums = ['email'] }}");
        let Err(error) = load(vec![options(&plugin_file(name), &settings)]) else {
            panic!("{name} was loaded")
        };
        let sentence = error.to_string();
        assert!(sentence.contains("unknown field") && sentence.contains("colums"), "{sentence}");
    }
}
