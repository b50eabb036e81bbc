//! Making a slot. The server lets it begin where every transaction that was open before has ended, so
//! this may take as long as the longest of them.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tracing::{debug, info, warn};

use super::connection::Connection;
use super::error::Error;
use super::preflight::quote_ident;
use crate::position::Lsn;
use crate::serve::Leg;

/// After so long it is looked what the slot waits for, and again each time.
const LOOK: Duration = Duration::from_secs(2);

/// The transactions that have to end first; a prepared one has no process, and no start that is known.
const WAITS_FOR: &str = "
    SELECT b.pid, coalesce(a.usename::text, ''),
           coalesce(extract(epoch FROM now() - a.xact_start), 0)::int8
    FROM pg_replication_slots s
    CROSS JOIN LATERAL unnest(pg_blocking_pids(s.active_pid)) b (pid)
    LEFT JOIN pg_stat_activity a ON a.pid = b.pid
    WHERE s.slot_name = $1 LIMIT 1";

/// The server does not notice by itself that nobody waits for the slot any more.
const GIVE_UP: &str = "
    SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
    WHERE slot_name = $1 AND active_pid IS NOT NULL";

/// A new slot's exported snapshot. It lives until its connection's next command.
#[derive(Debug)]
pub struct Export {
    /// The snapshot shows exactly what committed before this LSN.
    pub consistent_at: Lsn,
    /// The snapshot's name.
    pub snapshot: String,
}

/// The slot to make.
#[derive(Debug)]
pub struct Order<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it goes with its connection.
    pub temporary: bool,
    /// Whether standbys may keep a copy of it, with which the stream goes on when one is promoted.
    pub failover: bool,
    /// To look at the server meanwhile.
    pub client: &'a Client,
    /// To run that on.
    pub runtime: &'a Handle,
    /// What stands still until the slot is there, if anything does.
    pub leg: Option<&'a Leg>,
}

impl Order<'_> {
    /// Creates the slot; nothing if `goes_on` said no before it was there, and then there is none.
    ///
    /// # Errors
    /// What the server refused, or the connection's error.
    pub fn carry_out(
        &self,
        connection: &mut Connection,
        goes_on: impl Fn() -> bool,
    ) -> Result<Option<Export>, Error> {
        let doing = "creating a slot; this waits for the transactions that are open now";
        match self.temporary {
            // Tried every few seconds while the server has none to spare; what it waits for is said below.
            true => debug!(slot = self.name, "{doing}"),
            false => info!(slot = self.name, "{doing}"),
        }
        let name = quote_ident(self.name);
        let command = match (self.temporary, self.failover) {
            (true, _) => {
                format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
            }
            (false, false) => {
                format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput EXPORT_SNAPSHOT")
            }
            (false, true) => format!(
                "CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)"
            ),
        };
        let (mut looked, mut said) = (Instant::now(), false);
        let row = connection.query_row_while(&command, || {
            if looked.elapsed() >= LOOK {
                self.say_what_it_waits_for(&mut said);
                looked = Instant::now();
            }
            goes_on()
        })?;
        let Some(row) = row else {
            self.give_up();
            return Ok(None);
        };
        let text = |index: usize| row.get(index).cloned().flatten();
        let parsed = text(1).and_then(|lsn| lsn.parse().ok()).zip(text(2));
        let (consistent_at, snapshot) = parsed.ok_or(Error::Protocol('D'))?;
        Ok(Some(Export { consistent_at, snapshot }))
    }

    /// In `/readyz` as it is now, and in the log once.
    fn say_what_it_waits_for(&self, said: &mut bool) {
        let name = self.name;
        let asked = self.ask(self.client.query_opt(WAITS_FOR, &[&name]));
        let Some((pid, user, open_s)) = asked
            .flatten()
            .map(|row| (row.get::<_, i32>(0), row.get::<_, String>(1), row.get::<_, i64>(2)))
        else {
            return;
        };
        if let Some(leg) = self.leg {
            let whose = match pid {
                0 => "a prepared transaction".to_owned(),
                pid => format!("the transaction of process {pid}, open for {open_s} s"),
            };
            leg.stalled(format!("slot {name} waits for {whose}, to begin after it"));
        }
        if !std::mem::replace(said, true) {
            warn!(slot = name, pid, user, open_s, "the slot waits for an open transaction to end");
        }
    }

    fn give_up(&self) {
        let name = self.name;
        if self.ask(self.client.query_opt(GIVE_UP, &[&name])).is_none() {
            warn!(
                slot = name,
                "the server may still be making the slot; drop it if it stays unused"
            );
        }
    }

    fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Option<T> {
        let answer = self.runtime.block_on(async { timeout(LOOK, question).await });
        match answer {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                debug!(%error, slot = self.name, "the source did not say what the slot waits for");
                None
            }
            Err(_) => None,
        }
    }
}
