//! Plugins that decide what tables look like and where rows go.

use std::sync::Arc;

use tailwater::change::Changes;
use tailwater::table::{ColumnType, Table};

use crate::batch::{Batch, NULL, UNCHANGED, lines, table};
use crate::chains::{Loaded, load, options, plugin, plugin_file, test_guest_file};

/// `public.people (id bigint primary key, region text not null, profile text)`
fn people() -> Arc<Table> {
    table(
        "people",
        &[("id", ColumnType::Int8), ("region", ColumnType::Text), ("profile", ColumnType::Text)],
    )
}

fn outbox() -> Arc<Table> {
    let text = ColumnType::Text;
    table(
        "outbox",
        &[
            ("id", ColumnType::Uuid),
            ("aggregatetype", text.clone()),
            ("aggregateid", text.clone()),
            ("payload", text),
        ],
    )
}

/// The schemas of the tables, change by change.
fn schemas(changes: &Changes) -> Vec<&str> {
    changes.list.iter().map(|change| changes.table(change).schema.as_str()).collect()
}

fn columns(table: &Table) -> Vec<(&str, &str)> {
    table.columns.iter().map(|column| (column.name.as_str(), column.type_name.as_str())).collect()
}

fn whole(loaded: &mut Loaded, mut changes: Changes) -> Changes {
    assert_eq!(loaded.run(&mut changes), []);
    changes
}

#[test]
fn an_outbox_event_goes_to_the_table_of_its_kind_keyed_by_what_it_is_about() {
    let mut router = plugin("outbox-router", "");
    let outbox = outbox();
    let batch = Batch::at(7)
        .insert(&outbox, &["a", "order", "42", "{}"])
        .delete(&outbox, &["a", NULL, NULL, NULL])
        .insert(&outbox, &["b", "customer", "7", "{}"])
        .truncate(&outbox);
    let routed = whole(&mut router, batch.done());
    let expected = ["c 7:1 order -> (a,order,42,{})", "c 7:3 customer -> (b,customer,7,{})"];
    assert_eq!(lines(&routed), expected);
    assert_eq!(schemas(&routed), ["outbox", "outbox"]);
    let tables: Vec<&str> = routed.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["order", "customer"], "nothing is made of the outbox itself");
    assert!(routed.tables.iter().all(|table| table.message_key == ["aggregateid"]));
}

#[test]
fn an_event_of_no_kind_is_set_aside_as_it_was() {
    let mut router = plugin("outbox-router", "");
    let mut changes = Batch::at(7).insert(&outbox(), &["a", "", "42", "{}"]).done();
    let letters = router.run(&mut changes);
    assert!(changes.is_empty());
    assert_eq!(letters[0].table, "public.outbox");
    assert!(letters[0].reason.contains("what kind"), "{}", letters[0].reason);
}

const REGIONS: &str = "config = { column = 'region', schemas = { eu = 'europe', us = 'america' } }";

#[test]
fn a_row_lives_in_the_table_of_its_value_and_moves_with_it() {
    let mut router = plugin("route-by-value", REGIONS);
    let people = people();
    let inserted =
        Batch::at(7).insert(&people, &["1", "eu", "a"]).insert(&people, &["2", "x", "b"]);
    let inserted = whole(&mut router, inserted.done());
    assert_eq!(lines(&inserted), ["c 7:1 people -> (1,eu,a)", "c 7:2 people -> (2,x,b)"]);
    assert_eq!(schemas(&inserted), ["europe", "public"]);

    let moved = whole(&mut router, Batch::at(8).update(&people, &["1", "us", "a"]).done());
    let gone = "d 8:1 people [1,-,-]";
    assert_eq!(lines(&moved), [gone, gone, "u 8:1 people -> (1,us,a)"]);
    assert_eq!(schemas(&moved), ["europe", "public", "america"]);
}

