//! A change that cannot become a row is kept whole, beside those that can.

use std::sync::Arc;

use tailwater::change::Op;
use tailwater::dead_letter::{DeadLetter, Stage};
use tailwater::hop::{Hop, LogPoint, Redrive};
use tailwater::plugin::Scope;
use tailwater::redrive::DeadLetters;
use tailwater::sink::Chosen;
use tailwater::table::{ColumnType, ReplicaIdentity, Table};
use tokio::sync::{mpsc, oneshot};

use crate::feed::{Before, column, delete, event, hop, insert, key, table, update, users};
use crate::rig::Rig;

#[test]
fn a_change_that_is_no_row_is_kept_and_the_rest_is_stored() {
    let rig = Rig::new("");
    let events = [
        insert(1, &["1", "ann", "x", "1"]),
        insert(2, &["2", "bob", "x", "SECRET"]),
        insert(3, &["3", "cid", "x", "3"]),
    ];
    rig.deliver([hop(&users(), &events)]).expect("the sink stores");
    assert_eq!(rig.users(), ["1\tann\tx\t1", "3\tcid\tx\t3"]);
    let what = "SELECT position, source_table, op, stage, reason FROM {db}._tailwater_dead_letters";
    let wanted = "0/2:1\tpublic.users\tc\tstore\tits column `n` is no int4";
    assert_eq!(rig.lines(what), [wanted]);
    let original = rig.lines("SELECT original FROM {db}._tailwater_dead_letters");
    let original: serde_json::Value = serde_json::from_str(&original[0]).expect("it is JSON");
    let after = serde_json::json!({ "id": "2", "name": "bob", "bio": "x", "n": "SECRET" });
    assert_eq!(original, serde_json::json!({ "before": null, "after": after }));
    // A replay brings it again, and it is one letter all the same.
    rig.deliver([hop(&users(), &events)]).expect("the sink stores");
    assert_eq!(rig.dead_letters().len(), 1);
}

#[test]
fn a_key_that_would_fall_together_with_another_is_a_dead_letter() {
    let rig = Rig::new("");
    let days =
        table("public", "days", vec![key("day", ColumnType::Date), column("v", ColumnType::Text)]);
    let events = [
        insert(1, &["2299-12-31", "a"]),
        insert(2, &["infinity", "b"]),
        delete(3, &["infinity", "NULL"]),
    ];
    rig.deliver([hop(&days, &events)]).expect("the sink stores");
    assert_eq!(rig.lines("SELECT day, v FROM {db}.days"), ["2299-12-31\ta"]);
    let reason = "its key `day` has a value that Date32 cannot tell apart";
    assert_eq!(rig.dead_letters(), [reason, reason]);
}

#[test]
fn a_table_without_key_takes_inserts_only() {
    let rig = Rig::new("");
    let log = table("public", "log", vec![column("line", ColumnType::Text)]);
    let events = [insert(1, &["a"]), insert(2, &["a"]), update(3, &["b"])];
    rig.deliver([hop(&log, &events)]).expect("the sink stores");
    rig.deliver([hop(&log, &events)]).expect("a replay is stored as well");
    assert_eq!(rig.lines("SELECT line FROM {db}.log"), ["a", "a"]);
    let reason = "its table has no key to find the row by; add a primary key";
    assert_eq!(rig.dead_letters(), [reason]);
}

#[test]
fn a_deletion_that_names_no_row_is_a_dead_letter() {
    let rig = Rig::new("");
    let of_nothing = event(2, Op::Delete, Before::Nothing, None);
    let events = [insert(1, &["1", "ann", "x", "1"]), of_nothing];
    rig.deliver([hop(&users(), &events)]).expect("the sink goes on");
    assert_eq!(rig.dead_letters(), ["it has neither an old row nor a new one"]);
    assert_eq!(rig.users(), ["1\tann\tx\t1"]);
}

#[test]
fn a_letter_for_which_there_is_no_place_by_now_stays_one_and_ends_nothing() {
    let misfit = table("public", "users", vec![key("name", ColumnType::Text)]);
    let (schema, name) = ("legacy".to_owned(), "users".to_owned());
    let legacy = Table::new(8, schema, name, users().columns.clone(), ReplicaIdentity::Default);
    let routed = Arc::new(legacy.renamed(users().full_name()));
    let reserved = table("public", "log", vec![key("_version", ColumnType::Text)]);
    let hidden = table("public", "log", vec![key("_row_exists", ColumnType::Text)]);
    let long = table(&"схема".repeat(6), &"таблица".repeat(4), vec![key("name", ColumnType::Text)]);
    let cases = [
        (long, &["bob"][..], "is too long for the names of"),
        (misfit, &["bob"], "does not fit"),
        (routed, &["2", "bob", "x", "2"], "would both go into public.users"),
        (reserved, &["bob"], "which tailwater needs for itself"),
        (hidden, &["bob"], "which tailwater needs for itself"),
    ];
    for (table, row, why) in cases {
        let rig = Rig::new("");
        rig.deliver([hop(&users(), &[insert(1, &["1", "ann", "x", "1"])])]).expect("it stores");
        let mut redriven = hop(&table, &[insert(2, row)]);
        let changes = &redriven.changes;
        let letter =
            DeadLetter::new(changes, &changes.list[0], Stage::Store, None, "it did not fit".into());
        let (done, outcome) = oneshot::channel();
        let (letters, ids) = (vec![letter], vec!["an id".to_owned()]);
        redriven.redrive =
            Some(Redrive { letters, ids, dropped: false, scope: Scope::default(), done });
        let then = |id: &str, at| hop(&users(), &[insert(at, &[id, "cid", "x", "3"])]);
        rig.deliver([then("3", 3), redriven, then("4", 4)]).expect("the sink goes on");
        let outcome = outcome.blocking_recv().expect("it is told");
        assert_eq!((outcome.closed, outcome.failed), (Vec::new(), 1));
        let reasons = rig.dead_letters();
        assert!(matches!(&reasons[..], [reason] if reason.contains(why)), "{reasons:?}");
        assert_eq!(rig.users(), ["1\tann\tx\t1", "3\tcid\tx\t3", "4\tcid\tx\t3"]);
    }
}

#[test]
fn letters_that_a_leg_leaves_no_time_for_are_kept() {
    let rig = Rig::new("");
    rig.deliver([hop(&users(), &[insert(1, &["1", "ann", "x", "no number"])])]).expect("it stores");
    let (head, ended) = mpsc::channel::<Hop<LogPoint>>(1);
    let letters = DeadLetters::default();
    let store = rig.connect().expect("a sink").letters();
    letters.open_direct(store, &head.downgrade(), Vec::new());
    drop(ended);
    let all = Chosen::default();
    let refused = rig.runtime.block_on(letters.redrive(&all)).expect_err("nobody takes them");
    let refused = refused.to_string();
    assert!(refused.starts_with("the leg is ending; what was not driven through"), "{refused}");
    assert_eq!(rig.dead_letters().len(), 1);
}
