//! One instance of a plugin while it runs: a component in the engine, with what it may call and what it may
//! be called for.
//!
//! The bindings are what wasmtime makes of `wit/`. The host's side of it is in `imports`; counters and log
//! lines are a plugin's, however many instances it has. The guest's side is in `exports`, and an [`Instance`]
//! is called through it. Of rows it knows nothing: what it is shown is made elsewhere.

pub(crate) mod bindings;

pub(crate) mod engine;

mod imports;

mod counters;

mod log_lines;

mod exports;

mod call_clock;

mod instance;

pub(crate) use counters::Counters;
pub(crate) use engine::{Metering, TICK};
pub use exports::Role;
pub(crate) use imports::{Guest, foreign_imports};
pub(crate) use instance::{Allowance, Instance, Outcome, Took, shorten};
pub(crate) use log_lines::LogLines;
