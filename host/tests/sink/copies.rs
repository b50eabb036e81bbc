//! Copied rows, which come by the million and each once.

use tailwater::change::Op;
use tailwater::sink::literal;

use crate::feed::{Before, Event, event, hop, insert, row, truncate, users};
use crate::rig::Rig;

/// Two of them are a block that is left to merges.
const LONG: usize = 3 << 20;

fn copied(commit: u64, id: &str, bio: &str) -> Event {
    event(commit, Op::Read, Before::Nothing, Some(row(&[id, "a", bio, "1"])))
}

/// Whether the engine has told the versions of each row apart in each of the parts, in the order they came in.
fn collapsed(rig: &Rig<'_>) -> Vec<String> {
    rig.lines(&format!(
        "SELECT level > 0 FROM system.parts WHERE active AND table = 'users_versions' \
         AND database = {} ORDER BY min_block_number",
        literal(&rig.database),
    ))
}

#[test]
fn a_large_block_of_copied_rows_is_left_to_merges_and_a_row_that_came_twice_is_shown_once() {
    let rig = Rig::new("");
    let bio = "x".repeat(LONG);
    let large = [copied(2, "1", &bio), copied(2, "2", &bio), copied(2, "1", &bio)];
    let (small, streamed) = ([copied(3, "3", "b")], [insert(4, &["4", "a", "b", "1"])]);
    rig.deliver([hop(&users(), &[truncate(1)])]).expect("the sink makes the table");
    rig.lines("SYSTEM STOP MERGES {db}.users_versions");
    for events in [&large[..], &small, &streamed] {
        rig.deliver([hop(&users(), events)]).expect("the sink stores");
    }
    assert_eq!(collapsed(&rig), ["0", "1", "1"]);
    let shown = || rig.lines("SELECT id, length(bio) FROM {db}.users ORDER BY id");
    let rows = [format!("1\t{LONG}"), format!("2\t{LONG}"), "3\t1".into(), "4\t1".into()];
    assert_eq!(shown(), rows);
    rig.lines("SYSTEM START MERGES {db}.users_versions");
    rig.merge("users_versions");
    assert_eq!(collapsed(&rig), ["1"]);
    assert_eq!(shown(), rows);
}
