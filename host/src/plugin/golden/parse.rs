//! Reads a file of golden events.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};

use crate::change::{Cell, Change, Changes, Old, Op, Row, Transaction};
use crate::encode::{Incoming, Reader};
use crate::plugin::boundary::type_name;
use crate::plugin::golden::Golden;
use crate::position::Lsn;
use crate::table::{Column, ReplicaIdentity, Table};

/// When all golden changes were committed: 2026-01-01, in microseconds since the Unix epoch.
const COMMITTED_AT: i64 = 1_767_225_600_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    config: Option<Json>,
    table: Option<String>,
    columns: Option<Vec<(String, String)>>,
    key: Option<Json>,
    op: Option<String>,
    before: Option<Map<String, Json>>,
    after: Option<Map<String, Json>>,
    envelope: Option<Json>,
    #[serde(default, deserialize_with = "given")]
    expect: Option<Json>,
}

/// `null` is a value, and one that is given.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

impl Line {
    fn fields(&self) -> impl Iterator<Item = &'static str> {
        let fields = [
            ("config", self.config.is_some()),
            ("table", self.table.is_some()),
            ("columns", self.columns.is_some()),
            ("key", self.key.is_some()),
            ("op", self.op.is_some()),
            ("before", self.before.is_some()),
            ("after", self.after.is_some()),
            ("envelope", self.envelope.is_some()),
            ("expect", self.expect.is_some()),
        ];
        fields.into_iter().filter_map(|(name, is_there)| is_there.then_some(name))
    }

    /// What a line says besides would be passed over, and an event in it would test nothing.
    fn has_only(&self, known: &[&str]) -> Result<(), String> {
        match self.fields().find(|field| !known.contains(field)) {
            None => Ok(()),
            Some(other) => Err(format!(
                "a line with `{}` has no `{other}`; give that a line of its own",
                known[0]
            )),
        }
    }

    /// What is expected, as it is compared.
    fn expectation(&mut self) -> Result<Option<Json>, String> {
        let is_sound = match &self.expect {
            None | Some(Json::Array(_)) => true,
            Some(Json::Object(fields)) => {
                fields.len() == 1 && fields.get("fault").is_some_and(Json::is_string)
            }
            Some(_) => false,
        };
        match is_sound {
            true => Ok(self.expect.take()),
            false => Err(
                "its `expect` is neither a list of changes nor `fault` with a part of the reason"
                    .to_owned(),
            ),
        }
    }
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
        let golden = Golden { config: toml::Table::new(), tables, changes, expected };
        let mut reading = Reading { golden, tables: HashMap::new(), reader: Reader::default() };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            // Each line is a text of its own to the reader, and so the first one.
            let parsed = serde_json::from_str(line)
                .map_err(|error| error.to_string().replace(" at line 1 column ", " at column "));
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
}

struct Reading {
    golden: Golden,
    tables: HashMap<String, Arc<Table>>,
    reader: Reader,
}

impl Reading {
    fn take(&mut self, mut line: Line) -> Result<(), String> {
        if let Some(config) = &line.config {
            line.has_only(&["config"])?;
            let config = toml::Table::deserialize(config);
            self.golden.config =
                config.map_err(|error| format!("its `config` cannot be said in TOML: {error}"))?;
            return Ok(());
        }
        if let Some(columns) = &line.columns {
            line.has_only(&["columns", "table", "key"])?;
            let name = line
                .table
                .as_ref()
                .ok_or("a line with `columns` has the `table` that they are of")?;
            let table = table(name, columns, line.key.as_ref())?;
            self.golden.tables.push(Arc::clone(&table));
            self.tables.insert(name.clone(), table);
            return Ok(());
        }
        let known = self.golden.changes.len();
        match &line.envelope {
            Some(envelope) => {
                line.has_only(&["envelope", "key", "expect"])?;
                self.read_envelope(envelope, line.key.as_ref())?;
            }
            None => self.push(&line)?,
        }
        let ordinal = self.golden.expected.len() as u64 + 1;
        for change in &mut self.golden.changes.list[known..] {
            (change.transaction, change.ordinal) = (0, ordinal);
        }
        self.golden.expected.push(line.expectation()?);
        Ok(())
    }

    fn read_envelope(&mut self, envelope: &Json, key: Option<&Json>) -> Result<(), String> {
        let (value, key) = (envelope.to_string(), key.map(Json::to_string));
        let record = Incoming {
            topic: "golden",
            partition: 0,
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
        line.has_only(&["op", "table", "before", "after", "expect"])?;
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
        if line.after.is_some() != matches!(op, Op::Read | Op::Insert | Op::Update) {
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
        if let (Old::Full(old), Some(new)) = (old, new) {
            changes.complete(new, old, table.columns.len());
        }
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
    let keys = key.map_or(Ok(Vec::new()), Vec::<String>::deserialize);
    let keys = keys.map_err(|_| "its `key` is a list of column names")?;
    let is_column = |key: &&String| columns.iter().any(|(column, _)| column == *key);
    if let Some(unknown) = keys.iter().find(|key| !is_column(key)) {
        return Err(format!("{name} has no column {unknown}"));
    }
    let column = |(name, type_name): &(String, String)| {
        let kind = type_name::parse(type_name);
        let kind = kind.ok_or_else(|| format!("`{type_name}` is none of PostgreSQL's types"))?;
        let key = keys.contains(name);
        let (name, type_name) = (name.clone(), type_name.clone());
        let (default, number, missing) = (None, None, None);
        Ok(Column { name, kind, type_name, nullable: !key, key, default, number, missing })
    };
    let columns = columns.iter().map(column).collect::<Result<Vec<_>, String>>()?;
    let (schema, identity) = (schema.to_owned(), ReplicaIdentity::Default);
    Ok(Arc::new(Table::new(1, schema, table.to_owned(), columns, identity)))
}
