//! What becomes of a table that a plugin reshapes: checked and resolved once per table version.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::plugin::boundary::plan::Kind;
use crate::plugin::boundary::type_name;
use crate::plugin::guest::bindings::shapes::{self, NewColumn, NewTable};
use crate::table::{Column, ReplicaIdentity, Table, TableName};

/// As many as PostgreSQL has, with as many derived ones.
const COLUMNS_MAX: usize = 3200;

/// Tables to which one plugin may send the rows of one table, its homes and those that it fills among them. Each
/// has a topic and a ClickHouse table of its own, so more are an error of the plugin rather than a wish.
pub(crate) const ROUTED_TABLES_MAX: usize = 1000;

/// A table's shape from here on.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The table as it goes on.
    pub(crate) table: Arc<Table>,
    /// What each of its columns is made of.
    pub(crate) sources: Vec<Source>,
    /// How many columns are derived; they are the last ones.
    pub(crate) derived: usize,
    pub(crate) stays: bool,
    pub(crate) homes: Vec<Arc<Table>>,
    /// Tables that the plugin fills.
    pub(crate) added: Vec<Arc<Table>>,
    /// The table under the other names that were routed to.
    routed: Mutex<HashMap<TableName, Arc<Table>>>,
}

/// What a column of the shaped table is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A column of the table before.
    Column(usize),
    /// A derived column.
    Derived(usize),
}

impl Shape {
    /// Resolves what a plugin said of a table. The error says what is wrong with it.
    pub(crate) fn new(table: &Arc<Table>, shape: &shapes::Shape) -> Result<Shape, String> {
        check_size(table, shape)?;
        let dropped = dropped(table, shape)?;
        let names = new_names(table, shape)?;
        let mut columns = Vec::new();
        let mut sources = Vec::new();
        for (index, column) in table.columns.iter().enumerate() {
            if !dropped.contains(&index) {
                let name = names.get(&index).unwrap_or(&column.name).clone();
                columns.push(Column { name, ..column.clone() });
                sources.push(Source::Column(index));
            }
        }
        for (index, column) in shape.derives.iter().enumerate() {
            if column.key {
                return Err(format!("it derives {} as a part of the key", column.name));
            }
            columns.push(made(column)?);
            sources.push(Source::Derived(index));
        }
        check_columns(&columns)?;
        let known = |name: &&String| columns.iter().any(|column| column.name == **name);
        if let Some(unknown) = shape.message_key.iter().find(|name| !known(name)) {
            return Err(format!("its message key has {unknown}, which is no column any more"));
        }
        let table = reshaped(table, columns, shape.message_key.clone());
        Ok(Shape {
            homes: homes(&table, shape)?,
            added: added(&table, shape)?,
            derived: shape.derives.len(),
            stays: shape.stays,
            routed: Mutex::default(),
            table,
            sources,
        })
    }

    /// The table under the name of a route; none if there are too many.
    pub(crate) fn routed(&self, name: &TableName) -> Option<Arc<Table>> {
        if *name == self.table.full_name() {
            return Some(Arc::clone(&self.table));
        }
        let home = self.homes.iter().find(|home| home.full_name() == *name);
        if let Some(home) = home {
            return Some(Arc::clone(home));
        }
        let mut routed = self.routed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routed.get(name) {
            return Some(Arc::clone(known));
        }
        if routed.len() + self.homes.len() + self.added.len() >= ROUTED_TABLES_MAX {
            return None;
        }
        let table = Arc::new(self.table.renamed(name.clone()));
        routed.insert(name.clone(), Arc::clone(&table));
        Some(table)
    }

    /// The kind of a derived column, its name, and whether it may hold NULL.
    pub(crate) fn derived_columns(&self) -> impl Iterator<Item = (Kind, &Column)> {
        let columns = &self.table.columns[self.table.columns.len() - self.derived..];
        columns.iter().map(|column| (Kind::of(&column.kind), column))
    }
}

/// Refuses what is more than tables and columns may be, before anything is made of it.
fn check_size(table: &Table, shape: &shapes::Shape) -> Result<(), String> {
    if shape.homes.len() + shape.tables.len() > ROUTED_TABLES_MAX {
        return Err(format!("it sends rows to more than {ROUTED_TABLES_MAX} tables"));
    }
    let most = shape.tables.iter().map(|added| added.columns.len()).max().unwrap_or_default();
    if most.max(table.columns.len() + shape.derives.len()) > COLUMNS_MAX {
        return Err(format!("it makes a table of more than {COLUMNS_MAX} columns"));
    }
    Ok(())
}

