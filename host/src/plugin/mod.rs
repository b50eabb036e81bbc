//! Step 3, `transform`: WebAssembly components see, change and drop changes.
//!
//! ```text
//!   versions   file -> runtime -> loader -> instance             again for every new file
//!                                              |
//!   chain      Changes -> wave -> member -> instance -> Changes, and what was set aside
//!                                   |          |
//!   boundary                     columns -> [guest] -> patch, rewrite -> fates
//!                                              |
//!   memory                              state, window -> store
//! ```
//!
//! Begin with [`chain::Chain::transform`]. Each directory says in its `mod.rs` what it is for, and in what
//! order it reads. The contract is `wit/`; `docs/PLUGINS.md` tells it to plugin authors. What a plugin does
//! can fail a row, never the process.

// The order below is the order of the data; the blank lines keep rustfmt from sorting it.

/// How a plugin is configured.
mod options;

/// From its file to code that runs, and how the next version takes its place.
mod versions;

/// The plugins of a leg over a batch, one after another or at the same time.
mod chain;

/// Rows on their way to a plugin and back.
mod boundary;

/// The instance that is called.
mod guest;

/// Where it trapped.
mod backtrace;

/// What is remembered for it from batch to batch.
mod memory;

/// What its author says it makes of which changes.
mod golden;

/// By what components are known.
mod digest;

/// What goes wrong.
mod error;

pub use chain::Chain;
pub use error::Error;
pub use golden::{Cost, Difference, Golden, GoldenReport, Outline, beside as golden_beside};
pub use guest::Role;
pub use memory::{Delta, Error as MemoryError, Pending, Scope, SetAside, StateStore};
pub use options::{Grant, OnError, Options, Stage, StateOptions};
pub use versions::{
    Differing, How, Inspection, PluginStatus, Rehearsal, Reloaded, Reloads, Runtime, Shadow,
    Versions, compiled_code, inspect, rehearse,
};
