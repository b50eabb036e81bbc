//! A stream-table join: remembers columns of a small table by its key, and adds them to the rows of
//! another that name the key. Each row gets what the small table said when the row was changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tailwater_guest::types::{Form, Op};
use tailwater_guest::{
    Interest, Reshape, Rewriter, Row, Shape, Table, Verdict, export_reshape, state,
};

/// Its settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The small table, `public.customers`.
    pub from: String,
    /// Its key, one column.
    pub key: String,
    /// The table that is joined to it, `public.orders`.
    pub to: String,
    /// The column that names the key there.
    pub by: String,
    /// The new columns, each with the column of the small table that it is.
    pub columns: BTreeMap<String, String>,
}

/// The plugin.
pub struct EnrichFromState {
    config: Config,
    /// The columns of the small table that are remembered, each once, as they are asked for.
    sources: BTreeSet<String>,
    /// The id of the small table's versions.
    from: Vec<u32>,
}

impl Reshape for EnrichFromState {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let sources = config.columns.values().cloned().collect();
        Ok(EnrichFromState { config, sources, from: Vec::new() })
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let Config { from, key, to, by, .. } = &self.config;
        let name = format!("{}.{}", table.schema, table.name);
        if name == *to {
            return Ok(Some(Interest::of([by])));
        }
        if name != *from {
            return Ok(None);
        }
        self.from.push(table.id);
        let interest = Interest::of([key]).old(key).ops();
        let text = |all: Interest, column| all.want(column, false, Form::Packed);
        Ok(Some(self.sources.iter().fold(interest, text)))
    }

    fn reshape(&mut self, table: &Table) -> Result<Shape, String> {
        let names = self.config.columns.keys().filter(|_| !self.from.contains(&table.id));
        Ok(names.fold(Shape::default(), |shape, name| shape.derive(name, "text")))
    }

    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict {
        if self.from.contains(&row.table()) {
            return self.remember(row).map_or_else(Verdict::Fault, |()| Verdict::Keep);
        }
        let line = row.text(0).and_then(state::get_one);
        let known = line.as_deref().map(parse).unwrap_or_default();
        for (column, source) in self.config.columns.values().enumerate() {
            if let Some(&value) = known.get(source.as_str()) {
                out.derive(column, value);
            }
        }
        Verdict::Keep
    }
}

impl EnrichFromState {
    /// The row's columns are its key, the key before, and those to be remembered.
    fn remember(&self, row: &Row<'_>) -> Result<(), String> {
        let Some(key) = row.text(0) else {
            let untold = "the delete does not tell `key`; name the table's own, or set REPLICA IDENTITY FULL";
            return if row.op() == Op::Delete { Err(untold.to_owned()) } else { Ok(()) };
        };
        if row.op() == Op::Delete {
            return state::remove(key);
        }
        let before = row.text(1).unwrap_or(key);
        // A large value that the update left alone is what it was.
        let gaps = (2..row.columns()).any(|column| row.is_unchanged(column));
        let line = if gaps { state::get_one(before) } else { None };
        let known = line.as_deref().map(parse).unwrap_or_default();
        let mut fresh = String::new();
        for (column, source) in (2..).zip(&self.sources) {
            let value = match row.is_unchanged(column) {
                true => known.get(source.as_str()).copied(),
                false => row.text(column),
            };
            if let Some(value) = value {
                fresh.extend([source, "\0", value, "\0"]);
            }
        }
        if before != key {
            state::remove(before)?;
        }
        state::put(key, &fresh)
    }
}

/// What is remembered of a row, by column: name and value in turn, each with the character behind it
/// that PostgreSQL's text never holds. NULL is left out. The names make it readable with other `columns`.
fn parse(line: &str) -> BTreeMap<&str, &str> {
    let mut parts = line.split_terminator('\0');
    std::iter::from_fn(|| parts.next().zip(parts.next())).collect()
}

export_reshape!(EnrichFromState);
