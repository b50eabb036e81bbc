//! The beginning of a life of leg A: a producer, and where Kafka's checkpoint says to go on.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::snapshot_requests::forget_sent;
use super::source::Source;
use super::{Error, Pipeline};
use crate::capture::{self, Resume};
use crate::transport::{self, Checkpoint, Producer};

impl Pipeline {
    /// Shuts out any producer before, and refuses a source whose positions do not compare with what Kafka has.
    /// One attempt.
    pub(super) async fn start_producer(
        &self,
        kafka: &transport::Options,
        source: &Source,
    ) -> Result<(Producer, Resume), Error> {
        let (kafka, database) = (kafka.clone(), source.database.clone());
        let (pipeline, slot_exists) = (source.options.slot.clone(), source.slot_exists);
        let (system, log) = (source.system, source.log);
        let (url, runtime) = (source.url.clone(), Handle::current());
        let metrics = Arc::clone(self.report.metrics());
        let requests = self.report.snapshot_requests().clone();
        let starting = spawn_blocking(move || -> Result<_, Error> {
            let (mut producer, checkpoint) =
                Producer::start(&kafka, &database, &pipeline, metrics)?;
            let known = checkpoint.as_ref().map(|checkpoint| checkpoint.system);
            let prefix = kafka.prefix(&database);
            let stored = format!("the topics below `{prefix}`");
            let way_out = "to copy this one, name a new prefix with [kafka] prefix and a new \
                           database with [clickhouse] database";
            capture::same_cluster(known, system, &stored, way_out)?;
            let delivered = |known: &Checkpoint| capture::Delivered {
                timeline: known.timeline,
                end: known.end(),
            };
            let delivered = checkpoint.as_ref().map(delivered).unwrap_or_default();
            let here = capture::Place { url: &url, log, stored: &stored };
            runtime.block_on(here.reaches(delivered, way_out))?;
            if slot_exists {
                runtime.block_on(here.continues(delivered, &pipeline))?;
            }
            producer.of_cluster(system, log.timeline);
            if !slot_exists && checkpoint.is_some() {
                producer.forget_snapshots()?;
            }
            let known = checkpoint.filter(|_| slot_exists);
            let confirmed = known.as_ref().map(|known| known.confirm);
            let mut kept = known.unwrap_or_default();
            forget_sent(&mut producer, &mut kept.snapshots, &requests, &url, &runtime)?;
            let resume = Resume {
                remembers: false,
                position: kept.position,
                system,
                timeline: log.timeline,
                confirmed,
                recorded: kept.snapshots.iter().map(|done| done.table.clone()).collect(),
                snapshots: kept.snapshots.into_iter().map(|s| (s.table, s.copied)).collect(),
                slot_exists,
            };
            Ok((producer, resume))
        });
        starting.await.expect("starting a producer does not panic")
    }
}
