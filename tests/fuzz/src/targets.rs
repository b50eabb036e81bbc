//! The targets. Each takes any bytes, and beside not panicking keeps a promise that is said there.

use std::path::Path;
use std::sync::Arc;

use tailwater::change::{Changes, Op, Value};
use tailwater::config::{Config, ConfigError, parse};
use tailwater::decode::{Decoder, Step, copy};
use tailwater::embedded::fuzzing::statement;
use tailwater::encode::{Incoming, Reader};
use tailwater::position::Lsn;
use tailwater::serve::fuzzing::{guard, query_string, token};
use tailwater::table::{Column, ColumnType, ReplicaIdentity, Table};

/// A target.
pub type Target = fn(&[u8]);

/// By their names. `cargo xtask fuzz` asks for them.
const TARGETS: [(&str, Target); 8] = [
    ("config", config),
    ("copy", copy_line),
    ("envelope", envelope),
    ("guard", |data| text(data, guard)),
    ("pgoutput", pgoutput),
    ("query-string", |data| text(data, query_string)),
    ("statement", statement),
    ("token", |data| text(data, token)),
];

/// The one that the environment names. If it names none, the names are printed, and the process ends.
pub fn chosen() -> Target {
    let Ok(name) = std::env::var("TAILWATER_FUZZ_TARGET") else {
        TARGETS.iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(0);
    };
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no target `{name}`")).1
}

fn text(data: &[u8], target: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        target(text);
    }
}

fn table(names: impl IntoIterator<Item = String>) -> Arc<Table> {
    let kinds = [
        ColumnType::Int4,
        ColumnType::Text,
        ColumnType::Numeric(Some((10, 2))),
        ColumnType::Timestamptz(6),
        ColumnType::Array(Box::new(ColumnType::Int8)),
        ColumnType::Bytea,
        ColumnType::Interval,
        ColumnType::Point,
        ColumnType::Jsonb,
        ColumnType::Date,
        ColumnType::Time(3),
        ColumnType::Float8,
    ];
    let column = |(index, name): (usize, String)| Column {
        name,
        kind: kinds[index % kinds.len()].clone(),
        type_name: "integer".into(),
        nullable: index > 0,
        key: index == 0,
        default: None,
        number: None,
        missing: None,
    };
    let columns = names.into_iter().enumerate().map(column).collect();
    Arc::new(Table::new(1, "public".into(), "t".into(), columns, ReplicaIdentity::Default))
}

/// Every cell of every change can be read, and a change has the rows that its kind has.
fn look_at(changes: &Changes) {
    for change in &changes.list {
        let table = Arc::clone(changes.table(change));
        for row in change.old.row().into_iter().chain(change.new) {
            for column in 0..table.columns.len() {
                if let Value::Text(text) = changes.value(row, column) {
                    std::hint::black_box(text.len());
                }
            }
        }
        match change.op {
            Op::Read | Op::Insert | Op::Update => assert!(change.new.is_some()),
            Op::Delete => assert!(change.old.row().is_some()),
            Op::Truncate => assert!(change.new.is_none()),
        }
        std::hint::black_box(changes.key_changed(change));
    }
}

/// Frames, each behind two bytes of length; a relation gets the columns that it says it has.
fn pgoutput(data: &[u8]) {
    let mut decoder = Decoder::default();
    let mut changes = Changes::default();
    let mut at = 0;
    while let Some(length) = data.get(at..at + 2) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let start = at + 2;
        let Some(frame) = data.get(start..start + length) else { break };
        match decoder.push(frame, start, Lsn(1), &mut changes) {
            Ok(Step::Define(relation)) => {
                let names = relation.columns.iter().map(|column| column.name.clone());
                let table = table(names.collect::<Vec<_>>());
                decoder.define(relation, table);
                continue;
            }
            Ok(Step::Continue | Step::Committed(_)) => {}
            // The stream is given up.
            Err(_) => break,
        }
        at = start + length;
    }
    changes.adopt(data.to_vec());
    look_at(&changes);
}

/// A line has as many cells as were asked for, or is refused.
fn copy_line(data: &[u8]) {
    let Some((columns, line)) = data.split_first() else { return };
    let columns = usize::from(*columns % 16);
    let mut changes = Changes::default();
    if let Ok(row) = copy::push_row(line, columns, &mut changes) {
        for column in 0..columns {
            std::hint::black_box(changes.value(row, column));
        }
    }
}

/// A key, a value and headers, parted by zeros, ours and Debezium's; a record that cannot be read
/// leaves no change behind.
fn envelope(data: &[u8]) {
    let mut reader = Reader::default();
    let mut changes = Changes::default();
    let names =
        ["id", "name", "n", "at", "list", "raw", "span", "point", "doc", "day", "time", "f"];
    let table = table(names.map(str::to_owned));
    let fingerprint = format!("{:016x}", table.fingerprint);
    let mut parts = data.split(|byte| *byte == 0);
    let (key, value) = (parts.next(), parts.next());
    let (position, exact) = (parts.next().unwrap_or(b"0/1:1"), parts.next());
    let ours = [position, b" ", fingerprint.as_bytes()].concat();
    for origin in [Some(ours.as_slice()), None] {
        let topic = "p.public.t";
        let record = Incoming { topic, partition: 3, offset: 7, key, value, origin, exact };
        // Twice: what the first reading learns must not trip the second.
        for _ in 0..2 {
            let before = changes.len();
            let read = reader.read(&record, &mut |_| Some(Arc::clone(&table)), &mut changes);
            if let Err(error) = read {
                assert_eq!(changes.len(), before, "{error}");
                std::hint::black_box(record.dead_letter(&error));
            }
        }
    }
    look_at(&changes);
}

/// Settings that hold secrets, by section. What somebody puts into another one may be shown.
const SECRETS: [(&str, &str); 4] = [
    ("[source]", "url"),
    ("[clickhouse]", "password"),
    ("[kafka.librdkafka]", "\"sasl.password\""),
    ("[[http.token]]", "hash"),
];

/// Whether the secret is where secrets belong, and nowhere else.
fn only_secrets_are_secret(text: &str) -> bool {
    let mut section = "";
    // The fuzzer learns what it looks like, and writes it into the file itself.
    !text.contains("hunter2")
        && text.lines().all(|line| {
            let line = line.trim();
            if line.starts_with('[') {
                section = line;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            !line.contains("${SECRET}")
                || value.contains("${SECRET}") && SECRETS.contains(&(section, key.trim()))
        })
}

/// What is wrong, with a line or with the whole, is one sentence, and nothing out of the environment is in it.
fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let secret = |name: &str| (name == "SECRET").then(|| "hunter2hunter2".to_owned());
    let told = |error: &ConfigError, may_tell: bool| {
        let sentence = error.to_string();
        assert!(may_tell || !sentence.contains("hunter2hunter2"), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence:?}");
    };
    match parse::<Config>(text, Path::new("t.toml"), &secret) {
        Ok(config) => {
            let is_secret = only_secrets_are_secret(text);
            assert!(!is_secret || !format!("{config:?}").contains("hunter2hunter2"));
            let whole = [config.validate(), config.source_database().map(drop)];
            for error in whole.iter().filter_map(|checked| checked.as_ref().err()) {
                told(error, !is_secret);
            }
        }
        Err(error) => told(&error, text.contains("hunter2")),
    }
}
