//! What rows are written, and how: the shapes of the benchmarks.

use tailwater_test_support::workload::SCHEMA;

/// Rows of a transaction where nothing else is said.
const TRANSACTION_ROWS: u64 = 1_000;
/// Columns of the wide table, the key included.
const WIDE_COLUMNS: u64 = 100;

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Inserts of the shop's users: 11 columns, about 200 bytes.
    Inserts,
    /// 60 % inserts, 30 % updates, 10 % deletes of users.
    Mixed {
        /// `REPLICA IDENTITY FULL`.
        full: bool,
    },
    /// Inserts of 100 columns.
    Wide,
    /// Inserts of 50 kB.
    BigValues,
    /// Inserts of one user a transaction.
    SmallTransactions,
    /// Inserts of users, all in one transaction.
    OneTransaction,
    /// Inserts of users into so many tables in turn.
    Tables(u64),
}

impl Shape {
    /// How many changes to make where `rows` are asked for: as many as take about as long.
    pub(super) fn events(self, rows: u64) -> u64 {
        let rows = match self {
            Shape::Wide => rows / 10,
            Shape::BigValues => rows / 200,
            Shape::SmallTransactions => rows / 5,
            _ => rows,
        };
        let unit = match self {
            Shape::BigValues | Shape::SmallTransactions | Shape::OneTransaction => 1,
            _ => TRANSACTION_ROWS,
        };
        rows.max(unit) / unit * unit
    }

    /// Makes the tables.
    pub(super) fn schema(self) -> String {
        match self {
            Shape::Wide => {
                let columns = (1..WIDE_COLUMNS).map(|n| match n % 4 {
                    0 => format!("c{n} bigint NOT NULL"),
                    1 => format!("c{n} text"),
                    2 => format!("c{n} double precision"),
                    _ => format!("c{n} timestamptz"),
                });
                let columns: Vec<_> = columns.collect();
                format!("CREATE TABLE wide (id bigint PRIMARY KEY, {})", columns.join(", "))
            }
            Shape::BigValues => "CREATE TABLE big (id bigint PRIMARY KEY, body text NOT NULL); \
                                 ALTER TABLE big ALTER body SET STORAGE EXTERNAL"
                .to_owned(),
            Shape::Mixed { full: true } => {
                format!("{SCHEMA}; ALTER TABLE users REPLICA IDENTITY FULL")
            }
            Shape::Tables(count) => {
                let table = |n| SCHEMA.replace("TABLE users", &format!("TABLE users_{n}"));
                (0..count).map(table).collect::<Vec<_>>().join("; ")
            }
            _ => SCHEMA.to_owned(),
        }
    }

    /// One statement that makes so many changes, a multiple of what [`events`](Self::events) gives.
    pub(super) fn fill(self, events: u64) -> String {
        let each = |step: u64, body: &str| {
            let last = events / step;
            format!("DO $do$ BEGIN FOR i IN 0..{last} - 1 LOOP {body}; COMMIT; END LOOP; END $do$")
        };
        let thousand = |of: u64| format!("generate_series(i * {of} + 1, (i + 1) * {of}) AS g");
        match self {
            Shape::Inserts => each(TRANSACTION_ROWS, &insert("users", &thousand(TRANSACTION_ROWS))),
            Shape::SmallTransactions => each(1, &insert("users", "(SELECT i + 1 AS g) AS one")),
            Shape::OneTransaction => insert("users", &format!("generate_series(1, {events}) AS g")),
            Shape::Mixed { .. } => each(
                TRANSACTION_ROWS,
                &format!(
                    "{}; UPDATE users SET lang = 'de', updated_at = clock_timestamp() \
                     WHERE id > i * 600 AND id <= i * 600 + 300; \
                     DELETE FROM users WHERE id > i * 600 + 500 AND id <= (i + 1) * 600",
                    insert("users", &thousand(600)),
                ),
            ),
            Shape::Wide => {
                let values = (1..WIDE_COLUMNS).map(|n| match n % 4 {
                    0 => format!("g * {n}"),
                    1 => format!("'value {n} of ' || g"),
                    2 => format!("g / {n}.0"),
                    _ => "now()".to_owned(),
                });
                let values: Vec<_> = values.collect();
                let from = thousand(TRANSACTION_ROWS);
                let body = format!("INSERT INTO wide SELECT g, {} FROM {from}", values.join(", "));
                each(TRANSACTION_ROWS, &body)
            }
            Shape::BigValues => {
                each(1, "INSERT INTO big VALUES (i + 1, repeat(md5(i::text), 1600))")
            }
            Shape::Tables(count) => {
                // A statement whose table is computed is a template of `format`, where % is special.
                let rows = TRANSACTION_ROWS;
                let from = format!("generate_series(%2$s * {rows} + 1, (%2$s + 1) * {rows}) AS g");
                let body = insert("<table>", "<from>").replace('%', "%%").replace('\'', "''");
                let body = body.replace("<table>", "users_%1$s").replace("<from>", &from);
                each(rows, &format!("EXECUTE format('{body}', i % {count}, i)"))
            }
        }
    }
}

impl Shape {
    /// A transaction of so many users, with ids from `first` on.
    pub(super) fn users(first: u64, count: u64) -> String {
        insert("users", &format!("generate_series({first}, {}) AS g", first + count - 1))
    }
}

/// Inserts a user for each `g`.
fn insert(table: &str, from: &str) -> String {
    format!(
        "INSERT INTO {table} (id, name, email, address, phone_number, email_verified, lang) \
         SELECT g, 'Ada Brandt ' || g, 'ada.brandt.' || g || '@shop.example.net', \
         'Bergstrasse ' || g % 200 || ', 10115 Berlin', '+351 9' || lpad(g::text, 8, '0'), \
         g % 2 = 0, 'pt-BR' FROM {from}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_makes_whole_transactions() {
        for shape in [Shape::Inserts, Shape::Wide, Shape::Mixed { full: false }, Shape::Tables(7)] {
            assert_eq!(shape.events(12_345) % TRANSACTION_ROWS, 0, "{shape:?}");
            assert!(shape.events(1) > 0, "{shape:?}");
        }
    }
}
