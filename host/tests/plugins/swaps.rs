//! What operators are told of a version that takes over, or is not let.

use tailwater::change::Changes;
use tailwater::table::ColumnType;
use tailwater_test_support::Scratch;
use tracing::Level;

use crate::batch::{Batch, table, users};
use crate::chains::Loaded;
use crate::log_lines::logged;
use crate::reload::{PANICS, harmless};

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

/// The positions at which it is told that versions changed places while a batch is shown.
fn swaps(chain: &mut Loaded, mut changes: Changes) -> Vec<String> {
    let (_, lines) = logged(Level::INFO, || chain.run(&mut changes));
    let swaps = lines.iter().filter(|line| line["message"] == "plugin swapped");
    swaps.map(|line| line["position"].as_str().expect("it is told where").to_owned()).collect()
}

#[test]
fn a_swap_is_told_with_the_first_change_that_the_other_version_sees() {
    let scratch = Scratch::new("swaps").expect("a directory");
    let mut chain = harmless(&scratch, "");
    let at = |commit: u64, name: &str| Batch::at(commit).insert(&users(), &["1", name, "a"]).done();
    assert_eq!(swaps(&mut chain, at(7, "ann")), [""; 0]);
    chain.reload(&scratch, PANICS).expect("it loads");
    assert_eq!(swaps(&mut chain, Batch::at(8).done()), [""; 0], "there is no change yet");
    assert_eq!(chain.status().generation, 2, "a source at rest does not keep it from taking over");
    assert_eq!(chain.chain.redrive(&mut at(3, "ann"), None).expect("it runs"), []);
    assert_eq!(swaps(&mut chain, at(9, "ann")), ["0/9:1"], "a letter is none that flows");
    assert_eq!(swaps(&mut chain, at(10, "poison")), ["0/A:1"], "it is rolled back");
    assert_eq!(chain.status().generation, 3);
    assert_eq!(swaps(&mut chain, at(11, "ann")), [""; 0]);
}
