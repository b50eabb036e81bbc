//! The destination: a ClickHouse server, or the embedded engine, the sink connected to it, and where a capture into
//! it goes on.

use std::sync::Arc;

use super::snapshot_requests::forget_stored;
use super::source::Source;
use super::{Error, Pipeline};
use crate::capture::{Delivered, Place, Resume, same_cluster};
use crate::config::Config;
use crate::embedded::{self, Engine};
use crate::hop::Snapshots;
use crate::serve::{ClickHouseError, Endpoint, clickhouse_version};
use crate::shutdown::Phase;
use crate::sink::{self, Origin, Provenance, Sink};

/// A sink that is connected, and what has to end after it.
pub(super) struct Destination {
    pub(super) sink: Sink,
    pub(super) engine: Running,
}

/// The embedded engine, if that is what is used.
pub(super) struct Running(Option<Engine>);

impl Running {
    /// Ends the engine in order.
    pub(super) async fn shut_down(self) {
        if let Some(engine) = self.0 {
            engine.shutdown().await;
        }
    }
}

/// The settings of the ClickHouse in use: of the server that is named, else of the embedded engine, which is
/// started.
///
/// # Errors
/// The engine does not start.
pub async fn clickhouse(
    config: &Config,
) -> Result<(sink::Options, Option<Engine>), embedded::Error> {
    let mut options = config.clickhouse.clone();
    if options.url.is_some() {
        return Ok((options, None));
    }
    let engine = Engine::start(config.embedded.clone()).await?;
    options.url = Some(engine.url().to_owned());
    options.user = engine.user().to_owned();
    options.password = engine.password().to_owned();
    Ok((options, Some(engine)))
}

impl Pipeline {
    /// Connects, for as long as waiting can help; nothing if the process drains first. The database
    /// is the source's, unless the settings name another.
    pub(super) async fn destination(
        &self,
        database: &str,
        pipeline: &str,
    ) -> Result<Option<Destination>, Error> {
        let mut patience = self.patience("reach ClickHouse", "stored", "sink");
        let (options, engine) = clickhouse(&self.config).await?;
        let source = self.config.source_name(database).to_owned();
        let (database, pipeline) = (database.to_owned(), pipeline.to_owned());
        let origin = Origin { database, source, pipeline };
        loop {
            let (metrics, leg) = (Arc::clone(self.report.metrics()), patience.leg().clone());
            let connected = match is_foreign(&self.config).await {
                Some(foreign) => Err(foreign.into()),
                None => Sink::connect(options.clone(), origin.clone(), metrics, leg)
                    .await
                    .map_err(Error::from),
            };
            let failed = match connected {
                Ok(sink) => {
                    patience.works();
                    self.announce(&options, &sink);
                    return Ok(Some(Destination { sink, engine: Running(engine) }));
                }
                Err(error) => Err(error),
            };
            if !patience.another(failed).await? {
                Running(engine).shut_down().await;
                return Ok(None);
            }
        }
    }

    /// Where a capture of the source into the sink goes on, and what is known of the source there from now on.
    ///
    /// # Errors
    /// The source's positions do not compare with what is stored.
    pub(super) async fn resume_after(
        &self,
        sink: &Sink,
        source: &Source,
    ) -> Result<(Resume, Provenance), Error> {
        let known = of_cluster(sink, source).await?;
        if !source.slot_exists {
            sink.forget_snapshots().await?;
        }
        let mut snapshots = completed_snapshots(sink).await?;
        forget_stored(sink, &mut snapshots, self.report.snapshot_requests(), &source.url).await?;
        let resume = Resume {
            system: source.system,
            timeline: source.log.timeline,
            confirmed: Some(known.confirmed),
            recorded: sink.recorded_snapshots().await?.into_iter().collect(),
            snapshots,
            slot_exists: source.slot_exists,
            ..Resume::default()
        };
        Ok((resume, known))
    }

    fn announce(&self, options: &sink::Options, sink: &Sink) {
        let endpoint = Endpoint {
            url: options.url.clone().unwrap_or_default(),
            user: options.user.clone(),
            password: options.password.clone().into(),
            database: sink.database().to_owned(),
        };
        self.report.clickhouse(endpoint);
        let (mut mirrored, report) = (sink.mirrored(), self.report.clone());
        let end = self.shutdown.clone();
        tokio::spawn(async move {
            loop {
                report.tables(mirrored.borrow_and_update().clone());
                tokio::select! {
                    changed = mirrored.changed() => if changed.is_err() { return },
                    () = end.reached(Phase::Drained) => return,
                }
            }
        });
    }
}

/// Whether another server than ClickHouse answers: one that takes every statement would have rows vanish.
/// Whatever else is wrong is said by who connects.
async fn is_foreign(config: &Config) -> Option<ClickHouseError> {
    let version = clickhouse_version(Endpoint::named_by(&config.clickhouse)?).await;
    version.err().filter(|error| matches!(error, ClickHouseError::Foreign))
}

/// Records the source's cluster and gives what is known of it, or refuses one whose positions do not
/// compare with what is stored.
async fn of_cluster(sink: &Sink, source: &Source) -> Result<Provenance, Error> {
    let known = sink.provenance().await?;
    let database = sink.database();
    let stored = format!("the ClickHouse database `{database}`");
    let way_out = format!(
        "to copy this one, drop the database `{database}` in ClickHouse or name a new one with \
         [clickhouse] database"
    );
    same_cluster(known.map(|known| known.system), source.system, &stored, &way_out)?;
    let delivered = delivered(sink, known, &completed_snapshots(sink).await?).await?;
    let here = Place { url: &source.url, log: source.log, stored: &stored };
    here.reaches(delivered, &way_out).await?;
    if source.slot_exists {
        here.continues(delivered, &source.options.slot).await?;
    }
    let confirmed = known.map_or(source.confirmed, |known| Some(known.confirmed));
    let (system, timeline) = (source.system, source.log.timeline);
    let now = Provenance { system, timeline, confirmed: confirmed.unwrap_or_default() };
    sink.records().provenance(now).await?;
    Ok(now)
}

/// How far changes are stored. The record of it is up to a second behind the rows, or more where ClickHouse
/// refused it, so the newest of them is looked for: a server that was put back by less lacks changes, too. A
/// change that is stored was flushed to the source's log before it was sent, so a crash there takes none back.
async fn delivered(
    sink: &Sink,
    known: Option<Provenance>,
    copies: &Snapshots,
) -> Result<Delivered, Error> {
    let copied = copies.values().map(|copied| copied.consistent_at).max();
    let recorded = known.map(|known| known.confirmed).max(copied).unwrap_or_default();
    let end = sink.newest_commit(copies.keys(), recorded).await?;
    Ok(Delivered { timeline: known.map_or(0, |known| known.timeline), end })
}

/// The tables that were copied whole.
async fn completed_snapshots(sink: &Sink) -> Result<Snapshots, Error> {
    let done = sink.completed_snapshots().await?;
    Ok(done.into_iter().map(|done| (done.table, done.copied)).collect())
}
