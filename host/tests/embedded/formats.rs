//! Rows with every byte that could end a statement, in every format that rows come in.

use tailwater_test_support::ClickHouse;

use crate::requests::{database, done, post};

/// Formats that hold any bytes.
const BINARY: [&str; 10] = [
    "RowBinary",
    "RowBinaryWithNames",
    "RowBinaryWithNamesAndTypes",
    "RowBinaryWithDefaults",
    "Native",
    "Parquet",
    "Arrow",
    "ArrowStream",
    "ORC",
    "MsgPack",
];
/// Formats that hold any text.
const TEXT: [&str; 11] = [
    "JSONEachRow",
    "JSONCompactEachRow",
    "JSONCompactEachRowWithNamesAndTypes",
    "CSV",
    "CSVWithNames",
    "TSV",
    "TSVWithNamesAndTypes",
    "TabSeparatedWithNames",
    "Values",
    "CustomSeparated",
    "JSON",
];

/// Text that a splitter of statements would stumble over, as SQL.
const STUMBLING: &str = r"
    SELECT arrayJoin(['', '\n\n', '\n\n;', ';', ' ;\n\n SELECT 1;', '\0', 'a\0b', '\'', '\'\'', '\\',
        '\\\'', '`', '-- x', '/* x', '*/', '$$', '$x$', 'FORMAT CSV\n\n', 'exit', '\r\n\r\n', '\t',
        ' leading', 'trailing ', 'ünï 名 🦀', '\x04', '{a:Int8}']) AS s";

fn rows(clickhouse: &ClickHouse, table: &str) -> String {
    let sql = format!("SELECT n, hex(s) FROM {table} ORDER BY n");
    clickhouse.query(&sql).expect("a query")
}

/// Rows of `select`, written out in the format and read in again, are the same rows.
fn come_back(format: &str, select: &str) {
    let clickhouse = ClickHouse::shared();
    let database = database(clickhouse);
    let table = |name: &str| format!("{database}.{name}");
    let make = "(n UInt64, s String) ENGINE = MergeTree ORDER BY n";
    for name in ["sent", "stored"] {
        clickhouse.query(&format!("CREATE TABLE {} {make}", table(name))).expect("a table");
    }
    let numbered = format!("SELECT rowNumberInAllBlocks() + 10, s FROM ({select})");
    clickhouse.query(&format!("INSERT INTO {} {numbered}", table("sent"))).expect("rows");
    let out = match format {
        "RowBinaryWithDefaults" => format!(
            "SELECT toUInt8(0), n, toUInt8(0), s FROM {} ORDER BY n FORMAT RowBinary",
            table("sent")
        ),
        _ => format!("SELECT n, s FROM {} ORDER BY n FORMAT {format}", table("sent")),
    };
    let body = done(post(clickhouse, &out, b""));
    let insert = format!("INSERT INTO {} (n, s) FORMAT {format}", table("stored"));
    // The statement in the URL, and the statement in front of the rows.
    done(post(clickhouse, &insert, &body));
    assert_eq!(rows(clickhouse, &table("stored")), rows(clickhouse, &table("sent")), "{format}");
    clickhouse.query(&format!("TRUNCATE TABLE {}", table("stored"))).expect("it is emptied");
    let whole = [insert.as_bytes(), b"\n", &body].concat();
    done(post(clickhouse, "", &whole));
    assert_eq!(rows(clickhouse, &table("stored")), rows(clickhouse, &table("sent")), "{format}");
}

#[test]
fn text_that_looks_like_statements_comes_back_in_every_format() {
    BINARY.iter().chain(&TEXT).for_each(|format| come_back(format, STUMBLING));
}

#[test]
fn any_bytes_come_back_in_every_binary_format() {
    let all = "SELECT char(arrayJoin(range(256))) || char(10, 10, 59) AS s";
    BINARY.iter().for_each(|format| come_back(format, all));
}

#[test]
fn rows_may_begin_with_what_ends_a_statement() {
    let clickhouse = ClickHouse::shared();
    let database = database(clickhouse);
    let table = format!("{database}.t");
    clickhouse.query(&format!("CREATE TABLE {table} (n UInt16) ENGINE = Memory")).expect("a table");
    let insert = format!("INSERT INTO {table} FORMAT RowBinary");
    let starts: [[u8; 2]; 7] = [*b"\n\n", *b";\n", *b"\0\0", *b"  ", *b"\r\n", *b"--", *b"'\""];
    for start in starts {
        let body = [&start[..], b"\n\n", b";;"].concat();
        done(post(clickhouse, &insert, &body));
        let found = clickhouse.query(&format!("SELECT groupArray(n) FROM {table}")).expect("rows");
        let wanted = [u16::from_le_bytes(start), 0x0a0a, 0x3b3b];
        assert_eq!(found.trim(), format!("{wanted:?}").replace(' ', ""), "{start:?}");
        clickhouse.query(&format!("TRUNCATE TABLE {table}")).expect("it is emptied");
    }
}

#[test]
fn an_insert_that_selects_may_have_a_column_and_a_function_called_format() {
    let clickhouse = ClickHouse::shared();
    let database = database(clickhouse);
    let table = format!("{database}.t");
    clickhouse
        .query(&format!("CREATE TABLE {table} (n UInt8, format String) ENGINE = Memory"))
        .expect("a table");
    for select in ["SELECT 1, format('{}-{}', 'a', 'b')", "SELECT 2, format FROM {t} WHERE n = 1"] {
        let select = select.replace("{t}", &table);
        clickhouse.query(&format!("INSERT INTO {table} {select}")).expect("it selects");
    }
    let found = clickhouse.query(&format!("SELECT * FROM {table} ORDER BY n")).expect("rows");
    assert_eq!(found, "1\ta-b\n2\ta-b\n");
}
