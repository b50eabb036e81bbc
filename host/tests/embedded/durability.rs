//! SIGKILL at any moment: every insert that was answered is there, whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
