//! What the engine alone would take for done without doing it.

use std::time::Duration;

use tailwater_test_support::{ClickHouse, http_get, wait_until};

use crate::requests::{database, post, post_with};

#[test]
fn text_that_is_no_statement_is_an_error() {
    let clickhouse = ClickHouse::shared();
    let nothing = ["", " ", "-- a comment", "/* a comment */", ";", "\u{4}SELECT 1", "\"", "\0"];
    for text in nothing.iter().chain(&["exit", "quit", "q", "logout", "1 + 1"]) {
        let answer = post(clickhouse, text, b"");
        assert_ne!(answer.status, 200, "{text:?}: {}", answer.text());
    }
    let answer = post(clickhouse, "-- a comment", b"").text();
    assert!(answer.contains("the text is no statement that the engine understands"), "{answer}");
}

#[test]
fn what_the_engine_does_not_do_over_http_is_said() {
    let clickhouse = ClickHouse::shared();
    let form = [("Content-Type", "multipart/form-data; boundary=b")];
    let input = "INSERT INTO t SELECT n FROM input('n UInt8') FORMAT RowBinary";
    for (parameters, headers, body, wanted) in [
        (
            &[("session_id", "s")][..],
            &[][..],
            "SELECT 1",
            "keeps no sessions: leave out session_id.",
        ),
        (&[], &form, "--b\r\nno end", "the form in the body is malformed."),
        (
            &[("query", input)],
            &[],
            "\u{1}",
            "does not read rows through input(): insert into the table",
        ),
    ] {
        let answer = post_with(clickhouse, parameters, headers, body.as_bytes());
        assert_ne!(answer.status, 200, "{wanted}");
        assert!(answer.text().contains(wanted), "{wanted}: {}", answer.text());
    }
}

#[test]
fn a_second_statement_is_refused_and_not_run() {
    let clickhouse = ClickHouse::shared();
    let database = database(clickhouse);
    for text in [
        format!("SELECT 1; DROP DATABASE {database}"),
        format!("SELECT 1;\n\nDROP DATABASE {database}"),
        format!("INSERT INTO {database}.t SELECT 1; DROP DATABASE {database}"),
    ] {
        let answer = post(clickhouse, &text, b"");
        assert_eq!(answer.status, 400, "{text}: {}", answer.text());
        let said = "Syntax error (Multi-statements are not allowed).";
        assert!(answer.text().contains(said), "{text}: {}", answer.text());
    }
    let exists = clickhouse.query(&format!("EXISTS DATABASE {database}")).expect("a query");
    assert_eq!(exists.trim(), "1");
}

#[test]
fn an_encoding_that_is_not_read_is_refused() {
    let clickhouse = ClickHouse::shared();
    let table = format!("{}.t", database(clickhouse));
    clickhouse.query(&format!("CREATE TABLE {table} (n UInt8) ENGINE = Memory")).expect("a table");
    let insert = format!("INSERT INTO {table} FORMAT RowBinary");
    for encoding in ["lz4", "zstd", "br", "deflate", "nonsense"] {
        let headers = [("Content-Encoding", encoding)];
        let answer = post_with(clickhouse, &[("query", &insert)], &headers, b"\x01");
        assert_eq!(answer.status, 501, "{encoding}: {}", answer.text());
        let said =
            format!("Content-Encoding '{encoding}' is not supported: send gzip, or compressed");
        assert!(answer.text().contains(&said), "{}", answer.text());
    }
    let damaged = [("query", insert.as_str()), ("decompress", "1")];
    let answer = post_with(clickhouse, &damaged, &[], &[0x82; 64]);
    assert!(answer.text().contains("CANNOT_DECOMPRESS"), "{}", answer.text());
    let count = clickhouse.query(&format!("SELECT count() FROM {table}")).expect("a query");
    assert_eq!(count.trim(), "0");
}

#[test]
fn a_wrong_password_is_refused_and_not_repeated() {
    let clickhouse = ClickHouse::shared();
    let url = format!("{}/?query=SELECT+1&password=not-the-word", clickhouse.url());
    let answer = http_get(&url).expect("an answer");
    assert_eq!(answer.status, 403);
    assert!(!answer.text().contains("not-the-word"));
    assert!(answer.text().contains("password is incorrect, or there is no user with such name"));
}

#[test]
fn a_get_changes_nothing() {
    let clickhouse = ClickHouse::shared();
    let database = database(clickhouse);
    let url = format!(
        "{}/?user=default&password={}&query=DROP+DATABASE+{database}",
        clickhouse.url(),
        clickhouse.password()
    );
    let answer = http_get(&url).expect("an answer");
    assert_ne!(answer.status, 200, "{}", answer.text());
    let exists = clickhouse.query(&format!("EXISTS DATABASE {database}")).expect("a query");
    assert_eq!(exists.trim(), "1");
}

#[test]
fn a_statement_that_nobody_waits_for_ends() {
    use std::io::Write as _;
    let clickhouse = ClickHouse::shared();
    let address = clickhouse.url().replace("http://", "");
    let running = |word: &str| {
        let sql = format!(
            "SELECT count() FROM system.processes WHERE query LIKE '%{word}%' \
             AND query NOT LIKE '%system.processes%'"
        );
        clickhouse.query(&sql).is_ok_and(|count| count.trim() == "1")
    };
    let mut stream = std::net::TcpStream::connect(&address).expect("a connection");
    let request = format!(
        "POST /?query=SELECT%20count()%20AS%20abandoned%20FROM%20numbers_mt(1000000000000) HTTP/1.1\
         \r\nHost: {address}\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n\
         Content-Length: 0\r\n\r\n",
        clickhouse.user(),
        clickhouse.password(),
    );
    stream.write_all(request.as_bytes()).expect("it is sent");
    let deadline = Duration::from_secs(30);
    wait_until(deadline, "the statement to run", || running("abandoned")).expect("it runs");
    drop(stream);
    wait_until(deadline, "the statement to end", || !running("abandoned")).expect("it ends");
}

#[test]
fn readers_that_do_not_take_their_answers_leave_places_for_others() {
    use std::io::Write as _;
    let clickhouse = ClickHouse::start().expect("an engine");
    let address = clickhouse.url().replace("http://", "");
    let request = format!(
        "POST /?readonly=1&query=SELECT%20number%20AS%20untaken%20FROM%20numbers(1000000000) HTTP/1.1\
         \r\nHost: {address}\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n\
         Content-Length: 0\r\n\r\n",
        clickhouse.user(),
        clickhouse.password(),
    );
    // More than the 32 that run at the same time.
    let mut readers = Vec::new();
    for _ in 0..40 {
        let mut stream = std::net::TcpStream::connect(&address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("it is sent");
        readers.push(stream);
    }
    let sql = "SELECT count() FROM system.processes WHERE query LIKE '%untaken%' \
               AND query NOT LIKE '%system.processes%'";
    let running = || clickhouse.query(sql).expect("a place for a writer").trim() == "24";
    wait_until(Duration::from_secs(30), "three quarters of the places", running).expect("they run");
    clickhouse.query("CREATE TABLE default.t (a Int8) ENGINE = Memory").expect("another writer");
}
