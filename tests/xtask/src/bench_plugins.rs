//! `cargo xtask bench-plugins`: what a plugin costs, per language.

use std::ffi::OsString;

use anyhow::Result;

use crate::steps;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Words of the plugins to measure instead of all, for example `Rust` or `mask`; `restart` and `swap`
    /// are what a restart and the swap of a version cost, `first` is how long a new project in Rust takes,
    /// and `parallel` is what two plugins on two tables gain
    plugins: Vec<OsString>,
}

/// Builds the plugins and the bench, optimised, and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    steps::setup()?;
    steps::guests()?;
    let mut cargo = steps::cargo();
    // The selection is the same as for the binary, which shares most of what is compiled.
    cargo.args(["bench", "--workspace", "--bench", "plugins", "--"]);
    steps::run(cargo.args(&options.plugins))
}
