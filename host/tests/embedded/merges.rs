//! Merges do not hold up those who wait.

use std::fs;
use std::time::Duration;

use tailwater_test_support::{ClickHouse, wait_until};

use crate::requests::database;

const DEADLINE: Duration = Duration::from_secs(60);

/// The niceness of each of a process's threads of this name.
fn niceness(process: u32, name: &str) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the threads");
    let stats = threads.flatten().filter_map(|thread| {
        // `number (name) state …`, the niceness is the seventeenth after the name.
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        before.ends_with(&format!("({name}")).then(|| after.to_owned())
    });
    stats.filter_map(|stat| stat.split(' ').nth(16)?.parse().ok()).collect()
}

#[test]
fn merges_run_at_a_lower_priority_than_inserts_and_queries() {
    let clickhouse = ClickHouse::start().expect("a server");
    let table = format!("{}.t", database(&clickhouse));
    clickhouse
        .query(&format!("CREATE TABLE {table} (n UInt64) ENGINE = MergeTree ORDER BY n"))
        .expect("a table");
    let process = clickhouse.process_id().expect("a process");
    wait_until(DEADLINE, "merges are nice", || {
        let merging = niceness(process, "MergeMutate");
        !merging.is_empty() && merging.iter().all(|nice| *nice >= 10)
    })
    .expect("the engine merges at a low priority");
    // Those that serve are not.
    let own = niceness(process, "tailwater");
    assert!(niceness(process, "ThreadPool").iter().all(|nice| *nice == own[0]), "{own:?}");
}
