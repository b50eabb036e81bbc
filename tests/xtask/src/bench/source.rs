//! A database that was written to, with a slot for each who will read it: all read the same log.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{Database, Postgres, Session, unique_name, wait_for};

use super::Bed;
use super::report::Line;
use super::shape::Shape;
use super::usage::{Usage, cpu_seconds_of_children};

/// The publication of every such database.
pub(super) const PUBLICATION: &str = "bench";
/// The reference's slot is called after its database, with this before it.
const REFERENCE: &str = "reference_";
/// Nothing measured here takes that long.
pub(super) const DEADLINE: Duration = Duration::from_secs(1_800);

/// A source with a backlog.
pub(super) struct Source<'a> {
    pub(super) database: Database<'a>,
    pub(super) session: Session,
    pub(super) events: u64,
    /// Where the log ends.
    end: String,
    pub(super) reference: Reference,
}

/// What `pg_recvlogical` took for the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    pub(super) seconds: f64,
    /// Of itself: what reading costs the one who does nothing with it, which tells how fast the
    /// machine is today.
    cpu_seconds: f64,
}

impl<'a> Source<'a> {
    /// Makes the tables, the slots and then the changes, and takes the reference. The `slots` are
    /// named after the database, see [`slot`](Self::slot).
    pub(super) fn fill(
        postgres: &'a Postgres,
        shape: Shape,
        events: u64,
        slots: &[&str],
    ) -> Result<Self> {
        let database = postgres.create_database()?;
        let session = Session::open(&database.url())?;
        session.execute("SET synchronous_commit = off")?;
        session.execute(&shape.schema())?;
        session.execute(&format!(
            "CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES WITH (publish_via_partition_root)"
        ))?;
        let reference = Reference { seconds: f64::NAN, cpu_seconds: f64::NAN };
        let mut source = Self { database, session, events, end: String::new(), reference };
        for slot in slots.iter().copied().chain([REFERENCE]) {
            let name = source.slot(slot);
            let create = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')");
            source.session.execute(&create)?;
        }
        source.session.execute(&shape.fill(events))?;
        // Settled, so that nothing of the server's own happens while somebody is measured.
        source.session.execute("CHECKPOINT")?;
        let end = source.session.value("SELECT pg_current_wal_flush_lsn()")?;
        source.end = end.context("ask for the end of the log")?;
        // Debezium confirms the transaction before its last event's: these are two more of both.
        for _ in 0..2 {
            source.session.execute("SELECT pg_logical_emit_message(true, 'bench', 'end')")?;
        }
        source.reference = source.receive()?;
        Ok(source)
    }

    /// The name of a slot.
    pub(super) fn slot(&self, name: &str) -> String {
        format!("{name}{}", self.database.name())
    }

    /// The reference's line.
    pub(super) fn reference_line(&self, name: &str) -> Line {
        let Reference { seconds, cpu_seconds } = self.reference;
        let used = Usage { cpu_seconds, peak_rss_mb: None };
        Bed::reference(name, self.events, seconds, Some(used))
    }

    /// Reads the log to its end with `pg_recvlogical`, the changes thrown away.
    fn receive(&self) -> Result<Reference> {
        let program = self.database.postgres().program("pg_recvlogical");
        let before = cpu_seconds_of_children()?;
        let start = Instant::now();
        let status = Command::new(program)
            .args(["--start", "--no-loop", "--file", "/dev/null", "--endpos", &self.end])
            .args(["--option", "proto_version=1", "--option"])
            .arg(format!("publication_names={PUBLICATION}"))
            .args(["--slot", &self.slot(REFERENCE), "--dbname", &self.database.url()])
            .stdin(Stdio::null())
            .status()
            .context("run pg_recvlogical")?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = cpu_seconds_of_children()? - before;
        ensure!(status.success(), "pg_recvlogical ended with {status}");
        self.drop_slot(&self.slot(REFERENCE))?;
        Ok(Reference { seconds, cpu_seconds })
    }

    /// Waits until somebody reads from the slot; when that was.
    pub(super) fn wait_active(&self, slot: &str) -> Result<Instant> {
        let sql = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
        wait_for(DEADLINE, "the slot to be in use", || {
            let active = self.session.value(&sql)?;
            ensure!(active.as_deref() == Some("t"), "nobody reads from {slot}");
            Ok(Instant::now())
        })
    }

    /// Waits until the slot is confirmed up to the end of what was written; when that was.
    pub(super) fn wait_confirmed(&self, slot: &str) -> Result<Instant> {
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = '{slot}'",
            self.end
        );
        wait_for(DEADLINE, "the slot to be confirmed", || {
            let confirmed = self.session.value(&sql)?;
            ensure!(confirmed.as_deref() == Some("t"), "{slot} is not confirmed yet");
            Ok(Instant::now())
        })
    }

    /// Drops a slot that nobody uses any more, so that it pins no log.
    pub(super) fn drop_slot(&self, slot: &str) -> Result<()> {
        self.session.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"))
    }
}

/// A prefix of topics that nobody else has.
pub(super) fn topic_prefix(case: &str) -> String {
    unique_name(&case.replace('-', "_"))
}
