//! One process of Tailwater under measurement.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use tailwater_test_support::{Tailwater, TailwaterProcess, guests, wait_for};

use super::source::{DEADLINE, PUBLICATION, Source};
use super::usage::Usage;
use crate::exposition::Exposition;

/// The plugin that looks at nothing and changes nothing; the tests have it, nobody else needs it.
pub(super) const IDENTITY: &str = "identity";

/// What a process is told of Kafka.
#[derive(Debug)]
pub(super) struct Topics {
    pub(super) brokers: String,
    pub(super) prefix: String,
    pub(super) codec: String,
}

/// What a process is to do.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) role: &'static str,
    /// Slot, and whether the tables are copied first.
    pub(super) slot: String,
    pub(super) snapshot: bool,
    pub(super) kafka: Option<Topics>,
    /// Name of a built plugin that runs on this leg.
    pub(super) plugin: Option<&'static str>,
}

impl Setup {
    /// The process, configured in a directory of its own.
    pub(super) fn prepare(&self, source: &Source<'_>, binary: PathBuf) -> Result<Tailwater> {
        let arguments = ["run", "--config", "tailwater.toml", "--role", self.role];
        let tailwater = Tailwater::of_binary(binary, arguments)?;
        let cache = tailwater_test_support::cache::directory()?.display().to_string();
        let tailwater = tailwater.variable("TAILWATER_CACHE", &cache);
        tailwater.set_config(&self.config(source)?)?;
        Ok(tailwater)
    }

    fn config(&self, source: &Source<'_>) -> Result<String> {
        let snapshot = if self.snapshot { "initial" } else { "never" };
        let mut text = format!(
            "[source]\nurl = \"{}\"\nslot = \"{}\"\npublication = \"{PUBLICATION}\"\n\
             snapshot = \"{snapshot}\"\n\n[http]\nlisten = \"{{listen}}\"\n",
            source.database.url(),
            self.slot,
        );
        if let Some(Topics { brokers, prefix, codec }) = &self.kafka {
            write!(text, "\n[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\n")?;
            writeln!(text, "compression = \"{codec}\"")?;
        }
        if let Some(plugin) = self.plugin {
            let file = match plugin {
                IDENTITY => guests::test_guest(plugin)?,
                _ => guests::plugin(plugin)?,
            };
            write!(text, "\n[[plugin]]\nname = \"{plugin}\"\npath = \"{}\"\n", file.display())?;
        }
        Ok(text)
    }
}

/// What one process took from a beginning to an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) seconds: f64,
    pub(super) used: Usage,
}

/// The use of a process since a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    at: Instant,
    used: Usage,
}

impl Since {
    pub(super) fn now(process: u32) -> Result<Self> {
        Ok(Self { at: Instant::now(), used: Usage::of(process)? })
    }

    /// Until `end`, which was just now; the peak of memory counts from the process's start.
    pub(super) fn until(self, end: Instant, process: u32) -> Result<Taken> {
        let used = Usage::of(process)?;
        let cpu_seconds = used.cpu_seconds - self.used.cpu_seconds;
        let seconds = end.duration_since(self.at).as_secs_f64();
        Ok(Taken { seconds, used: Usage { cpu_seconds, ..used } })
    }
}

/// Changes that passed a step; none while nobody answers.
pub(super) fn passed(tailwater: &Tailwater, step: &str) -> Result<u64> {
    let text = tailwater.get("/metrics")?.text();
    let passed = Exposition::parse(&text).sum("tailwater_passed_total", &[("step", step)]);
    // A counter, which the exposition shows as a number of any kind.
    Ok(format!("{passed:.0}").parse()?)
}

/// Waits until as many changes passed a step; when that was.
pub(super) fn wait_passed(
    tailwater: &Tailwater,
    process: &mut TailwaterProcess<'_>,
    step: &str,
    count: u64,
) -> Result<Instant> {
    let mut running = true;
    wait_for(DEADLINE, "the changes to pass", || {
        running = process.is_running()?;
        let passed = if running { passed(tailwater, step)? } else { count };
        ensure!(passed >= count, "{passed} of {count} were {step}");
        Ok(Instant::now())
    })
    .and_then(|at| {
        ensure!(running, "tailwater ended: {}", tailwater.log_tail());
        Ok(at)
    })
}
