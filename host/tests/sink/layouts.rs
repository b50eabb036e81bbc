//! The ways to keep versions: each shows deletes, moves and truncates, before and after merges.

use tailwater::sink::Options;

use crate::feed::{delete, hop, insert, mixed, moved, table, truncate, update, users};
use crate::rig::Rig;

fn shows_every_kind_of_change(settings: &str) -> Rig<'static> {
    let rig = Rig::new(settings);
    let events = [
        insert(1, &["1", "old", "x", "1"]),
        truncate(2),
        insert(3, &["1", "ann", "x", "1"]),
        insert(4, &["2", "bob", "x", "2"]),
        insert(5, &["3", "cid", "x", "3"]),
        update(6, &["1", "zoe", "y", "7"]),
        delete(7, &["2", "NULL", "NULL", "NULL"]),
        moved(8, &["3", "NULL", "NULL", "NULL"], &["4", "cid", "x", "3"]),
        insert(9, &["3", "dan", "NULL", "NULL"]),
    ];
    for event in &events {
        rig.deliver([hop(&users(), std::slice::from_ref(event))]).expect("the sink stores");
    }
    let wanted = ["1\tzoe\ty\t7", "3\tdan\t\\N\t\\N", "4\tcid\tx\t3"];
    assert_eq!(rig.users(), wanted);
    rig.merge("users_versions");
    assert_eq!(rig.users(), wanted, "merged");
    rig
}

#[test]
fn by_default_merges_drop_what_is_superseded() {
    let rig = shows_every_kind_of_change("");
    let kept = rig.lines("SELECT id, count() FROM {db}.users_versions GROUP BY id ORDER BY id");
    assert_eq!(kept[0], "1\t1");
}

#[test]
fn argmax_keeps_every_version() {
    let rig = shows_every_kind_of_change("dedup = \"argmax\"");
    let kept = rig.lines("SELECT name FROM {db}.users_versions WHERE id = 1 ORDER BY _version");
    assert_eq!(kept, ["old", "ann", "zoe"]);
}

#[test]
fn a_sorting_key_of_ones_own_keeps_deletes_and_moves_right() {
    let settings = "[tables.\"public.users\"]\norder_by = [\"name\", \"n\"]";
    shows_every_kind_of_change(settings);
}

#[test]
fn a_partitioning_of_ones_own_keeps_deletes_and_moves_right() {
    let settings = "[tables.\"public.users\"]\npartition_by = \"ifNull(n, 100) % 4\"";
    shows_every_kind_of_change(settings);
}

#[test]
fn argmax_with_both_keeps_deletes_and_moves_right() {
    shows_every_kind_of_change(
        "[tables.\"public.users\"]\ndedup = \"argmax\"\norder_by = [\"name\"]\n\
         partition_by = \"ifNull(n, 100) % 4\"",
    );
}

#[test]
fn of_several_truncates_in_a_batch_the_last_one_counts() {
    let rig = Rig::new("");
    let events = [
        insert(1, &["1", "ann", "x", "1"]),
        truncate(2),
        insert(3, &["2", "bob", "x", "2"]),
        truncate(4),
        insert(5, &["3", "cid", "x", "3"]),
    ];
    rig.deliver([hop(&users(), &events)]).expect("the sink stores");
    assert_eq!(rig.users(), ["3\tcid\tx\t3"]);
}

/// A server drops a block that it has had already, also where its rows are gone.
#[test]
fn rows_that_were_taken_away_are_there_again_when_the_next_life_brings_them_again() {
    let rig = Rig::new("");
    let bring = || rig.deliver([hop(&users(), &[insert(1, &["1", "ann", "x", "1"])])]);
    bring().expect("the sink stores");
    rig.lines("ALTER TABLE {db}.users_versions DELETE WHERE 1 SETTINGS mutations_sync = 1");
    assert_eq!(rig.users(), [""; 0]);
    bring().expect("the sink stores");
    assert_eq!(rig.users(), ["1\tann\tx\t1"]);
}

#[test]
fn a_table_can_have_a_name_of_its_own() {
    let rig = Rig::new("[tables.\"public.users\"]\nname = \"people\"");
    rig.deliver([hop(&users(), &[insert(1, &["1", "ann", "x", "1"])])]).expect("the sink stores");
    assert_eq!(rig.lines("SELECT name FROM {db}.people"), ["ann"]);
}

#[test]
fn versions_that_are_made_anew_in_another_way_are_read_in_that_way() {
    let mut rig = Rig::new("");
    rig.deliver([hop(&users(), &[insert(1, &["1", "ann", "x", "1"])])]).expect("the sink stores");
    rig.lines("DROP TABLE {db}.users_versions SYNC");
    let tables = "[tables.\"public.users\"]\norder_by = [\"name\"]";
    rig.options.tables = toml::from_str::<Options>(tables).expect(tables).tables;
    rig.deliver([
        hop(&users(), &[insert(2, &["1", "ann", "x", "1"])]),
        hop(&users(), &[update(3, &["1", "zoe", "y", "7"])]),
    ])
    .expect("the sink stores");
    assert_eq!(rig.users(), ["1\tzoe\ty\t7"]);
}

/// The one is shown before the other, and what is there is looked at again in between.
#[test]
fn of_several_tables_that_are_made_anew_at_once_each_is_read_in_its_new_way() {
    let mut rig = Rig::new("");
    let both = [table("public", "a", users().columns.clone()), users()];
    let deliver = |rig: &Rig<'_>, commit, name: &str| {
        let event = update(commit, &["1", name, "x", "1"]);
        rig.deliver([mixed(&both.each_ref().map(|table| (table, &event)))]).expect("it stores");
    };
    deliver(&rig, 1, "ann");
    rig.lines("DROP TABLE {db}.a_versions SYNC");
    rig.lines("DROP TABLE {db}.users_versions SYNC");
    let keys = "[tables.\"public.a\"]\norder_by = [\"name\"]\n\
                [tables.\"public.users\"]\norder_by = [\"name\"]";
    rig.options.tables = toml::from_str::<Options>(keys).expect(keys).tables;
    deliver(&rig, 2, "ann");
    deliver(&rig, 3, "zoe");
    for view in ["a", "users"] {
        assert_eq!(rig.lines(&format!("SELECT id, name FROM {{db}}.{view}")), ["1\tzoe"], "{view}");
    }
}
