//! What strangers may try with `/v0/sql`: nothing is written, and nothing is read but tables.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;

use tailwater::config::Secret;
use tailwater_test_support::{ClickHouse, http_request, unique_name};
use tempfile::TempDir;

use crate::interface::{Interface, sentence};

/// What a file holds that nobody may read.
const TREASURE: &str = "the-treasure";

/// A table that must stay as it is, a file that must stay unread, a port that nobody may call.
struct Prey {
    database: String,
    file: PathBuf,
    port: TcpListener,
    _directory: TempDir,
}

impl Prey {
    fn new() -> Prey {
        let database = unique_name("prey");
        let clickhouse = ClickHouse::shared();
        for sql in [
            format!("CREATE DATABASE {database}"),
            format!("CREATE TABLE {database}.t (a Int64) ENGINE = MergeTree ORDER BY a"),
            format!("INSERT INTO {database}.t VALUES (7)"),
        ] {
            clickhouse.query(&sql).expect(&sql);
        }
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("treasure.csv");
        fs::write(&file, TREASURE).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port");
        port.set_nonblocking(true).expect("a port that does not wait");
        Prey { database, file, port, _directory: directory }
    }

    /// `{file}`, `{new}` (no such file), `{host}` and `{db}` filled in.
    fn named_in(&self, text: &str) -> String {
        let address = self.port.local_addr().expect("an address").to_string();
        text.replace("{file}", &self.file.display().to_string())
            .replace("{new}", &self.file.with_extension("new").display().to_string())
            .replace("{host}", &address)
            .replace("{db}", &self.database)
    }

    fn is_untouched(&self) {
        let ask = |sql: &str| ClickHouse::shared().query(&self.named_in(sql)).expect(sql);
        assert_eq!(ask("SELECT a FROM {db}.t").trim(), "7");
        assert_eq!(ask("SHOW TABLES FROM {db}").trim(), "t");
        assert_eq!(ask("SELECT count() FROM system.functions WHERE name = 'owned'").trim(), "0");
        assert!(!self.file.with_extension("new").exists(), "a file was written");
        let called = self.port.accept().expect_err("nobody calls");
        assert_eq!(called.kind(), ErrorKind::WouldBlock);
    }
}

const WRITES: [&str; 29] = [
    "INSERT INTO t VALUES (8)",
    "INSERT INTO FUNCTION file('{new}', 'CSV') SELECT 1",
    "/* SELECT */ INSERT INTO t SELECT 8",
    "-- SELECT\nINSERT INTO t SELECT 8",
    "WITH 8 AS x INSERT INTO t SELECT x",
    "WITH x AS (SELECT 8) INSERT INTO t SELECT * FROM x",
    "SELECT 1; INSERT INTO t VALUES (8)",
    "SELECT 1;;INSERT INTO t VALUES (8)",
    "SELECT 1 /* ; */; DROP TABLE t",
    "SELECT ';'; DROP TABLE t",
    "CREATE TABLE u (a Int8) ENGINE = Memory",
    "CREATE FUNCTION owned AS x -> x",
    "CREATE USER owned",
    "ALTER TABLE t DELETE WHERE 1",
    "ALTER USER default IDENTIFIED BY 'x'",
    "TRUNCATE t",
    "DROP TABLE t",
    "DELETE FROM t WHERE 1",
    "OPTIMIZE TABLE t FINAL",
    "RENAME TABLE t TO u",
    "ATTACH TABLE u FROM '{file}' (a Int8) ENGINE = File(CSV)",
    "DETACH TABLE t",
    "SYSTEM SHUTDOWN",
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "GRANT ALL ON *.* TO default",
    "SET readonly = 0",
    "BACKUP TABLE t TO File('{new}')",
    "USE system",
];

