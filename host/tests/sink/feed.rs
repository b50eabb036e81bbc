//! Changes as a test writes them, and the batches that the stages before the sink would make.

use std::sync::Arc;

use tailwater::change::{Cell, Change, Changes, Old, Op, Row, Transaction};
use tailwater::hop::{Hop, LogPoint};
use tailwater::position::{Lsn, Position};
use tailwater::table::{Column, ColumnType, ReplicaIdentity, Table};

/// A cell: its text, NULL, or a TOASTed value that was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Null,
    Gap,
}

/// What is known of the row before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    Nothing,
    Key(Vec<Value>),
    Full(Vec<Value>),
}

/// One change and where it stands.
#[derive(Debug, Clone)]
pub struct Event {
    pub commit: u64,
    pub ordinal: u64,
    pub op: Op,
    pub before: Before,
    pub after: Option<Vec<Value>>,
}

/// `NULL` and `GAP` are what they say, all else is text.
pub fn row(cells: &[&str]) -> Vec<Value> {
    let value = |cell: &&str| match *cell {
        "NULL" => Value::Null,
        "GAP" => Value::Gap,
        text => Value::Text(text.to_owned()),
    };
    cells.iter().map(value).collect()
}

/// A change that is the first of its transaction.
pub fn event(commit: u64, op: Op, before: Before, after: Option<Vec<Value>>) -> Event {
    Event { commit, ordinal: 1, op, before, after }
}

pub fn insert(commit: u64, cells: &[&str]) -> Event {
    event(commit, Op::Insert, Before::Nothing, Some(row(cells)))
}

pub fn update(commit: u64, cells: &[&str]) -> Event {
    event(commit, Op::Update, Before::Nothing, Some(row(cells)))
}

/// An update that tells the old key: the row moves.
pub fn moved(commit: u64, key: &[&str], cells: &[&str]) -> Event {
    event(commit, Op::Update, Before::Key(row(key)), Some(row(cells)))
}

pub fn delete(commit: u64, key: &[&str]) -> Event {
    event(commit, Op::Delete, Before::Key(row(key)), None)
}

pub fn truncate(commit: u64) -> Event {
    event(commit, Op::Truncate, Before::Nothing, None)
}

/// A column whose type is printed as the test names it.
pub fn column(name: &str, kind: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        type_name: format!("{kind:?}").to_lowercase(),
        kind,
        nullable: true,
        key: false,
        default: None,
        number: None,
        missing: None,
    }
}

pub fn key(name: &str, kind: ColumnType) -> Column {
    Column { nullable: false, key: true, ..column(name, kind) }
}

pub fn table(schema: &str, name: &str, columns: Vec<Column>) -> Arc<Table> {
    let (schema, name) = (schema.to_owned(), name.to_owned());
    Arc::new(Table::new(1, schema, name, columns, ReplicaIdentity::Default))
}

/// `public.users`: an id, a short text, a long one, and a number.
pub fn users() -> Arc<Table> {
    let columns = vec![
        key("id", ColumnType::Int4),
        column("name", ColumnType::Text),
        column("bio", ColumnType::Text),
        column("n", ColumnType::Int4),
    ];
    table("public", "users", columns)
}

/// The events as one batch.
pub fn hop(table: &Arc<Table>, events: &[Event]) -> Hop<LogPoint> {
    mixed(&events.iter().map(|event| (table, event)).collect::<Vec<_>>())
}

/// Events of several tables, or versions of one, as one batch.
pub fn mixed(events: &[(&Arc<Table>, &Event)]) -> Hop<LogPoint> {
    let mut changes = Changes::default();
    let mut last = Position::default();
    for (table, event) in events {
        let index = changes.intern_table(table);
        let transaction = Transaction {
            commit: Lsn(event.commit),
            previous_commit: Lsn(0),
            committed_at: 1_700_000_000_000_000,
            xid: 1,
        };
        let transaction = changes.push_transaction(transaction);
        let mut push = |cells: &[Value]| push_row(&mut changes, cells);
        let old = match &event.before {
            Before::Nothing => Old::None,
            Before::Key(cells) => Old::Key(push(cells)),
            Before::Full(cells) => Old::Full(push(cells)),
        };
        let new = event.after.as_deref().map(push);
        let (op, ordinal, lsn) = (event.op, event.ordinal, Lsn(event.commit));
        changes.list.push(Change { op, table: index, transaction, ordinal, lsn, old, new });
        last = last.max(Position { commit: Lsn(event.commit), ordinal });
    }
    let point = LogPoint { confirm: last.commit, position: last, ..LogPoint::default() };
    Hop::new(changes, point)
}

fn push_row(changes: &mut Changes, cells: &[Value]) -> Row {
    let row = changes.begin_row();
    for cell in cells {
        let cell = match cell {
            Value::Null => Cell::NULL,
            Value::Gap => Cell::UNCHANGED,
            Value::Text(text) => changes.push_text(text.as_bytes()),
        };
        changes.push_cell(cell);
    }
    row
}
