//! `plugins/mask-email`, and the same in Python.

use tailwater::table::ColumnType;

use crate::batch::{Batch, NULL, UNCHANGED, table, users};
use crate::chains::plugin;

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
