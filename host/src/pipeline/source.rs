//! The source as it is before the first byte: its database, and whether the slot is there.

use super::patience::Patience;
use super::{Error, Pipeline};
use crate::capture::{self, SourceUrl};

/// A source that passed its preflight.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) url: SourceUrl,
    pub(super) options: capture::Options,
    pub(super) database: String,
    pub(super) slot_exists: bool,
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
            let found = match capture::check(&url, &options).await {
                Ok(preflight) => {
                    patience.works();
                    let database = url.database().to_owned();
                    let (slot_exists, system) = (preflight.slot.is_some(), preflight.system);
                    return Ok(Some(Source { url, options, database, slot_exists, system }));
                }
                Err(error) => Err(error),
            };
            if !patience.another(found, &leg, self.report.metrics()).await? {
                return Ok(None);
            }
        }
    }
}
