//! Runs a plugin natively, in the author's own `cargo test`, over rows of their choice.
//!
//! The rows go through what the host sends and what the plugin answers, so a test sees what the
//! plugin does inside Tailwater; what only the host checks (types, limits) it does not see.
//!
//! ```
//! use tailwater_guest::testing::{Change, Fate, TestTable, Tested};
//! # use tailwater_guest::{Interest, Row, Table, Transform, Verdict};
//! # struct Shout;
//! # impl Transform for Shout {
//! #     type Config = serde::de::IgnoredAny;
//! #     fn new(_: Self::Config) -> Result<Self, String> { Ok(Shout) }
//! #     fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
//! #         Ok(table.has("name").then(|| Interest::of(["name"])))
//! #     }
//! #     fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
//! #         if let Some(name) = row.text(0) { row.set(0, &name.to_uppercase()); }
//! #         Verdict::Keep
//! #     }
//! # }
//! let users = TestTable::new("public.users").key("id", "bigint").column("name", "text");
//! let mut shout = Tested::<Shout>::new("{}").unwrap();
//! let fates = shout.transform(&users, &[Change::insert([("id", "1"), ("name", "ann")])]);
//! assert_eq!(fates, [Fate::kept([("id", "1"), ("name", "ANN")])]);
//! ```

use std::collections::BTreeMap;

use crate::plugin::{self, Dedup, Interest, Transform};
use crate::shown::Values as Shown;
use crate::state;
use crate::types::{
    Batch, Booleans, Column, ColumnValues, Floats, Form, Integers, Kind, Op, Packed, Patch,
    Position, Table, Values,
};

/// Values by column; a column that is missing is NULL.
pub type Cells = BTreeMap<String, Cell>;

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// A large value that PostgreSQL did not send.
    Unchanged,
    /// PostgreSQL's text form.
    Text(String),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

