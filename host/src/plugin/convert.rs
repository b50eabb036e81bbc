//! Host rows into a plugin's columns and back: the only place where both types meet.
//!
//! Nothing a plugin hands back is trusted. A patch is checked whole before any of it is applied,
//! because rows of a refused patch are shown again, as they were.

use crate::change::{Change, Changes, Op, Row, Value};
use crate::plugin::bindings::types::{self, Batch, ColumnValuesParam, Form, ValuesParam};
use crate::plugin::instance::Outcome;
use crate::plugin::shape::Shape;
use crate::table::{ColumnType, Table};

/// What a plugin wants of one table version, with names resolved.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The id the plugin knows the table version by.
    pub(crate) id: u32,
    pub(crate) wants: Vec<Want>,
    ops: bool,
    positions: bool,
    times: bool,
    /// What becomes of the table, if the plugin is one that says so.
    pub(crate) shape: Option<Shape>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) column: usize,
    pub(crate) old: bool,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    native: bool,
    packed: bool,
}

/// What a column's text must parse as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer { min: i64, max: i64 },
    Float { single: bool },
    Boolean,
}

impl Kind {
    pub(crate) fn of(column: &ColumnType) -> Kind {
        let integer = |min, max| Kind::Integer { min, max };
        match column {
            ColumnType::Bool => Kind::Boolean,
            ColumnType::Int2 => integer(i16::MIN.into(), i16::MAX.into()),
            ColumnType::Int4 => integer(i32::MIN.into(), i32::MAX.into()),
            ColumnType::Int8 => integer(i64::MIN, i64::MAX),
            ColumnType::Oid => integer(0, u32::MAX.into()),
            ColumnType::Float4 => Kind::Float { single: true },
            ColumnType::Float8 => Kind::Float { single: false },
            _ => Kind::Text,
        }
    }

    fn told(self) -> types::Kind {
        match self {
            Kind::Text => types::Kind::Text,
            Kind::Integer { .. } => types::Kind::Integer,
            Kind::Float { .. } => types::Kind::Float,
            Kind::Boolean => types::Kind::Boolean,
        }
    }
}

/// Shows a table version to `subscribe`.
pub(crate) fn with_table<T>(id: u32, table: &Table, call: impl FnOnce(types::Table<'_>) -> T) -> T {
    let columns: Vec<types::Column<'_>> = table
        .columns
        .iter()
        .map(|column| types::Column {
            name: &column.name,
            type_name: &column.type_name,
            kind: Kind::of(&column.kind).told(),
            nullable: column.nullable,
            key: column.key,
        })
        .collect();
    call(types::Table { id, schema: &table.schema, name: &table.name, columns: &columns })
}

impl Plan {
    /// Resolves an interest against the table it was given for.
    pub(crate) fn new(id: u32, table: &Table, interest: &types::Interest) -> Result<Plan, Outcome> {
        let wants = interest.columns.iter().map(|want| Want::new(table, want));
        Ok(Plan {
            id,
            wants: wants.collect::<Result<_, _>>().map_err(Outcome::Malformed)?,
            ops: interest.ops,
            positions: interest.positions,
            times: interest.times,
            shape: None,
        })
    }
}

impl Plan {
    /// What comes beside the columns, as the contract calls it.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &'static str> {
        let all = [(self.ops, "ops"), (self.positions, "positions"), (self.times, "times")];
        all.into_iter().filter_map(|(wanted, name)| wanted.then_some(name))
    }

    /// What becomes of the table.
    pub(crate) fn shape(&self) -> &Shape {
        self.shape.as_ref().expect("the plugin was asked for it")
    }
}

impl Want {
    /// The form of its values, as the contract calls it.
    pub(crate) fn form(&self) -> &'static str {
        match (self.native, self.packed) {
            (true, _) => "native",
            (false, true) => "packed",
            (false, false) => "strings",
        }
    }

    fn new(table: &Table, want: &types::Want) -> Result<Want, String> {
        let name = table.full_name();
        let column = table
            .column(&want.column)
            .ok_or_else(|| format!("it wants column {} of {name}, which has none", want.column))?;
        let of = &table.columns[column];
        let kind = Kind::of(&of.kind);
        if want.form == Form::Native && kind == Kind::Text {
            let why =
                format!("{} of {name} is {}, which has no native form", of.name, of.type_name);
            return Err(why);
        }
        Ok(Want {
            column,
            old: want.old,
            kind,
            nullable: of.nullable,
            native: want.form == Form::Native,
            packed: want.form == Form::Packed,
        })
    }

    /// The row whose cell the want stands for.
    pub(crate) fn row(&self, change: &Change) -> Option<Row> {
        if self.old { old_row(change) } else { change.new.or(change.old.row()) }
    }

    pub(crate) fn value<'a>(&self, changes: &'a Changes, change: &Change) -> Value<'a> {
        self.row(change).map_or(Value::Null, |row| changes.value(row, self.column))
    }
}

