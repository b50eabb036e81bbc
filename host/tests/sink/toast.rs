//! Updates that do not carry a long value: wherever the value is, it stays.

use crate::feed::{
    Event, column, delete, event, hop, insert, mixed, moved, table, truncate, update, users,
};
use crate::rig::Rig;
use tailwater::table::ColumnType;

const LONG: &str = "a long value";

/// Each group is stored before the next one comes.
fn stored(rig: &Rig<'_>, groups: &[&[Event]]) {
    for group in groups {
        rig.deliver([hop(&users(), group)]).expect("the sink stores");
    }
}

#[test]
fn a_value_that_is_stored_is_found() {
    let rig = Rig::new("");
    stored(
        &rig,
        &[&[insert(1, &["1", "ann", LONG, "1"])], &[update(2, &["1", "bob", "GAP", "2"])]],
    );
    assert_eq!(rig.users(), ["1\tbob\ta long value\t2"]);
}

#[test]
fn a_value_in_the_same_batch_is_found() {
    let rig = Rig::new("");
    let events = [insert(1, &["1", "ann", LONG, "1"]), update(2, &["1", "bob", "GAP", "2"])];
    stored(&rig, &[&events]);
    assert_eq!(rig.users(), ["1\tbob\ta long value\t2"]);
}

#[test]
fn of_the_values_that_a_row_had_the_last_one_before_the_update_counts() {
    let rig = Rig::new("");
    let events = [update(2, &["1", "bob", "another", "2"]), update(3, &["1", "cid", "GAP", "3"])];
    stored(&rig, &[&[insert(1, &["1", "ann", LONG, "1"])], &events]);
    assert_eq!(rig.users(), ["1\tcid\tanother\t3"]);
    let events = [update(5, &["1", "dan", "GAP", "5"]), update(4, &["1", "eve", "the last", "4"])];
    stored(&rig, &[&events]);
    assert_eq!(rig.users(), ["1\tdan\tthe last\t5"], "whichever comes first");
}

/// A sink is told of such updates in a few bytes each, a hundred in one batch; the values are not few.
#[test]
fn values_that_do_not_fit_together_are_fetched_a_few_at_a_time() {
    let rig = Rig::new("settings = { max_memory_usage = \"120000000\" }\n");
    let long = "x".repeat(1 << 20);
    let ids: Vec<String> = (1..=100).map(|id| id.to_string()).collect();
    for (at, id) in (1..).zip(&ids) {
        stored(&rig, &[&[insert(at, &[id, "ann", &long, "1"])]]);
    }
    let update = |(at, id): (u64, &String)| update(at, &[id, "bob", "GAP", "2"]);
    let updates: Vec<Event> = (1001..).zip(&ids).map(update).collect();
    stored(&rig, &[&updates]);
    let sql = "SELECT name, n, length(bio), count() FROM {db}.users GROUP BY ALL";
    assert_eq!(rig.lines(sql), ["bob\t2\t1048576\t100"]);
}

#[test]
fn a_value_is_found_that_another_version_of_the_table_wrote_in_between() {
    let rig = Rig::new("");
    stored(&rig, &[&[insert(1, &["1", "ann", LONG, "1"]), insert(1, &["2", "ann", LONG, "1"])]]);
    let (before, mut columns) = (users(), users().columns.clone());
    columns.push(column("x", ColumnType::Int4));
    let between = table("public", "users", columns);
    // A column is added, one row is written, and the column is dropped again.
    let rows = [
        (&before, insert(2, &["3", "cid", "", "2"])),
        (&between, update(3, &["1", "bob", "another", "3", "7"])),
        (&before, update(4, &["1", "bob", "GAP", "4"])),
        (&before, update(5, &["2", "bob", "GAP", "5"])),
    ];
    let rows: Vec<_> = rows.iter().map(|(table, event)| (*table, event)).collect();
    rig.deliver([mixed(&rows)]).expect("the sink stores");
    let rows = ["1\tbob\tanother\t4", "2\tbob\ta long value\t5", "3\tcid\t\t2"];
    assert_eq!(rig.users(), rows);
    assert_eq!(rig.dead_letters(), [""; 0]);
    assert_eq!(rig.lines("SELECT * FROM {db}.users WHERE id = 3"), ["3\tcid\t\t2"], "no `x`");
}

