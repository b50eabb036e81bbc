//! Transforms that also decide what a table looks like and where its rows go.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::plugin::{Interest, Table, Verdict, number};
use crate::row::{Edits, Row};
use crate::shapes::{self, AddedRows, NewColumn, Rewriting, TableName};
use crate::shown::Shown;
use crate::types::{Batch, ColumnValues, Fault, Patch, Values};

/// A plugin that drops, renames and derives columns, routes rows and adds rows.
pub trait Reshape: Sized + 'static {
    /// Its `config` setting.
    type Config: DeserializeOwned;

    /// As [`Transform::new`](crate::Transform::new).
    ///
    /// # Errors
    /// What is wrong with the configuration. The plugin is then not loaded.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// As [`Transform::subscribe`](crate::Transform::subscribe).
    ///
    /// # Errors
    /// Why it cannot work on this table; a fault of every row of it.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String>;

    /// What becomes of a table that it is interested in.
    ///
    /// # Errors
    /// Why it cannot work on this table; a fault of every row of it.
    fn reshape(&mut self, table: &Table) -> Result<Shape, String>;

    /// Looks at one row. The outcome must not depend on which rows came in the same batch.
    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict;
}

/// What becomes of a table.
#[derive(Debug, Clone)]
pub struct Shape(shapes::Shape);

impl Default for Shape {
    fn default() -> Self {
        Shape(shapes::Shape {
            drops: Vec::new(),
            renames: Vec::new(),
            derives: Vec::new(),
            message_key: Vec::new(),
            stays: true,
            homes: Vec::new(),
            tables: Vec::new(),
        })
    }
}

impl Shape {
    /// Without a column.
    #[must_use]
    pub fn drop(mut self, column: impl Into<String>) -> Shape {
        self.0.drops.push(column.into());
        self
    }

    /// With another name for a column.
    #[must_use]
    pub fn rename(mut self, column: impl Into<String>, to: impl Into<String>) -> Shape {
        self.0.renames.push(shapes::Rename { column: column.into(), to: to.into() });
        self
    }

    /// With one more column, which may be NULL; [`Rewriter::derive`] gives its values, by the
    /// number of calls before this one.
    #[must_use]
    pub fn derive(mut self, name: impl Into<String>, type_name: impl Into<String>) -> Shape {
        let (name, type_name) = (name.into(), type_name.into());
        self.0.derives.push(NewColumn { name, type_name, nullable: true, key: false });
        self
    }

    /// With these columns as the key of Kafka's records.
    #[must_use]
    pub fn message_key<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Shape {
        self.0.message_key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Without the table itself: only what is routed or added goes on.
    #[must_use]
    pub fn routed_only(mut self) -> Shape {
        self.0.stays = false;
        self
    }

    /// With another table in which its rows may be.
    #[must_use]
    pub fn home(mut self, schema: impl Into<String>, name: impl Into<String>) -> Shape {
        self.0.homes.push(TableName { schema: schema.into(), name: name.into() });
        self
    }

    /// With a table of added rows; [`Rewriter::add`] fills it, by the number of calls before this
    /// one.
    #[must_use]
    pub fn table(mut self, table: NewTable) -> Shape {
        self.0.tables.push(table.0);
        self
    }

    /// The record of the contract.
    #[must_use]
    pub fn into_record(self) -> shapes::Shape {
        self.0
    }
}

/// A table for added rows.
#[derive(Debug, Clone)]
pub struct NewTable(shapes::NewTable);

impl NewTable {
    /// A table without columns yet.
    #[must_use]
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> NewTable {
        let name = TableName { schema: schema.into(), name: name.into() };
        NewTable(shapes::NewTable { name, columns: Vec::new() })
    }

    /// One more column of its key.
    #[must_use]
    pub fn key(mut self, name: impl Into<String>, type_name: impl Into<String>) -> NewTable {
        let (name, type_name) = (name.into(), type_name.into());
        self.0.columns.push(NewColumn { name, type_name, nullable: false, key: true });
        self
    }

