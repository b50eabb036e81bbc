//! The beginning of leg B: batches come out of Kafka, and offsets go back once they are stored.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::Error;
use super::patience::Patience;
use crate::ack::Durable;
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
    pub(super) options: transport::Options,
    pub(super) database: String,
    /// Where partitions are read from, if plugins remember.
    pub(super) starts: Option<Starts>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leg: Leg,
    pub(super) shutdown: Shutdown,
    pub(super) runtime: Handle,
}

impl Receiver {
    /// Receives until the process drains or the next stage is gone; then commits what is still
    /// being stored. A broker that went away is waited for.
    pub(super) fn run(
        self,
        out: Sender<Hop<Offsets>>,
        acknowledged: &Acknowledged,
    ) -> Result<(), Error> {
        let mut patience = Patience::new("receive from kafka", "consumed", &self.shutdown);
        let mut out = Some(out);
        loop {
            let ended = self.consume(&mut out, acknowledged, &patience);
            let another = patience.another(ended, &self.leg, &self.metrics);
            if !self.runtime.block_on(another)? {
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
            match next.try_reserve() {
                Ok(room) => {
                    if let Some(hop) = consumer.next(LOOK)? {
                        room.send(hop);
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
