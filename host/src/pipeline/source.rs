//! The source as it is before the first byte: its database, and whether the slot is there.

use tracing::warn;

use super::patience::Patience;
use super::{Error, Pipeline};
use crate::capture::{self, SourceUrl};
use crate::position::Lsn;
use crate::shutdown::Phase;
use crate::table::TableName;

/// It may be none: a table may come later, and a plugin before this one may route rows to it.
const IDLE_PATTERN: &str = "none of the source's tables fits a pattern in the plugin's `tables`; most \
                            likely it is misspelt";

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
}

impl Pipeline {
    /// Checks the source, for as long as waiting can help; nothing if the process drains first.
    pub(super) async fn source(&self) -> Result<Option<Source>, Error> {
        let url = SourceUrl::parse(self.config.source.url.expose())?;
        let options = self.config.source.for_database(url.database());
        let leg = self.report.leg("capture");
        let mut patience = Patience::new("reach the source", "captured", &self.shutdown);
        loop {
            let check = capture::check(&url, &options, &self.remarks);
            let checked = tokio::select! {
                checked = check => checked,
                () = self.shutdown.reached(Phase::Draining) => return Ok(None),
            };
            let found = match checked {
                Ok(preflight) => {
                    patience.works();
                    self.patterns.call_once(|| {
                        self.remark_idle_patterns(preflight.tables.into_iter().map(|t| t.name));
                    });
                    let database = url.database().to_owned();
                    let confirmed = preflight.slot.map(|slot| slot.confirmed);
                    let (slot_exists, system) = (confirmed.is_some(), preflight.system);
                    let source = Source { url, options, database, slot_exists, confirmed, system };
                    return Ok(Some(source));
                }
                Err(error) => Err(error),
            };
            if !patience.another(found, &leg, self.report.metrics()).await? {
                return Ok(None);
            }
        }
    }

    /// A plugin that is offered no table does nothing, and a mask then hides nothing.
    fn remark_idle_patterns(&self, tables: impl Iterator<Item = TableName>) {
        let tables: Vec<TableName> = tables.collect();
        for (plugin, patterns) in self.config.idle_patterns(self.role, &tables) {
            for pattern in patterns {
                warn!(plugin, pattern, "{IDLE_PATTERN}");
            }
        }
    }
}