    /// One more column, which may be NULL.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, type_name: impl Into<String>) -> NewTable {
        let (name, type_name) = (name.into(), type_name.into());
        self.0.columns.push(NewColumn { name, type_name, nullable: true, key: false });
        self
    }
}

/// Takes what becomes of a row beyond its own cells.
pub struct Rewriter<'a> {
    row: u32,
    answer: &'a mut Answer,
}

/// What one batch came to so far.
#[derive(Default)]
struct Answer {
    derived: Vec<Derived>,
    tables: BTreeMap<(String, String), u32>,
    routes: Vec<shapes::Route>,
    added: BTreeMap<(u32, bool), Added>,
}

#[derive(Default)]
struct Derived {
    values: Vec<Option<String>>,
    unchanged: Vec<u32>,
}

#[derive(Default)]
struct Added {
    origins: Vec<u32>,
    columns: Vec<Vec<Option<String>>>,
}

impl Rewriter<'_> {
    /// Gives a derived column's value, in PostgreSQL's text form; without this it is NULL.
    ///
    /// # Panics
    /// If the shape has fewer derived columns.
    pub fn derive(&mut self, column: usize, text: impl Into<String>) {
        self.answer.derived[column].values[self.row as usize] = Some(text.into());
    }

    /// Says that an update left a derived column's value as it was.
    ///
    /// # Panics
    /// If the shape has fewer derived columns.
    pub fn derive_unchanged(&mut self, column: usize) {
        self.answer.derived[column].unchanged.push(self.row);
    }

    /// Sends the row to a table. A row without a route stays where it is.
    pub fn route(&mut self, schema: &str, table: &str) {
        self.send(schema, table, true);
    }

    /// Says that the row is not in a table (any more).
    pub fn not_in(&mut self, schema: &str, table: &str) {
        self.send(schema, table, false);
    }

    fn send(&mut self, schema: &str, table: &str, present: bool) {
        let next = u32::try_from(self.answer.tables.len()).expect("few tables");
        let name = (schema.to_owned(), table.to_owned());
        let table = *self.answer.tables.entry(name).or_insert(next);
        self.answer.routes.push(shapes::Route { row: self.row, table, present });
    }

    /// Adds or replaces a row of one of the shape's tables; one text per column.
    pub fn add(&mut self, table: usize, values: Vec<Option<String>>) {
        self.put(table, true, values);
    }

    /// Removes a row of one of the shape's tables; only the columns of its key count.
    pub fn remove(&mut self, table: usize, values: Vec<Option<String>>) {
        self.put(table, false, values);
    }

    fn put(&mut self, table: usize, present: bool, values: Vec<Option<String>>) {
        let rows = self.answer.added.entry((number(table), present)).or_default();
        rows.origins.push(self.row);
        rows.columns.resize_with(values.len(), Vec::new);
        for (column, value) in rows.columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
}

impl Answer {
    fn new(rows: usize, derived: usize) -> Answer {
        let column = || Derived { values: vec![None; rows], unchanged: Vec::new() };
        Answer {
            derived: std::iter::repeat_with(column).take(derived).collect(),
            ..Answer::default()
        }
    }

    fn finish(self, patch: Patch) -> Rewriting {
        let derived = self.derived.into_iter().map(|column| ColumnValues {
            values: Values::Strings(column.values),
            unchanged: (!column.unchanged.is_empty()).then_some(column.unchanged),
        });
        let mut tables: Vec<_> = self.tables.into_iter().collect();
        tables.sort_by_key(|(_, index)| *index);
        let tables = tables.into_iter().map(|((schema, name), _)| TableName { schema, name });
        let added = self.added.into_iter().map(|((table, present), rows)| AddedRows {
            table,
            origins: rows.origins,
            present,
            columns: rows.columns.into_iter().map(Values::Strings).collect(),
        });
        Rewriting {
            patch,
            derived: derived.collect(),
            tables: tables.collect(),
            routes: self.routes,
            added: added.collect(),
        }
    }
}

