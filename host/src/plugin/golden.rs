//! Golden events: what a plugin's author says it makes of which changes.
//!
//! A file of JSON lines lies beside the component. The first lines say how it is configured and what
//! tables look like; every other line is a change, and what has to become of it:
//!
//! ```text
//! {"config": {"columns": ["email"]}}
//! {"table": "public.users", "columns": [["id", "bigint"], ["email", "text"]], "key": ["id"]}
//! {"table": "public.users", "op": "c", "after": {"id": "1", "email": "ann@x.org"},
//!  "expect": [{"table": "public.users", "op": "c", "after": {"id": "1", "email": "a***@x.org"}}]}
//! ```
//!
//! (one line each). Values are PostgreSQL's text form; a column that is left out of `after` was not
//! sent, one that is left out of `before` is NULL. Instead of `table`, `op`, `before` and `after` a
//! line may have `envelope`, a value of Debezium's, and `key`, its key. `expect` is the list of
//! changes that it becomes, or `{"fault": "a part of the reason"}`.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::change::{Cell, Change, Changes, Old, Op, Row, Transaction, Value};
use crate::encode::{Incoming, Reader};
use crate::plugin::chain::Chain;
use crate::plugin::engine::Runtime;
use crate::plugin::error::Error;
use crate::plugin::options::{OnError, Options};
use crate::plugin::type_name;
use crate::position::Lsn;
use crate::table::{Column, ReplicaIdentity, Table};

/// When all golden changes were committed: 2026-01-01, in microseconds since the Unix epoch.
const COMMITTED_AT: i64 = 1_767_225_600_000_000;

/// A file of golden events.
#[derive(Debug)]
pub struct Golden {
    config: Json,
    /// Every version of a table that it describes, in its order.
    tables: Vec<Arc<Table>>,
    changes: Changes,
    /// What is expected of each change; none: whatever comes.
    expected: Vec<Option<Json>>,
}

/// What a plugin made of golden events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenReport {
    /// How many events there are.
    pub events: usize,
    /// Those that became something else.
    pub differences: Vec<Difference>,
}

/// An event that became something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which event, counted from 1.
    pub event: usize,
    /// What was expected.
    pub expected: Json,
    /// What came.
    pub actual: Json,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "event {}", self.event)?;
        let lines = |value: &Json| match value {
            Json::Array(changes) => changes.iter().map(Json::to_string).collect(),
            other => vec![other.to_string()],
        };
        let (expected, actual) = (lines(&self.expected), lines(&self.actual));
        for line in expected.iter().filter(|line| !actual.contains(line)) {
            writeln!(f, "  - {line}")?;
        }
        for line in actual.iter().filter(|line| !expected.contains(line)) {
            writeln!(f, "  + {line}")?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    config: Option<Json>,
    table: Option<String>,
    columns: Option<Vec<(String, String)>>,
    key: Option<Json>,
    op: Option<String>,
    #[serde(default)]
    before: Option<Map<String, Json>>,
    #[serde(default)]
    after: Option<Map<String, Json>>,
    envelope: Option<Json>,
    expect: Option<Json>,
}

