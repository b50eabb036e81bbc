//! `plugins/filter-rows`: the copy holds exactly the rows that match.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tailwater::change::{Changes, Op, Value};
use tailwater::table::{ColumnType, Table};

use crate::batch::{Batch, NULL, UNCHANGED, keyless, lines, table};
use crate::chains::plugin;

const OPEN: &str = "config = { where = [{ column = 'state', value = 'open' }] }";

fn orders() -> Arc<Table> {
    let columns = [("id", ColumnType::Int8), ("state", ColumnType::Text)];
    table("orders", &[&columns[..], &[("note", ColumnType::Text)]].concat())
}

#[test]
fn rows_that_do_not_match_are_not_in_the_copy() {
    let orders = orders();
    let batch = Batch::at(7)
        .read(&orders, &["1", "open", "a"])
        .read(&orders, &["2", "paid", "a"])
        .insert(&orders, &["3", "open", "a"])
        .insert(&orders, &["4", "paid", "a"])
        .update(&orders, &["1", "open", UNCHANGED])
        .update(&orders, &["3", "paid", "a"])
        .update(&orders, &["4", "open", "a"])
        .rekey(&orders, &["1", NULL, NULL], &["5", "paid", "a"])
        .rekey(&orders, &["4", NULL, NULL], &["6", "open", "a"])
        .truncate(&orders)
        .delete(&orders, &["2", NULL, NULL])
        .delete_full(&orders, &["6", "open", "a"])
        .delete_full(&orders, &["7", "paid", "a"]);
    assert_eq!(
        plugin("filter-rows", OPEN).lines(batch.done()),
        [
            "r 7:1 orders -> (1,open,a)",
            "c 7:3 orders -> (3,open,a)",
            "u 7:5 orders -> (1,open,=)",
            "d 7:6 orders [3,-,-]",
            "u 7:7 orders -> (4,open,a)",
            "d 7:8 orders [1,-,-]",
            "u 7:9 orders [4,-,-] -> (6,open,a)",
            "t 7:10 orders",
            "d 7:11 orders [2,-,-]",
            "d 7:12 orders (6,open,a)",
            "d 7:13 orders [7,-,-]",
        ]
    );
}

#[test]
fn without_a_key_only_matching_inserts_go_on() {
    let log = keyless(&orders());
    let batch = Batch::at(7)
        .insert(&log, &["1", "open", "a"])
        .insert(&log, &["2", "paid", "a"])
        .delete_full(&log, &["2", "paid", "a"]);
    let lines = plugin("filter-rows", OPEN).lines(batch.done());
    assert_eq!(lines, ["c 7:1 orders_log -> (1,open,a)"]);
}

#[test]
fn a_table_without_the_column_is_a_fault_unless_the_plugin_is_kept_from_it() {
    let users = crate::batch::users();
    let mut changes = Batch::at(7).insert(&users, &["1", "ann", "ann@x.org"]).done();
    let letters = plugin("filter-rows", OPEN).run(&mut changes);
    let expected = "it does not take table public.users: public.users has no column state; name the \
                    plugin's tables in `tables`";
    assert_eq!(letters[0].reason, expected);
    let elsewhere = format!("tables = ['public.orders']\n{OPEN}");
    let changes = Batch::at(7).insert(&users, &["1", "ann", "ann@x.org"]).done();
    assert_eq!(plugin("filter-rows", &elsewhere).lines(changes).len(), 1);
}

#[test]
fn a_value_that_was_not_sent_is_a_fault() {
    let note = "config = { where = [{ column = 'note', op = 'ne', value = 'spam' }] }";
    let orders = orders();
    let batch = Batch::at(7).update(&orders, &["1", "open", UNCHANGED]).replace(
        &orders,
        &["2", "open", "fine"],
        &["2", "paid", UNCHANGED],
    );
    let mut changes = batch.done();
    let letters = plugin("filter-rows", note).run(&mut changes);
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.contains("REPLICA IDENTITY FULL"), "{}", letters[0].reason);
    assert_eq!(lines(&changes), ["u 7:2 orders (2,open,fine) -> (2,paid,=)"]);
}

/// Rows by key, as a copy would hold them.
type Rows = BTreeMap<String, String>;

/// Carries a batch out on a copy, as the store does.
fn carry_out(rows: &mut Rows, changes: &Changes) {
    let text = |row, column| match changes.value(row, column) {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    for change in &changes.list {
        if change.op == Op::Delete || changes.key_changed(change) {
            let old = change.old.row().expect("deletes tell the key");
            rows.remove(&text(old, 0));
        }
        if let Some(new) = change.new {
            rows.insert(text(new, 0), text(new, 1));
        }
    }
}

/// What an application may do to the table: set a row's state, move it to another key, delete it.
#[derive(Debug, Clone)]
enum Deed {
    Set(u8, bool),
    Move(u8, u8, bool),
    Delete(u8),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (0..6_u8, any::<bool>()).prop_map(|(id, open)| Deed::Set(id, open)),
        1 => (0..6_u8, 0..6_u8, any::<bool>()).prop_map(|(id, to, open)| Deed::Move(id, to, open)),
        2 => (0..6_u8).prop_map(Deed::Delete),
    ];
    prop::collection::vec(deed, 1..60)
}

fn state(open: bool) -> &'static str {
    if open { "open" } else { "paid" }
}

/// The changes that PostgreSQL would tell, and the table after them.
fn history(deeds: &[Deed]) -> (Changes, Rows) {
    let orders = orders();
    let mut rows = Rows::new();
    let mut batch = Batch::at(7);
    for deed in deeds {
        match deed {
            Deed::Set(id, open) => {
                let id = id.to_string();
                let new = [id.as_str(), state(*open), "a"];
                batch = match rows.insert(id.clone(), state(*open).to_owned()) {
                    Some(_) => batch.update(&orders, &new),
                    None => batch.insert(&orders, &new),
                };
            }
            Deed::Move(id, to, open) => {
                let (id, to) = (id.to_string(), to.to_string());
                if rows.contains_key(&to) || rows.remove(&id).is_none() {
                    continue;
                }
                let new = [to.as_str(), state(*open), "a"];
                batch = batch.rekey(&orders, &[&id, NULL, NULL], &new);
                rows.insert(to, state(*open).to_owned());
            }
            Deed::Delete(id) => {
                let id = id.to_string();
                if rows.remove(&id).is_some() {
                    batch = batch.delete(&orders, &[&id, NULL, NULL]);
                }
            }
        }
    }
    (batch.done(), rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_copy_is_the_table_where_the_predicate_holds(deeds in deeds()) {
        let (mut changes, mut table) = history(&deeds);
        let letters = plugin("filter-rows", OPEN).run(&mut changes);
        prop_assert_eq!(letters, []);
        let mut copy = Rows::new();
        carry_out(&mut copy, &changes);
        table.retain(|_, state| state == "open");
        prop_assert_eq!(copy, table);
    }

    #[test]
    fn without_what_changes_nothing_the_copy_is_still_the_table(deeds in deeds()) {
        let (mut changes, table) = history(&deeds);
        let letters = plugin("drop-duplicates", "").run(&mut changes);
        prop_assert_eq!(letters, []);
        let mut copy = Rows::new();
        carry_out(&mut copy, &changes);
        prop_assert_eq!(copy, table);
    }
}
