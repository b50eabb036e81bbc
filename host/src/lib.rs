//! Tailwater: a PostgreSQL write-ahead log, through WebAssembly plugins, over Kafka, into an exact
//! copy in ClickHouse.
//!
//! The modules stand in the order of the data. `pipeline` is the only one that knows all stages.
//!
//! ```text
//!   capture -> decode -> transform -> encode -> send -> store -> ack
//!      1          2          3          4         5       6       7
//! ```

/// The way of one change.
pub mod pipeline;

// The order below is the order of the data; the blank lines keep rustfmt from sorting it.

/// 1: the replication stream and the snapshot.
pub mod capture;

/// 2: pgoutput messages become changes.
pub mod decode;

/// 3: WebAssembly components transform and deduplicate.
pub mod plugin;

/// 4: changes become Debezium records, and records changes.
pub mod encode;

/// 5: Kafka.
pub mod transport;

/// 6: ClickHouse.
pub mod sink;

/// 7: positions move.
pub mod ack;

/// What travels: a batch of changes.
pub mod change;

/// How it travels: with the point that may be acknowledged.
pub mod hop;

/// How much of it may be on its way.
pub mod budget;

/// When the steps are taken that cost by the step, and when they may wait for more.
pub mod backlog;

/// What travels with it: where a change stands.
pub mod position;

/// The schema of what travels.
pub mod table;

/// What is set aside.
pub mod dead_letter;

/// Tables that are to be copied again on request.
pub mod snapshot_requests;

/// What was set aside, driven through again.
pub mod redrive;

/// Where tests let the process die.
pub mod failpoint;

/// How the process ends,
pub mod shutdown;

/// and what does not end it.
pub mod hangup;

/// What to do about an error,
pub mod disposition;

/// and how long to wait before another attempt.
pub mod backoff;

/// Where files are kept that can be made again.
pub mod cache;

/// Directories that nobody else is to read.
pub mod directories;

/// The embedded ClickHouse engine.
pub mod embedded;

/// The HTTP interface.
pub mod serve;

/// The configuration file and the command line.
pub mod config;

/// What is looked at before anything runs.
pub mod check;

/// The commands that print something and end.
pub mod commands;

/// What rebuilds plugins while their author edits them.
pub mod develop;

/// Logs and metrics.
pub mod telemetry;
