//! The source as it is before the first byte: its database, and whether the slot is there; and the capture of it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::{Error, Pipeline};
use crate::ack::SlotAck;
use crate::budget::Budget;
use crate::capture::{self, Capture, Log, Resume, SourceUrl};
use crate::config::Role;
use crate::hop::{Hop, LogPoint};
use crate::position::Lsn;
use crate::shutdown::{Phase, Shutdown};
use crate::table::TableName;
use crate::telemetry::logging::chain;

/// It may be none: a table may come later, and a plugin before this one may route rows to it.
const IDLE_PATTERN: &str = "none of the source's tables fits a pattern in the plugin's `tables`; most \
                            likely it is misspelt";

/// It may be none, for the same reasons.
const IDLE_TABLE: &str = "none of the source's tables has the name of a section in [clickhouse.tables]; \
                          most likely it is misspelt";

/// A source that passed its preflight.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) url: SourceUrl,
    pub(super) options: capture::Options,
    pub(super) database: String,
    pub(super) slot_exists: bool,
    /// What the slot has confirmed, if it exists.
    pub(super) confirmed: Option<Lsn>,
    /// The cluster's system identifier.
    pub(super) system: u64,
    /// How far its log goes.
    pub(super) log: Log,
}

impl Pipeline {
    /// The slot's name, which is the capture's too.
    pub(super) fn slot(&self) -> Result<String, Error> {
        Ok(self.address()?.1.slot)
    }

    /// Where the source is, and its settings with the slot's name.
    fn address(&self) -> Result<(SourceUrl, capture::Options), Error> {
        let url = SourceUrl::parse(self.config.source.url.expose())?;
        let options = self.config.source.for_database(url.database());
        Ok((url, options))
    }

    /// Checks the source, for as long as waiting can help; nothing if the process drains first.
    pub(super) async fn source(&self) -> Result<Option<Source>, Error> {
        let (url, options) = self.address()?;
        let mut patience = self.patience("reach the source", "captured", "capture");
        loop {
            let check = capture::check(&url, &options, &self.remarks);
            let checked = tokio::select! {
                checked = check => checked,
                () = self.shutdown.reached(Phase::Draining) => return Ok(None),
            };
            let found = match checked {
                Ok(preflight) => {
                    patience.works();
                    let tables: Vec<_> = preflight.tables.into_iter().map(|t| t.name).collect();
                    if self.role == Role::All {
                        self.config.clickhouse.names_differ(&tables)?;
                    }
                    self.idle.call_once(|| self.remark_what_is_idle(&tables));
                    let database = url.database().to_owned();
                    let confirmed = preflight.slot.map(|slot| slot.confirmed);
                    let (slot_exists, system) = (confirmed.is_some(), preflight.system);
                    let log = preflight.log;
                    let source =
                        Source { url, options, database, slot_exists, confirmed, system, log };
                    return Ok(Some(source));
                }
                Err(error) => Err(error),
            };
            if !patience.another(found).await? {
                return Ok(None);
            }
        }
    }

    /// Starts the first stage. One that finds the next stage gone has nothing of its own to say.
    pub(super) fn spawn_capture(
        &self,
        source: &Source,
        resume: Resume,
        ack: &SlotAck,
        end: &Shutdown,
        out: mpsc::Sender<Hop<LogPoint>>,
    ) -> JoinHandle<Result<(), Error>> {
        let capture = Capture {
            url: source.url.clone(),
            options: source.options.clone(),
            resume,
            ack: ack.clone(),
            shutdown: end.clone(),
            leg: self.report.leg("capture"),
            metrics: Arc::clone(self.report.metrics()),
            runtime: Handle::current(),
            remarks: self.remarks.clone(),
            snapshot_requests: self.report.snapshot_requests().clone(),
            budget: Budget::default(),
        };
        let leg = capture.leg.clone();
        spawn_blocking(move || match capture.run(out) {
            Ok(()) | Err(capture::Error::Abandoned) => Ok(()),
            Err(error) => {
                // The stages behind it may take long to end.
                leg.stalled(chain(&error));
                Err(error.into())
            }
        })
    }

    /// Keeps the metrics of the slot and of the source's position true until the process drains, whether
    /// or not the `step` that moves the slot has begun.
    pub(super) fn watch_slot(&self, source: &Source, step: &'static str) -> JoinHandle<()> {
        if let Some(confirmed) = source.confirmed {
            self.report.metrics().reached(step, confirmed);
        }
        tokio::spawn(capture::watch_slot(
            source.url.clone(),
            source.options.slot.clone(),
            self.report.leg("slot"),
            Arc::clone(self.report.metrics()),
            self.shutdown.clone(),
        ))
    }

    /// A plugin that is offered no table does nothing, and a mask then hides nothing; nor does a section do
    /// anything for a table that is not there.
    fn remark_what_is_idle(&self, tables: &[TableName]) {
        for (plugin, patterns) in self.config.idle_patterns(self.role, tables) {
            for pattern in patterns {
                warn!(plugin, pattern, "{IDLE_PATTERN}");
            }
        }
        for table in self.config.idle_tables(self.role, tables) {
            warn!(table, "{IDLE_TABLE}");
        }
    }
}
