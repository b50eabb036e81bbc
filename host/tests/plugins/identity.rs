//! `tests/guests/identity`: whatever a plugin only looks at stays as it was.

use std::sync::Arc;

use proptest::prelude::*;
use tailwater::change::Changes;
use tailwater::table::{ColumnType, Table};

use crate::batch::{Batch, NULL, UNCHANGED, lines, table};
use crate::chains::{Loaded, load, options, test_guest_file};

const COLUMNS: [(&str, ColumnType); 7] = [
    ("id", ColumnType::Int8),
    ("name", ColumnType::Text),
    ("count", ColumnType::Int4),
    ("weight", ColumnType::Float8),
    ("size", ColumnType::Float4),
    ("active", ColumnType::Bool),
    ("note", ColumnType::Text),
];

fn identity(settings: &str) -> Loaded {
    let settings = format!("config = {{ {settings} }}");
    load(vec![options(&test_guest_file("identity"), &settings)]).expect("it loads")
}

fn things() -> Arc<Table> {
    table("things", &COLUMNS)
}

/// A value of a column as PostgreSQL prints it.
fn value(column: usize) -> BoxedStrategy<String> {
    match COLUMNS[column].1 {
        ColumnType::Int8 => any::<i64>().prop_map(|item| item.to_string()).boxed(),
        ColumnType::Int4 => any::<i32>().prop_map(|item| item.to_string()).boxed(),
        ColumnType::Float8 => floats(&["0.1", "-1e-05", "1.5e+300", "NaN", "-Infinity", "42"]),
        ColumnType::Float4 => floats(&["0.1", "-1e-05", "1.5e+30", "NaN", "Infinity", "123456"]),
        ColumnType::Bool => prop_oneof![Just("t".to_owned()), Just("f".to_owned())].boxed(),
        _ => {
            prop_oneof!["\\PC{0,12}", Just(String::new()), Just("é\u{10FFFF}\n".to_owned())].boxed()
        }
    }
}

fn floats(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(texts).prop_map(str::to_owned).boxed()
}

/// The first two columns are not nullable; only texts are large enough not to be sent.
fn cell(column: usize) -> BoxedStrategy<String> {
    match column {
        0 | 1 => value(column),
        6 => prop_oneof![4 => value(column), 1 => Just(NULL.to_owned()), 1 => Just(UNCHANGED.to_owned())]
            .boxed(),
        _ => prop_oneof![4 => value(column), 1 => Just(NULL.to_owned())].boxed(),
    }
}

fn row() -> impl Strategy<Value = Vec<String>> {
    (0..COLUMNS.len()).map(cell).collect::<Vec<_>>()
}

#[derive(Debug, Clone)]
struct Given {
    op: u8,
    old: Vec<String>,
    new: Vec<String>,
}

fn given() -> impl Strategy<Value = Vec<Given>> {
    let one = (0..7_u8, row(), row()).prop_map(|(op, old, new)| Given { op, old, new });
    prop::collection::vec(one, 0..40)
}

fn texts(row: &[String]) -> Vec<&str> {
    row.iter().map(String::as_str).collect()
}

fn batch(given: &[Given]) -> Changes {
    let things = things();
    let mut batch = Batch::at(7);
    for (Given { op, old, new }, commit) in given.iter().zip(8..) {
        let (old, new) = (texts(old), texts(new));
        let key = [&old[..1], &[NULL; COLUMNS.len() - 1]].concat();
        batch = match op {
            0 => batch.insert(&things, &new),
            1 => batch.read(&things, &new),
            2 => batch.update(&things, &new),
            3 => batch.replace(&things, &old, &new),
            4 => batch.rekey(&things, &key, &new),
            5 => batch.delete(&things, &key),
            _ => batch.truncate(&things).commit(commit).delete_full(&things, &old),
        };
    }
    batch.done()
}

const ALL: &str = "columns = ['id', 'name', 'count', 'weight', 'size', 'active', 'note']";
const TYPED: &str = "columns = ['id', 'count', 'weight', 'size', 'active']";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_identity_plugin_changes_no_batch(given in given()) {
        for settings in [
            String::new(),
            "columns = [], headers = true".to_owned(),
            format!("{ALL}, old = true, headers = true, form = 'packed'"),
            format!("{ALL}, old = true, form = 'strings'"),
            format!("{TYPED}, old = true, form = 'native'"),
            format!("{ALL}, old = true, form = 'packed', echo = true"),
            format!("{ALL}, old = true, form = 'strings', echo = true"),
            format!("{TYPED}, old = true, form = 'native', echo = true"),
        ] {
            let mut changes = batch(&given);
            let before = lines(&changes);
            let letters = identity(&settings).run(&mut changes);
            prop_assert_eq!(&letters[..], &[], "{}", settings);
            prop_assert_eq!(lines(&changes), before, "{}", settings);
        }
    }
}

#[test]
fn a_value_that_is_not_of_its_type_is_a_fault_of_its_row() {
    let things = things();
    let row = |count| ["1", "a", count, NULL, NULL, NULL, NULL];
    let batch = Batch::at(7).insert(&things, &row("12")).insert(&things, &row("twelve"));
    let mut changes = batch.insert(&things, &row("13")).done();
    let mut chain = identity(&format!("{TYPED}, form = 'native'"));
    let letters = chain.run(&mut changes);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].position.ordinal, 2);
    assert_eq!(letters[0].reason, "a value is not what its column's type says");
    assert_eq!(changes.len(), 2);
}

#[test]
fn large_batches_are_shown_in_parts() {
    let things = things();
    let row = ["1", "a", NULL, NULL, NULL, NULL, NULL];
    let batch = || (0..1000).fold(Batch::at(7), |batch, _| batch.insert(&things, &row)).done();
    let path = test_guest_file("identity");
    let settings = format!("batch_rows = 64\nconfig = {{ {ALL}, echo = true }}");
    let mut chain = load(vec![options(&path, &settings)]).expect("it loads");
    assert_eq!(chain.lines(batch()), lines(&batch()));
    let calls = chain.metrics.expose();
    assert!(calls.contains("tailwater_plugin_calls_total{plugin=\"identity\"} 16"), "{calls}");
}
