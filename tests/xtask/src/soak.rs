//! `cargo xtask soak`: many deaths at named places and at moments, each with its seed.

use std::process::Command;

use anyhow::Result;

use crate::steps::{self, Profile};

/// How long.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
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
    let Options { first, seeds, at_once } = options;
    steps::step("building the soak", || {
        steps::run(steps::cargo().args(["build", "--workspace", "--bin", "soak"]))
    })?;
    let mut soak = Command::new(steps::target_directory().join("debug/soak"));
    soak.args([first, seeds, at_once].map(|number| number.to_string()));
    soak.envs(environment.iter().map(|(name, value)| (name, value)));
    let outcome = steps::step("soaking", || steps::run(&mut soak));
    tailwater_test_support::sweep_scratch();
    outcome
}
