//! The ends of every type's range, copied and streamed: ClickHouse, or the row's `_exact` map where
//! the column has no place for the value, says what PostgreSQL says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, unique_name, wait_for,
};

const DEADLINE: Duration = Duration::from_secs(60);

const TEXT: &str = "toString(v)";
/// PostgreSQL prints no zeros at the end of a fraction.
const MOMENT: &str = r"replaceRegexpOne(toString(v), '\\.?0+$', '')";
const LIST: &str =
    "concat('{', arrayStringConcat(arrayMap(x -> ifNull(toString(x), 'NULL'), v), ','), '}')";

/// A type, how ClickHouse is asked for PostgreSQL's text of it, and values.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    ("bool", "left(toString(v), 1)", &["true", "false"]),
    ("smallint", TEXT, &["-32768", "0", "32767"]),
    ("int", TEXT, &["-2147483648", "2147483647"]),
    ("bigint", TEXT, &["-9223372036854775808", "9223372036854775807"]),
    ("oid", TEXT, &["0", "4294967295"]),
    ("numeric(5,2)", "toDecimalString(v, 2)", &["-999.99", "0", "999.99", "NaN"]),
    (
        "numeric(38,10)",
        "toDecimalString(v, 10)",
        &["-9999999999999999999999999999.9999999999", "1"],
    ),
    ("numeric(76,0)", TEXT, &["1e75", "-9999999999999999999999999999999999999999"]),
    ("numeric(2,-3)", TEXT, &["99000", "-1499"]),
    ("numeric", TEXT, &["0", "1e-200", "-1e300", "NaN", "Infinity", "-Infinity", "1.50"]),
    ("real", TEXT, &["NaN", "Infinity", "-Infinity", "1e-45", "3.4028235e38", "-0"]),
    ("float8", TEXT, &["NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "0.1"]),
    ("money", TEXT, &["-92233720368547758.08", "92233720368547758.07"]),
    ("text", TEXT, &["", " ", "a\tb\nc\\d\re", "'\"`;--", "ünï 名 🦀", "\\N", "NULL"]),
    ("char(5)", TEXT, &["", "ab", "abcde"]),
    ("bytea", r"concat('\\x', lower(hex(v)))", &["", "\\x00", "\\x0a0a3b5c27ff"]),
    (
        "uuid",
        TEXT,
        &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    ),
    (
        "date",
        TEXT,
        &[
            "4713-01-01 BC",
            "0001-01-01",
            "1899-12-31",
            "1900-01-01",
            "2299-12-31",
            "2300-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
            "2024-02-29",
        ],
    ),
    (
        "timestamp",
        MOMENT,
        &[
            "4713-01-01 00:00:00 BC",
            "1899-12-31 23:59:59.999999",
            "1900-01-01",
            "infinity",
            "2299-12-31 23:59:59.999999",
            "294276-12-31 23:59:59.999999",
            "-infinity",
            "2024-02-29 12:00:00.1",
        ],
    ),
    (
        "timestamptz",
        r"concat(replaceRegexpOne(toString(v), '\\.?0+$', ''), '+00')",
        &[
            "4713-01-01 00:00:00+00 BC",
            "1900-01-01 00:00:00+00",
            "infinity",
            "-infinity",
            "294276-12-31 23:59:59.999999+00",
            "2024-02-29 12:00:00.000001+05:30",
        ],
    ),
    ("time", TEXT, &["00:00:00", "23:59:59.999999", "24:00:00"]),
    ("timetz", TEXT, &["00:00:00+15:59:59", "24:00:00-15:59:59"]),
    ("interval", TEXT, &["-178000000 years", "1 mon -1 day 00:00:00.000001", "0"]),
    ("json", TEXT, &["{\"b\": 1, \"a\":  [1e400]}", "null", "\"\\u0041\""]),
    ("jsonb", TEXT, &["{\"b\": 1, \"a\": [123456789012345678901234567890.5]}", "null"]),
    ("mood", TEXT, &["sad", "it''s", "ünï"]),
    ("short", TEXT, &["-32768", "7"]),
    ("bit(3)", TEXT, &["000", "111"]),
    ("varbit", TEXT, &["", "10101"]),
    ("inet", TEXT, &["::1/64", "255.255.255.255"]),
    ("int4range", TEXT, &["empty", "(,)", "[1,5)"]),
    ("point", TEXT, &["(1.5,-1e300)", "(NaN,Infinity)"]),
    ("tsvector", TEXT, &["'a':1 'b':2A"]),
    ("pair", TEXT, &["(1,\"a,b\")", "(,)"]),
    ("int[]", LIST, &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[5:6]={1,2}"]),
    ("bigint[]", LIST, &["{-9223372036854775808,9223372036854775807}"]),
    ("uuid[]", LIST, &["{00000000-0000-0000-0000-000000000000}"]),
    (
        "bool[]",
        "concat('{', arrayStringConcat(arrayMap(x -> if(x, 't', 'f'), v), ','), '}')",
        &["{t,f}"],
    ),
    ("date[]", LIST, &["{2024-01-01,NULL}", "{infinity,\"4713-01-01 BC\"}"]),
    ("mood[]", LIST, &["{sad,ünï}"]),
    // Its elements hold commas, and are told apart by something else.
    ("box[]", TEXT, &["{(1,1),(0,0);(2,2),(1,1)}"]),
    ("boxes", TEXT, &["{(1,1),(0,0);(2,2),(1,1)}"]),
    // Its elements are arrays by themselves.
    ("vector[]", TEXT, &["{\"{1,2}\",\"{3}\"}", "{}"]),
    // What stands for a value that was not sent is one like others where somebody wrote it.
    ("text[]", LIST, &["{__debezium_unavailable_value}", "{a,NULL}"]),
];

const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'it''s', 'ünï');
    CREATE DOMAIN short AS smallint CHECK (VALUE <> 0); CREATE TYPE pair AS (n int, t text); CREATE DOMAIN boxes AS box[];
    CREATE DOMAIN vector AS int[]";

/// Rows of the case with ids from `first`, and one with NULL.
fn insert(source: &Database<'_>, table: usize, case: &Case, first: usize) -> Result<()> {
    let (kind, _, values) = case;
    let quoted = |value: &&str| value.replace('\'', "''").replace("''''", "''");
    for (id, value) in (first..).zip(values.iter()) {
        let sql = format!("INSERT INTO case{table} VALUES ({id}, '{}'::{kind})", quoted(value));
        source.execute(&sql).with_context(|| format!("{kind} {value}"))?;
    }
    source.execute(&format!("INSERT INTO case{table} VALUES ({}, NULL)", first + values.len()))
}

/// Ids and values as text; hexadecimal, since a value may hold anything.
fn in_postgres(source: &Database<'_>, table: usize) -> Result<Vec<Vec<String>>> {
    // Unlike a cast to text, `format` prints as the stream does.
    source.query(&format!(
        "SELECT id, CASE WHEN num_nulls(v) = 1 THEN 'NULL'
             ELSE encode(convert_to(format('%s', v), 'UTF8'), 'hex') END
         FROM case{table} ORDER BY id"
    ))
}

fn in_clickhouse(tailwater: &Tailwater, table: usize, text: &str) -> Result<Vec<Vec<String>>> {
    // Arrays are never NULL: a NULL is in the map.
    let sql = format!(
        "SELECT toString(id) AS id, if(mapContains(_exact, 'v'), \
         ifNull(lower(hex(_exact['v'])), 'NULL'), ifNull(lower(hex({text})), 'NULL')) AS v \
         FROM case{table}_versions FINAL ORDER BY case{table}_versions.id"
    );
    let query = utf8_percent_encode(&sql, NON_ALPHANUMERIC);
    let answer = tailwater.get(&format!("/v0/sql?format=ndjson&q={query}"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let row = |line: &str| -> Result<Vec<String>> {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let field = |name: &str| row[name].as_str().map(str::to_owned).context("a text");
        Ok(vec![field("id")?, field("v")?])
    };
    answer.text().lines().map(row).collect()
}

/// The two print floating-point numbers in different ways.
fn same(kind: &str, ours: &str, theirs: &str) -> bool {
    let text = |hex: &str| {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default();
        String::from_utf8_lossy(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>())
            .into_owned()
    };
    match kind {
        _ if ours == theirs => true,
        "real" => {
            let bits =
                |hex: &str| text(hex).parse::<f32>().ok().map(|number| number.to_bits() << 1);
            bits(ours).is_some() && bits(ours) == bits(theirs)
                || both_nan(&text(ours), &text(theirs))
        }
        "float8" => {
            let bits = |hex: &str| text(hex).parse::<f64>().ok().map(f64::to_bits);
            bits(ours).is_some() && bits(ours) == bits(theirs)
                || both_nan(&text(ours), &text(theirs))
        }
        _ => false,
    }
}

fn both_nan(ours: &str, theirs: &str) -> bool {
    [ours, theirs].iter().all(|text| text.eq_ignore_ascii_case("nan"))
}

fn equal(source: &Database<'_>, tailwater: &Tailwater) -> Result<()> {
    let mut differing = String::new();
    for (table, (kind, text, _)) in CASES.iter().enumerate() {
        let wanted = in_postgres(source, table)?;
        let found = in_clickhouse(tailwater, table, text).with_context(|| (*kind).to_owned())?;
        let fits = |(a, b): (&Vec<String>, &Vec<String>)| a[0] == b[0] && same(kind, &a[1], &b[1]);
        if wanted.len() != found.len() || !wanted.iter().zip(&found).all(fits) {
            differing += &format!("{kind}:\nwanted {wanted:?}\nfound  {found:?}\n");
        }
    }
    ensure!(differing.is_empty(), "{differing}");
    Ok(())
}

/// Copied and streamed by a process with further sections; `insert_more` inserts what only some servers have.
fn arrive(version: PostgresVersion, sections: &str, insert_more: &[&str]) -> Result<()> {
    let source = Postgres::shared(version).create_database()?;
    let timezone = format!("ALTER DATABASE {} SET TimeZone = 'UTC'", source.name());
    source.execute(&timezone)?;
    source.execute(TYPES)?;
    for (table, case) in CASES.iter().enumerate() {
        source.execute(&format!("CREATE TABLE case{table} (id int PRIMARY KEY, v {})", case.0))?;
        insert(&source, table, case, 1)?;
    }
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n{sections}\n[http]\nlisten = \"{{listen}}\"\n",
        source.url()
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the copies", || equal(&source, &tailwater))?;
    for (table, case) in CASES.iter().enumerate() {
        insert(&source, table, case, 1000)?;
    }
    for (table, (kind, ..)) in CASES.iter().enumerate().filter(|(_, case)| case.0 == "interval") {
        for (id, value) in (2000..).zip(insert_more) {
            source.execute(&format!("INSERT INTO case{table} VALUES ({id}, '{value}'::{kind})"))?;
        }
    }
    wait_for(DEADLINE, "the streamed rows", || equal(&source, &tailwater))?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn the_ends_of_every_type_arrive_as_postgres_says_them() -> Result<()> {
    arrive(PostgresVersion::V15, "", &[])
}

#[test]
fn the_ends_of_every_type_arrive_over_kafka_as_postgres_says_them() -> Result<()> {
    let kafka = format!(
        "[kafka]\nbrokers = \"{}\"\nprefix = \"{}\"\n",
        Kafka::shared().bootstrap(),
        unique_name("extremes")
    );
    arrive(PostgresVersion::V18, &kafka, &["infinity", "-infinity"])
}
