//! Tables that are harder to mirror than the shop's, changed beside it: with values that are stored out of
//! line and left alone, truncated now and then, with full replica identity, partitioned. Their keys are few,
//! so that a key soon belongs to another row.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Action;

/// A table of them. Each has its key, `revision`, `title` and `body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, in `public`.
    pub name: &'static str,
    /// The columns of its primary key.
    pub key: &'static [&'static str],
    /// How many keys there are.
    keys: i64,
    /// Rows there are before the workload begins.
    first: usize,
    /// A body's length, in pieces of 32 bytes.
    pieces: (u32, u32),
    /// Truncates in a thousand statements.
    truncates: u32,
}

/// Values of 10 to 50 kB, with the default replica identity.
pub const DOCUMENTS: Kind = Kind {
    name: "documents",
    key: &["id"],
    keys: 48,
    first: 30,
    pieces: (320, 1_600),
    truncates: 8,
};
/// Truncated often, alone and together with the documents.
pub const CARTS: Kind =
    Kind { name: "carts", key: &["id"], keys: 200, first: 100, pieces: (1, 3), truncates: 40 };
/// With full replica identity.
pub const ACCOUNTS: Kind =
    Kind { name: "accounts", key: &["id"], keys: 48, first: 30, pieces: (96, 400), truncates: 4 };
/// Partitioned by a part of the key, so that a new key may be in another partition.
pub const READINGS: Kind = Kind {
    name: "readings",
    key: &["region", "id"],
    keys: 90,
    first: 60,
    pieces: (96, 400),
    truncates: 4,
};

/// All of them.
pub const KINDS: [Kind; 4] = [DOCUMENTS, CARTS, ACCOUNTS, READINGS];

/// Creates the tables. Bodies are not compressed, so that they are out of line; one partition has its
/// columns in another order, and had one more.
pub const KINDS_SCHEMA: &str = "\
CREATE TABLE documents (id bigint PRIMARY KEY, revision int NOT NULL, title text, body text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
CREATE TABLE carts (id bigint PRIMARY KEY, revision int NOT NULL, title text, body text);
CREATE TABLE accounts (id bigint PRIMARY KEY, revision int NOT NULL, title text, body text);
ALTER TABLE accounts ALTER body SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE readings (
    region text, id bigint, revision int NOT NULL, title text, body text, PRIMARY KEY (region, id)
) PARTITION BY LIST (region);
CREATE TABLE readings_north PARTITION OF readings FOR VALUES IN ('north');
CREATE TABLE readings_south (
    body text, gone int, title text, revision int NOT NULL, id bigint, region text,
    PRIMARY KEY (region, id)
);
ALTER TABLE readings_south DROP gone;
ALTER TABLE readings ATTACH PARTITION readings_south FOR VALUES IN ('south');
CREATE TABLE readings_rest PARTITION OF readings DEFAULT;
ALTER TABLE readings ALTER body SET STORAGE EXTERNAL";

impl Kind {
    /// The key of that number, as SQL, column by column.
    fn key_of(&self, number: i64) -> Vec<String> {
        match self.key {
            [_] => vec![number.to_string()],
            _ => {
                let region = match number % 3 {
                    0 => "north",
                    1 => "south",
                    _ => "elsewhere",
                };
                vec![format!("'{region}'"), (number / 3).to_string()]
            }
        }
    }

    fn equals(&self, number: i64, between: &str) -> String {
        let columns = self.key.iter().zip(self.key_of(number));
        columns.map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(between)
    }

    fn row(&self, number: i64) -> String {
        self.equals(number, " AND ")
    }
}

/// Makes statements that change these tables, the same ones for the same seed.
#[derive(Debug)]
pub struct Kinds {
    random: StdRng,
    live: [BTreeSet<i64>; KINDS.len()],
}

