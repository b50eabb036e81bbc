//! What is acknowledged, or recorded as complete, is stored at that moment and not in a moment.

use std::time::Duration;

use tailwater::hop::{Copied, CopyMark, SnapshotDone};
use tailwater::position::Lsn;
use tailwater_test_support::wait_until;
use tokio::sync::mpsc;

use crate::feed::{hop, insert, users};
use crate::rig::Rig;

const DEADLINE: Duration = Duration::from_secs(60);
const ROWS: u64 = 60;

#[test]
fn rows_are_there_when_their_point_is_acknowledged() {
    let rig = Rig::new("batch_rows = 3\nflush_interval_ms = 0\n");
    let sink = rig.connect().expect("a ClickHouse");
    let (input, output) = mpsc::channel(4);
    let mut counted = Vec::new();
    rig.runtime.block_on(async {
        let feeding = async move {
            for n in 1..=ROWS {
                let row = insert(n, &[&n.to_string(), "a", "b", "1"]);
                drop(input.send(hop(&users(), &[row])).await);
            }
        };
        let storing = sink.run(output, |stored| {
            let confirmed = stored.into_point().confirm.0;
            let found = rig.lines("SELECT count() FROM {db}.users")[0].parse().expect("a number");
            counted.push((confirmed, found));
        });
        tokio::join!(feeding, storing).1.expect("the sink stores");
    });
    assert!(counted.iter().all(|(confirmed, found)| confirmed <= found), "{counted:?}");
    assert_eq!(counted.last(), Some(&(ROWS, ROWS)));
    assert!(counted.len() > 2, "it was too few batches: {counted:?}");
}

#[test]
fn a_copy_is_not_recorded_as_complete_before_its_rows_are_stored() {
    let rig = Rig::new("");
    rig.deliver([hop(&users(), &[insert(1, &["1", "a", "b", "1"])])]).expect("the sink stores");
    rig.lines("ALTER TABLE {db}.users_versions ADD CONSTRAINT refused CHECK n < 5");
    let mut last = hop(&users(), &[insert(2, &["2", "a", "b", "7"])]);
    let (table, copied) = (users().full_name(), Copied::default());
    last.point.copies = vec![CopyMark::Complete(SnapshotDone { table, copied })];
    let stalled = || rig.readiness.legs().get("sink").is_some_and(|leg| !leg.moving);
    let recorded = || rig.lines("SELECT count() FROM {db}._tailwater_snapshots");
    std::thread::scope(|scope| {
        let delivering = scope.spawn(|| rig.deliver([last]));
        wait_until(DEADLINE, "the rows to be refused", stalled).expect("they are");
        assert_eq!(recorded(), ["0"]);
        rig.lines("ALTER TABLE {db}.users_versions DROP CONSTRAINT refused");
        delivering.join().expect("no panic").expect("the sink goes on");
    });
    assert_eq!(recorded(), ["1"]);
}

#[test]
fn a_copy_whose_rows_somebody_dropped_is_not_complete() {
    let rig = Rig::new("");
    let mut copied = hop(&users(), &[insert(1, &["1", "a", "b", "1"])]);
    let table = users().full_name();
    copied.point.copies =
        vec![CopyMark::Complete(SnapshotDone { table, copied: Copied::default() })];
    rig.deliver([copied]).expect("the sink stores");
    let complete = || {
        let sink = rig.connect().expect("a ClickHouse");
        rig.runtime.block_on(sink.completed_snapshots()).expect("it answers").len()
    };
    assert_eq!(complete(), 1);
    rig.lines("DROP TABLE {db}.users_versions SYNC");
    assert_eq!(complete(), 0);
}

#[test]
fn the_newest_commit_is_found_without_reading_what_is_older() {
    let rig = Rig::new("");
    rig.deliver([hop(&users(), &[insert(9, &["1", "a", "b", "1"])])]).expect("the sink stores");
    let old = "_version) SELECT number + 2, 'old', bitShiftLeft(toUInt128(3), 64) + number";
    rig.lines(&format!("INSERT INTO {{db}}.users_versions (id, name, {old} FROM numbers(500000)"));
    rig.merge("users_versions");
    let (sink, table) = (rig.connect().expect("a ClickHouse"), users().full_name());
    let newest = |known| {
        let newest = sink.newest_commit([&table].into_iter(), Lsn(known));
        rig.runtime.block_on(newest).expect("it answers").0
    };
    assert_eq!([0, 3, 8, 9, 10].map(newest), [9, 9, 9, 9, 10]);
    let later = "SELECT max(_version) FROM {db}.users_versions WHERE _version >";
    let plan = |commit: &str| {
        rig.lines(&format!("EXPLAIN indexes = 1 {later} toUInt128('{commit}')")).join("\n")
    };
    let (none, few) = (plan("184467440737095516160"), plan("147573952589676412928"));
    assert!(none.contains("Granules: 0/"), "{none}");
    assert!(few.contains("Name: _newest") && few.contains("Granules: 16/"), "{few}");
}
