//! Leg B: what Kafka has is stored in ClickHouse.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::keeper::keep;
use super::patience::Patience;
use super::remembered::resume_sink;
use super::transform::Transform;
use super::{Error, GIVEN_BACK, Pipeline, QUEUE, receive};
use crate::plugin::Stage;
use crate::shutdown::Phase;
use crate::transport;

impl Pipeline {
    /// Leg B.
    pub(super) async fn kafka_to_clickhouse(
        &self,
        kafka: &transport::Options,
        database: Option<String>,
    ) -> Result<(), Error> {
        let database = database.or_else(|| self.config.source_database().ok()).unwrap_or_default();
        let mut transform = Some(self.transform(&[Stage::Sink])?);
        let leg = self.report.leg("receive");
        let mut patience = Patience::new("store what Kafka has", "stored", &self.shutdown);
        loop {
            let ended = self.store_received_once(kafka, &database, &mut transform).await;
            if !patience.another(ended, &leg, self.report.metrics()).await? {
                return Ok(());
            }
        }
    }

    /// One life of it, with a new consumer whenever Kafka has trouble, which the store does not notice.
    /// Another one follows when a table was altered while its rows were on their way. The plugins are given
    /// back.
    async fn store_received_once(
        &self,
        kafka: &transport::Options,
        database: &str,
        plugins: &mut Option<Transform>,
    ) -> Result<(), Error> {
        let group = kafka.group(database);
        let Some(destination) = self.destination(database, &group).await? else { return Ok(()) };
        let transform = plugins.as_mut().expect(GIVEN_BACK);
        let store = self.open_memory(transform, "sink", &group)?;
        let (starts, kept) = resume_sink(store.as_ref(), transform)?.unzip();
        let transform = plugins.take().expect(GIVEN_BACK);
        let end = self.shutdown.part();
        let (received, to_transform) = mpsc::channel(QUEUE);
        let (transformed, to_store) = mpsc::channel(QUEUE);
        let (letters, open) = (destination.sink.letters(), destination.sink.open_letters());
        let (head, versions) = (received.downgrade(), transform.versions());
        self.report.dead_letters().open_stored(letters, &head, versions, starts.clone());
        let (acknowledge, acknowledged) = std::sync::mpsc::channel();
        let transforming = transform.spawn(to_transform, transformed, Some(open));
        let receiver = receive::Receiver {
            options: kafka.clone(),
            database: database.to_owned(),
            starts,
            metrics: Arc::clone(self.report.metrics()),
            leg: self.report.leg("receive"),
            shutdown: end.clone(),
            runtime: Handle::current(),
        };
        let receiving = spawn_blocking(move || receiver.run(received, &acknowledged));
        let (give, keeping) = keep(kept, &end, move |durable| {
            // The receiver outlives the store unless it failed, and then there is none to tell.
            drop(acknowledge.send(durable));
        });
        let mut give = self.timed("stored", give);
        let stored = destination.sink.run(to_store, move |stored| give(stored.into())).await;
        let kept = keeping.finish().await;
        // Whatever ended the store ends the stages before it.
        end.advance(Phase::Drained);
        let (transform, transformed) = transforming.await.expect("the transform does not panic");
        *plugins = Some(transform);
        let received = receiving.await.expect("the receiver does not panic");
        destination.engine.shut_down().await;
        kept?;
        received?;
        transformed?;
        Ok(stored?)
    }
}
