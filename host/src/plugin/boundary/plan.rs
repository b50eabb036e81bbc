//! What a plugin wants of a table version, resolved against the table's columns.

use crate::change::{Change, Changes, Op, Row, Value};
use crate::plugin::boundary::shape::Shape;
use crate::plugin::guest::Outcome;
use crate::plugin::guest::bindings::types::{self, Form};
use crate::table::{ColumnType, Table};

/// What a plugin wants of one table version, with names resolved.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The id the plugin knows the table version by.
    pub(crate) id: u32,
    pub(crate) wants: Vec<Want>,
    pub(super) ops: bool,
    pub(super) positions: bool,
    pub(super) times: bool,
    /// What becomes of the table, if the plugin is one that says so.
    pub(crate) shape: Option<Shape>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) column: usize,
    pub(crate) old: bool,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    pub(super) native: bool,
    pub(super) packed: bool,
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

/// In how many ways a column may be wanted: each of the three forms, of the row as it is and as it was.
const WAYS: usize = 6;
/// So many columns may be wanted of any table, since one that is named twice does no harm.
const WANTS_LEAST: usize = 1024;

impl Plan {
    /// Resolves an interest against the table it was given for.
    pub(crate) fn new(id: u32, table: &Table, interest: &types::Interest) -> Result<Plan, Outcome> {
        let (wanted, known) = (interest.columns.len(), table.columns.len());
        // Each is a copy of what it names, made before the plugin is called.
        if wanted > (known * WAYS).max(WANTS_LEAST) {
            let name = table.full_name();
            let why = format!("it wants {wanted} columns of {name}, which has {known}");
            return Err(Outcome::malformed(why));
        }
        let wants = interest.columns.iter().map(|want| Want::new(table, want));
        Ok(Plan {
            id,
            wants: wants.collect::<Result<_, _>>().map_err(Outcome::malformed)?,
            ops: interest.ops,
            positions: interest.positions,
            times: interest.times,
            shape: None,
        })
    }

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
pub(super) fn old_row(change: &Change) -> Option<Row> {
    change.old.row().filter(|_| change.op == Op::Update)
}
