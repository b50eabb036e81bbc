//! `plugins/drop-duplicates`: what says nothing new does not go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater::plugin::{Pending, Store};
use tailwater::table::{ColumnType, Table};
use tailwater_test_support::Scratch;

use crate::batch::{Batch, NULL, keyless, lines, table};
use crate::chains::{load, options, plugin, plugin_file, test_guest_file};

fn users() -> Arc<Table> {
    let columns = [("id", ColumnType::Int8), ("name", ColumnType::Text)];
    table("users", &[&columns[..], &[("seen", ColumnType::Text)]].concat())
}

#[test]
fn updates_that_change_nothing_are_dropped() {
    let users = users();
    let batch = Batch::at(7)
        .insert(&users, &["1", "ann", "x"])
        .update(&users, &["1", "ann", "x"])
        .update(&users, &["1", "ann", "y"])
        .update(&users, &["1", "ann", "x"])
        .insert(&users, &["2", "ann", "x"])
        .delete(&users, &["1", NULL, NULL])
        .insert(&users, &["1", "ann", "x"])
        .truncate(&users)
        .insert(&users, &["1", "ann", "x"]);
    assert_eq!(
        plugin("drop-duplicates", "").lines(batch.done()),
        [
            "c 7:1 users -> (1,ann,x)",
            "u 7:3 users -> (1,ann,y)",
            "u 7:4 users -> (1,ann,x)",
            "c 7:5 users -> (2,ann,x)",
            "d 7:6 users [1,-,-]",
            "c 7:7 users -> (1,ann,x)",
            "t 7:8 users",
            "c 7:9 users -> (1,ann,x)",
        ]
    );
}

#[test]
fn columns_that_do_not_count_can_change_unseen() {
    let users = users();
    let batch = Batch::at(7)
        .insert(&users, &["1", "ann", "x"])
        .update(&users, &["1", "ann", "y"])
        .update(&users, &["1", "bob", "y"]);
    let mut chain = plugin("drop-duplicates", "config = { except = ['seen'] }");
    let expected = ["c 7:1 users -> (1,ann,x)", "u 7:3 users -> (1,bob,y)"];
    assert_eq!(chain.lines(batch.done()), expected);
}

#[test]
fn a_batch_that_comes_again_is_dropped_unless_the_memory_is_of_a_place_before_it() {
    let users = users();
    let batch = || {
        let batch = Batch::at(7).insert(&users, &["1", "ann", "x"]).commit(8);
        batch.update(&users, &["1", "bob", "x"]).insert(&users, &["2", "cid", "x"]).done()
    };
    for settings in ["", "config = { by = 'position' }"] {
        let scratch = Scratch::new("window").expect("a directory");
        let store = Store::open(scratch.path(), "it").expect("the disk works");
        let mut chain = plugin("drop-duplicates", settings);
        chain.chain.restore(&store).expect("the disk works");
        assert_eq!(chain.lines(batch()).len(), 3);
        let deltas = chain.chain.take_deltas();
        assert_eq!(chain.lines(batch()), [""; 0]);
        chain.chain.restore(&store).expect("the disk works");
        assert_eq!(chain.lines(batch()).len(), 3, "nothing of it was kept");
        let mut pending = Pending::default();
        deltas.into_iter().for_each(|delta| pending.add(delta));
        store.keep(&pending, &BTreeMap::new()).expect("the disk works");
        let mut chain = plugin("drop-duplicates", settings);
        chain.chain.restore(&store).expect("the disk works");
        assert_eq!(chain.lines(batch()), [""; 0], "another process knows it");
    }
}

#[test]
fn by_position_an_update_that_changes_nothing_is_kept() {
    let users = users();
    let batch = Batch::at(7).insert(&users, &["1", "ann", "x"]).update(&users, &["1", "ann", "x"]);
    let mut chain = plugin("drop-duplicates", "config = { by = 'position' }");
    assert_eq!(chain.lines(batch.done()).len(), 2);
}

#[test]
fn without_a_key_equal_inserts_are_duplicates() {
    let log = keyless(&users());
    let batch = Batch::at(7).insert(&log, &["1", "ann", "x"]).insert(&log, &["1", "ann", "x"]);
    assert_eq!(plugin("drop-duplicates", "").lines(batch.done()).len(), 1);
}

#[test]
fn the_window_is_bounded_in_rows_and_in_time() {
    let users = users();
    let first = || Batch::at(7).insert(&users, &["1", "ann", "x"]).insert(&users, &["2", "b", "x"]);
    let again = |commit| Batch::at(commit).update(&users, &["1", "ann", "x"]).done();
    let mut chain = plugin("drop-duplicates", "window_keys = 1");
    chain.lines(first().done());
    assert_eq!(chain.lines(again(8)).len(), 1, "the older row was forgotten");
    let mut chain = plugin("drop-duplicates", "window_seconds = 10");
    chain.lines(first().done());
    assert_eq!(chain.lines(again(17)).len(), 0);
    assert_eq!(chain.lines(again(18)).len(), 1);
}

#[test]
fn a_batch_that_a_later_plugin_halts_is_no_duplicate_of_itself() {
    let dedup = options(&plugin_file("drop-duplicates"), "");
    let settings = "on_error = 'halt'\nconfig = { deed = 'panic-on-poison' }";
    let hostile = options(&test_guest_file("hostile"), settings);
    let mut chain = load(vec![dedup, hostile]).expect("both load");
    let users = users();
    let batch = |name: &str| {
        Batch::at(7).insert(&users, &["1", "ann", "x"]).insert(&users, &["2", name, "x"]).done()
    };
    chain.chain.transform(&mut batch("poison")).expect_err("it halts");
    assert_eq!(chain.lines(batch("bob")).len(), 2);
}

#[test]
fn a_change_that_a_later_plugin_sets_aside_hides_no_other() {
    let dedup = options(&plugin_file("drop-duplicates"), "config = { except = ['seen'] }");
    let settings = "config = { deed = 'panic-on-poison' }";
    let hostile = options(&test_guest_file("hostile"), settings);
    let mut chain = load(vec![dedup, hostile]).expect("both load");
    let users = users();
    for (commit, seen) in [(7, "x"), (8, "y")] {
        let mut changes = Batch::at(commit).update(&users, &["1", "poison", seen]).done();
        assert_eq!(chain.run(&mut changes).len(), 1, "it is set aside again, not dropped");
        assert_eq!(lines(&changes), [""; 0]);
    }
}
