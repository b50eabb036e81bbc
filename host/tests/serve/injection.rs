//! Names and values are data on every route, whatever is in them.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tailwater::serve::{Mirrored, MirroredColumn};
use tailwater_test_support::{ClickHouse, unique_name};

use crate::interface::{Interface, sentence};

/// What leaves a quote, a path, a query string or a line, and what only looks like it.
const PIECES: [&str; 32] = [
    "`",
    "'",
    "\"",
    "\\",
    "\\'",
    "``",
    "''",
    "\n",
    "\t",
    "\r",
    " ",
    ";",
    "--",
    "/*",
    "*/",
    "#",
    "%",
    "%00",
    "%27",
    "{f0:String}",
    "$1",
    "?",
    "&",
    "=",
    "+",
    "/",
    "..",
    "é",
    "名",
    "🦀",
    "\u{200B}",
    "x",
];
const TABLES: usize = 30;

struct Dice(StdRng);

impl Dice {
    fn text(&mut self, pieces: usize) -> String {
        (0..pieces).filter_map(|_| PIECES.choose(&mut self.0)).copied().collect()
    }

    /// Never empty, and like no other.
    fn name(&mut self, number: usize) -> String {
        let pieces = self.0.random_range(1..6);
        format!("{}{number}{}", self.text(pieces), self.text(1))
    }
}

/// Every byte as a %-code.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").expect("a string takes everything");
        encoded
    })
}

/// A name in quotes, by other means than the product's: every byte as a code.
fn name(text: &str) -> String {
    let bytes = text.bytes().map(|byte| format!("\\x{byte:02x}"));
    format!("`{}`", bytes.collect::<String>())
}

fn value(text: &str) -> String {
    let bytes = text.bytes().map(|byte| format!("{byte:02x}"));
    format!("unhex('{}')", bytes.collect::<String>())
}

/// A table with two rows, whose text is `first` and `second`.
fn table(database: &str, view: &str, column: &str, rows: [&str; 2]) -> Mirrored {
    let full = format!("{database}.{}", name(view));
    let (key, text) = (name("id"), name(column));
    let [first, second] = rows.map(value);
    for sql in [
        format!("CREATE TABLE {full} ({key} Int64, {text} Nullable(String)) ENGINE = Memory"),
        format!("INSERT INTO {full} SELECT 1, {first} UNION ALL SELECT 2, {second}"),
    ] {
        ClickHouse::shared().query(&sql).unwrap_or_else(|error| panic!("{view:?}: {error:#}"));
    }
    let of = |name: &str, kind: &str| MirroredColumn {
        name: name.into(),
        kind: kind.into(),
        binary: false,
    };
    Mirrored {
        source: format!("public.{view}"),
        view: view.to_owned(),
        columns: vec![of("id", "Int64"), of(column, "Nullable(String)")],
        order: vec!["id".to_owned()],
    }
}

#[test]
fn any_name_and_any_value_is_only_itself_on_every_route() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let database = unique_name("names");
    ClickHouse::shared().query(&format!("CREATE DATABASE {database}")).expect("a database");
    let interface = Interface::with_clickhouse("", &database);
    for number in 0..TABLES {
        let (view, column) = (dice.name(number), dice.name(number));
        let (first, second) = (format!("1{}\0", dice.text(5)), format!("2{}", dice.text(5)));
        let mirrored = table(&database, &view, &column, [&first, &second]);
        interface.tables.send_replace(vec![mirrored]);
        let pipe = format!("/v0/pipes/{}_snapshot.json", encode(&view));
        let about = format!("seed {seed}: {view:?} {column:?} {first:?}");

        let all = rows(&interface, &pipe, &about);
        assert_eq!(all.len(), 2, "{about}");
        assert_eq!(all[0][column.as_str()], first.as_str(), "{about}");
        assert_eq!(all[1][column.as_str()], second.as_str(), "{about}");
        for (id, wanted) in [(1, &first), (2, &second)] {
            let filtered = format!("{pipe}?{}={}", encode(&column), encode(wanted));
            let found = rows(&interface, &filtered, &about);
            assert_eq!(found.len(), 1, "{about}");
            assert_eq!(found[0]["id"], id, "{about}");
        }
        let nothing = format!("{pipe}?{}={}", encode(&column), encode("' OR 1=1 --"));
        assert!(rows(&interface, &nothing, &about).is_empty(), "{about}");
        let null = format!("{pipe}?{}=null", encode(&format!("{column}.is")));
        assert!(rows(&interface, &null, &about).is_empty(), "{about}");
        for offset in [2_147_483_648, u64::MAX] {
            let beyond = rows(&interface, &format!("{pipe}?offset={offset}"), &about);
            assert!(beyond.is_empty(), "{offset} {about}");
        }
        strangers(&interface, &pipe, &mut dice, &about);
    }
    let count = format!("SELECT count() FROM system.tables WHERE database = '{database}'");
    let left = ClickHouse::shared().query(&count).expect(&count);
    assert_eq!(left.trim(), TABLES.to_string(), "seed {seed}");
}

fn rows(interface: &Interface, path: &str, about: &str) -> Vec<Value> {
    let response = interface.get(path);
    assert_eq!(response.status, 200, "{about}: {path}: {}", response.text());
    let body: Value = serde_json::from_slice(&response.body).expect(about);
    body["data"].as_array().expect(about).clone()
}

/// Names and values that are nobody's get a sentence, wherever they stand.
fn strangers(interface: &Interface, pipe: &str, dice: &mut Dice, about: &str) {
    let odd = encode(&format!("{}!", dice.text(4)));
    for (path, wanted) in [
        (format!("/v0/pipes/{odd}_snapshot.json"), &[404][..]),
        (format!("/v0/pipes/{odd}"), &[404]),
        (format!("{pipe}?{odd}=1"), &[400]),
        (format!("{pipe}?limit={odd}"), &[400]),
        (format!("{pipe}?offset={odd}"), &[400]),
        (format!("{pipe}?offset=-1"), &[400]),
        (format!("{pipe}?id={odd}"), &[400]),
        (format!("{pipe}?id.is={odd}"), &[400]),
        (format!("{pipe}?id=%FF"), &[400]),
        (format!("/v0/sql?q=SELECT+1&{odd}=1"), &[400]),
        (format!("/v0/sql?q=SELECT+1&format={odd}"), &[400]),
        (format!("/v0/sql?q={odd}"), &[400]),
        (format!("/v0/{odd}"), &[404]),
    ] {
        let response = interface.get(&path);
        assert!(wanted.contains(&response.status), "{about}: {path}: {}", response.text());
        sentence(&response);
    }
    for (parameter, said) in
        [("limit=10001", "`limit` is at most 10000"), ("id.is=5", "`id.is` is null or not-null")]
    {
        let response = interface.get(&format!("{pipe}?{parameter}"));
        assert_eq!(sentence(&response), said);
    }
    let reload = interface.request("POST", &format!("/v0/plugins/{odd}/reload"), &[], b"");
    assert_eq!(reload.status, 404, "{about}: {odd}");
}