const READS_OUTSIDE: [&str; 43] = [
    "SELECT * FROM file('{file}', 'CSV', 'a String')",
    "SELECT * FROM FILE ('{file}', 'CSV', 'a String')",
    "SELECT * FROM file/**/('{file}', 'CSV', 'a String')",
    "SELECT * FROM file -- x\n('{file}', 'CSV', 'a String')",
    "SELECT * FROM `file`('{file}', 'CSV', 'a String')",
    "SELECT * FROM \"file\"('{file}', 'CSV', 'a String')",
    "SELECT * FROM `fi\\x6ce`('{file}', 'CSV', 'a String')",
    "SELECT * FROM TABLE FUNCTION file('{file}', 'CSV', 'a String')",
    "SELECT file('{file}')",
    "SELECT * FROM t WHERE a IN (SELECT file('{file}'))",
    "SELECT * FROM '{file}'",
    "SELECT * FROM `{file}`",
    "SELECT * FROM \"{file}\"",
    "DESCRIBE file('{file}', 'CSV')",
    "DESC TABLE FUNCTION url('http://{host}/', 'CSV')",
    "EXPLAIN SELECT * FROM url('http://{host}/', 'CSV', 'a String')",
    "EXISTS (SELECT * FROM url('http://{host}/', 'CSV', 'a String'))",
    "SELECT * FROM url('http://{host}/', 'CSV', 'a String')",
    "SELECT * FROM urlCluster('c', 'http://{host}/', 'CSV', 'a String')",
    "SELECT * FROM 'http://{host}/x.csv'",
    "SELECT * FROM s3('http://{host}/b/k', 'CSV', 'a String')",
    "SELECT * FROM gcs('http://{host}/b/k', 'CSV', 'a String')",
    "SELECT * FROM azureBlobStorage('http://{host}/', 'c', 'b', 'k', 'a2V5')",
    "SELECT * FROM hdfs('hdfs://{host}/x', 'CSV', 'a String')",
    "SELECT * FROM iceberg('http://{host}/b/k')",
    "SELECT * FROM deltaLake('http://{host}/b/k')",
    "SELECT * FROM remote('{host}', 'system', 'one')",
    "SELECT * FROM remoteSecure('{host}', 'system', 'one')",
    "SELECT * FROM cluster('default', 'system', 'one')",
    "SELECT * FROM clusterAllReplicas('default', 'system', 'one')",
    "SELECT * FROM mysql('{host}', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('{host}', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('{host}', 'd', 'c', 'u', 'p', 'a String')",
    "SELECT * FROM redis('{host}', 'k', 'k String')",
    "SELECT * FROM sqlite('{file}', 't')",
    "SELECT * FROM jdbc('jdbc:x', 'd', 't')",
    "SELECT * FROM odbc('DSN=x', 'd', 't')",
    "SELECT * FROM executable('x.sh', 'CSV', 'a String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM input('a String')",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM view(SELECT * FROM file('{file}', 'CSV', 'a String'))",
    "SELECT 1 UNION ALL SELECT a FROM (SELECT file('{file}') AS a)",
];

const ESCAPES: [&str; 28] = [
    "SELECT 1 INTO OUTFILE '{new}'",
    "SELECT 1 INTO/**/OUTFILE '{new}' FORMAT CSV",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
    "SELECT 1 FORMAT JSON SETTINGS max_memory_usage = 0",
    "SELECT 1 AS x SETTINGS/**/max_result_rows = 0",
    "ｓｅｌｅｃｔ 1",
    "SELECT 1; ｄｒｏｐ TABLE t",
    "SELECT * FROM ﬁle('{file}')",
    "SELECT * FROM fіle('{file}')",
    "SELECT\u{a0}1",
    // Where ClickHouse sees other words than one might: comments nest, and numbers have points.
    "SELECT * /* /* */ ' */ , file('{file}') -- '",
    "SELECT * /* /*/ ' */ */ , file('{file}') -- '",
    "SELECT * /* /* */ ' */ FROM (SELECT * FROM file('{file}') SETTINGS readonly = 0) -- '",
    "SELECT * /* /* */ ' */ FROM url('http://{host}/', 'CSV', 'a String') -- '",
    "SELECT * FROM (SELECT 1 WHERE 1 >= 0. SETTINGS readonly = 0, max_execution_time = 0)",
    "SELECT * FROM (SELECT 1 WHERE 1 >= .5SETTINGS readonly = 0)",
    "SELECT * FROM (SELECT 1 = .5FROM '{file}')",
    "SELECT c.* FROM system.one, '{file}' AS c",
    "SELECT * FROM (SELECT c.* FROM system.one, '{file}' AS c WHERE 1 >= 0. SETTINGS readonly = 0)",
    "SELECT * FROM (SELECT * FROM (system.one, '{file}' AS c) WHERE 1 >= 0. SETTINGS readonly = 0)",
    "SELECT * FROM system.one select, '{file}' AS c",
    "SELECT x'41'' , file('{file}') -- '",
    "SELECT $$ $$; DROP TABLE t",
    "SELECT 1 # '\n; DROP TABLE t -- '",
    "SELECT 'x\\'; DROP TABLE t",
    "\0SELECT 1",
    "",
];

