//! An insert whose body ends before its end leaves nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tailwater_test_support::{ClickHouse, wait_until};

use crate::requests::{database, post};

const DEADLINE: Duration = Duration::from_secs(30);

fn table(clickhouse: &ClickHouse) -> String {
    let table = format!("{}.t", database(clickhouse));
    let make = format!("CREATE TABLE {table} (n UInt64) ENGINE = MergeTree ORDER BY n");
    clickhouse.query(&make).expect("a table");
    table
}

fn count(clickhouse: &ClickHouse, table: &str) -> String {
    clickhouse.query(&format!("SELECT count() FROM {table}")).expect("a query").trim().to_owned()
}

/// Sends the head of an insert and part of its body, and goes away.
fn begin_and_leave(clickhouse: &ClickHouse, table: &str, encoding: &str, body: &[u8]) {
    let address = clickhouse.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("a connection");
    let head = format!(
        "POST /?query=INSERT%20INTO%20{table}%20FORMAT%20RowBinary HTTP/1.1\r\nHost: {address}\r\n\
         X-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n{encoding}\r\n\r\n",
        clickhouse.user(),
        clickhouse.password(),
    );
    stream.write_all(head.as_bytes()).expect("it is sent");
    stream.write_all(body).expect("it is sent");
    stream.shutdown(std::net::Shutdown::Write).expect("it is ended");
    let mut answer = String::new();
    // The server may answer or hang up; it must not take the rows for all of them.
    drop(stream.read_to_string(&mut answer));
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Whether no statement runs any more, so that nothing can come later.
fn wait_idle(clickhouse: &ClickHouse, table: &str) {
    let sql =
        format!("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO {table}%'");
    wait_until(DEADLINE, "the insert to end", || {
        clickhouse.query(&sql).is_ok_and(|count| count.trim() == "0")
    })
    .expect("it ends");
}

#[test]
fn a_client_that_goes_away_leaves_nothing() {
    let clickhouse = ClickHouse::shared();
    let table = table(clickhouse);
    let rows = vec![7; 8 * 10_000];
    begin_and_leave(clickhouse, &table, "Content-Length: 800000", &rows);
    let chunk = [format!("{:x}\r\n", rows.len()).as_bytes(), &rows, b"\r\n"].concat();
    begin_and_leave(clickhouse, &table, "Transfer-Encoding: chunked", &chunk);
    wait_idle(clickhouse, &table);
    assert_eq!(count(clickhouse, &table), "0");
}

#[test]
fn a_row_that_is_cut_short_leaves_nothing() {
    let clickhouse = ClickHouse::shared();
    let table = table(clickhouse);
    let insert = format!("INSERT INTO {table} FORMAT RowBinary");
    let answer = post(clickhouse, &insert, &[7; 8 * 1000 + 3]);
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("CANNOT_READ_ALL_DATA"), "{}", answer.text());
    assert_eq!(count(clickhouse, &table), "0");
}
