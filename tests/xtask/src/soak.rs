//! `cargo xtask soak`: many deaths at named places and at moments, or tables whose columns change, each with its seed.

use std::process::Command;

use anyhow::Result;

use crate::steps::{self, Profile};

/// What is done to the process.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum What {
    /// It dies under load, once, at a named place or at a moment
    Deaths,
    /// The columns of a table change, while it stops, dies and comes back
    Alters,
}

/// What, and how long.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// What is done to the process
    #[arg(value_enum, default_value_t = What::Deaths)]
    what: What,
    /// How many seeds to run; each takes some ten seconds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed; a failure is repeated with it and `--seeds 1`
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Seeds that run beside each other: one mostly waits
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    at_once: u64,
}

/// Sets up, builds what the tests build, and runs the seeds.
pub(crate) fn run(options: Options) -> Result<()> {
    steps::setup()?;
    let binary = steps::binary(Profile::Dev)?;
    steps::guests()?;
    let environment = steps::test_environment(binary)?;
    let Options { what, first, seeds, at_once } = options;
    steps::step("building the soak", || {
        steps::run(steps::cargo().args(["build", "--workspace", "--bin", "soak"]))
    })?;
    let mut soak = Command::new(steps::target_directory().join("debug/soak"));
    soak.arg(match what {
        What::Deaths => "deaths",
        What::Alters => "alters",
    });
    soak.args([first, seeds, at_once].map(|number| number.to_string()));
    soak.envs(environment.iter().map(|(name, value)| (name, value)));
    let outcome = steps::step("soaking", || steps::run(&mut soak));
    tailwater_test_support::sweep_scratch();
    outcome
}
