//! A table whose columns change between, and amid, the changes of its rows: the same statements for the same seed.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Rows there are before the first change.
const FIRST_ROWS: i64 = 20;
/// A transaction has between one and this many statements.
const LARGEST_TRANSACTION: usize = 6;
/// More columns than this are not added, and fewer than [`FEWEST_COLUMNS`] not left.
const MOST_COLUMNS: usize = 9;
const FEWEST_COLUMNS: usize = 3;

/// What a column holds: types whose values are told alike by PostgreSQL and over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Int,
    Bigint,
    Text,
    /// Text that is stored out of line, which an update that leaves it alone does not tell.
    Large,
    Boolean,
    Date,
    Uuid,
    Double,
}

const TYPES: [Type; 8] = [
    Type::Int,
    Type::Bigint,
    Type::Text,
    Type::Large,
    Type::Boolean,
    Type::Date,
    Type::Uuid,
    Type::Double,
];

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Int => "int",
            Type::Bigint => "bigint",
            Type::Text | Type::Large => "text",
            Type::Boolean => "boolean",
            Type::Date => "date",
            Type::Uuid => "uuid",
            Type::Double => "float8",
        }
    }

    /// As SQL. That of a default is short.
    fn value(self, random: &mut StdRng, is_default: bool) -> String {
        let number = random.random_range(0..1_000_000);
        match self {
            Type::Int | Type::Bigint => number.to_string(),
            Type::Large if !is_default => format!(
                "(SELECT string_agg(md5('{number}-' || n), '') FROM generate_series(1, 100) n)"
            ),
            Type::Text | Type::Large => format!("'{number} quoted \"twice\"'"),
            Type::Boolean => (number % 2 == 0).to_string(),
            Type::Date => format!("'{}-{:02}-29'", 2000 + number % 30, 3 + number % 9),
            Type::Uuid => format!("'00000000-0000-0000-0000-{number:012}'"),
            Type::Double => format!("{number}.5"),
        }
    }
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    holds: Type,
    not_null: bool,
}

/// What a transaction asks of those who follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The whole transaction.
    pub sql: String,
    /// It changes columns, or the table itself.
    pub alters: bool,
}

/// Makes the transactions.
#[derive(Debug)]
pub struct Alters {
    random: StdRng,
    columns: Vec<Column>,
    key: String,
    live: BTreeSet<i64>,
    next_row: i64,
    next_name: u32,
    /// Names that a column had.
    gone: Vec<String>,
    full_identity: bool,
}

/// The table, in `public`.
pub const ALTERED: &str = "altered";

