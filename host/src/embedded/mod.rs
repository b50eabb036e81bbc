//! The embedded ClickHouse engine: libchdb behind ClickHouse's HTTP interface, in a child process.

mod options;

pub use options::Options;
