//! The destination: a ClickHouse server, or the embedded engine, and the sink connected to it.

use super::patience::Patience;
use super::source::Source;
use super::{Error, Pipeline};
use crate::capture::same_cluster;
use crate::embedded::Engine;
use crate::hop::Snapshots;
use crate::serve::Endpoint;
use crate::shutdown::Phase;
use crate::sink::{self, Origin, Sink};

/// A sink that is connected.
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

impl Destination {
    /// Records the source's cluster, or refuses one whose positions do not compare with what is
    /// stored. The engine has ended when this is an error.
    pub(super) async fn of_cluster(self, source: &Source) -> Result<Destination, Error> {
        match self.check_cluster(source.system).await {
            Ok(()) => Ok(self),
            Err(error) => {
                self.engine.shut_down().await;
                Err(error)
            }
        }
    }

    async fn check_cluster(&self, system: u64) -> Result<(), Error> {
        let known = self.sink.source_cluster().await?;
        let database = self.sink.database();
        let stored = format!("the ClickHouse database `{database}`");
        let way_out = format!(
            "to copy this one, drop the database `{database}` in ClickHouse or name a new one with \
             [clickhouse] database"
        );
        same_cluster(known, system, &stored, &way_out)?;
        Ok(self.sink.record_source_cluster(system).await?)
    }

    /// The tables that were copied whole.
    pub(super) async fn completed_snapshots(&self) -> Result<Snapshots, Error> {
        let done = self.sink.completed_snapshots().await?;
        Ok(done.into_iter().map(|done| (done.table, done.copied)).collect())
    }
}

impl Pipeline {
    /// Connects, for as long as waiting can help; nothing if the process drains first. The database
    /// is the source's, unless the settings name another.
    pub(super) async fn destination(
        &self,
        database: &str,
        pipeline: &str,
    ) -> Result<Option<Destination>, Error> {
        let leg = self.report.leg("sink");
        let (options, engine) = self.engine().await?;
        let origin = Origin { database: database.to_owned(), pipeline: pipeline.to_owned() };
        let mut patience = Patience::new("reach ClickHouse", "stored", &self.shutdown);
        loop {
            let metrics = std::sync::Arc::clone(self.report.metrics());
            let connected =
                Sink::connect(options.clone(), origin.clone(), metrics, leg.clone()).await;
            let failed = match connected {
                Ok(sink) => {
                    patience.works();
                    self.announce(&options, &sink);
                    return Ok(Some(Destination { sink, engine: Running(engine) }));
                }
                Err(error) => Err(error),
            };
            if !patience.another(failed, &leg, self.report.metrics()).await? {
                Running(engine).shut_down().await;
                return Ok(None);
            }
        }
    }

    /// The settings of the ClickHouse in use; those of the embedded engine if no other is named.
    async fn engine(&self) -> Result<(sink::Options, Option<Engine>), Error> {
        let mut options = self.config.clickhouse.clone();
        if options.url.is_some() {
            return Ok((options, None));
        }
        let engine = Engine::start(self.config.embedded.clone()).await?;
        options.url = Some(engine.url().to_owned());
        options.user = engine.user().to_owned();
        options.password = engine.password().to_owned();
        Ok((options, Some(engine)))
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