/// The same table version where nothing of it changes, so that nothing after it sees another.
fn reshaped(table: &Arc<Table>, columns: Vec<Column>, message_key: Vec<String>) -> Arc<Table> {
    if columns == table.columns && message_key.is_empty() {
        return Arc::clone(table);
    }
    let (schema, name) = (table.schema.clone(), table.name.clone());
    let shaped = Table::new(table.oid, schema, name, columns, table.identity);
    let shaped = shaped.with_origin(table.origin.clone());
    // A key that an earlier plugin chose holds on unless its columns are gone.
    let chosen = if message_key.is_empty() { table.message_key.clone() } else { message_key };
    let kept = chosen.into_iter().filter(|name| shaped.column(name).is_some()).collect();
    Arc::new(shaped.with_message_key(kept))
}

fn find(table: &Table, name: &str, what: &str) -> Result<usize, String> {
    let found = table.column(name);
    found.ok_or_else(|| format!("it {what} {name} of {}, which has none", table.full_name()))
}

fn dropped(table: &Table, shape: &shapes::Shape) -> Result<HashSet<usize>, String> {
    let drop = |name: &String| {
        let index = find(table, name, "drops")?;
        match table.columns[index].key {
            true => Err(format!("it drops {name}, which belongs to the key")),
            false => Ok(index),
        }
    };
    shape.drops.iter().map(drop).collect()
}

fn new_names(table: &Table, shape: &shapes::Shape) -> Result<HashMap<usize, String>, String> {
    let rename = |rename: &shapes::Rename| {
        check_name(&rename.to)?;
        Ok((find(table, &rename.column, "renames")?, rename.to.clone()))
    };
    shape.renames.iter().map(rename).collect()
}

/// The sink's own columns begin with an underscore.
fn check_name(name: &str) -> Result<(), String> {
    match name.is_empty() || name.starts_with('_') || name.contains('\0') {
        true => Err(format!("`{name}` is no name for a column; it must not begin with `_`")),
        false => Ok(()),
    }
}

fn made(column: &NewColumn) -> Result<Column, String> {
    check_name(&column.name)?;
    let kind = type_name::parse(&column.type_name).ok_or_else(|| {
        format!("{} is of type `{}`, which is none of PostgreSQL's", column.name, column.type_name)
    })?;
    Ok(Column {
        name: column.name.clone(),
        kind,
        type_name: column.type_name.clone(),
        nullable: column.nullable,
        key: column.key,
        default: None,
        number: None,
        missing: None,
    })
}

fn check_columns(columns: &[Column]) -> Result<(), String> {
    let mut names = HashSet::new();
    match columns.iter().find(|column| !names.insert(&column.name)) {
        Some(twice) => Err(format!("two columns are called {}", twice.name)),
        None => Ok(()),
    }
}

/// A table's name that can be one.
pub(crate) fn table_name(name: &shapes::TableName) -> Result<TableName, String> {
    let part = |part: &str| !part.is_empty() && part.len() <= 63 && !part.contains('\0');
    match part(&name.schema) && part(&name.name) {
        true => Ok(TableName { schema: name.schema.clone(), name: name.name.clone() }),
        false => Err("a table's schema and name must have 1 to 63 bytes".to_owned()),
    }
}

fn homes(table: &Table, shape: &shapes::Shape) -> Result<Vec<Arc<Table>>, String> {
    let home = |name: &shapes::TableName| {
        let name = table_name(name)?;
        match name == table.full_name() {
            true => Err(format!("{name} is no other home of its own rows")),
            false => Ok(Arc::new(table.renamed(name))),
        }
    };
    shape.homes.iter().map(home).collect()
}

/// The tables of rows that the plugin adds, which come of this one's.
fn added(table: &Table, shape: &shapes::Shape) -> Result<Vec<Arc<Table>>, String> {
    shape.tables.iter().map(|new| new_table(new, table)).collect()
}

fn new_table(new: &NewTable, from: &Table) -> Result<Arc<Table>, String> {
    let name = table_name(&new.name)?;
    let columns = new.columns.iter().map(made).collect::<Result<Vec<_>, _>>()?;
    check_columns(&columns)?;
    if !columns.iter().any(|column| column.key) {
        return Err(format!("{name} has no key, so its rows cannot be told apart"));
    }
    let TableName { schema, name } = name;
    let made = Table::new(0, schema, name, columns, ReplicaIdentity::Default);
    Ok(Arc::new(made.with_origin(Some(from.origin()))))
}