impl Kinds {
    /// Empty tables.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(!seed), live: Default::default() }
    }

    /// Inserts of the first rows.
    pub fn first_rows(&mut self) -> Vec<String> {
        let mut inserts = Vec::new();
        for (index, kind) in KINDS.iter().enumerate() {
            inserts.extend((0..kind.first).map(|_| self.insert(index).1));
        }
        inserts
    }

    /// The next statement, and what it does to a row, or to some; nothing if it empties a table.
    pub fn next_statement(&mut self) -> (Option<Action>, String) {
        let index = self.random.random_range(0..KINDS.len());
        let kind = KINDS[index];
        let dice = self.random.random_range(0..1_000);
        if dice < kind.truncates {
            return (None, self.truncate(index));
        }
        let room = i64::try_from(self.live[index].len()).is_ok_and(|live| live < kind.keys);
        let (action, sql) = match self.random.random_range(0..100) {
            _ if self.live[index].is_empty() => self.insert(index),
            0..30 if room => self.insert(index),
            0..55 => (Action::Update, self.touch(kind, index)),
            55..66 => self.rewrite(index),
            66..78 if room => self.rekey(index, ""),
            78..82 if room => {
                let body = format!(", body = {}", self.body(kind));
                self.rekey(index, &body)
            }
            _ => self.delete(index),
        };
        (Some(action), sql)
    }

    fn insert(&mut self, index: usize) -> (Action, String) {
        let (kind, number) = (KINDS[index], self.free(index));
        self.live[index].insert(number);
        let (columns, key) = (kind.key.join(", "), kind.key_of(number).join(", "));
        let (title, body) = (self.random.random::<u32>(), self.body(kind));
        let name = kind.name;
        let sql = format!(
            "INSERT INTO {name} ({columns}, revision, title, body) VALUES ({key}, 0, '{title}', {body})"
        );
        (Action::Insert, sql)
    }

    /// Leaves the body alone, of one row or of all.
    fn touch(&mut self, kind: Kind, index: usize) -> String {
        let (number, title) = (self.any_live(index), self.random.random::<u32>());
        let name = kind.name;
        let row = match self.random.random_range(0..50) {
            0 => String::new(),
            _ => format!(" WHERE {}", kind.row(number)),
        };
        format!("UPDATE {name} SET revision = revision + 1, title = '{title}'{row}")
    }

    fn rewrite(&mut self, index: usize) -> (Action, String) {
        let (kind, number) = (KINDS[index], self.any_live(index));
        let body = match self.random.random_range(0..6) {
            0 => "NULL".to_owned(),
            _ => self.body(kind),
        };
        let (name, row) = (kind.name, kind.row(number));
        (
            Action::Update,
            format!("UPDATE {name} SET revision = revision + 1, body = {body} WHERE {row}"),
        )
    }

    fn rekey(&mut self, index: usize, more: &str) -> (Action, String) {
        let (kind, old, new) = (KINDS[index], self.any_live(index), self.free(index));
        self.live[index].remove(&old);
        self.live[index].insert(new);
        let (name, key, row) = (kind.name, kind.equals(new, ", "), kind.row(old));
        (
            Action::Rekey,
            format!("UPDATE {name} SET {key}, revision = revision + 1{more} WHERE {row}"),
        )
    }

    fn delete(&mut self, index: usize) -> (Action, String) {
        let (kind, number) = (KINDS[index], self.any_live(index));
        self.live[index].remove(&number);
        (Action::Delete, format!("DELETE FROM {} WHERE {}", kind.name, kind.row(number)))
    }

    fn truncate(&mut self, index: usize) -> String {
        let together = KINDS[index] == CARTS && self.random.random_range(0..4) == 0;
        let emptied = if together { 0..=index } else { index..=index };
        let names: Vec<_> = KINDS[emptied.clone()].iter().map(|kind| kind.name).collect();
        self.live[emptied].iter_mut().for_each(BTreeSet::clear);
        format!("TRUNCATE {}", names.join(", "))
    }

    /// Made in the server, so that statements stay short.
    fn body(&mut self, kind: Kind) -> String {
        let (fewest, most) = kind.pieces;
        let pieces = self.random.random_range(fewest..=most);
        let number = self.random.random::<u32>();
        format!(
            "(SELECT string_agg(md5('{number}-' || n), '') FROM generate_series(1, {pieces}) n)"
        )
    }

    fn any_live(&mut self, index: usize) -> i64 {
        let at = self.random.random_range(0..self.live[index].len());
        *self.live[index].iter().nth(at).expect("it is in the set")
    }

    fn free(&mut self, index: usize) -> i64 {
        loop {
            let number = self.random.random_range(0..KINDS[index].keys);
            if !self.live[index].contains(&number) {
                return number;
            }
        }
    }
}
