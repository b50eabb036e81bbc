//! One test's database.

use anyhow::Result;

use super::Postgres;

/// A database of one's own on a [`Postgres`]. It goes with the server: dropping it would fail while
/// the slots that a test made in it are in use.
#[derive(Debug)]
pub struct Database<'a> {
    postgres: &'a Postgres,
    name: String,
}

impl<'a> Database<'a> {
    pub(super) fn new(postgres: &'a Postgres, name: String) -> Self {
        Self { postgres, name }
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server.
    #[must_use]
    pub fn postgres(&self) -> &'a Postgres {
        self.postgres
    }

    /// See [`Postgres::url`].
    #[must_use]
    pub fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// See [`Postgres::tcp_url`].
    #[must_use]
    pub fn tcp_url(&self) -> String {
        self.postgres.tcp_url(&self.name)
    }

    /// See [`Postgres::execute`].
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.postgres.execute(&self.name, sql)
    }

    /// See [`Postgres::query`].
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.postgres.query(&self.name, sql)
    }

    /// Ends the walsenders of this database; how many there were.
    pub fn kill_walsenders(&self) -> Result<usize> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE backend_type = 'walsender' AND datname = current_database()";
        Ok(self.query(sql)?.len())
    }

    /// Drops the slots of this database that nobody uses, so that they pin no WAL; how many.
    pub fn drop_idle_slots(&self) -> Result<usize> {
        let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                   WHERE database = current_database() AND NOT active";
        Ok(self.query(sql)?.len())
    }
}
