//! The beginning of leg B: batches come out of Kafka, and offsets go back once they are stored.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::patience::Patience;
use super::{Error, Pipeline};
use crate::ack::Durable;
use crate::budget::Budget;
use crate::failpoint;
use crate::hop::Hop;
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::metrics::Metrics;
use crate::transport::{self, Consumer, Offsets, Pulse, Starts};

/// How long one look at Kafka or at the queue may take, and so how late a commit may be.
const LOOK: Duration = Duration::from_millis(50);

/// What was stored, from the store.
type Acknowledged = std::sync::mpsc::Receiver<Durable<Offsets>>;

/// The stage, on a thread of its own.
pub(super) struct Receiver {
    options: transport::Options,
    database: String,
    /// Where partitions are read from, if plugins remember.
    starts: Option<Starts>,
    /// What may be on its way to the store.
    budget: Budget,
    metrics: Arc<Metrics>,
    leg: Leg,
    shutdown: Shutdown,
    runtime: Handle,
}

impl Pipeline {
    /// A receiver that drains with `end`; `starts` if plugins remember.
    pub(super) fn receiver(
        &self,
        kafka: &transport::Options,
        database: &str,
        starts: Option<Starts>,
        end: &Shutdown,
    ) -> Receiver {
        Receiver {
            options: kafka.clone(),
            database: database.to_owned(),
            starts,
            budget: Budget::default(),
            metrics: Arc::clone(self.report.metrics()),
            leg: self.report.leg("receive"),
            shutdown: end.clone(),
            runtime: Handle::current(),
        }
    }
}

impl Receiver {
    /// Receives until the process drains or the next stage is gone; then commits what is still
    /// being stored. A broker that went away is waited for.
    pub(super) fn run(
        self,
        out: Sender<Hop<Offsets>>,
        acknowledged: &Acknowledged,
    ) -> Result<(), Error> {
        let (leg, metrics) = (self.leg.clone(), Arc::clone(&self.metrics));
        let mut patience =
            Patience::new("receive from kafka", "consumed", &self.shutdown, leg, metrics);
        let mut out = Some(out);
        loop {
            let ended = self.consume(&mut out, acknowledged, &patience);
            if !self.runtime.block_on(patience.another(ended))? {
                return Ok(());
            }
        }
    }

    /// One life of a consumer.
    fn consume(
        &self,
        out: &mut Option<Sender<Hop<Offsets>>>,
        acknowledged: &Acknowledged,
        patience: &Patience,
    ) -> Result<(), transport::Error> {
        let metrics = Arc::clone(&self.metrics);
        let starts = self.starts.clone();
        let mut consumer = Consumer::start(&self.options, &self.database, starts, metrics)?;
        let _pulse = Pulse::start(&self.options, &self.database, self.leg.clone())?;
        self.leg.moving();
        patience.works();
        while self.shutdown.phase() == Phase::Running
            && let Some(next) = out.as_ref()
        {
            commit_stored(&mut consumer, acknowledged)?;
            // Before, because what is read has to be handed on.
            let Some(mut room) = self.budget.try_take(self.options.batch_bytes) else {
                consumer.idle()?;
                let freed = tokio::time::timeout(LOOK, self.budget.take(self.options.batch_bytes));
                drop(self.runtime.block_on(async { freed.await.map(drop) }));
                continue;
            };
            match next.try_reserve() {
                Ok(place) => {
                    if let Some(mut hop) = consumer.next(LOOK)? {
                        room.shrink(hop.changes.bytes());
                        hop.room = Some(room);
                        place.send(hop);
                    }
                }
                Err(TrySendError::Full(())) => {
                    consumer.idle()?;
                    let room = tokio::time::timeout(LOOK, next.reserve());
                    drop(self.runtime.block_on(async { room.await.map(|room| room.map(drop)) }));
                }
                Err(TrySendError::Closed(())) => break,
            }
        }
        // Without its input the store ends, and then nothing more is acknowledged.
        *out = None;
        loop {
            match acknowledged.recv_timeout(LOOK) {
                Ok(stored) => commit(&mut consumer, stored)?,
                Err(RecvTimeoutError::Timeout) => consumer.idle()?,
                Err(RecvTimeoutError::Disconnected) => return consumer.settle(),
            }
        }
    }
}

fn commit_stored(
    consumer: &mut Consumer,
    acknowledged: &Acknowledged,
) -> Result<(), transport::Error> {
    loop {
        match acknowledged.try_recv() {
            Ok(stored) => commit(consumer, stored)?,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn commit(consumer: &mut Consumer, stored: Durable<Offsets>) -> Result<(), transport::Error> {
    failpoint::pass("before_offset_commit");
    consumer.commit(stored)
}
