//! Whether the source's log is still the one that positions are stored of. A standby that was behind
//! when it was promoted, and a server restored from a backup, have the cluster's identifier and not all
//! of its changes; and a slot that somebody else moved passes over some.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::connection::Connection;
use super::error::Error;
use super::options::SnapshotMode;
use super::preflight::{Preflight, unmet};
use super::reach::reach;
use super::source_url::SourceUrl;
use super::{Capture, Reached};
use crate::position::Lsn;

/// How far the server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Log {
    /// Its timeline, which every promotion raises by one.
    pub timeline: u32,
    /// The end of its log.
    pub end: Lsn,
}

/// How far an earlier run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// On which timeline; 0 if nothing was.
    pub timeline: u32,
    /// No change behind this was delivered.
    pub end: Lsn,
}

/// The server's log.
///
/// # Errors
/// The query's.
pub async fn log(client: &Client) -> Result<Log, Error> {
    // The control file has the timeline only some time after a promotion.
    let sql = "SELECT pg_current_wal_lsn(),
         ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4";
    let row = client.query_one(sql, &[]).await?;
    let end: PgLsn = row.get(0);
    Ok(Log { timeline: row.get::<_, i32>(1).cast_unsigned(), end: Lsn(end.into()) })
}

/// A server as it was found, beside what came from it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its address.
    pub url: &'a SourceUrl,
    /// Its log.
    pub log: Log,
    /// Where changes of it are.
    pub stored: &'a str,
}

impl Place<'_> {
    /// Refuses a server that has less log than was delivered already. `way_out` is how to go on.
    ///
    /// # Errors
    /// [`Error::Precondition`], or why the server does not say again where its log ends.
    pub async fn reaches(&self, delivered: Delivered, way_out: &str) -> Result<(), Error> {
        if delivered.end <= self.log.end {
            return Ok(());
        }
        // Another process may have delivered since it was asked.
        let (client, _) = reach(self.url).await?;
        suffices(log(&client).await?, delivered.end, self.stored, way_out)
    }

    /// Refuses a server that left the timeline before what was delivered, while its `slot` is still there.
    /// Once that is made anew, all tables are copied, with positions behind those stored.
    ///
    /// # Errors
    /// [`Error::Precondition`], or why the server does not tell its history.
    pub async fn continues(&self, delivered: Delivered, slot: &str) -> Result<(), Error> {
        let (Delivered { timeline: known, end }, now) = (delivered, self.log.timeline);
        if known == 0 || known == now {
            return Ok(());
        }
        let switches = match now {
            ..=1 => Vec::new(),
            now => switches(self.url, now).await?,
        };
        let left = switches.iter().find(|(timeline, _)| *timeline == known).map(|(_, at)| *at);
        if left.is_some_and(|left| end <= left) {
            return Ok(());
        }
        let left = left.map_or("was never on it".into(), |left| format!("left it at {left}"));
        unmet(format!(
            "{} came from timeline {known} of the source up to {end}, and the source, which is on \
             timeline {now}, {left}, so it lacks changes that are stored; run SELECT \
             pg_drop_replication_slot('{slot}') and start again: every table is then copied anew; or \
             connect to the server that has them",
            self.stored
        ))
    }
}

fn suffices(log: Log, delivered: Lsn, stored: &str, way_out: &str) -> Result<(), Error> {
    if delivered <= log.end {
        return Ok(());
    }
    unmet(format!(
        "the source's log ends at {}, and {stored} came from it up to {delivered}: it was restored from \
         a backup, or is a standby that was behind, so it lacks changes that are stored; {way_out}, or \
         connect to the server that has them",
        log.end
    ))
}

/// The timelines before this one, and where each was left. A host that was left behind may still answer.
async fn switches(url: &SourceUrl, timeline: u32) -> Result<Vec<(u32, Lsn)>, Error> {
    let (_, url) = reach(url).await?;
    let ask = move || {
        let mut connection = Connection::open(&url)?;
        let command = format!("TIMELINE_HISTORY {timeline}");
        let row = connection.query_row_while(&command, || true)?.unwrap_or_default();
        row.into_iter().nth(1).flatten().ok_or(Error::Protocol('D'))
    };
    let text = tokio::task::spawn_blocking(ask).await.expect("to ask does not panic")?;
    Ok(parse(&text))
}

/// Lines of a timeline, the LSN at which it was left, and why.
fn parse(text: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

impl Reached {
    /// Whether what this run knows of the source is outdated: another process has the slot, and will move
    /// it, or has moved it, or another server took over.
    pub(super) fn is_outdated_by(&self, error: &Error) -> bool {
        matches!(error, Error::Promoted { .. } | Error::Overtaken { .. })
            || (!self.streamed && error.is_slot_in_use())
    }
}

impl Capture {
    /// Refuses a server that lacks what this run delivered.
    ///
    /// # Errors
    /// [`Error::Precondition`], or [`Error::Promoted`] if that is to be found out.
    pub(super) fn same_log(
        &self,
        reached: &Reached,
        preflight: &Preflight,
        way_out: &str,
    ) -> Result<(), Error> {
        let (log, timeline) = (preflight.log, self.resume.timeline);
        let delivered = self.ack.confirmed().max(reached.position.commit);
        suffices(log, delivered, "this run's data", way_out)?;
        match log.timeline == timeline {
            true => Ok(()),
            false => Err(Error::Promoted { from: timeline, to: log.timeline }),
        }
    }

    /// Refuses a slot that is farther than this pipeline ever told it to be: somebody advanced it, or
    /// dropped it and made another one of its name. Tables that are to be copied again lack nothing. A process
    /// that has streamed looks first at what is stored by now: another one may have had the slot meanwhile.
    ///
    /// # Errors
    /// [`Error::Precondition`], or [`Error::Overtaken`] if that is to be found out.
    pub(super) fn slot_is_ours(
        &self,
        confirmed: Lsn,
        reached: &Reached,
        preflight: &Preflight,
    ) -> Result<(), Error> {
        let ours = self.ack.confirmed();
        let known = self.resume.confirmed.or((ours > Lsn(0)).then_some(ours));
        let Some(told) = known.map(|known| known.max(ours)).filter(|told| *told < confirmed) else {
            return Ok(());
        };
        let lacks = match self.options.snapshot {
            SnapshotMode::Never => told > Lsn(0),
            SnapshotMode::Initial => preflight.tables.iter().any(|table| {
                reached.copied(table, &preflight.since).is_some_and(|at| at < confirmed)
            }),
        };
        if !lacks {
            return Ok(());
        }
        let slot = &self.options.slot;
        if reached.contested {
            return unmet(format!(
                "another tailwater took over slot {slot} and moved it to {confirmed}; stop one of them, \
                 or give them different names"
            ));
        }
        if reached.streamed {
            return Err(Error::Overtaken { slot: slot.clone(), confirmed });
        }
        unmet(format!(
            "slot {slot} is at {confirmed}, and this pipeline has told it {told} at most: somebody moved \
             it, or made it anew, so changes are missing; run SELECT \
             pg_drop_replication_slot('{slot}') and start again: every table is then copied anew"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_each_timeline_was_left() {
        let text =
            "1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tbefore 2000-01-01\n";
        assert_eq!(parse(text), [(1, Lsn(0x300_0148)), (2, Lsn(0x500_00A0))]);
    }
}
