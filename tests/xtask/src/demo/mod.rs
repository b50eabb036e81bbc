//! `cargo xtask demo`: a small shop's database, live, through plugins and Kafka into ClickHouse.

mod compare;
mod dashboard;
mod reading;
mod screen;
mod show;
mod stack;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use self::show::Show;
use self::stack::{Plugins, READY_DEADLINE, Stack};
use crate::interrupt::Interrupt;
use crate::steps::{self, Profile, step};

/// As a shell says of what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long to watch, in seconds; a plugin is replaced half way
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..))]
    duration: u64,
    /// Without Kafka: straight from the database to ClickHouse
    #[arg(long)]
    direct: bool,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Rows changed per second in the shop
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Build tailwater as for production, which takes longer
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    match play(options, &interrupt) {
        // What ended in the middle of something ended because of it.
        Err(_) if interrupt.is_set() => {
            println!("interrupted: everything is stopped, and nothing was compared");
            Ok(ExitCode::from(INTERRUPTED))
        }
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

fn play(options: &Options, interrupt: &Interrupt) -> Result<()> {
    steps::setup()?;
    interrupt.check()?;
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let binary = steps::binary(profile)?;
    let plugins = step("building the plugins", Plugins::build)?;
    interrupt.check()?;
    let stack = Stack::start(options)?;
    interrupt.check()?;
    let tailwater = stack.tailwater(binary, &plugins)?;
    let mut process = tailwater.start()?;
    step("starting Tailwater and copying the table", || {
        process.wait_ready_unless(READY_DEADLINE, || interrupt.is_set())?;
        interrupt.check()
    })?;
    let show = Show::begin(options, interrupt, &stack, &tailwater, process)?;
    let played = show.play(&plugins.second);
    played.with_context(|| format!("tailwater's log ends with:\n{}", tailwater.log_tail()))
}