#[test]
fn a_delete_and_a_truncate_reach_every_home_of_a_row() {
    let mut router = plugin("route-by-value", REGIONS);
    let people = people();
    let batch = Batch::at(9).delete(&people, &["1", NULL, NULL]).truncate(&people);
    let batch = whole(&mut router, batch.done());
    let (gone, emptied) = ("d 9:1 people [1,-,-]", "t 9:2 people");
    assert_eq!(lines(&batch), [gone, gone, gone, emptied, emptied, emptied]);
    assert_eq!(schemas(&batch), ["public", "america", "europe", "public", "america", "europe"]);
}

#[test]
fn a_row_in_several_tables_is_edited_in_each_by_itself() {
    let text = ColumnType::Text;
    let people =
        table("people", &[("id", ColumnType::Int8), ("region", text.clone()), ("email", text)]);
    let router = options(&plugin_file("route-by-value"), REGIONS);
    let mask = options(&plugin_file("mask-email"), "tables = ['america.people']");
    let mut chain = load(vec![router, mask]).expect("both load");
    let batch = Batch::at(7).delete_full(&people, &["1", "eu", "ann@x.org"]);
    let batch = whole(&mut chain, batch.done());
    assert_eq!(schemas(&batch), ["public", "america", "europe"]);
    let (plain, masked) = ("d 7:1 people (1,eu,ann@x.org)", "d 7:1 people (1,eu,a***@x.org)");
    assert_eq!(lines(&batch), [plain, masked, plain]);
}

const FLAT: &str = "config = { column = 'profile', drop = true, members = { \
                    age = { path = 'age', type = 'integer' }, city = { path = 'home.city' } } }";

