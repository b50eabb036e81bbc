//! `plugins/drop-duplicates`: what says nothing new does not go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater::change::Changes;
use tailwater::dead_letter::changes_of;
use tailwater::plugin::{Pending, StateStore};
use tailwater::table::{ColumnType, Table};
use tailwater_test_support::Scratch;

use crate::batch::{Batch, NULL, UNCHANGED, keyless, lines, table};
use crate::chains::{Loaded, load, options, plugin, plugin_file, test_guest_file};

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
        let store = StateStore::open(scratch.path(), "it").expect("the disk works");
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

/// The line of a row's last version, where it is.
fn newest(written: &[Changes]) -> Option<String> {
    let places = |changes: &Changes| -> Vec<_> {
        let positions = changes.list.iter().map(|change| changes.position(change));
        positions.zip(lines(changes)).collect()
    };
    let there = written.iter().flat_map(places).filter(|(_, line)| line.starts_with('u'));
    there.max_by_key(|(position, _)| *position).map(|(_, line)| line)
}

/// A row of `users` becomes what the first plugin fails on, and then again what it was. When that plugin
/// is mended the change between is driven through: the copy must not go back to it.
fn a_row_does_not_go_back(plugins: &[(&str, &str)], mended: &str, between: [&str; 2]) {
    let (before, [name, seen]) = (["ann", "x"], between);
    let of = |at: usize| [before, [name, seen], before][at];
    let users = users();
    let update = |batch: Batch, at| batch.update(&users, &["1", of(at)[0], of(at)[1]]);
    let in_one = vec![(0..3).fold(Batch::at(7), update).done()];
    let in_three = (0..3).map(|at| update(Batch::at(7 + at as u64), at).done()).collect();
    for (mut batches, place) in [(in_one, "7:3"), (in_three, "9:1")] {
        let all = plugins.iter().map(|(name, settings)| {
            let hostile = *name == "hostile";
            let file = if hostile { test_guest_file(name) } else { plugin_file(name) };
            options(&file, settings)
        });
        let all: Vec<_> = all.collect();
        let first = plugins[0].0;
        let mended = options(&all[0].path, mended);
        let mut chain = load(all).expect("they load");
        let letters: Vec<_> = batches.iter_mut().flat_map(|batch| chain.run(batch)).collect();
        assert_eq!(letters.len(), 1, "{plugins:?}");
        let reloaded = chain.chain.versions().reload(first, Some(&mended));
        reloaded.expect("there is one").expect("it loads");
        let mut again = changes_of(&letters);
        assert_eq!(chain.chain.redrive(&mut again, Some(first)).expect("it runs"), []);
        assert!(!again.is_empty(), "the change between goes on");
        batches.push(again);
        let expected = format!("u {place} users -> (1,ann,x)");
        assert_eq!(newest(&batches), Some(expected), "{plugins:?}");
    }
}

#[test]
fn what_was_set_aside_before_and_is_driven_through_later_hides_no_newer_change() {
    let dedup = ("drop-duplicates", "");
    let hostile = ("hostile", "config = { deed = 'fault-on-poison' }");
    let mended = "config = { deed = 'nothing' }";
    a_row_does_not_go_back(&[hostile, dedup], mended, ["poison", "x"]);
    let route = ("route-by-value", "config = { column = 'seen', schemas = { x = 'europe' } }");
    a_row_does_not_go_back(&[hostile, route, dedup], mended, ["poison", "x"]);
    let filter = ("filter-rows", "config = { where = [{ column = 'seen', value = 'x' }] }");
    let mended = "config = { match = 'any', where = [{ column = 'seen', value = 'x' }, \
                  { column = 'name', value = 'bob' }] }";
    a_row_does_not_go_back(&[filter, dedup], mended, ["bob", UNCHANGED]);
}

#[test]
fn a_change_that_it_fails_on_itself_hides_no_newer_one() {
    // It fails on the first row of every call, and tells all others by their rows alone.
    let keys = options(&test_guest_file("hostile-keys"), "config = { deed = 'retry-first' }");
    let mut chain = load(vec![keys]).expect("it loads");
    let users = users();
    let other = |commit| Batch::at(commit).update(&users, &["9", "cid", "x"]);
    let mut row = |batch: Batch, name: &str| {
        let mut changes = batch.update(&users, &["1", name, "x"]).done();
        assert_eq!(chain.run(&mut changes).len(), 1);
        changes.len()
    };
    assert_eq!(row(other(7), "ann"), 1);
    assert_eq!(row(other(8), "ann"), 0, "it says nothing new");
    assert_eq!(row(Batch::at(9), "bob"), 0, "it is set aside");
    assert_eq!(row(other(10), "ann"), 1);
    let both = Batch::at(11).update(&users, &["1", "bob", "x"]);
    assert_eq!(row(both, "ann"), 1, "in one batch, too");
}

#[test]
fn what_the_chain_before_set_aside_hides_no_newer_change() {
    let hostile = options(&test_guest_file("hostile"), "config = { deed = 'fault-on-poison' }");
    let mut chains = [load(vec![hostile]).expect("it loads"), plugin("drop-duplicates", "")];
    let users = users();
    for (commit, name, gone_on) in [(7, "ann", 1), (8, "poison", 0), (9, "ann", 1), (10, "ann", 0)]
    {
        let mut changes = Batch::at(commit).update(&users, &["1", name, "x"]).done();
        let mut lost = Vec::new();
        for Loaded { chain, .. } in &mut chains {
            chain.transform_behind(&mut changes, &mut lost).expect("no plugin halts");
        }
        assert_eq!(changes.len(), gone_on, "at {commit}");
    }
}
