//! SIGKILL at any moment, or a disk that takes no more: every insert that was answered is there,
//! whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tailwater_test_support::{ClickHouse, wait_until};

use crate::requests::{database, post};

const DEADLINE: Duration = Duration::from_secs(60);
const ROUNDS: u64 = 6;
const WRITERS: usize = 3;
const BLOCK: u64 = 500;

/// Inserts block after block until the server is gone or it is told to stop; how many were answered.
fn write(clickhouse: &ClickHouse, table: &str, writer: u64, first: u64, stop: &AtomicBool) -> u64 {
    let insert = format!("INSERT INTO {table} FORMAT RowBinary");
    let mut answered = first;
    while !stop.load(Ordering::Relaxed) {
        let row = |n: u64| [writer.to_le_bytes(), answered.to_le_bytes(), n.to_le_bytes()].concat();
        let body: Vec<u8> = (0..BLOCK).flat_map(row).collect();
        let sent = std::panic::catch_unwind(|| post(clickhouse, &insert, &body));
        match sent {
            Ok(answer) if answer.status == 200 => answered += 1,
            _ => break,
        }
    }
    answered
}

#[test]
fn every_answered_insert_survives_kills() {
    let clickhouse = ClickHouse::start().expect("a server");
    let table = format!("{}.t", database(&clickhouse));
    let make = "(writer UInt64, block UInt64, n UInt64) ENGINE = ReplacingMergeTree \
                ORDER BY (writer, block, n)";
    clickhouse.query(&format!("CREATE TABLE {table} {make}")).expect("a table");
    let mut answered = [0; WRITERS];
    for round in 1..=ROUNDS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let write = |(writer, first): (u64, u64)| {
                let (clickhouse, table, stop) = (&clickhouse, &table, &stop);
                scope.spawn(move || write(clickhouse, table, writer, first, stop))
            };
            let writers: Vec<_> = (0..).zip(answered).map(write).collect();
            let least = answered[0] + round;
            let reached = format!("SELECT max(block) >= {least} FROM {table} WHERE writer = 0");
            wait_until(DEADLINE, "some blocks", || {
                clickhouse.query(&reached).is_ok_and(|reached| reached.trim() == "1")
            })
            .expect("it takes rows");
            clickhouse.crash().expect("it is killed");
            stop.store(true, Ordering::Relaxed);
            for (answered, writer) in answered.iter_mut().zip(writers) {
                *answered = writer.join().expect("a writer ends");
            }
        });
        clickhouse.restart().expect("it starts again");
        for (writer, answered) in (0u64..).zip(answered) {
            let sql = format!(
                "SELECT count() FROM {table} FINAL WHERE writer = {writer} AND block < {answered}"
            );
            let found = clickhouse.query(&sql).expect("a query");
            assert_eq!(found.trim(), (answered * BLOCK).to_string(), "writer {writer}");
        }
    }
}

/// From now on the server's files cannot grow beyond so many bytes.
fn limit_files(clickhouse: &ClickHouse, bytes: u64) {
    let process = clickhouse.process_id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let limit = Rlimit { current: Some(bytes), maximum: None };
    prlimit(process, Resource::Fsize, limit).expect("a limit");
}

#[test]
fn an_insert_that_the_disk_does_not_take_is_not_answered() {
    let clickhouse = ClickHouse::start().expect("a server");
    let table = format!("{}.t", database(&clickhouse));
    clickhouse
        .query(&format!("CREATE TABLE {table} (n UInt64) ENGINE = MergeTree ORDER BY n"))
        .expect("a table");
    let insert = format!("INSERT INTO {table} FORMAT RowBinary");
    // Spread over all bytes, so that compression does not help.
    let row = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    let rows = |first: u64| (first..first + BLOCK).flat_map(row).collect::<Vec<_>>();
    assert_eq!(post(&clickhouse, &insert, &rows(0)).status, 200);
    limit_files(&clickhouse, 2_000);
    let answer = std::panic::catch_unwind(|| post(&clickhouse, &insert, &rows(BLOCK)));
    assert!(answer.is_err(), "{}", answer.expect("an answer").text());
    clickhouse.restart().expect("it starts again");
    let found = clickhouse.query(&format!("SELECT count() FROM {table} WHERE NOT ignore(*)"));
    assert_eq!(found.expect("a query").trim(), BLOCK.to_string());
    let log = std::fs::read_to_string(clickhouse.log_file()).expect("a log");
    assert!(log.contains("cannot write to the disk: File too large"), "{log}");
}
