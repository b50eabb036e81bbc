//! A statement that asks for too much gets a sentence in time, and the next one is answered.

use std::time::{Duration, Instant};

use tailwater::serve::Endpoint;
use tailwater_test_support::{ClickHouse, unique_name, wait_until};

use crate::interface::{Interface, sentence};

const LIMITS: &str = "sql_max_seconds = 2\nsql_max_memory_mb = 64\nsql_max_rows = 1000\n";
/// Two seconds, the five that an answer may begin later, and a busy machine.
const LATEST: Duration = Duration::from_secs(20);

/// Too slow, too large or too many; the status says which.
const GREEDY: [(&str, &[u16]); 16] = [
    ("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", &[504]),
    ("SELECT sum(sleepEachRow(1)) FROM numbers(1000)", &[400, 504]),
    ("SELECT sleep(3), sleep(3), sleep(3)", &[504]),
    ("SELECT number FROM numbers(100000)", &[422]),
    ("SELECT number FROM system.numbers", &[422]),
    ("SELECT * FROM generateRandom('a String', 1, 1000000)", &[422, 504]),
    ("SELECT range(1000000000)", &[400, 422]),
    ("SELECT repeat('x', 10000000000)", &[400, 422]),
    ("SELECT length(groupArray(number)) FROM numbers(1000000000)", &[400, 422, 504]),
    ("SELECT arrayStringConcat(arrayMap(x -> 'x', range(100000000)))", &[400, 422]),
    (
        "SELECT count() FROM numbers(100000000) AS a, numbers(100000000) AS b \
         WHERE sipHash64(a.number, b.number) = 7",
        &[422, 504],
    ),
    (
        "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) SELECT count() FROM t",
        &[400, 422, 504],
    ),
    (
        "SELECT count() FROM (SELECT arrayJoin(arrayMap(x -> arrayMap(y -> sipHash64(x, y), \
         range(100000)), range(100000))))",
        &[400, 422, 504],
    ),
    (
        "SELECT x FROM (SELECT number AS x FROM numbers(100000000)) ORDER BY sipHash64(x)",
        &[422, 504],
    ),
    ("SELECT uniqExact(sipHash64(number)) FROM numbers(1000000000)", &[422, 504]),
    ("SELECT number FROM numbers(100000) FORMAT Null", &[422]),
];

/// Nested or repeated more deeply than anybody writes: what opens, what is inside, what closes, and
/// how often.
const DEEP: [(&str, &str, &str, usize); 12] = [
    ("(", "1", ")", 60_000),
    ("[", "1", "]", 60_000),
    ("- ", "1", "", 60_000),
    ("NOT ", "1", "", 40_000),
    ("f(", "1", ")", 60_000),
    ("tuple(", "1", ")", 900),
    ("1 + ", "1", "", 40_000),
    ("x -> ", "1", "", 30_000),
    ("CASE WHEN 1 THEN ", "1", " END", 9_000),
    ("(SELECT ", "1", ")", 20_000),
    ("1 UNION ALL SELECT ", "1", "", 9_000),
    ("a AS ", "1", "", 30_000),
];

#[test]
fn greedy_statements_are_ended_in_time_and_leave_nothing_running() {
    let database = unique_name("greedy");
    ClickHouse::shared().query(&format!("CREATE DATABASE {database}")).expect("a database");
    let interface = Interface::with_clickhouse(LIMITS, &database);
    for (statement, wanted) in GREEDY {
        let began = Instant::now();
        let response = interface.sql(statement, "");
        let took = began.elapsed();
        assert!(wanted.contains(&response.status), "{statement}: {}", response.text());
        sentence(&response);
        assert!(took < LATEST, "{statement} took {took:?}");
        assert_eq!(interface.sql("SELECT 1", "?format=csv").status, 200, "after {statement}");
    }
    nothing_runs(&database);
}

/// A server may have sorts and groups go on on its disk. The embedded engine's holds the copy.
#[test]
fn what_a_statement_puts_on_the_disk_is_bounded_too() {
    let interface = Interface::with_clickhouse("sql_max_memory_mb = 32\n", "default");
    let server = interface.clickhouse.borrow().clone().expect("a server");
    // As an administrator's profile would have it. What follows becomes the comment.
    let spilling =
        format!("{}/?max_bytes_before_external_group_by=1000000&log_comment=", server.url);
    let spills = |rows: u32| {
        let grouped =
            format!("SELECT sipHash64(number) AS hash FROM numbers({rows}) GROUP BY hash");
        interface.sql(&format!("SELECT count() FROM ({grouped})"), "?format=csv")
    };
    interface.clickhouse.send_replace(Some(Endpoint { url: spilling, ..server }));
    let fits = spills(500_000);
    assert_eq!(fits.status, 200, "{}", fits.text());
    let response = spills(20_000_000);
    assert_eq!(response.status, 422, "{}", response.text());
    assert!(sentence(&response).contains("Limit for temporary files size exceeded"));
}

#[test]
fn statements_of_any_depth_are_answered_and_break_nothing() {
    let database = unique_name("deep");
    ClickHouse::shared().query(&format!("CREATE DATABASE {database}")).expect("a database");
    let interface = Interface::with_clickhouse(LIMITS, &database);
    for (opens, inside, closes, times) in DEEP {
        let statement = format!("SELECT {}{inside}{}", opens.repeat(times), closes.repeat(times));
        let began = Instant::now();
        let response = interface.sql(&statement, "");
        let took = began.elapsed();
        let status = response.status;
        assert!([200, 400, 422, 504].contains(&status), "{opens}: {status} {}", response.text());
        if status != 200 {
            sentence(&response);
        }
        assert!(took < LATEST, "{opens} took {took:?}");
        assert_eq!(interface.sql("SELECT 1", "?format=csv").status, 200, "after {opens}");
    }
    nothing_runs(&database);
}

#[test]
fn a_function_that_would_not_stop_in_time_is_refused() {
    let interface = Interface::with_clickhouse(LIMITS, "default");
    for function in ["editDistance", "`damerauLevenshteinDistance`", "JaroWinklerSimilarity"] {
        let text = "randomString(60000)";
        let response = interface.sql(&format!("SELECT {function}({text}, {text})"), "");
        assert_eq!(response.status, 400, "{}", response.text());
        assert!(sentence(&response).contains("cannot be stopped when its time is up"));
    }
}

#[test]
fn a_statement_that_is_longer_than_a_statement_is_refused() {
    let interface = Interface::with_clickhouse("", "default");
    let response = interface.sql(&format!("SELECT '{}'", "x".repeat(300_000)), "");
    assert_eq!(response.status, 400);
    assert!(sentence(&response).contains("the body is one statement in UTF-8, at most 262144"));
}

/// What was ended does not go on behind the answer's back.
fn nothing_runs(database: &str) {
    let running =
        format!("SELECT count() FROM system.processes WHERE current_database = '{database}'");
    wait_until(Duration::from_secs(20), "all statements to end", || {
        ClickHouse::shared().query(&running).is_ok_and(|count| count.trim() == "0")
    })
    .expect("what was ended ends");
}