/// The row before an update.
fn old_row(change: &Change) -> Option<Row> {
    change.old.row().filter(|_| change.op == Op::Update)
}

/// A cell's text is not what its column's type says; the row's number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) usize);

/// Buffers that keep their memory from batch to batch.
#[derive(Default)]
pub(crate) struct Scratch {
    columns: Vec<Buffers>,
    ops: Vec<types::Op>,
    positions: Vec<types::Position>,
    times: Vec<i64>,
}

#[derive(Default)]
struct Buffers {
    nulls: Vec<u8>,
    any_null: bool,
    unchanged: Vec<u32>,
    ends: Vec<u32>,
    data: Vec<u8>,
    integers: Vec<i64>,
    floats: Vec<f64>,
    booleans: Vec<bool>,
}

impl Buffers {
    fn clear(&mut self, rows: usize) {
        self.nulls.clear();
        self.nulls.resize(rows.div_ceil(8), 0);
        self.any_null = false;
        self.unchanged.clear();
        self.ends.clear();
        self.data.clear();
        self.integers.clear();
        self.floats.clear();
        self.booleans.clear();
    }

    /// Notes what is absent, and gives what is not.
    #[inline]
    fn present<'a>(&mut self, row: usize, value: Value<'a>) -> Option<&'a [u8]> {
        match value {
            Value::Text(text) => return Some(text),
            Value::Null => {}
            Value::Unchanged => self.unchanged.push(number(row)),
        }
        self.any_null = true;
        self.nulls[row >> 3] |= 1 << (row & 7);
        None
    }

    fn nulls(&self) -> Option<&[u8]> {
        self.any_null.then_some(&self.nulls)
    }

    fn unchanged(&self) -> Option<&[u32]> {
        (!self.unchanged.is_empty()).then_some(&self.unchanged)
    }

    fn pack<'a>(&mut self, values: impl ExactSizeIterator<Item = Value<'a>>) {
        self.ends.reserve(values.len());
        for (row, value) in values.enumerate() {
            if let Some(text) = self.present(row, value) {
                self.data.extend_from_slice(text);
            }
            self.ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
        }
    }

    /// No row has a value.
    fn pack_nothing(&mut self, rows: usize) {
        self.any_null = true;
        self.nulls.fill(0xff);
        let beyond = self.nulls.len() * 8 - rows;
        if let Some(last) = self.nulls.last_mut() {
            *last >>= beyond;
        }
        self.ends.resize(rows, 0);
    }

    fn parse<'a>(
        &mut self,
        kind: Kind,
        values: impl Iterator<Item = Value<'a>>,
    ) -> Result<(), Unreadable> {
        for (row, value) in values.enumerate() {
            let text = self.present(row, value);
            let parsed = text.map_or(Some(Native::zero(kind)), |text| Native::parse(kind, text));
            match parsed.ok_or(Unreadable(row))? {
                Native::Integer(item) => self.integers.push(item),
                Native::Float(item) => self.floats.push(item),
                Native::Boolean(item) => self.booleans.push(item),
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Native {
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl Native {
    fn zero(kind: Kind) -> Native {
        match kind {
            Kind::Float { .. } => Native::Float(0.0),
            Kind::Boolean => Native::Boolean(false),
            Kind::Integer { .. } | Kind::Text => Native::Integer(0),
        }
    }

    fn parse(kind: Kind, text: &[u8]) -> Option<Native> {
        let text = std::str::from_utf8(text).ok()?;
        match kind {
            Kind::Integer { min, max } => {
                let item = text.parse().ok().filter(|item| (min..=max).contains(item));
                item.map(Native::Integer)
            }
            Kind::Float { single: false } => text.parse().ok().map(Native::Float),
            Kind::Float { single: true } => {
                text.parse::<f32>().ok().map(|item| Native::Float(item.into()))
            }
            Kind::Boolean => match text {
                "t" => Some(Native::Boolean(true)),
                "f" => Some(Native::Boolean(false)),
                _ => None,
            },
            Kind::Text => None,
        }
    }
}

impl Scratch {
    /// Calls with the wanted columns of some changes; `rows` index `changes.list`.
    pub(crate) fn with_batch<T>(
        &mut self,
        plan: &Plan,
        changes: &Changes,
        rows: &[u32],
        call: impl FnOnce(Batch<'_>) -> T,
    ) -> Result<T, Unreadable> {
        self.fill_headers(plan, changes, rows);
        self.columns.resize_with(plan.wants.len(), Buffers::default);
        let mut strings = Vec::new();
        // Most updates tell nothing of the old row, and plugins that hide something ask for it.
        let any_old = rows.iter().any(|row| old_row(&changes.list[*row as usize]).is_some());
        for (want, buffers) in plan.wants.iter().zip(&mut self.columns) {
            buffers.clear(rows.len());
            let values =
                || rows.iter().map(|row| want.value(changes, &changes.list[*row as usize]));
            if want.packed && want.old && !any_old {
                buffers.pack_nothing(rows.len());
            } else if want.packed {
                buffers.pack(values());
            } else if want.native {
                buffers.parse(want.kind, values())?;
            } else {
                strings.push(texts(buffers, values())?);
            }
        }
        let mut strings = strings.iter();
        let columns: Vec<ColumnValuesParam<'_>> = plan
            .wants
            .iter()
            .zip(&self.columns)
            .map(|(want, buffers)| column(want, buffers, &mut strings))
            .collect();
        Ok(call(Batch {
            table: plan.id,
            rows: number(rows.len()),
            ops: plan.ops.then_some(&self.ops),
            positions: plan.positions.then_some(&self.positions),
            times: plan.times.then_some(&self.times),
            columns: &columns,
        }))
    }

    fn fill_headers(&mut self, plan: &Plan, changes: &Changes, rows: &[u32]) {
        let shown = || rows.iter().map(|row| &changes.list[*row as usize]);
        self.ops.clear();
        self.positions.clear();
        self.times.clear();
        if plan.ops {
            self.ops.extend(shown().map(|change| op(change.op)));
        }
        if plan.positions {
            self.positions.extend(shown().map(|change| {
                let position = changes.position(change);
                types::Position { commit: position.commit.0, ordinal: position.ordinal }
            }));
        }
        if plan.times {
            self.times.extend(shown().map(|change| changes.transaction(change).committed_at));
        }
    }
}

fn texts<'a>(
    buffers: &mut Buffers,
    values: impl Iterator<Item = Value<'a>>,
) -> Result<Vec<Option<&'a str>>, Unreadable> {
    let text = |(row, value)| {
        let text = buffers.present(row, value);
        text.map(std::str::from_utf8).transpose().map_err(|_| Unreadable(row))
    };
    values.enumerate().map(text).collect()
}

fn column<'a>(
    want: &Want,
    buffers: &'a Buffers,
    strings: &mut std::slice::Iter<'a, Vec<Option<&'a str>>>,
) -> ColumnValuesParam<'a> {
    let nulls = buffers.nulls();
    let values = if want.packed {
        let packed = types::PackedParam { nulls, ends: &buffers.ends, data: &buffers.data };
        ValuesParam::Packed(packed)
    } else if !want.native {
        ValuesParam::Strings(strings.next().expect("one per column in form strings"))
    } else {
        match want.kind {
            Kind::Float { .. } => {
                ValuesParam::Floats(types::FloatsParam { nulls, items: &buffers.floats })
            }
            Kind::Boolean => {
                ValuesParam::Booleans(types::BooleansParam { nulls, items: &buffers.booleans })
            }
            Kind::Integer { .. } | Kind::Text => {
                ValuesParam::Integers(types::IntegersParam { nulls, items: &buffers.integers })
            }
        }
    };
    ColumnValuesParam { values, unchanged: buffers.unchanged() }
}

fn op(op: Op) -> types::Op {
    match op {
        Op::Read => types::Op::Read,
        Op::Insert => types::Op::Insert,
        Op::Update => types::Op::Update,
        Op::Delete => types::Op::Delete,
        Op::Truncate => unreachable!("a truncate has no row to show"),
    }
}

pub(crate) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a batch holds fewer than 2^32 changes")
}

/// Whether a text is what a column of that kind may hold.
pub(crate) fn fits(kind: Kind, text: &[u8]) -> bool {
    kind == Kind::Text || Native::parse(kind, text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_value_are_packed_as_so_many_nulls() {
        for rows in 1..=17 {
            let [mut each, mut all] = [Buffers::default(), Buffers::default()];
            each.clear(rows);
            each.pack((0..rows).map(|_| Value::Null));
            all.clear(rows);
            all.pack_nothing(rows);
            assert_eq!(all.nulls(), each.nulls(), "{rows} rows");
            assert_eq!((all.ends, all.data), (each.ends, each.data), "{rows} rows");
        }
    }
}