#[test]
fn members_of_a_document_become_typed_columns() {
    let mut flatten = plugin("flatten-json", FLAT);
    let people = people();
    let batch = Batch::at(7)
        .insert(&people, &["1", "eu", r#"{"age": 30, "home": {"city": "Bern"}}"#])
        .insert(&people, &["2", "eu", "no json"])
        .update(&people, &["1", "us", UNCHANGED])
        .delete(&people, &["1", NULL, NULL]);
    let flat = whole(&mut flatten, batch.done());
    let expected = [
        "c 7:1 people -> (1,eu,30,Bern)",
        "c 7:2 people -> (2,eu,-,-)",
        "u 7:3 people -> (1,us,=,=)",
        "d 7:4 people [1,-,-,-]",
    ];
    assert_eq!(lines(&flat), expected);
    let expected = [("id", "bigint"), ("region", "text"), ("age", "integer"), ("city", "text")];
    assert_eq!(columns(&flat.tables[0]), expected);
}

#[test]
fn a_derived_value_that_its_type_cannot_hold_sets_its_row_aside() {
    let mut flatten = plugin("flatten-json", FLAT);
    let people = people();
    let mut changes = Batch::at(7)
        .insert(&people, &["1", "eu", r#"{"age": "old"}"#])
        .insert(&people, &["2", "eu", r#"{"age": 3}"#])
        .done();
    let letters = flatten.run(&mut changes);
    assert_eq!(lines(&changes), ["c 7:2 people -> (2,eu,3,-)"]);
    assert_eq!(letters[0].reason, "it gave a value that its type cannot hold to age, a integer");
    assert!(letters[0].original.contains("profile"), "it is kept as it was");
}

#[test]
fn a_type_that_postgres_has_not_refuses_the_table() {
    let settings = FLAT.replace("'integer'", "'number'");
    let mut flatten = plugin("flatten-json", &settings);
    let mut changes = Batch::at(7).insert(&people(), &["1", "eu", "{}"]).done();
    let letters = flatten.run(&mut changes);
    assert!(letters[0].reason.contains("age is of type `number`"), "{}", letters[0].reason);
}

#[test]
fn a_column_made_of_others_is_null_where_one_of_them_is() {
    let mut derive =
        plugin("derive-columns", "config = { columns = { tag = '{region}/{profile}' } }");
    let people = people();
    let batch =
        Batch::at(7).insert(&people, &["1", "eu", "x"]).insert(&people, &["2", "eu", NULL]).done();
    let derived = whole(&mut derive, batch);
    assert_eq!(lines(&derived), ["c 7:1 people -> (1,eu,x,eu/x)", "c 7:2 people -> (2,eu,-,-)"]);
}

#[test]
fn the_next_plugin_sees_the_table_as_it_became() {
    let mut chain = load(vec![
        options(&plugin_file("flatten-json"), FLAT),
        options(
            &plugin_file("route-by-value"),
            "config = { column = 'city', schemas = { Bern = 'be' } }",
        ),
    ])
    .expect("both load");
    let row = ["1", "eu", r#"{"home": {"city": "Bern"}}"#];
    let routed = whole(&mut chain, Batch::at(7).insert(&people(), &row).done());
    assert_eq!(lines(&routed), ["c 7:1 people -> (1,eu,-,Bern)"]);
    assert_eq!(schemas(&routed), ["be"]);
}

#[test]
fn added_rows_have_the_place_in_the_log_of_the_row_they_come_of() {
    let mut loaded = load(vec![options(&test_guest_file("reshaper"), "")]).expect("it loads");
    let people = people();
    let batch = Batch::at(7)
        .insert(&people, &["1", "eu", "a b"])
        .insert(&people, &["2", "eu", "c"])
        .delete(&people, &["1", NULL, NULL])
        .truncate(&people);
    let added = whole(&mut loaded, batch.done());
    let expected = [
        "c 7:1 people -> (1,eu,a b)",
        "c 7:1 words -> (1,0,a)",
        "c 7:1 words -> (1,1,b)",
        "c 7:2 people -> (2,eu,c)",
        "c 7:2 words -> (2,0,c)",
        "d 7:3 people [1,-,-]",
        "d 7:3 words [1,0,-]",
        "t 7:4 people",
        "t 7:4 words",
    ];
    assert_eq!(lines(&added), expected);
}

/// Each is an answer that does not fit; the row is set aside with what is wrong.
#[test]
fn an_answer_that_does_not_fit_is_said_what_is_wrong_with() {
    let cases = [
        ("drop-key", "it drops id, which belongs to the key"),
        ("drop-unknown", "it drops nowhere of public.people, which has none"),
        ("derived-key", "it derives note as a part of the key"),
        ("message-key", "its message key has gone, which is no column any more"),
        ("own-home", "public.people is no other home of its own rows"),
        ("nameless-home", "a table's schema and name must have 1 to 63 bytes"),
        ("many-homes", "it sends rows to more than 1000 tables"),
        ("wide", "it makes a table of more than 3200 columns"),
        ("deep", "note is of type `text[][][][][][][][][]`, which is none of PostgreSQL's"),
        ("clash", "two columns are called region"),
        ("reserved", "`_version` is no name for a column"),
        ("keyless", "has no key, so its rows cannot be told apart"),
        ("unsent-columns", "0 derived columns of 1"),
        ("bad-route", "a route to table 7 of 0"),
        ("route-twice", "row 0 has two routes to s.t"),
        ("bad-added", "rows for added table 7 of 1"),
        ("narrow", "2 columns for public.words, which has 3"),
        ("bad-origin", "added rows: row 99 is not ascending below 1"),
        ("many-tables", "it routes to more than 1000 tables"),
        ("not-an-update", "it gave `unchanged`, though the row is no update, to note, a text"),
    ];
    for (deed, expected) in cases {
        let settings = format!("config = {{ deed = '{deed}' }}");
        let mut loaded =
            load(vec![options(&test_guest_file("reshaper"), &settings)]).expect("it loads");
        let mut changes = Batch::at(7).insert(&people(), &["1", "eu", "a"]).done();
        let letters = loaded.run(&mut changes);
        assert!(changes.is_empty(), "{deed}");
        assert!(letters[0].reason.contains(expected), "{deed}: {}", letters[0].reason);
    }
}
