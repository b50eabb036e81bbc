//! Step 2, `decode`: what PostgreSQL sends becomes changes. Sans-I/O: nothing here waits.

pub(crate) mod array;
pub mod copy;
pub mod decoder;
pub mod message;

pub use decoder::{Decoder, Error, Step};
