//! What strangers write, read by the code that reads it first: one target for each kind of input.
//! `cargo xtask fuzz` builds this with coverage and says by `TAILWATER_FUZZ_TARGET` which one runs.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod targets;

#[cfg(not(fuzzing))]
fn main() {}

#[cfg(fuzzing)]
static TARGET: std::sync::LazyLock<targets::Target> = std::sync::LazyLock::new(targets::chosen);

// Chosen first: an end of the process that comes later counts as a finding.
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(
    init: { std::sync::LazyLock::force(&TARGET); },
    |data: &[u8]| TARGET(data)
);
