//! Whether Kafka is there, asked while nothing is sent or read too: a broker that goes away during a
//! quiet night is to be told of before the first row in the morning.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
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
        let answer = client.client().fetch_metadata(Some(topic), PATIENCE);
        // That may have taken a while, and the leg belongs to another life by now.
        if ended.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        match answer {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use tailwater_test_support::wait_until;

    use super::*;
    use crate::serve::Readiness;

    #[test]
    fn a_pulse_that_is_dropped_while_it_asks_says_nothing_of_the_leg() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let brokers = silent.local_addr().unwrap().to_string();
        let options = Options { brokers, ..Options::default() };
        let client: BaseConsumer<Events> =
            options.client(&[]).create_with_context(Events::default()).unwrap();
        let readiness = Readiness::default();
        let leg = readiness.leg("send");
        leg.moving();
        let (dropped, ended) = mpsc::channel();
        let begun = Instant::now();
        let pulse = thread::spawn(move || beat(&client, "t", &leg, &ended));
        let asks = INTERVAL + PATIENCE / 4;
        wait_until(INTERVAL + PATIENCE, "the question", || begun.elapsed() >= asks).unwrap();
        drop(dropped);
        pulse.join().unwrap();
        assert!(readiness.is_ready(), "{:?}", readiness.legs());
    }
}
