//! Rows on their way over the boundary to a plugin and back. Nothing else knows both the host's rows and the
//! contract's columns, and nothing that a plugin hands back gets past here unchecked.
//!
//! A table comes first: what the plugin wants of it is a `plan`, what is to become of it a `shape`. Then
//! batches: `columns` makes of rows what the plugin asked for; [`patch`] and [`rewrite`] check all of its
//! answer and then write it into the rows; `fates` is what becomes of the changes.

mod plan;

mod shape;

pub(crate) mod type_name;

mod columns;

mod values;

pub(crate) mod patch;

pub(crate) mod rewrite;

mod fates;

pub(crate) use columns::{Scratch, Unreadable, number};
pub(crate) use fates::Fates;
pub(crate) use patch::{Beside, Verdicts};
pub(crate) use plan::{Plan, Want, with_table};
pub(crate) use shape::{Shape, Source};
