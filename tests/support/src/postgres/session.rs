//! A connection that stays open, for whoever asks many small questions.

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A session, over a unix socket or plain TCP.
#[derive(Debug)]
pub struct Session {
    client: Client,
    runtime: Runtime,
}

impl Session {
    /// Connects to the database at a libpq URL.
    pub fn open(url: &str) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            // Ends with the client, and its errors are the client's.
            tokio::spawn(connection);
            anyhow::Ok(client)
        });
        Ok(Self { client: client.context("open a session")?, runtime })
    }

    /// Runs SQL statements, each in its own transaction unless they say otherwise.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.runtime.block_on(self.client.batch_execute(sql)).context("run a statement")
    }

    /// The first column of a query's first row, in PostgreSQL's text form; none without a row or
    /// for NULL.
    pub fn value(&self, sql: &str) -> Result<Option<String>> {
        let answer = self.runtime.block_on(self.client.simple_query(sql)).context("ask")?;
        Ok(answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }
}