impl Alters {
    /// A table of three columns.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let column = |name: &str, holds, not_null| Column { name: name.into(), holds, not_null };
        Self {
            random: StdRng::seed_from_u64(seed),
            columns: vec![
                column("title", Type::Text, true),
                column("number", Type::Int, false),
                column("body", Type::Large, false),
            ],
            key: "id".into(),
            live: (1..=FIRST_ROWS).collect(),
            next_row: FIRST_ROWS + 1,
            next_name: 1,
            gone: Vec::new(),
            full_identity: false,
        }
    }

    /// Makes the table and its first rows.
    #[must_use]
    pub fn schema(&self) -> String {
        format!(
            "CREATE TABLE {ALTERED} (id bigint PRIMARY KEY, title text NOT NULL, number int, body text);
             ALTER TABLE {ALTERED} ALTER body SET STORAGE EXTERNAL;
             INSERT INTO {ALTERED} SELECT i, 'title ' || i, i, repeat(md5(i::text), 100)
             FROM generate_series(1, {FIRST_ROWS}) i"
        )
    }

    /// The next transaction. It ends with a change of a row, at which a change of columns is noticed.
    pub fn next_step(&mut self) -> Step {
        let mut step = Step { sql: "BEGIN".into(), alters: false };
        for _ in 0..self.random.random_range(1..=LARGEST_TRANSACTION) {
            let statement = match self.random.random_range(0..100) {
                0..65 => self.change(),
                65..67 => {
                    self.live.clear();
                    format!("TRUNCATE {ALTERED}")
                }
                dice => {
                    step.alters = true;
                    let rewriting = if dice < 72 { self.rewrite() } else { None };
                    rewriting.unwrap_or_else(|| self.alter())
                }
            };
            step.sql.push_str(";\n");
            step.sql.push_str(&statement);
        }
        step.sql = format!("{};\n{};\nCOMMIT", step.sql, self.insert());
        step
    }

    fn change(&mut self) -> String {
        let dice = self.random.random_range(0..100);
        let Some(row) = self.any_row().filter(|_| dice >= 30) else { return self.insert() };
        let key = self.key.clone();
        if dice < 45 {
            self.live.remove(&row);
            return format!("DELETE FROM {ALTERED} WHERE {key} = {row}");
        }
        let index = self.random.random_range(0..self.columns.len());
        let (name, value) = (self.columns[index].name.clone(), self.value_of(index));
        let set = format!("UPDATE {ALTERED} SET {name} = {value}");
        match dice {
            45..50 => set,
            50..58 => {
                let new = self.new_row();
                self.live.remove(&row);
                format!("{set}, {key} = {new} WHERE {key} = {row}")
            }
            _ => format!("{set} WHERE {key} = {row}"),
        }
    }

    fn insert(&mut self) -> String {
        let mut names = vec![self.key.clone()];
        let mut values = vec![self.new_row().to_string()];
        for index in 0..self.columns.len() {
            if self.columns[index].not_null || self.random.random_range(0..3) > 0 {
                names.push(self.columns[index].name.clone());
                values.push(self.value_of(index));
            }
        }
        format!("INSERT INTO {ALTERED} ({}) VALUES ({})", names.join(", "), values.join(", "))
    }

    fn value_of(&mut self, index: usize) -> String {
        let Column { holds, not_null, .. } = self.columns[index];
        match self.random.random_range(0..5) {
            0 if !not_null => "NULL".into(),
            _ => holds.value(&mut self.random, false),
        }
    }

    /// Changes columns, or how the rows are told, without writing the table anew, of which the log tells nothing.
    fn alter(&mut self) -> String {
        let index = self.random.random_range(0..self.columns.len());
        match self.random.random_range(0..100) {
            0..25 if self.columns.len() < MOST_COLUMNS => self.add(),
            25..40 if self.columns.len() > FEWEST_COLUMNS => {
                let dropped = self.columns.remove(index).name;
                self.gone.push(dropped.clone());
                format!("ALTER TABLE {ALTERED} DROP {dropped}")
            }
            40..55 => {
                let new = self.free_name();
                let old = std::mem::replace(&mut self.columns[index].name, new.clone());
                self.gone.push(old.clone());
                format!("ALTER TABLE {ALTERED} RENAME {old} TO {new}")
            }
            55..65 => self.swap(index),
            65..70 => {
                let new = self.free_name();
                let old = std::mem::replace(&mut self.key, new.clone());
                format!("ALTER TABLE {ALTERED} RENAME {old} TO {new}")
            }
            70..80 => self.set_null(index),
            80..86 => {
                self.full_identity = !self.full_identity;
                let identity = if self.full_identity { "FULL" } else { "DEFAULT" };
                format!("ALTER TABLE {ALTERED} REPLICA IDENTITY {identity}")
            }
            86..93 => {
                let Column { name, holds, .. } = self.columns[index].clone();
                let value = holds.value(&mut self.random, true);
                format!("ALTER TABLE {ALTERED} ALTER {name} SET DEFAULT {value}")
            }
            _ => {
                let Column { name, holds, not_null } = self.columns.remove(index);
                let again = self.random.random_range(0..2) == 0;
                let holds = if again { holds } else { self.any_type() };
                let value = holds.value(&mut self.random, true);
                let default =
                    if not_null { format!(" NOT NULL DEFAULT {value}") } else { String::new() };
                self.columns.push(Column { name: name.clone(), holds, not_null });
                let more = storage(&name, holds);
                let kind = holds.name();
                format!(
                    "ALTER TABLE {ALTERED} DROP {name};\nALTER TABLE {ALTERED} ADD {name} {kind}{default}{more}"
                )
            }
        }
    }

    fn add(&mut self) -> String {
        let (name, holds) = (self.free_name(), self.any_type());
        let not_null = self.random.random_range(0..3) == 0;
        let default = match self.random.random_range(0..2) {
            0 if !not_null => String::new(),
            _ => format!(" DEFAULT {}", holds.value(&mut self.random, true)),
        };
        let null = if not_null { " NOT NULL" } else { "" };
        self.columns.push(Column { name: name.clone(), holds, not_null });
        let (kind, more) = (holds.name(), storage(&name, holds));
        format!("ALTER TABLE {ALTERED} ADD {name} {kind}{null}{default}{more}")
    }

    /// Two columns that change their names for each other's.
    fn swap(&mut self, index: usize) -> String {
        let other = (index + 1) % self.columns.len();
        let (one, two) = (self.columns[index].name.clone(), self.columns[other].name.clone());
        self.columns[index].name.clone_from(&two);
        self.columns[other].name.clone_from(&one);
        let rename = |old: &str, new: &str| format!("ALTER TABLE {ALTERED} RENAME {old} TO {new}");
        [rename(&one, "aside"), rename(&two, &one), rename("aside", &two)].join(";\n")
    }

    fn set_null(&mut self, index: usize) -> String {
        let Column { name, holds, not_null } = self.columns[index].clone();
        self.columns[index].not_null = !not_null;
        if not_null {
            return format!("ALTER TABLE {ALTERED} ALTER {name} DROP NOT NULL");
        }
        let value = holds.value(&mut self.random, false);
        format!(
            "UPDATE {ALTERED} SET {name} = {value} WHERE {name} IS NULL;
             ALTER TABLE {ALTERED} ALTER {name} SET NOT NULL"
        )
    }

    /// Nothing if there is nothing to widen.
    fn rewrite(&mut self) -> Option<String> {
        let widened: Vec<usize> = (0..self.columns.len())
            .filter(|index| self.columns[*index].holds == Type::Int)
            .collect();
        let index = *widened.choose(&mut self.random)?;
        let holds = *[Type::Bigint, Type::Text].choose(&mut self.random)?;
        self.columns[index].holds = holds;
        let (name, kind) = (&self.columns[index].name, holds.name());
        Some(format!(
            "ALTER TABLE {ALTERED} ALTER {name} DROP DEFAULT;
             ALTER TABLE {ALTERED} ALTER {name} TYPE {kind}"
        ))
    }

    fn any_type(&mut self) -> Type {
        TYPES[self.random.random_range(0..TYPES.len())]
    }

    /// One that no column has; at times one that another column had.
    fn free_name(&mut self) -> String {
        if !self.gone.is_empty() && self.random.random_range(0..3) == 0 {
            let index = self.random.random_range(0..self.gone.len());
            return self.gone.swap_remove(index);
        }
        self.next_name += 1;
        format!("c{}", self.next_name)
    }

    fn any_row(&mut self) -> Option<i64> {
        let at = self.random.random_range(0..self.live.len().max(1));
        self.live.iter().nth(at).copied()
    }

    fn new_row(&mut self) -> i64 {
        let row = self.next_row;
        self.next_row += 1;
        self.live.insert(row);
        row
    }
}

/// Not compressed, so that it is out of line.
fn storage(name: &str, holds: Type) -> String {
    match holds {
        Type::Large => format!(";\nALTER TABLE {ALTERED} ALTER {name} SET STORAGE EXTERNAL"),
        _ => String::new(),
    }
}
