//! Step 3, `transform`: WebAssembly components see, change and drop changes.
//!
//! ```text
//!   file -> engine -> loader -> instance        (reload does it again for every new file)
//!                                  |
//!   Changes -> chain -> member -> convert -> the plugin -> adopt -> Changes
//!                         |-> rewrite: where rows go
//!                              '-> dedup: the memory of keys
//! ```
//!
//! The contract is `wit/`; `docs/PLUGINS.md` tells it to plugin authors. What a plugin does can
//! fail a row, never the process: see [`chain::Chain::transform`].

mod adopt;
mod bindings;
mod calls;
mod chain;
mod convert;
mod dedup;
mod engine;
mod error;
mod fates;
mod golden;
mod handover;
mod instance;
mod limits;
mod loader;
mod member;
mod options;
mod probation;
mod reload;
mod reloads;
mod rewrite;
mod shape;
mod task;
mod trapped;
mod type_name;
mod versions;

pub use chain::Chain;
pub use engine::Runtime;
pub use error::Error;
pub use golden::{Difference, Golden, GoldenReport, beside as golden_beside};
pub use instance::Role;
pub use loader::{Inspection, inspect};
pub use options::{Grant, OnError, Options, Stage};
pub use reload::Reloaded;
pub use reloads::Reloads;
pub use versions::{PluginStatus, Versions};
