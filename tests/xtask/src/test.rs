//! `cargo xtask test`.

use anyhow::Result;

use crate::steps::{self, Profile};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments of `cargo test` instead of `--workspace`, for example `-p tailwater decode`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Sets up, builds the binary and the plugins, and runs the tests against the real services.
pub(crate) fn run(options: &Options) -> Result<()> {
    steps::setup()?;
    let binary = steps::binary(Profile::Dev)?;
    steps::guests()?;
    let environment = steps::test_environment(binary)?;
    let outcome = steps::step("running the tests", || {
        let mut command = steps::cargo();
        command.arg("test").envs(environment);
        if options.arguments.is_empty() {
            command.args(["--workspace", "--no-fail-fast"]);
        }
        steps::run(command.args(&options.arguments))
    });
    // The servers that tests shared went with their processes; their directories go now.
    tailwater_test_support::sweep_scratch();
    outcome
}
