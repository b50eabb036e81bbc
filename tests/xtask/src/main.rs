//! The project's own commands, as `cargo xtask <command>`.
#![expect(clippy::print_stdout, reason = "a command-line tool talks on stdout")]

mod bench;
mod bench_plugins;
mod demo;
mod endurance;
mod exposition;
mod fuzz;
mod guests;
mod interrupt;
mod services;
mod soak;
mod steps;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tailwater_test_support::bindings;

/// Tailwater's own tooling; every command sets the machine up first if that is still to be done.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install and fetch what the build, the tests and the demo need; nothing to do the second time.
    Setup,
    /// Build everything, the plugins in every language too, and run all tests.
    Test(test::Options),
    /// Build the plugins into target/plugins.
    Guests,
    /// Write the SDK's bindings of wit/ anew.
    Bindings,
    /// Measure what the plugins cost per event, in every language.
    BenchPlugins(bench_plugins::Options),
    /// Start PostgreSQL 15 and 18 and Kafka, print their addresses, stop them at Ctrl-C.
    Services,
    /// Measure throughput, cost, memory and latency against what the database itself can send.
    Bench(bench::Options),
    /// Kill the process at named places and random moments, by seed, and compare what is left.
    Soak(soak::Options),
    /// Watch everything that could grow under a load that comes and goes.
    Endurance(endurance::Options),
    /// Fuzz the readers of everything that strangers write.
    Fuzz(fuzz::Options),
    /// Run a shop's database through Tailwater and show it on the terminal.
    Demo(demo::Options),
}

fn main() -> Result<ExitCode> {
    fuzz::compile_if_asked()?;
    let done = match Arguments::parse().command {
        Task::Setup => steps::setup(),
        Task::Test(options) => test::run(&options),
        Task::Guests => steps::setup().and_then(|()| steps::guests()),
        Task::Bindings => bindings::write(),
        Task::BenchPlugins(options) => bench_plugins::run(&options),
        Task::Services => services::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Soak(options) => soak::run(options),
        Task::Endurance(options) => endurance::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Demo(options) => return demo::run(&options),
    };
    done.map(|()| ExitCode::SUCCESS)
}
