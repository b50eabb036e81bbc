//! A workload's connection, which may be told to outlive the server's restarts.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

use crate::wait_until_async;

/// A server that restarts is back by then.
const BACK: Duration = Duration::from_secs(60);

/// One row, the number of the transaction that was committed last. A transaction's own id would not do: after a
/// crash that came before the log was on the disk, the server gives it to another one.
pub(super) const TURNS: &str = "CREATE TABLE turns (id int PRIMARY KEY, number bigint NOT NULL);
                                INSERT INTO turns VALUES (1, 0)";

/// Over which transactions are committed, one after the other.
pub(super) struct Line {
    url: String,
    client: Client,
    /// How many were committed, if the line outlives restarts.
    turns: Option<i64>,
}

impl Line {
    /// Where it is to outlive restarts, over the table of [`TURNS`].
    pub(super) async fn open(url: &str, restarts: bool) -> Result<Self> {
        let client = connect(url).await?;
        Ok(Self { url: url.to_owned(), client, turns: restarts.then_some(0) })
    }

    /// Commits the statements once, each of which ends with a semicolon.
    pub(super) async fn commit(&mut self, statements: &str) -> Result<()> {
        let Some(turns) = self.turns else {
            let sql = format!("BEGIN; {statements} COMMIT");
            return Ok(self.client.batch_execute(&sql).await?);
        };
        let turn = turns + 1;
        let sql = format!("BEGIN; {statements} UPDATE turns SET number = {turn}; COMMIT");
        loop {
            match self.client.batch_execute(&sql).await {
                Ok(()) => break,
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(error.into()),
            }
            // The answer to the commit may be what was lost.
            if self.reconnect().await? == turn {
                break;
            }
        }
        self.turns = Some(turn);
        Ok(())
    }

    /// Waits until the server is back; the last turn that it has.
    async fn reconnect(&mut self) -> Result<i64> {
        let back = RefCell::new(None);
        wait_until_async(BACK, "the workload's server to be back", async || {
            let found = again(&self.url).await.ok();
            let is_back = found.is_some();
            back.replace(found);
            is_back
        })
        .await?;
        let (client, turn) = back.into_inner().context("a connection")?;
        self.client = client;
        Ok(turn)
    }
}

async fn again(url: &str) -> Result<(Client, i64)> {
    let client = connect(url).await?;
    let turn = client.query_one("SELECT number FROM turns", &[]).await?.try_get(0)?;
    Ok((client, turn))
}

/// Whether it is the connection's end, and not a statement that is wrong.
fn is_lost(error: &Error) -> bool {
    let ends = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    error.code().is_none_or(|code| ends.contains(code))
}

pub(super) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("connect the workload")?;
    // Ends with the client, and its errors are the client's.
    tokio::spawn(connection);
    Ok(client)
}