impl Golden {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Which line is wrong, and how.
    pub fn parse(text: &str) -> Result<Golden, String> {
        let mut changes = Changes::default();
        changes.push_transaction(Transaction {
            commit: Lsn(1),
            previous_commit: Lsn(0),
            committed_at: COMMITTED_AT,
            xid: 1,
        });
        let (tables, expected) = (Vec::new(), Vec::new());
        let golden = Golden { config: json!({}), tables, changes, expected };
        let mut reading = Reading { golden, tables: HashMap::new(), reader: Reader::default() };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let parsed = serde_json::from_str(line).map_err(|error| error.to_string());
            let taken = parsed.and_then(|line| reading.take(line));
            taken.map_err(|why| format!("line {}: {why}", number + 1))?;
        }
        let mut golden = reading.golden;
        // Those of envelopes are described by the envelopes.
        for table in &golden.changes.tables {
            if golden.tables.iter().all(|known| known.fingerprint != table.fingerprint) {
                golden.tables.push(Arc::clone(table));
            }
        }
        Ok(golden)
    }

    /// Runs a plugin over the events, configured as the file says. What a leg does about rows that
    /// fail is not asked: they may be what is expected.
    ///
    /// # Errors
    /// The plugin does not load.
    pub fn run(&self, runtime: &Runtime, options: &Options) -> Result<GoldenReport, Error> {
        let mut chain = Chain::offline(runtime, self.configured(options)?)?;
        let mut changes = self.changes.clone();
        let letters = chain.transform(&mut changes)?;
        let mut actual: Vec<Vec<Json>> = vec![Vec::new(); self.expected.len()];
        for change in &changes.list {
            actual[event(change.ordinal)].push(outcome(&changes, change));
        }
        let mut actual: Vec<Json> = actual.into_iter().map(Json::Array).collect();
        for letter in letters {
            actual[event(letter.position.ordinal)] = json!({ "fault": letter.reason });
        }
        let pairs = self.expected.iter().zip(actual).enumerate();
        let differences = pairs.filter_map(|(index, (expected, actual))| {
            let expected = expected.clone()?;
            let difference = Difference { event: index + 1, expected, actual };
            (!difference.is_none()).then_some(difference)
        });
        Ok(GoldenReport { events: self.expected.len(), differences: differences.collect() })
    }

    /// A section of the configuration, with the `config` that the events are for. A failure is an
    /// outcome like others, however many there are.
    pub(crate) fn configured(&self, options: &Options) -> Result<Options, Error> {
        let config = serde_json::from_value(self.config.clone());
        let config = config.map_err(|error| Error::Golden {
            path: options.path.clone(),
            why: format!("its config cannot be said in TOML: {error}"),
        })?;
        Ok(Options {
            tables: Vec::new(),
            on_error: OnError::DeadLetter,
            breaker_rows: 0,
            shadow_batches: 0,
            config,
            ..options.clone()
        })
    }

    /// The tables.
    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// There is no event in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// The events.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }
}

impl Difference {
    fn is_none(&self) -> bool {
        match (self.expected["fault"].as_str(), self.actual["fault"].as_str()) {
            (Some(part), Some(reason)) => reason.contains(part),
            _ => self.expected == self.actual,
        }
    }
}

fn event(ordinal: u64) -> usize {
    usize::try_from(ordinal).expect("few events") - 1
}

struct Reading {
    golden: Golden,
    tables: HashMap<String, Arc<Table>>,
    reader: Reader,
}

impl Reading {
    fn take(&mut self, line: Line) -> Result<(), String> {
        if let Some(config) = line.config {
            self.golden.config = config;
            return Ok(());
        }
        if let (Some(name), Some(columns)) = (&line.table, &line.columns) {
            let table = table(name, columns, line.key.as_ref())?;
            self.golden.tables.push(Arc::clone(&table));
            self.tables.insert(name.clone(), table);
            return Ok(());
        }
        let known = self.golden.changes.len();
        match &line.envelope {
            Some(envelope) => self.read_envelope(envelope, line.key.as_ref())?,
            None => self.push(&line)?,
        }
        let ordinal = self.golden.expected.len() as u64 + 1;
        for change in &mut self.golden.changes.list[known..] {
            (change.transaction, change.ordinal) = (0, ordinal);
        }
        self.golden.expected.push(line.expect);
        Ok(())
    }

    fn read_envelope(&mut self, envelope: &Json, key: Option<&Json>) -> Result<(), String> {
        let (value, key) = (envelope.to_string(), key.map(Json::to_string));
        let record = Incoming {
            topic: "golden",
            offset: i64::try_from(self.golden.expected.len()).expect("few events"),
            key: key.as_deref().map(str::as_bytes),
            value: Some(value.as_bytes()),
            origin: None,
            exact: None,
        };
        let read = self.reader.read(&record, &mut |_| None, &mut self.golden.changes);
        read.map(drop).map_err(|error| error.to_string())
    }

    fn push(&mut self, line: &Line) -> Result<(), String> {
        let name =
            line.table.as_deref().ok_or("it has neither `config`, `table` nor `envelope`")?;
        let table = self.tables.get(name);
        let table = Arc::clone(table.ok_or_else(|| format!("no line before says what {name} is"))?);
        let op = match line.op.as_deref() {
            Some("r") => Op::Read,
            Some("c") => Op::Insert,
            Some("u") => Op::Update,
            Some("d") => Op::Delete,
            Some("t") => Op::Truncate,
            _ => return Err("its `op` is none of r, c, u, d and t".to_owned()),
        };
        if (line.after.is_some(), op) != (matches!(op, Op::Read | Op::Insert | Op::Update), op) {
            return Err("r, c and u have an `after`, d and t have none".to_owned());
        }
        let changes = &mut self.golden.changes;
        let old = match &line.before {
            None => Old::None,
            Some(before) => {
                let whole = table.columns.iter().all(|column| before.contains_key(&column.name));
                let row = push_row(changes, &table, before, Cell::NULL)?;
                if whole { Old::Full(row) } else { Old::Key(row) }
            }
        };
        let new = line.after.as_ref();
        let new = new.map(|after| push_row(changes, &table, after, Cell::UNCHANGED)).transpose()?;
        let table = changes.intern_table(&table);
        changes.list.push(Change { op, table, transaction: 0, ordinal: 0, lsn: Lsn(1), old, new });
        Ok(())
    }
}

