use tailwater_guest::testing::{Cell, Change, TestTable, TestedDedup};

use super::*;

fn keys(config: &str, rows: &[[Cell; 3]]) -> Vec<Option<String>> {
    let table = TestTable::new("public.users").key("id", "bigint").column("name", "text");
    let table = table.column("updated_at", "timestamp with time zone");
    let change = |[id, name, updated]: [Cell; 3]| {
        Change::insert([("id", id), ("name", name), ("updated_at", updated)])
    };
    let changes: Vec<Change> = rows.iter().cloned().map(change).collect();
    TestedDedup::<DropDuplicates>::new(config).unwrap().keys(&table, &changes)
}

fn row(id: &str, name: impl Into<Cell>, updated: &str) -> [Cell; 3] {
    [id.into(), name.into(), updated.into()]
}

#[test]
fn equal_content_has_an_equal_key() {
    let keys = keys("{}", &[row("1", "ann", "x"), row("1", "ann", "x"), row("1", "ann", "y")]);
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
}

#[test]
fn columns_can_be_chosen_or_left_out() {
    let rows = [row("1", "ann", "x"), row("1", "ann", "y"), row("1", "bob", "y")];
    for config in [r#"{"except": ["updated_at"]}"#, r#"{"columns": ["id", "name"]}"#] {
        let keys = keys(config, &rows);
        assert_eq!(keys[0], keys[1]);
        assert_ne!(keys[1], keys[2]);
    }
    assert_eq!(keys(r#"{"columns": ["nowhere"]}"#, &rows), [None, None, None]);
}

#[test]
fn null_empty_unsent_and_shifted_values_differ() {
    let rows = [row("1", Cell::Null, "x"), row("1", "", "x"), row("1", Cell::Unchanged, "x")];
    let keys_of = keys("{}", &rows);
    assert!(keys_of[0] != keys_of[1] && keys_of[1] != keys_of[2] && keys_of[0] != keys_of[2]);
    let shifted = keys("{}", &[row("1", "ab", "c"), row("1", "a", "bc"), row("1", "a1:", "c")]);
    assert!(shifted[0] != shifted[1] && shifted[0] != shifted[2]);
}

#[test]
fn by_position_no_two_changes_are_equal() {
    let keys = keys(r#"{"by": "position"}"#, &[row("1", "ann", "x"), row("1", "ann", "x")]);
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn columns_mean_nothing_by_position() {
    let config = r#"{"by": "position", "except": ["updated_at"]}"#;
    assert!(TestedDedup::<DropDuplicates>::new(config).is_err());
}
