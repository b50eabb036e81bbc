//! Whether the brokers can be talked to at all.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer as _};

use super::client::Events;
use super::{Error, Options};

/// How long librdkafka is waited for before its events are looked at.
const SLICE: Duration = Duration::from_millis(500);

/// Asks the cluster what it consists of; how many brokers it has. Blocks for `patience` at most,
/// and changes nothing.
///
/// # Errors
/// [`Error::Denied`] as soon as a broker refuses, [`Error::Broker`] if none answers.
pub fn reach(options: &Options, patience: Duration) -> Result<usize, Error> {
    let client: BaseProducer<Events> =
        options.client(&[]).create_with_context(Events::default()).map_err(Error::Settings)?;
    let deadline = Instant::now() + patience;
    loop {
        let error = match client.client().fetch_metadata(None, SLICE) {
            Ok(metadata) => return Ok(metadata.brokers().len()),
            Err(error) => error,
        };
        // A refused login shows only as an event; the metadata request just times out.
        client.poll(Duration::ZERO);
        let error = client.context().error("ask the brokers what there is", error);
        if matches!(error, Error::Denied { .. }) || Instant::now() >= deadline {
            return Err(error);
        }
    }
}
