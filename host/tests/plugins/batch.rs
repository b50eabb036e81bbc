//! Batches to show to plugins, and their text to compare with.

use std::fmt::Write as _;
use std::sync::Arc;

use tailwater::change::{Cell, Change, Changes, Old, Op, Row, Transaction, Value};
use tailwater::position::Lsn;
use tailwater::table::{Column, ColumnType, ReplicaIdentity, Table};

/// In a row's text: SQL NULL.
pub const NULL: &str = "\u{0}null";
/// In a row's text: a large value that was not sent.
pub const UNCHANGED: &str = "\u{0}unchanged";

/// `users (id bigint primary key, name text not null, email text)`
pub fn users() -> Arc<Table> {
    table(
        "users",
        &[("id", ColumnType::Int8), ("name", ColumnType::Text), ("email", ColumnType::Text)],
    )
}

/// A table of schema `public` whose first column is the key; all but the first two are nullable.
pub fn table(name: &str, columns: &[(&str, ColumnType)]) -> Arc<Table> {
    let column = |(index, (name, kind)): (usize, &(&str, ColumnType))| Column {
        name: (*name).to_owned(),
        kind: kind.clone(),
        type_name: type_name(kind).to_owned(),
        nullable: index > 1,
        key: index == 0,
        default: None,
        number: None,
        missing: None,
    };
    let columns = columns.iter().enumerate().map(column).collect();
    Arc::new(Table::new(1, "public".into(), name.into(), columns, ReplicaIdentity::Default))
}

/// The same table without its key.
pub fn keyless(table: &Table) -> Arc<Table> {
    let mut columns = table.columns.clone();
    for column in &mut columns {
        column.key = false;
    }
    let name = format!("{}_log", table.name);
    Arc::new(Table::new(2, table.schema.clone(), name, columns, ReplicaIdentity::Default))
}

fn type_name(kind: &ColumnType) -> &'static str {
    match kind {
        ColumnType::Bool => "boolean",
        ColumnType::Int4 => "integer",
        ColumnType::Int8 => "bigint",
        ColumnType::Float4 => "real",
        ColumnType::Float8 => "double precision",
        ColumnType::Numeric(_) => "numeric(18,4)",
        ColumnType::Date => "date",
        _ => "text",
    }
}

/// Makes a batch, one transaction at a time; the commit's LSN is also its time in seconds.
#[derive(Default)]
pub struct Batch {
    changes: Changes,
    ordinal: u64,
}

impl Batch {
    /// A batch that begins with a transaction committed at `commit`.
    pub fn at(commit: u64) -> Batch {
        Batch::default().commit(commit)
    }

    /// What follows belongs to another transaction.
    pub fn commit(mut self, commit: u64) -> Batch {
        self.changes.push_transaction(Transaction {
            commit: Lsn(commit),
            previous_commit: Lsn(commit.saturating_sub(1)),
            committed_at: i64::try_from(commit).expect("small") * 1_000_000,
            xid: 1,
        });
        self.ordinal = 0;
        self
    }

    pub fn insert(self, table: &Arc<Table>, new: &[&str]) -> Batch {
        self.push(Op::Insert, table, None, Some(new))
    }

    pub fn read(self, table: &Arc<Table>, new: &[&str]) -> Batch {
        self.push(Op::Read, table, None, Some(new))
    }

    pub fn update(self, table: &Arc<Table>, new: &[&str]) -> Batch {
        self.push(Op::Update, table, None, Some(new))
    }

    /// An update of a table with `REPLICA IDENTITY FULL`.
    pub fn replace(self, table: &Arc<Table>, old: &[&str], new: &[&str]) -> Batch {
        self.push(Op::Update, table, Some((true, old)), Some(new))
    }

    /// An update that moves a row of a table with the default identity to another key.
    pub fn rekey(self, table: &Arc<Table>, old: &[&str], new: &[&str]) -> Batch {
        self.push(Op::Update, table, Some((false, old)), Some(new))
    }

    /// A delete that tells the whole row.
    pub fn delete_full(self, table: &Arc<Table>, old: &[&str]) -> Batch {
        self.push(Op::Delete, table, Some((true, old)), None)
    }

    /// A delete that tells the key.
    pub fn delete(self, table: &Arc<Table>, old: &[&str]) -> Batch {
        self.push(Op::Delete, table, Some((false, old)), None)
    }

    pub fn truncate(self, table: &Arc<Table>) -> Batch {
        self.push(Op::Truncate, table, None, None)
    }

    fn push(
        mut self,
        op: Op,
        table: &Arc<Table>,
        old: Option<(bool, &[&str])>,
        new: Option<&[&str]>,
    ) -> Batch {
        self.ordinal += 1;
        let table = self.changes.intern_table(table);
        let old = old.map_or(Old::None, |(full, values)| {
            let row = self.row(values);
            if full { Old::Full(row) } else { Old::Key(row) }
        });
        let new = new.map(|values| self.row(values));
        let transaction = u32::try_from(self.changes.transactions.len()).expect("few") - 1;
        let lsn = self.changes.transactions[transaction as usize].commit;
        let change = Change { op, table, transaction, ordinal: self.ordinal, lsn, old, new };
        self.changes.list.push(change);
        self
    }

    fn row(&mut self, values: &[&str]) -> Row {
        let row = self.changes.begin_row();
        for value in values {
            let cell = match *value {
                NULL => Cell::NULL,
                UNCHANGED => Cell::UNCHANGED,
                text => self.changes.push_text(text.as_bytes()),
            };
            self.changes.push_cell(cell);
        }
        row
    }

    pub fn done(self) -> Changes {
        self.changes
    }
}

/// One line per change: `u 7:1 users (1,ann,-) -> (1,bob,=)`; `-` is NULL, `=` was not sent, a row of
/// which only the key is known is in brackets.
pub fn lines(changes: &Changes) -> Vec<String> {
    changes.list.iter().map(|change| line(changes, change)).collect()
}

fn line(changes: &Changes, change: &Change) -> String {
    let table = changes.table(change);
    let position = changes.position(change);
    let mut line =
        format!("{} {}:{} {}", change.op.code(), position.commit.0, position.ordinal, table.name);
    let cells = |row: Row| {
        let cell = |column| match changes.value(row, column) {
            Value::Null => "-".to_owned(),
            Value::Unchanged => "=".to_owned(),
            Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        };
        (0..table.columns.len()).map(cell).collect::<Vec<_>>().join(",")
    };
    let written = match change.old {
        Old::None => Ok(()),
        Old::Key(row) => write!(line, " [{}]", cells(row)),
        Old::Full(row) => write!(line, " ({})", cells(row)),
    };
    written.expect("text");
    if let Some(new) = change.new {
        write!(line, " -> ({})", cells(new)).expect("text");
    }
    line
}

/// What a test draws from; printed, and `TAILWATER_TEST_SEED` repeats one.
#[expect(clippy::print_stdout, reason = "a test that fails shows it")]
pub fn seed() -> u64 {
    let seed = std::env::var("TAILWATER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("TAILWATER_TEST_SEED={seed}");
    seed
}