/// A plugin, and how many columns it derives of each table.
pub struct Reshaper<P> {
    plugin: P,
    derived: BTreeMap<u32, usize>,
}

impl<P: Reshape> Reshaper<P> {
    /// Makes the plugin.
    ///
    /// # Errors
    /// As [`Reshape::new`].
    pub fn new(config: P::Config) -> Result<Reshaper<P>, String> {
        Ok(Reshaper { plugin: P::new(config)?, derived: BTreeMap::new() })
    }

    /// Hands on to the plugin.
    ///
    /// # Errors
    /// As [`Reshape::subscribe`].
    pub fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        self.plugin.subscribe(table)
    }

    /// Hands on to the plugin.
    ///
    /// # Errors
    /// As [`Reshape::reshape`].
    pub fn reshape(&mut self, table: &Table) -> Result<shapes::Shape, String> {
        let shape = self.plugin.reshape(table)?.into_record();
        self.derived.insert(table.id, shape.derives.len());
        Ok(shape)
    }
}

/// Drives a plugin over a batch; the export macro's `rewrite`.
///
/// # Errors
/// The host sent text that is not UTF-8, or a table that it never asked about.
pub fn rewrite<P: Reshape>(of: &mut Reshaper<P>, batch: Batch) -> Result<Rewriting, String> {
    let derived = *of.derived.get(&batch.table).ok_or("a batch of a table without a shape")?;
    let shown = Shown::new(batch)?;
    let mut answer = Answer::new(shown.rows, derived);
    let mut edits: Vec<Edits> = shown.columns.iter().map(|_| Edits::default()).collect();
    let mut patch = Patch { discard: Vec::new(), edits: Vec::new(), faults: Vec::new() };
    for index in 0..shown.rows {
        let mut row = Row { index, shown: &shown, edits: &mut edits };
        let mut out = Rewriter { row: number(index), answer: &mut answer };
        let fault = |message, retryable| Fault { row: number(index), message, retryable };
        match of.plugin.rewrite(&mut row, &mut out) {
            Verdict::Keep => {}
            Verdict::Discard => patch.discard.push(number(index)),
            Verdict::Fault(message) => patch.faults.push(fault(message, false)),
            Verdict::Retry(message) => patch.faults.push(fault(message, true)),
        }
    }
    let edits = edits.into_iter().enumerate();
    patch.edits = edits.filter_map(|(column, edits)| edits.finish(column, shown.rows)).collect();
    Ok(answer.finish(patch))
}

/// Makes the crate a component of the world `reshape`.
#[macro_export]
macro_rules! export_reshape {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::{shapes, types};

            type Plugin = $crate::export::Reshaper<$plugin>;

            thread_local! {
                static PLUGIN: $crate::export::Slot<Plugin> =
                    const { $crate::export::Slot::empty() };
            }

            struct Component;

            impl $crate::bindings::reshape::Guest for Component {
                fn init(config: String) -> Result<(), String> {
                    PLUGIN.with(|slot| slot.init(&config, Plugin::new))
                }

                fn subscribe(table: types::Table) -> Result<Option<types::Interest>, String> {
                    let subscribe = |plugin: &mut Plugin| {
                        Ok(plugin.subscribe(&table)?.map($crate::Interest::into_record))
                    };
                    PLUGIN.with(|slot| slot.with(subscribe))
                }

                fn reshape(table: types::Table) -> Result<shapes::Shape, String> {
                    PLUGIN.with(|slot| slot.with(|plugin| plugin.reshape(&table)))
                }

                fn rewrite(batch: types::Batch) -> Result<shapes::Rewriting, String> {
                    PLUGIN.with(|slot| slot.with(|plugin| $crate::export::rewrite(plugin, batch)))
                }
            }

    $crate::bindings::reshape::export!(Component with_types_in $crate::bindings::reshape);
        };
    };
}