#[test]
fn no_statement_writes_reads_outside_or_lifts_its_bounds() {
    let prey = Prey::new();
    let interface = Interface::with_clickhouse("", &prey.database);
    assert_eq!(interface.sql("SELECT a FROM t", "?format=csv").text(), "\"a\"\n7\n");
    for attempt in WRITES.iter().chain(&READS_OUTSIDE).chain(&ESCAPES) {
        let response = interface.sql(&prey.named_in(attempt), "");
        assert!([400, 403].contains(&response.status), "{attempt}: {}", response.text());
        assert!(!sentence(&response).contains(TREASURE), "{attempt}: {}", response.text());
        let (encoded, also) = (encode(&prey.named_in(attempt)), "format=parquet");
        let response = interface.get(&format!("/v0/sql?{also}&q={encoded}"));
        assert!([400, 403].contains(&response.status), "{attempt}: {}", response.text());
    }
    // The embedded engine's `default` has every file as a table.
    let overlaid = Interface::with_clickhouse("", "default");
    for attempt in READS_OUTSIDE.iter().chain(&ESCAPES) {
        let response = overlaid.sql(&prey.named_in(attempt), "");
        assert!([400, 403].contains(&response.status), "{attempt}: {}", response.text());
        assert!(!sentence(&response).contains(TREASURE), "{attempt}: {}", response.text());
    }
    prey.is_untouched();
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let interface = Interface::with_clickhouse("", "default");
    for (statement, said) in [
        ("DROP TABLE t", "a statement here begins with SELECT"),
        ("SELECT * FROM url('x')", "`url` reaches outside of the mirrored tables"),
        ("SELECT nothing", "clickhouse refused the statement (code 47)"),
        ("", "there is no statement"),
        ("SELECT 'a", "a quoted text, name or comment does not end"),
        ("SELECT 1 SETTINGS readonly = 0", "SETTINGS are the operator's; write a column of"),
        ("SELECT 1 /* a /* b */ */", "a comment within a comment is not allowed here"),
        ("SELECT 1 = .5FROM t", "`5from` is neither a number nor a name; put a space"),
        ("SELECT * FROM t, 'x.csv'", "a path in place of a table's name is not allowed here"),
        ("SELECT 1 # a comment", "`#` is not allowed outside of quotes; write comments as --"),
    ] {
        let response = interface.sql(statement, "");
        assert!(sentence(&response).contains(said), "{}", response.text());
    }
    let mut endpoint = interface.clickhouse.borrow().clone().expect("an endpoint");
    endpoint.password = Secret::new("not-the-word");
    interface.clickhouse.send_replace(Some(endpoint));
    let response = interface.sql("SELECT 1", "");
    assert_eq!(response.status, 503);
    assert_eq!(sentence(&response), "clickhouse refused the configured user and password");
}

#[test]
fn settings_do_not_come_in_as_parameters() {
    let prey = Prey::new();
    let interface = Interface::with_clickhouse("", &prey.database);
    for parameters in ["?readonly=0", "?max_execution_time=0", "?query=x", "?database=system"] {
        let response = interface.sql("SELECT 1", parameters);
        assert_eq!(response.status, 400, "{parameters}");
        assert!(sentence(&response).contains("allowed: q, format, token"));
    }
    assert_eq!(interface.sql("SELECT 1", "?format=csv&format=json").status, 400);
    prey.is_untouched();
}

#[test]
fn what_the_engine_tells_of_itself_holds_no_secret() {
    let prey = Prey::new();
    let interface = Interface::with_clickhouse("", &prey.database);
    let tables = ClickHouse::shared()
        .query(
            "SELECT name FROM system.tables WHERE database = 'system' AND name NOT IN \
                ('numbers', 'numbers_mt', 'zeros', 'zeros_mt', 'primes')",
        )
        .expect("the system's tables");
    let tables = tables.lines().map(|name| format!("SELECT * FROM system.`{name}` LIMIT 1000"));
    let asked = ["SHOW CREATE USER default", "SHOW GRANTS", "SHOW PROCESSLIST"];
    let mut answered = 0;
    for statement in tables.chain(asked.map(str::to_owned)) {
        let url = format!("{}/v0/sql?format=ndjson", interface.base());
        // What fails in the middle of an answer ends the connection.
        let Ok(response) = http_request("POST", &url, &[], statement.as_bytes()) else { continue };
        answered += usize::from(response.status == 200);
        assert!(!response.text().contains(ClickHouse::shared().password()), "{statement}");
    }
    assert!(answered > 20, "only {answered} tables could be read");
}

/// Every byte as a %-code.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
