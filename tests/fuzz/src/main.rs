//! What strangers write, read by the code that reads it first: one target for each kind of input.
//! `cargo xtask fuzz` builds this with coverage and says by `TAILWATER_FUZZ_TARGET` which one runs.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod targets;

#[cfg(not(fuzzing))]
fn main() {}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: std::sync::OnceLock<targets::Target> = std::sync::OnceLock::new();
    TARGET.get_or_init(targets::chosen)(data);
});
