//! The real services that Tailwater's tests, demo and benches talk to, started from scratch on free
//! loopback ports and gone again when the process that wanted them is gone, however it ended.
//!
//! * [`setup`] brings a Debian 12 machine to readiness and is a no-op once it is ready.
//! * [`Postgres`], [`Kafka`], [`ClickHouse`]: servers with their own data directory; `shared()` gives the one of this
//!   process, `start()` one of your own to stop, crash and restart.
//! * [`TailwaterProcess`]: the real binary, to be killed and started again.
//! * [`guests`]: the plugins, built from source.
//! * [`wait_until`]: the only way to wait for anything.

pub mod bindings;
pub mod cache;
mod certificates;
mod child;
mod clickhouse;
mod download;
pub mod guests;
mod http;
mod kafka;
mod port;
mod postgres;
mod progress;
mod proxy;
mod scratch;
pub mod setup;
mod tailwater;
pub mod toolchains;
mod wait;
pub mod workload;

pub use certificates::Certificates;
pub use clickhouse::ClickHouse;
pub use http::{HttpResponse, answer_everything, http_get, http_request};
pub use kafka::{Kafka, KafkaConnect, SASL_PASSWORD, SASL_USER, Warmth};
pub use port::free_port;
pub use postgres::{Database, Postgres, PostgresOptions, PostgresVersion, Session};
pub use proxy::Proxy;
pub use scratch::{Scratch, sweep_scratch, unique_name};
pub use tailwater::{Tailwater, TailwaterProcess, binary, workspace_root};
pub use wait::{wait_for, wait_until, wait_until_async};
