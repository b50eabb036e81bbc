use tailwater_guest::testing::{Cell, Change, Fate, TestTable, Tested};

use super::*;

fn orders() -> TestTable {
    let table = TestTable::new("public.orders").key("id", "bigint").column("state", "text");
    let table = table.column("total", "numeric(18,4)").column("paid", "boolean");
    table.column("weight", "double precision").column("day", "date")
}

fn filter(conditions: &str) -> Tested<FilterRows> {
    Tested::new(&format!("{{\"where\": {conditions}}}")).unwrap()
}

/// Whether an order with that value matches.
fn matches(condition: &str, column: &'static str, value: impl Into<Cell>) -> bool {
    let change = Change::insert([("id", Cell::from("1")), (column, value.into())]);
    let fates = filter(&format!("[{condition}]")).transform(&orders(), &[change]);
    match &fates[..] {
        [Fate::Kept { .. }] => true,
        [Fate::Discarded] => false,
        other => panic!("{other:?}"),
    }
}

fn refusal(config: &str) -> String {
    match Tested::<FilterRows>::new(config) {
        Ok(_) => panic!("{config} is accepted"),
        Err(sentence) => sentence,
    }
}

#[test]
fn text_is_compared() {
    let open = r#"{"column": "state", "value": "open"}"#;
    assert!(matches(open, "state", "open"));
    assert!(!matches(open, "state", "Open"));
    let one_of = r#"{"column": "state", "op": "in", "value": ["open", "paid"]}"#;
    assert!(matches(one_of, "state", "paid"));
    assert!(!matches(one_of, "state", "lost"));
    let since = r#"{"column": "day", "op": "ge", "value": "2026-01-01"}"#;
    assert!(matches(since, "day", "2026-01-01"));
    assert!(!matches(since, "day", "2025-12-31"));
}

#[test]
fn numbers_are_compared_by_value() {
    let large = r#"{"column": "total", "op": "gt", "value": 99.5}"#;
    assert!(matches(large, "total", "100"));
    assert!(matches(large, "total", "99.5001"));
    assert!(!matches(large, "total", "99.5000"));
    assert!(!matches(large, "total", "-100"));
    assert!(matches(large, "total", "NaN"), "as PostgreSQL orders it");
    let exact = r#"{"column": "total", "value": "12345678901234567890.10"}"#;
    assert!(matches(exact, "total", "12345678901234567890.1"));
    assert!(!matches(exact, "total", "12345678901234567890.2"));
    assert!(matches(r#"{"column": "total", "value": 0}"#, "total", "-0.00"));
    assert!(matches(r#"{"column": "total", "op": "lt", "value": -1}"#, "total", "-2.5"));
    assert!(matches(r#"{"column": "weight", "op": "le", "value": 1e3}"#, "weight", "1000"));
    assert!(!matches(r#"{"column": "id", "op": "ge", "value": 10}"#, "state", "open"));
}

#[test]
fn truth_values_are_compared() {
    let paid = r#"{"column": "paid", "value": true}"#;
    assert!(matches(paid, "paid", "t"));
    assert!(!matches(paid, "paid", "f"));
}

#[test]
fn null_satisfies_nothing_but_is_null() {
    for op in ["eq", "ne", "lt", "ge"] {
        let condition = format!(r#"{{"column": "state", "op": "{op}", "value": "open"}}"#);
        assert!(!matches(&condition, "state", Cell::Null), "{op}");
    }
    assert!(matches(r#"{"column": "state", "op": "is-null"}"#, "state", Cell::Null));
    assert!(!matches(r#"{"column": "state", "op": "is-not-null"}"#, "state", Cell::Null));
    assert!(matches(r#"{"column": "state", "op": "is-not-null"}"#, "state", ""));
}

#[test]
fn all_or_any_condition_must_hold() {
    let conditions = r#"[{"column": "state", "value": "open"}, {"column": "paid", "value": true}]"#;
    let change = Change::insert([("id", "1"), ("state", "open"), ("paid", "f")]);
    let fates = |matching: &str| {
        let config = format!(r#"{{"match": "{matching}", "where": {conditions}}}"#);
        Tested::<FilterRows>::new(&config)
            .unwrap()
            .transform(&orders(), std::slice::from_ref(&change))
    };
    assert_eq!(fates("all"), [Fate::Discarded]);
    assert!(matches!(fates("any")[..], [Fate::Kept { .. }]));
}

#[test]
fn a_value_that_was_not_sent_is_taken_from_the_old_row_or_is_a_fault() {
    let new = || [("id", Cell::from("1")), ("state", Cell::Unchanged), ("paid", "f".into())];
    let none: [(&str, Cell); 0] = [];
    let known = Change::update([("id", "1"), ("state", "open")], new());
    let unknown = Change::update(none, new());
    let mut filter = filter(r#"[{"column": "state", "value": "open"}]"#);
    let fates = filter.transform(&orders(), &[known, unknown.clone()]);
    assert!(matches!(&fates[..], [Fate::Kept { .. }, Fate::Fault(_)]), "{fates:?}");
    let both = r#"[{"column": "state", "value": "open"}, {"column": "paid", "value": true}]"#;
    let fates = self::filter(both).transform(&orders(), &[unknown]);
    assert_eq!(fates, [Fate::Discarded], "the other condition decides");
}

#[test]
fn a_configuration_that_means_nothing_is_refused() {
    assert!(refusal(r#"{"where": []}"#).contains("no condition"));
    assert!(refusal(r#"{"where": [{"column": "a", "op": "in", "value": 1}]}"#).contains("a list"));
    assert!(refusal(r#"{"where": [{"column": "a"}]}"#).contains("one `value`"));
    assert!(refusal(r#"{"where": [{"column": "a", "op": "like"}]}"#).contains("like"));
    assert!(refusal(r#"{"when": []}"#).contains("when"));
}

#[test]
fn a_table_that_does_not_fit_is_refused() {
    let subscribe = |conditions: &str, table: &Table| {
        filter(conditions).plugin().subscribe(table).expect_err("it is refused")
    };
    let table = orders().into_record();
    let missing = subscribe(r#"[{"column": "lang", "value": "en"}]"#, &table);
    assert!(missing.contains("public.orders has no column lang"), "{missing}");
    let wrong = subscribe(r#"[{"column": "paid", "value": "yes"}]"#, &table);
    assert!(wrong.contains("public.orders.paid is boolean"), "{wrong}");
}
