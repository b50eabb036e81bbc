//! What operators are told of a version that takes over, or is not let.

use tailwater_test_support::Scratch;

use crate::batch::{Batch, table, users};
use crate::reload::{PANICS, harmless};
use tailwater::table::ColumnType;

const COLUMNS: [(&str, ColumnType); 2] = [("id", ColumnType::Int8), ("name", ColumnType::Text)];

#[test]
fn rows_of_tables_that_a_plugin_is_not_offered_do_not_thin_out_what_differs() {
    let scratch = Scratch::new("swaps").expect("a directory");
    let compares = "shadow_batches = 9\nshadow_limit = 30\ntables = ['users']";
    let mut chain = harmless(&scratch, compares);
    let (users, orders) = (users(), table("orders", &COLUMNS));
    let batch = Batch::at(7).insert(&users, &["1", "poison", "a"]);
    let order = |batch: Batch, id: u64| batch.insert(&orders, &[&id.to_string(), "ann"]);
    let batch = (1..=97).fold(batch, order).insert(&users, &["2", "ann", "b"]);
    assert_eq!(chain.lines(batch.insert(&users, &["3", "bob", "c"]).done()).len(), 100);
    let refused = chain.reload(&scratch, &format!("{compares}\n{PANICS}")).expect_err("a third");
    assert!(refused.starts_with("1 of 3 rows of the last batches differ"), "{refused}");
    // Rows that are offered to the new version alone count.
    let wider = format!("{compares}\n{PANICS}").replace("['users']", "[]").replace("30", "1");
    chain.reload(&scratch, &wider).expect("a hundredth");
    assert_eq!((chain.shadow().rows, chain.shadow().faults), (100, 1));
}
