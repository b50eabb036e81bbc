//! Step 3, `transform`: WebAssembly components see, change and drop changes.
//!
//! ```text
//!   file -> engine -> loader -> instance        (reload does it again for every new file)
//!                                  |
//!   Changes -> chain -> wave -> member -> convert -> the plugin -> adopt -> Changes
//!                        |        |-> rewrite: where rows go
//!                        |        |    '-> dedup: the memory of keys
//!                        |        '-> memory -> store: what is remembered, and kept on disk
//!                        '-> ahead: answers of plugins that compute at the same time
//! ```
//!
//! The contract is `wit/`; `docs/PLUGINS.md` tells it to plugin authors. What a plugin does can
//! fail a row, never the process: see [`chain::Chain::transform`].

mod adopt;
mod ahead;
mod binary;
mod bindings;
mod breaker;
mod calls;
mod chain;
mod convert;
mod cost;
mod counters;
mod dedup;
mod dwarf;
mod engine;
mod error;
mod fates;
mod golden;
mod handover;
mod instance;
mod limits;
mod lines;
mod loader;
mod lost;
mod member;
mod memory;
mod meters;
mod options;
mod outline;
mod places;
mod probation;
mod reload;
mod reloads;
mod remember;
mod revive;
mod rewrite;
mod roles;
mod shadow;
mod shape;
mod state;
mod store;
mod task;
mod trapped;
mod type_name;
mod versions;
mod wave;

pub use chain::Chain;
pub use cost::Cost;
pub use engine::{Runtime, compiled_code};
pub use error::Error;
pub use golden::{Difference, Golden, GoldenReport, beside as golden_beside};
pub use instance::Role;
pub use loader::{Inspection, inspect, rehearse};
pub use lost::Lost;
pub use memory::{Delta, Pending, Scope};
pub use options::{Grant, OnError, Options, Stage, StateOptions};
pub use outline::Outline;
pub use reload::Reloaded;
pub use reloads::Reloads;
pub use shadow::{Differing, How, Shadow};
pub use store::{Error as MemoryError, Store};
pub use versions::{PluginStatus, Versions};
