//! Write Tailwater plugins in Rust.
//!
//! A plugin says which columns it wants ([`Transform::subscribe`]) and then looks at one row at a
//! time. Only the wanted columns cross into the plugin, and only changed cells cross back.
//!
//! ```
//! use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform};
//!
//! struct Shout;
//!
//! impl Transform for Shout {
//!     type Config = serde::de::IgnoredAny;
//!
//!     fn new(_: Self::Config) -> Result<Self, String> {
//!         Ok(Shout)
//!     }
//!
//!     fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
//!         Ok(table.has("name").then(|| Interest::of(["name"])))
//!     }
//!
//!     fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
//!         if let Some(name) = row.text(0) {
//!             row.set(0, &name.to_uppercase());
//!         }
//!         Verdict::Keep
//!     }
//! }
//!
//! export_transform!(Shout);
//! ```
//!
//! `tailwater plugin new` makes a project with this crate in it, `tailwater plugin build` a component
//! of that. [`testing`] runs a plugin in native tests.

/// What wit-bindgen makes of the contract, for what the row view does not offer.
#[expect(missing_docs, reason = "the generated items carry the documentation of wit/")]
pub mod bindings;

pub mod compare;
pub mod condition;

/// Lines for the operator's log.
pub mod log;

/// Counters on the host's metrics page.
pub mod metrics;

/// The time of day, if the plugin is granted it.
pub mod clock;

/// A memory of the plugin's own, if it is granted one.
pub mod state;

#[cfg(not(target_family = "wasm"))]
pub mod testing;

mod moment;
mod plugin;
mod reshape;
mod row;
mod shown;

pub use bindings::reshape::tailwater::plugin::shapes;
pub use bindings::transform::tailwater::plugin::types;
pub use plugin::{Dedup, Interest, Table, Transform, Verdict};
pub use reshape::{NewTable, Reshape, Rewriter, Shape};
pub use row::Row;

/// What the export macros need; no part of the interface.
#[doc(hidden)]
pub mod export {
    pub use crate::plugin::{Slot, keys, process};
    pub use crate::reshape::{Reshaper, rewrite};
}
