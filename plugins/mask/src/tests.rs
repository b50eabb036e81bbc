use tailwater_guest::testing::{Cell, Change, Fate, TestTable, Tested};

use super::*;

fn people() -> TestTable {
    let table = TestTable::new("public.people").key("id", "text").column("work_email", "text");
    table.column("card", "character varying(19)").column("born", "date")
}

fn made(rule: &str, column: &'static str, value: &str) -> Cell {
    let config = format!(r#"{{"key": "0123456789abcdef", "rules": [{rule}]}}"#);
    let change = Change::insert([("id", "1"), (column, value)]);
    let fates = Tested::<Mask>::new(&config).unwrap().transform(&people(), &[change]);
    match &fates[..] {
        [Fate::Kept { new, .. }] => new[column].clone(),
        other => panic!("{other:?}"),
    }
}

fn refused(config: &str) -> String {
    let subscribed = |mut mask: Tested<Mask>| mask.plugin().subscribe(&people().into_record());
    Tested::<Mask>::new(config).and_then(subscribed).expect_err("it is refused")
}

#[test]
fn a_pattern_names_columns() {
    for (pattern, name) in [("email", "email"), ("*", ""), ("*_e*l", "work_email"), ("a*", "a")] {
        assert!(matches(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [("email", "emails"), ("*_mail", "work_email"), ("a*b*a", "aba b")] {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}

#[test]
fn the_ends_that_are_shown_never_make_up_the_whole() {
    let rule = r#"{"columns": ["card"], "by": "partial", "first": 1, "last": 4}"#;
    assert_eq!(made(rule, "card", "4111222233334444"), "4***4444".into());
    assert_eq!(made(rule, "card", "é12345"), "é***2345".into());
    assert_eq!(made(rule, "card", "12345"), "***".into());
    assert_eq!(made(rule, "card", ""), "***".into());
}

#[test]
fn a_hash_tells_equal_values_and_nothing_else() {
    let rule = r#"{"columns": ["*email"], "by": "hash"}"#;
    let hash = |value| made(rule, "work_email", value);
    assert_eq!(hash("ann@x.org"), hash("ann@x.org"));
    assert_ne!(hash("ann@x.org"), hash("bob@x.org"));
    let Cell::Text(hex) = hash("ann@x.org") else { panic!("a hash is text") };
    assert_eq!(hex.len(), 64);
}

#[test]
fn what_is_no_text_is_redacted_to_null() {
    let rule = r#"{"columns": ["born", "work*"], "by": "redact"}"#;
    assert_eq!(made(rule, "born", "1990-01-01"), Cell::Null);
    assert_eq!(made(rule, "work_email", "ann@x.org"), "***".into());
}

#[test]
fn settings_that_hide_nothing_or_break_rows_are_refused() {
    let said = |rule: &str| refused(&format!(r#"{{"rules": [{rule}]}}"#));
    assert!(refused(r#"{"rules": []}"#).contains("no columns"));
    assert!(said(r#"{"columns": ["card"], "by": "hash"}"#).contains("16 bytes"));
    assert!(said(r#"{"columns": ["card"], "by": "redact", "last": 4}"#).contains("\"partial\""));
    assert!(
        said(r#"{"columns": ["id"], "by": "redact"}"#).contains("people.id is part of the key")
    );
    assert!(said(r#"{"columns": ["born"], "by": "partial"}"#).contains("people.born is date"));
    assert!(said(r#"{"columns": ["born"], "by": "blur"}"#).contains("blur"));
}
