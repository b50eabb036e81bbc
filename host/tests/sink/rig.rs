//! A sink with a ClickHouse database of its own.

use std::sync::Arc;

use tailwater::hop::{Hop, LogPoint};
use tailwater::serve::Readiness;
use tailwater::sink::{Error, Options, Origin, Sink, literal, quoted};
use tailwater::telemetry::metrics::Metrics;
use tailwater_test_support::{ClickHouse, unique_name};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

pub struct Rig<'a> {
    pub clickhouse: &'a ClickHouse,
    pub database: String,
    pub options: Options,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub runtime: Runtime,
}

impl Rig<'static> {
    /// With the settings of this `[clickhouse]` section, on the server that tests share.
    pub fn new(settings: &str) -> Rig<'static> {
        Rig::on(ClickHouse::shared(), settings)
    }
}

impl<'a> Rig<'a> {
    pub fn on(clickhouse: &'a ClickHouse, settings: &str) -> Rig<'a> {
        let mut options: Options = toml::from_str(settings).expect(settings);
        options.url = Some(clickhouse.url());
        options.user = clickhouse.user().to_owned();
        options.password = clickhouse.password().to_owned();
        Rig {
            clickhouse,
            database: unique_name("sink"),
            options,
            readiness: Readiness::default(),
            metrics: Arc::default(),
            runtime: Runtime::new().expect("a runtime"),
        }
    }

    /// A sink that has just started.
    pub fn connect(&self) -> Result<Sink, Error> {
        let (database, source) = (self.database.clone(), self.database.clone());
        let origin = Origin { database, source, pipeline: "tests".into() };
        let (metrics, leg) = (Arc::clone(&self.metrics), self.readiness.leg("sink"));
        self.runtime.block_on(Sink::connect(self.options.clone(), origin, metrics, leg))
    }

    /// One life of a sink: starts it, stores the batches, and gives the points it acknowledged.
    pub fn deliver(
        &self,
        hops: impl IntoIterator<Item = Hop<LogPoint>>,
    ) -> Result<Vec<LogPoint>, Error> {
        let sink = self.connect()?;
        let (input, output) = mpsc::channel(4);
        let mut stored = Vec::new();
        self.runtime.block_on(async {
            let feeding = async move {
                for hop in hops {
                    // A sink that has ended says why itself.
                    drop(input.send(hop).await);
                }
            };
            let storing = sink.run(output, |point| stored.push(point.into_point()));
            tokio::join!(feeding, storing).1
        })?;
        Ok(stored)
    }

    /// The lines of a query's answer; `{db}` is the rig's database.
    pub fn lines(&self, sql: &str) -> Vec<String> {
        let sql = sql.replace("{db}", &quoted(&self.database));
        let answer = self.clickhouse.query(&sql).unwrap_or_else(|error| panic!("{sql}: {error:#}"));
        answer.lines().map(str::to_owned).collect()
    }

    /// The rows of the view `users`, in order.
    pub fn users(&self) -> Vec<String> {
        self.lines("SELECT id, name, bio, n FROM {db}.users ORDER BY id")
    }

    /// Reasons of the dead letters, in order.
    pub fn dead_letters(&self) -> Vec<String> {
        self.lines("SELECT reason FROM {db}._tailwater_dead_letters FINAL ORDER BY version")
    }

    /// Merges all that can be merged.
    pub fn merge(&self, table: &str) {
        let table = quoted(table);
        self.lines(&format!("OPTIMIZE TABLE {{db}}.{table} FINAL"));
    }

    /// Names and types of a table's columns.
    pub fn columns(&self, table: &str) -> Vec<String> {
        let (database, table) = (literal(&self.database), literal(table));
        self.lines(&format!(
            "SELECT name, type FROM system.columns WHERE database = {database} AND table = {table} \
             ORDER BY position"
        ))
    }
}
