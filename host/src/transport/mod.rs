//! Step 5, `send`: records travel over Kafka, and come back out of it on the other leg.
//!
//! [`Producer`] writes them, and with each transaction how far the source has come; [`Consumer`]
//! reads them as a member of a group. Both block: each belongs on a thread of its own, with a
//! bounded queue to its neighbour, so that reading and encoding go on while a transaction commits.

mod checkpoint;
mod client;
mod compacted;
mod consumer;
mod error;
mod extent;
mod headers;
mod letters;
mod member;
mod offsets;
mod options;
mod producer;
mod pulse;
mod reach;
mod redriven;
mod schemas;
mod starts;
mod topics;
mod underway;

pub use checkpoint::Checkpoint;
pub use consumer::{Consumer, is_pattern};
pub use error::Error;
pub use letters::{Entry, Letters};
pub use offsets::Offsets;
pub use options::{Compression, Delivery, Options, Setting, Start};
pub use producer::Producer;
pub use pulse::Pulse;
pub use reach::reach;
pub use starts::Starts;

/// Everything up to the point of the source is committed in Kafka. Only this stage builds one.
#[derive(Debug)]
pub struct Delivered<P> {
    point: P,
}

impl<P> Delivered<P> {
    /// The point that may be acknowledged.
    pub fn into_point(self) -> P {
        self.point
    }
}
