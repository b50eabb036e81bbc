//! A stream-table join: remembers columns of a small table by its key, and adds them to the rows of
//! another that name the key. Each row gets what the small table said when the row was changed.

use std::collections::BTreeMap;

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
    /// The id of the small table's versions.
    from: Vec<u32>,
}

impl Reshape for EnrichFromState {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(EnrichFromState { config, from: Vec::new() })
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let Config { from, key, to, by, columns } = &self.config;
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
        Ok(Some(columns.values().fold(interest, text)))
    }

    fn reshape(&mut self, table: &Table) -> Result<Shape, String> {
        let names = self.config.columns.keys().filter(|_| !self.from.contains(&table.id));
        Ok(names.fold(Shape::default(), |shape, name| shape.derive(name, "text")))
    }

    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict {
        if self.from.contains(&row.table()) {
            return remember(row).map_or_else(Verdict::Fault, |()| Verdict::Keep);
        }
        let known = row.text(0).and_then(state::get_one).map(|line| parse(&line));
        for (column, value) in known.into_iter().flatten().enumerate() {
            if let Some(value) = value {
                out.derive(column, value);
            }
        }
        Verdict::Keep
    }
}

/// The row's columns are its key, the key before, and those to be remembered.
fn remember(row: &Row<'_>) -> Result<(), String> {
    let Some(key) = row.text(0) else { return Ok(()) };
    if row.op() == Op::Delete {
        return state::remove(key);
    }
    let before = row.text(1).unwrap_or(key);
    // A large value that the update left alone is what it was.
    let gaps = (2..row.columns()).any(|column| row.is_unchanged(column));
    let known = if gaps { state::get_one(before) } else { None };
    let mut known = known.map(|line| parse(&line)).unwrap_or_default().into_iter();
    let value = |column| match (known.next().flatten(), row.text(column)) {
        (before, None) if row.is_unchanged(column) => before,
        (_, now) => now.map(str::to_owned),
    };
    let values: Vec<Option<String>> = (2..row.columns()).map(value).collect();
    if before != key {
        state::remove(before)?;
    }
    state::put(key, &write(&values))
}

/// Each value with a sign before it, and after it the character that PostgreSQL's text never holds.
fn write(values: &[Option<String>]) -> String {
    let sign = |value: &Option<String>| value.as_ref().map_or("-\0".into(), |v| format!("+{v}\0"));
    values.iter().map(sign).collect()
}

fn parse(line: &str) -> Vec<Option<String>> {
    let values = line.split_terminator('\0');
    values.map(|value| value.strip_prefix('+').map(str::to_owned)).collect()
}

export_reshape!(EnrichFromState);
