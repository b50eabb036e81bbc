//! Where a plugin trapped: the functions on its stack, and of each the file and the line.
//!
//! The engine tells of a trap which functions were running. Where they come from in the source is found
//! without it, in the plugin's file, if that was built with debug information.

mod trapped;

mod symbolizer;

mod binary;

mod dwarf;

pub(crate) use symbolizer::Symbolizer;
pub(crate) use trapped::Trapped;
