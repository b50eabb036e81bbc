//! What wit-bindgen makes of `wit/`; everything else in this crate is written by hand.
//!
//! `cargo xtask bindings` writes it, and a test says when it is to be written again. It is here as source,
//! and not behind wit-bindgen's macro, because the macro is most of what a new project would compile.

#![allow(warnings, unsafe_code, clippy::undocumented_unsafe_blocks, reason = "generated")]

/// The world of transforms, and the types all worlds share.
#[rustfmt::skip]
pub mod transform;

/// The world of dedup plugins.
#[rustfmt::skip]
pub mod dedup;

/// The world of transforms that reshape tables.
#[rustfmt::skip]
pub mod reshape;

/// What a plugin is given only if its operator grants it. What a plugin does not call, its component
/// does not import.
#[rustfmt::skip]
pub mod granted;
