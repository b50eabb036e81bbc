//! Step 4, `encode`: changes become Debezium records, and records changes.
//!
//! [`Encoder`] writes the envelope, key and headers of Debezium 3.6 (JSON without schemas, plain
//! numbers and strings) straight from the cells of a batch; [`Reader`] is its inverse and also
//! reads what Debezium itself wrote, with or without inline schemas.
//!
//! Debezium's form loses things: an interval becomes microseconds, `timetz` forgets its zone, a
//! value that happens to be the placeholder for "not sent" cannot be told from it. A record of ours
//! with such a value carries the PostgreSQL text in its [`EXACT`] header as well, so that nothing
//! is lost between the two halves while every consumer of Debezium's envelope sees what it knows.
//! Whether a value needs it is decided by reading the written form back and comparing.

mod array;
mod envelope;
mod infer;
mod inline_schema;
mod json;
mod key;
mod plan;
mod reader;
mod record;
mod rows;
mod source;
mod text;
mod time;
mod topic;
mod value;
mod wire;

pub use envelope::Encoder;
pub use reader::{Incoming, Outcome, Reader};
pub use record::{Batch, Destination, Moved, Record, Span, Target};
pub(crate) use time::days_from_civil;
pub use topic::{topic_name, topics_collide};

use crate::disposition::Disposition;

/// What Debezium writes for a TOASTed value that the update left alone.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Header: where the record comes from, separated by spaces: the change's
/// [`Position`](crate::position::Position), the table version's fingerprint (16 hex digits) and, if
/// there were any, name and digest of every plugin that saw the change.
/// `0/1949CC0:1 5f1d0c6b3a9e2478 mask@9c1e…`
///
/// One header instead of three, because the client library allocates for each, and frees on another
/// thread.
pub const ORIGIN: &str = "tailwater.origin";

/// Header: `{"before": {column: text}, "after": {…}}`, the PostgreSQL text of the values that the
/// envelope's form does not keep; left out when there is none.
pub const EXACT: &str = "tailwater.exact";

/// Header of the delete half of a key-changing update: the key the row has now.
pub const NEW_KEY: &str = "__debezium.newkey";

/// Header of the create half of a key-changing update: the key the row had.
pub const OLD_KEY: &str = "__debezium.oldkey";

/// A change that cannot be written as a record, or a record that cannot be read as a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value is not of its column's type.
    #[error("column {column} holds no valid {type_name}; was its type changed in between")]
    Value {
        /// The column.
        column: String,
        /// Its type, as PostgreSQL prints it.
        type_name: String,
    },
    /// One of the change's records is larger than the topic takes.
    #[error(
        "a record of at least {bytes} bytes is larger than topic {topic} takes, which is {limit}; raise \
         `max.message.bytes` of the topic and `max_message_bytes` in section [kafka]"
    )]
    TooLarge {
        /// What it takes before compression, as far as it was written.
        bytes: usize,
        /// The topic.
        topic: String,
        /// Its limit.
        limit: usize,
    },
    /// The bytes are not JSON.
    #[error("not JSON from byte {at} on")]
    Syntax {
        /// Where reading stopped.
        at: usize,
    },
    /// JSON, but no envelope.
    #[error(
        "the envelope has no usable `{field}`; let Debezium write whole envelopes, \
         without ExtractNewRecordState"
    )]
    Envelope {
        /// What is missing or of the wrong kind.
        field: &'static str,
    },
    /// The record names a table version that the schemas topic does not hold.
    #[error("schema {fingerprint:016x} is not in the schemas topic; was the topic deleted")]
    UnknownSchema {
        /// The fingerprint in the record's header.
        fingerprint: u64,
    },
    /// A field that the table version does not have.
    #[error("field {field} is not a column of {table}")]
    UnknownField {
        /// The field.
        field: String,
        /// The table.
        table: String,
    },
    /// A header of ours that does not parse.
    #[error("header {name} is not as Tailwater writes it; let nobody else write to its topics")]
    Header {
        /// The header.
        name: &'static str,
    },
}

impl Error {
    /// One record is at fault, never the stream.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::DeadLetter
    }
}
