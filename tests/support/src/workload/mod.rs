//! The live workload of a small shop: one `users` table, inserts, updates and deletes at a rate, and beside
//! it tables of other kinds where they are asked for.

mod alters;
mod kinds;
mod line;
mod runner;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

pub use self::alters::{ALTERED, Alters, Step};
pub use self::kinds::{KINDS, KINDS_SCHEMA, Kind, Kinds};
pub use self::runner::{Counts, Runner};

/// Creates the shop's table.
pub const SCHEMA: &str = "\
CREATE TABLE users (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    address text,
    phone_number text,
    email_verified boolean NOT NULL DEFAULT false,
    onboarded boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false,
    lang varchar(8) NOT NULL DEFAULT 'en',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
)";

const FIRST: [&str; 12] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grete", "Hiro", "Inês", "José", "Kwame",
    "Łucja",
];
const LAST: [&str; 10] = [
    "Almeida", "Brandt", "Costa", "Duval", "Eriksen", "Fischer", "García", "Hansen", "Ito",
    "O'Brien",
];
const STREETS: [&str; 6] =
    ["Harbour Road", "Mill Lane", "Rue de l'Église", "Canal Street", "Bergstraße", "Quay 7"];
const DOMAINS: [&str; 4] = ["example.com", "example.org", "shop.example.net", "exemplo.example"];
const LANGUAGES: [&str; 6] = ["en", "de", "fr", "pt", "ja", "pt-BR"];

/// Makes the shop's statements, the same ones for the same seed.
#[derive(Debug)]
pub struct Shop {
    random: StdRng,
    live: Vec<i64>,
    next_id: i64,
}

/// What a statement does to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A new user.
    Insert,
    /// A change of some columns.
    Update,
    /// A user under a new key.
    Rekey,
    /// A user gone.
    Delete,
}

impl Shop {
    /// An empty shop.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), live: Vec::new(), next_id: 1 }
    }

    /// An insert of `count` users at once, to begin with.
    pub fn insert_many(&mut self, count: usize) -> String {
        let mut sql = String::from(
            "INSERT INTO users (id, name, email, address, phone_number, lang) VALUES ",
        );
        for index in 0..count {
            sql.push_str(if index == 0 { "" } else { ", " });
            let row = self.new_user();
            sql.push_str(&row);
        }
        sql
    }

    /// The next statement: mostly updates, inserts a little ahead of deletes, now and then a new key.
    pub fn next_statement(&mut self) -> (Action, String) {
        let action = match self.random.random_range(0..100) {
            _ if self.live.is_empty() => Action::Insert,
            0..35 => Action::Insert,
            35..80 => Action::Update,
            80..82 => Action::Rekey,
            _ => Action::Delete,
        };
        let sql = match action {
            Action::Insert => self.insert_many(1),
            Action::Update => self.update(),
            Action::Rekey => self.rekey(),
            Action::Delete => self.delete(),
        };
        (action, sql)
    }

    fn new_user(&mut self) -> String {
        let id = self.new_id();
        self.live.push(id);
        let (first, last) = (self.pick(&FIRST), self.pick(&LAST));
        let address = match self.random.random_range(0..10) {
            0 => "NULL".to_owned(),
            _ => quote(&format!("{} {}", self.pick(&STREETS), self.random.random_range(1..200))),
        };
        let phone = match self.random.random_range(0..5) {
            0 => "NULL".to_owned(),
            _ => format!("'+351 9{:08}'", self.random.random_range(0..100_000_000)),
        };
        let name = quote(&format!("{first} {last}"));
        let (email, language) = (self.email(id), self.pick(&LANGUAGES));
        format!("({id}, {name}, '{email}', {address}, {phone}, '{language}')")
    }

    fn update(&mut self) -> String {
        let index = self.any_live();
        let id = self.live[index];
        let change = match self.random.random_range(0..6) {
            0 => "email_verified = NOT email_verified".to_owned(),
            1 => "onboarded = true".to_owned(),
            2 => "deleted = NOT deleted".to_owned(),
            3 => format!("lang = '{}'", self.pick(&LANGUAGES)),
            4 => "phone_number = NULL".to_owned(),
            _ => {
                let number = self.random.random_range(1..1_000_000);
                format!("email = '{}'", self.email(number))
            }
        };
        format!("UPDATE users SET updated_at = clock_timestamp(), {change} WHERE id = {id}")
    }

    fn rekey(&mut self) -> String {
        let (index, new) = (self.any_live(), self.new_id());
        let old = std::mem::replace(&mut self.live[index], new);
        format!("UPDATE users SET id = {new}, updated_at = clock_timestamp() WHERE id = {old}")
    }

    fn delete(&mut self) -> String {
        let index = self.any_live();
        let id = self.live.swap_remove(index);
        format!("DELETE FROM users WHERE id = {id}")
    }

    fn new_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn email(&mut self, number: i64) -> String {
        format!("{}.{number}@{}", self.pick(&FIRST).to_lowercase(), self.pick(&DOMAINS))
    }

    fn any_live(&mut self) -> usize {
        self.random.random_range(0..self.live.len())
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.random.random_range(0..from.len())]
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_statements() {
        let statements = |seed| {
            let (mut shop, mut kinds) = (Shop::new(seed), Kinds::new(seed));
            let both = |_| [shop.next_statement().1, kinds.next_statement().1];
            (0..200).flat_map(both).collect::<Vec<_>>()
        };
        assert_eq!(statements(7), statements(7));
        assert_ne!(statements(7), statements(8));
    }
}
