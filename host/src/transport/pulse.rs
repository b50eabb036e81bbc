//! Whether Kafka is there, asked while nothing is sent or read too: a broker that goes away during a
//! quiet night is to be told of before the first row in the morning.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::client::Events;
use super::topics::Names;
use super::{Error, Options};
use crate::serve::Leg;

/// Together less than the five seconds within which a leg that stands still has to be told.
const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks again and again until it is dropped; the leg stalls while there is no answer.
#[derive(Debug)]
pub struct Pulse {
    _dropped: Sender<()>,
}

impl Pulse {
    /// Starts to ask, on a thread and a connection of its own.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn start(options: &Options, database: &str, leg: Leg) -> Result<Pulse, Error> {
        let config = options.client(&[]);
        let client: BaseConsumer<Events> =
            config.create_with_context(Events::default()).map_err(Error::Settings)?;
        let topic = Names::below(options.prefix(database)).checkpoints;
        let (dropped, ended) = mpsc::channel();
        thread::spawn(move || beat(&client, &topic, &leg, &ended));
        Ok(Pulse { _dropped: dropped })
    }
}

fn beat(client: &BaseConsumer<Events>, topic: &str, leg: &Leg, ended: &Receiver<()>) {
    let mut silent = false;
    while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        match client.client().fetch_metadata(Some(topic), PATIENCE) {
            Ok(_) if silent => {
                tracing::info!("kafka answers again");
                silent = false;
                leg.moving();
            }
            Err(error) if !silent => {
                tracing::warn!(%error, "kafka does not answer");
                silent = true;
                leg.stalled("kafka does not answer; look at the network and at the brokers");
            }
            Ok(_) | Err(_) => {}
        }
    }
}