fn cells<C: Into<Cell>>(row: impl IntoIterator<Item = (&'static str, C)>) -> Cells {
    row.into_iter().map(|(name, cell)| (name.to_owned(), cell.into())).collect()
}

/// A table to test with.
#[derive(Debug, Clone)]
pub struct TestTable(Table);

impl TestTable {
    /// A table without columns yet; the name as in `public.users`.
    #[must_use]
    pub fn new(name: &str) -> TestTable {
        let (schema, name) = name.split_once('.').unwrap_or(("public", name));
        TestTable(Table { id: 0, schema: schema.into(), name: name.into(), columns: Vec::new() })
    }

    /// One more column, of its key.
    #[must_use]
    pub fn key(self, name: &str, type_name: &str) -> TestTable {
        self.with(name, type_name, true)
    }

    /// One more column, not of its key.
    #[must_use]
    pub fn column(self, name: &str, type_name: &str) -> TestTable {
        self.with(name, type_name, false)
    }

    /// What `subscribe` is shown.
    #[must_use]
    pub fn into_record(self) -> Table {
        self.0
    }

    fn with(mut self, name: &str, type_name: &str, key: bool) -> TestTable {
        let kind = match type_name {
            "smallint" | "integer" | "bigint" | "oid" => Kind::Integer,
            "real" | "double precision" => Kind::Float,
            "boolean" => Kind::Boolean,
            _ => Kind::Text,
        };
        let (name, type_name) = (name.into(), type_name.into());
        self.0.columns.push(Column { name, type_name, kind, nullable: !key, key });
        self
    }
}

/// One change to show.
#[derive(Debug, Clone)]
pub struct Change {
    op: Op,
    old: Cells,
    new: Cells,
}

impl Change {
    /// An insert.
    pub fn insert<C: Into<Cell>>(new: impl IntoIterator<Item = (&'static str, C)>) -> Change {
        Change { op: Op::Insert, old: Cells::new(), new: cells(new) }
    }

    /// An update; `old` is empty unless the table's replica identity is FULL.
    pub fn update<C: Into<Cell>, D: Into<Cell>>(
        old: impl IntoIterator<Item = (&'static str, C)>,
        new: impl IntoIterator<Item = (&'static str, D)>,
    ) -> Change {
        Change { op: Op::Update, old: cells(old), new: cells(new) }
    }

    /// A delete of a row of which only these columns are known.
    pub fn delete<C: Into<Cell>>(old: impl IntoIterator<Item = (&'static str, C)>) -> Change {
        Change { op: Op::Delete, old: Cells::new(), new: cells(old) }
    }
}

/// What a transform did to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Kept {
        /// The row before an update, as edited.
        old: Cells,
        /// The row, as edited.
        new: Cells,
    },
    /// Its row is not in the copy.
    Discarded,
    /// It failed, with this message.
    Fault(String),
}

impl Fate {
    /// A kept row without an old one.
    pub fn kept<C: Into<Cell>>(new: impl IntoIterator<Item = (&'static str, C)>) -> Fate {
        Fate::Kept { old: Cells::new(), new: cells(new) }
    }
}

/// A plugin under test.
pub struct Tested<P>(P);

impl<P: Transform> Tested<P> {
    /// Makes the plugin of its configuration as JSON, with an empty state.
    ///
    /// # Errors
    /// What an operator would read: the configuration does not fit, or the plugin refuses it.
    pub fn new(config: &str) -> Result<Tested<P>, String> {
        state::clear();
        plugin::configure(config, P::new).map(Tested)
    }

    /// Shows changes of a table; one fate each. Changes of a table without interest are kept.
    ///
    /// # Panics
    /// If the plugin refuses the table, or its answer does not fit.
    pub fn transform(&mut self, table: &TestTable, changes: &[Change]) -> Vec<Fate> {
        let kept =
            |change: &Change| Fate::Kept { old: change.old.clone(), new: change.new.clone() };
        let mut fates: Vec<Fate> = changes.iter().map(kept).collect();
        let interest = self.0.subscribe(&table.0).expect("the plugin takes the table");
        let Some(interest) = interest else { return fates };
        let patch = plugin::process(&mut self.0, batch(&table.0, &interest, changes));
        apply(&patch.expect("text is UTF-8"), &interest, &mut fates);
        fates
    }

    /// The plugin itself.
    pub fn plugin(&mut self) -> &mut P {
        &mut self.0
    }
}

/// A dedup plugin under test.
pub struct TestedDedup<P>(P);

impl<P: Dedup> TestedDedup<P> {
    /// As [`Tested::new`].
    ///
    /// # Errors
    /// What an operator would read: the configuration does not fit, or the plugin refuses it.
    pub fn new(config: &str) -> Result<TestedDedup<P>, String> {
        state::clear();
        plugin::configure(config, P::new).map(TestedDedup)
    }

    /// Shows changes of a table; their keys. Changes of a table without interest have none.
    ///
    /// # Panics
    /// If the plugin refuses the table.
    pub fn keys(&mut self, table: &TestTable, changes: &[Change]) -> Vec<Option<String>> {
        let interest = self.0.subscribe(&table.0).expect("the plugin takes the table");
        let Some(interest) = interest else { return vec![None; changes.len()] };
        let keys = plugin::keys(&mut self.0, batch(&table.0, &interest, changes));
        let keys = Shown::new(keys.expect("text is UTF-8").values).expect("text is UTF-8");
        (0..changes.len()).map(|row| keys.text(row).map(str::to_owned)).collect()
    }
}

fn batch(table: &Table, interest: &Interest, changes: &[Change]) -> Batch {
    let interest = interest.record();
    let columns = interest.columns.iter().map(|want| {
        let column = table.columns.iter().find(|column| column.name == want.column);
        let column = column.unwrap_or_else(|| panic!("the table has no column {}", want.column));
        let row =
            |change: &'_ Change| if want.old { change.old.clone() } else { change.new.clone() };
        let cell = |change| row(change).remove(&want.column).unwrap_or(Cell::Null);
        column_values(want.form, column.kind, &changes.iter().map(cell).collect::<Vec<_>>())
    });
    let position = |row| Position { commit: 1, ordinal: row };
    let rows = 1..=changes.len() as u64;
    Batch {
        table: table.id,
        rows: u32::try_from(changes.len()).expect("few rows"),
        ops: interest.ops.then(|| changes.iter().map(|change| change.op).collect()),
        positions: interest.positions.then(|| rows.map(position).collect()),
        times: interest.times.then(|| vec![0; changes.len()]),
        columns: columns.collect(),
    }
}

fn column_values(form: Form, kind: Kind, cells: &[Cell]) -> ColumnValues {
    let text = |cell: &Cell| match cell {
        Cell::Text(text) => Some(text.clone()),
        Cell::Null | Cell::Unchanged => None,
    };
    let texts: Vec<Option<String>> = cells.iter().map(text).collect();
    let values = match form {
        Form::Strings => Values::Strings(texts),
        Form::Packed => Values::Packed(pack(&texts)),
        Form::Native => native(kind, &texts),
    };
    let rows = cells.iter().zip(0..).filter(|(cell, _)| **cell == Cell::Unchanged);
    let unchanged: Vec<u32> = rows.map(|(_, row)| row).collect();
    ColumnValues { values, unchanged: (!unchanged.is_empty()).then_some(unchanged) }
}

fn nulls(texts: &[Option<String>]) -> Option<Vec<u8>> {
    let mut bits = vec![0; texts.len().div_ceil(8)];
    let null = texts.iter().enumerate().filter(|(_, text)| text.is_none());
    null.for_each(|(row, _)| bits[row >> 3] |= 1 << (row & 7));
    texts.iter().any(Option::is_none).then_some(bits)
}

fn pack(texts: &[Option<String>]) -> Packed {
    let mut data = Vec::new();
    let mut end = |text: &Option<String>| {
        data.extend_from_slice(text.as_deref().unwrap_or_default().as_bytes());
        u32::try_from(data.len()).expect("little text")
    };
    let ends = texts.iter().map(&mut end).collect();
    Packed { nulls: nulls(texts), ends, data }
}

fn native(kind: Kind, texts: &[Option<String>]) -> Values {
    fn items<T: std::str::FromStr + Default>(texts: &[Option<String>]) -> Vec<T> {
        let item = |text: &Option<String>| match text {
            Some(text) => text.parse().unwrap_or_else(|_| panic!("{text} is not of its kind")),
            None => T::default(),
        };
        texts.iter().map(item).collect()
    }
    let nulls = nulls(texts);
    match kind {
        Kind::Integer => Values::Integers(Integers { nulls, items: items(texts) }),
        Kind::Float => Values::Floats(Floats { nulls, items: items(texts) }),
        Kind::Boolean => {
            let items = texts.iter().map(|text| text.as_deref() == Some("t")).collect();
            Values::Booleans(Booleans { nulls, items })
        }
        Kind::Text => panic!("text has no native form"),
    }
}

fn apply(patch: &Patch, interest: &Interest, fates: &mut [Fate]) {
    for edit in &patch.edits {
        let want = &interest.record().columns[edit.column as usize];
        let values = Shown::new(edit.values.clone()).expect("text is UTF-8");
        let all = 0..u32::try_from(fates.len()).expect("few rows");
        let rows = edit.rows.clone().unwrap_or_else(|| all.collect());
        for (index, row) in rows.into_iter().enumerate() {
            let Fate::Kept { old, new } = &mut fates[row as usize] else { continue };
            let cells = if want.old { old } else { new };
            set(cells, &want.column, values.text(index));
        }
    }
    for row in &patch.discard {
        fates[*row as usize] = Fate::Discarded;
    }
    for fault in &patch.faults {
        fates[fault.row as usize] = Fate::Fault(fault.message.clone());
    }
}

/// As the host does: a null leaves a cell alone that has no value.
fn set(cells: &mut Cells, column: &str, text: Option<&str>) {
    match (text, cells.get(column)) {
        (Some(text), _) => drop(cells.insert(column.to_owned(), text.into())),
        (None, None | Some(Cell::Unchanged)) => {}
        (None, Some(_)) => drop(cells.insert(column.to_owned(), Cell::Null)),
    }
}