#[test]
fn a_value_survives_a_chain_of_updates_and_moves() {
    let rig = Rig::new("");
    let events = [
        insert(1, &["1", "ann", LONG, "1"]),
        update(2, &["1", "bob", "GAP", "2"]),
        moved(3, &["1", "NULL", "NULL", "NULL"], &["2", "bob", "GAP", "3"]),
        update(4, &["2", "cid", "GAP", "4"]),
    ];
    stored(&rig, &[&events[..2], &events[2..]]);
    assert_eq!(rig.users(), ["2\tcid\ta long value\t4"]);
    // All of it once more, in pieces that cut elsewhere.
    stored(&rig, &[&events[1..3], &events[3..], &events]);
    assert_eq!(rig.users(), ["2\tcid\ta long value\t4"]);
    assert_eq!(rig.dead_letters(), [""; 0]);
}

#[test]
fn a_replayed_update_does_not_take_the_value_of_a_later_row() {
    let rig = Rig::new("");
    let events = [
        insert(1, &["1", "ann", LONG, "1"]),
        update(2, &["1", "bob", "GAP", "2"]),
        delete(3, &["1", "NULL", "NULL", "NULL"]),
        insert(4, &["1", "dan", "another", "4"]),
    ];
    stored(&rig, &[&events, &events[1..2], &events[1..]]);
    assert_eq!(rig.users(), ["1\tdan\tanother\t4"]);
    assert_eq!(rig.dead_letters(), [""; 0]);
}

#[test]
fn a_value_that_was_never_stored_makes_a_dead_letter_and_blocks_nothing() {
    let rig = Rig::new("");
    let events = [update(2, &["1", "bob", "GAP", "2"]), insert(3, &["2", "eve", "x", "3"])];
    stored(&rig, &[&events]);
    assert_eq!(rig.users(), ["2\teve\tx\t3"]);
    let reason = "a value was not sent and no stored version of the row has it";
    assert_eq!(rig.dead_letters(), [reason]);
    // What comes behind it in the batch says all of the row.
    let events = [update(4, &["3", "fay", "GAP", "4"]), update(5, &["3", "gil", "y", "5"])];
    stored(&rig, &[&events]);
    assert_eq!(rig.users(), ["2\teve\tx\t3", "3\tgil\ty\t5"]);
    assert_eq!(rig.dead_letters(), [reason]);
}

/// What is stored of a row that is gone is its key, and else nothing that it ever held.
#[test]
fn a_value_is_not_taken_from_a_deletion() {
    let rig = Rig::new("");
    let gone = [insert(1, &["1", "ann", LONG, "1"]), delete(2, &["1", "NULL", "NULL", "NULL"])];
    stored(&rig, &[&gone, &[update(3, &["1", "bob", "GAP", "3"])]]);
    assert_eq!(rig.users(), [""; 0]);
    assert_eq!(rig.dead_letters().len(), 1);
}

#[test]
fn an_update_of_a_row_that_a_truncate_took_is_no_dead_letter() {
    let rig = Rig::new("");
    let events = [
        insert(1, &["1", "ann", LONG, "1"]),
        update(2, &["1", "bob", "GAP", "2"]),
        truncate(3),
        insert(4, &["2", "eve", "x", "3"]),
    ];
    stored(&rig, &[&events, &events[1..2], &events[1..]]);
    // Of this one nothing was ever stored.
    stored(&rig, &[&[update(2, &["7", "bob", "GAP", "2"])]]);
    assert_eq!(rig.users(), ["2\teve\tx\t3"]);
    assert_eq!(rig.dead_letters(), [""; 0]);
}

#[test]
fn more_rows_than_one_lookup_takes_are_filled() {
    let rig = Rig::new("");
    let count = 1300;
    let id = |n: u64| n.to_string();
    let inserted: Vec<_> = (1..=count).map(|n| insert(n, &[&id(n), "a", LONG, "1"])).collect();
    let updated = (1..=count).map(|n| update(count + n, &[&id(n), "b", "GAP", "2"]));
    stored(&rig, &[&inserted, &updated.collect::<Vec<_>>()]);
    let summary = "SELECT count(), countIf(name = 'b' AND bio = 'a long value') FROM {db}.users";
    assert_eq!(rig.lines(summary), ["1300\t1300"]);
}

#[test]
fn the_whole_old_row_fills_a_gap_without_a_lookup() {
    use crate::feed::{Before, row};
    let rig = Rig::new("");
    let before = Before::Full(row(&["1", "ann", LONG, "1"]));
    let after = Some(row(&["1", "bob", "GAP", "2"]));
    stored(&rig, &[&[event(2, tailwater::change::Op::Update, before, after)]]);
    assert_eq!(rig.users(), ["1\tbob\ta long value\t2"]);
}