fn push_row(
    changes: &mut Changes,
    table: &Table,
    values: &Map<String, Json>,
    absent: Cell,
) -> Result<Row, String> {
    if let Some(unknown) = values.keys().find(|name| table.column(name).is_none()) {
        return Err(format!("{} has no column {unknown}", table.full_name()));
    }
    let row = changes.begin_row();
    for column in &table.columns {
        let cell = match values.get(&column.name) {
            None => absent,
            Some(Json::Null) => Cell::NULL,
            Some(Json::String(text)) => changes.push_text(text.as_bytes()),
            Some(other) => changes.push_text(other.to_string().as_bytes()),
        };
        changes.push_cell(cell);
    }
    Ok(row)
}

fn table(
    name: &str,
    columns: &[(String, String)],
    key: Option<&Json>,
) -> Result<Arc<Table>, String> {
    let (schema, table) = name.split_once('.').ok_or("a table's name is like `public.users`")?;
    let keys: Vec<&str> =
        key.and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let column = |(name, type_name): &(String, String)| {
        let kind = type_name::parse(type_name);
        let kind = kind.ok_or_else(|| format!("`{type_name}` is none of PostgreSQL's types"))?;
        let key = keys.contains(&name.as_str());
        let (name, type_name) = (name.clone(), type_name.clone());
        let (default, number, missing) = (None, None, None);
        Ok(Column { name, kind, type_name, nullable: !key, key, default, number, missing })
    };
    let columns = columns.iter().map(column).collect::<Result<Vec<_>, String>>()?;
    let (schema, identity) = (schema.to_owned(), ReplicaIdentity::Default);
    Ok(Arc::new(Table::new(1, schema, table.to_owned(), columns, identity)))
}

/// A change as `expect` has it; a `before` of which only the key is known holds nothing else.
fn outcome(changes: &Changes, change: &Change) -> Json {
    let table = changes.table(change);
    let cells = |row: Row, keys_only: bool| {
        let columns = table.columns.iter().enumerate();
        let cell = |(index, column): (usize, &Column)| match changes.value(row, index) {
            _ if keys_only && !column.key => None,
            Value::Null => Some((column.name.clone(), Json::Null)),
            Value::Unchanged => None,
            Value::Text(text) => Some((column.name.clone(), String::from_utf8_lossy(text).into())),
        };
        Json::Object(columns.filter_map(cell).collect())
    };
    let mut outcome = Map::new();
    outcome.insert("table".to_owned(), table.full_name().to_string().into());
    outcome.insert("op".to_owned(), change.op.code().into());
    match change.old {
        Old::None => {}
        Old::Key(row) => drop(outcome.insert("before".to_owned(), cells(row, true))),
        Old::Full(row) => drop(outcome.insert("before".to_owned(), cells(row, false))),
    }
    if let Some(row) = change.new {
        outcome.insert("after".to_owned(), cells(row, false));
    }
    Json::Object(outcome)
}

/// Tests a version on the golden events that lie beside its file, if there are any.
pub(crate) fn self_test(runtime: &Runtime, options: &Options) -> Result<(), Error> {
    let path = beside(&options.path);
    let fail = |why| Error::Golden { path: path.clone(), why };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error.to_string())),
    };
    let report = Golden::parse(&text).map_err(fail)?.run(runtime, options)?;
    match report.differences.first() {
        None => Ok(()),
        Some(first) => {
            let (wrong, all) = (report.differences.len(), report.events);
            Err(fail(format!("{wrong} of {all} events became something else; {first}")))
        }
    }
}

/// Where a component's golden events lie: `mask.golden.jsonl` beside `mask.wasm`.
#[must_use]
pub fn beside(component: &Path) -> std::path::PathBuf {
    component.with_extension("golden.jsonl")
}
