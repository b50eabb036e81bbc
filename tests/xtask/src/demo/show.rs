//! The demo's acts: watch, replace a plugin, ask over HTTP, compare.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{Tailwater, TailwaterProcess, wait_for};

use super::Options;
use super::compare::{Comparison, clock};
use super::dashboard::{DIRECT, Dashboard, OVER_KAFKA, grouped};
use super::reading::{PluginVersion, Reading, plugins};
use super::screen::Screen;
use super::stack::{SWAPPED, Stack, plugin_file};
use crate::interrupt::Interrupt;

const ON_TERMINAL: Duration = Duration::from_millis(500);
const ELSEWHERE: Duration = Duration::from_secs(1);
const SWAP_DEADLINE: Duration = Duration::from_secs(30);
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// Rows of the answer that is shown.
const ROWS: usize = 3;

pub(super) struct Show<'a> {
    options: &'a Options,
    interrupt: &'a Interrupt,
    stack: &'a Stack,
    tailwater: &'a Tailwater,
    process: TailwaterProcess<'a>,
    dashboard: Dashboard,
    screen: Screen,
}

impl<'a> Show<'a> {
    /// Takes a Tailwater that is ready.
    pub(super) fn begin(
        options: &'a Options,
        interrupt: &'a Interrupt,
        stack: &'a Stack,
        tailwater: &'a Tailwater,
        process: TailwaterProcess<'a>,
    ) -> Result<Self> {
        let first = Reading::take(tailwater, stack.workload.counts())?;
        let steps: &[_] = if options.direct { &DIRECT } else { &OVER_KAFKA };
        let dashboard = Dashboard::new(steps, Duration::from_secs(options.duration), first);
        let screen = Screen::new();
        Ok(Self { options, interrupt, stack, tailwater, process, dashboard, screen })
    }

    /// All acts. `second` is the other version of the plugin that is replaced.
    pub(super) fn play(mut self, second: &Path) -> Result<()> {
        let duration = Duration::from_secs(self.options.duration);
        self.watch(duration / 2)?;
        let swapped_at = self.swap(second)?;
        self.watch(duration)?;
        let summary = self.dashboard.summary();
        self.screen.keep_block();
        self.screen.note(&format!("\n{summary}"));
        self.ask_over_http()?;
        let compared = self.compare(&swapped_at);
        if self.options.keep {
            if let Err(error) = &compared {
                self.screen.note(&format!("{error:#}"));
            }
            self.stay()?;
        }
        self.process.terminate(STOP_DEADLINE)?;
        compared
    }

    /// Shows what happens until that long after the beginning.
    fn watch(&mut self, until: Duration) -> Result<()> {
        while self.dashboard.elapsed() < until {
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let pace = if self.screen.is_terminal() { ON_TERMINAL } else { ELSEWHERE };
        self.interrupt.wait(pace);
        self.interrupt.check()?;
        ensure!(self.process.is_running()?, "tailwater ended by itself");
        self.dashboard.add(Reading::take(self.tailwater, self.stack.workload.counts())?);
        match self.screen.is_terminal() {
            true => self.screen.draw(&self.dashboard.block()),
            false => self.screen.note(&self.dashboard.line()),
        }
        Ok(())
    }

    /// Replaces the plugin's file and waits until the new version runs; the source's time then.
    fn swap(&mut self, second: &Path) -> Result<String> {
        let old = self.version()?;
        let file = plugin_file(self.tailwater, SWAPPED);
        let fresh = file.with_extension("wasm.new");
        fs::copy(second, &fresh)?;
        let replaced = Instant::now();
        fs::rename(&fresh, &file)?;
        let new = wait_for(SWAP_DEADLINE, "the new version of the plugin to run", || {
            let new = self.version()?;
            ensure!(self.interrupt.is_set() || new.digest != old.digest, "the old one runs");
            Ok(new)
        })?;
        self.interrupt.check()?;
        let swapped_at = clock(&self.stack.database())?;
        self.screen.note(&format!(
            "-- {:.1} s: {SWAPPED} was replaced live: generation {} ({}) took over from generation {} \
             ({}), {:.0} ms after its file was renamed into place",
            self.dashboard.elapsed().as_secs_f64(),
            new.generation,
            new.short(),
            old.generation,
            old.short(),
            replaced.elapsed().as_secs_f64() * 1e3,
        ));
        Ok(swapped_at)
    }

    fn version(&self) -> Result<PluginVersion> {
        let found = plugins(self.tailwater)?.into_iter().find(|plugin| plugin.name == SWAPPED);
        found.with_context(|| format!("find {SWAPPED} in /v0/status"))
    }

    /// Prints the command as one would type it, and runs just that.
    fn ask_over_http(&mut self) -> Result<()> {
        let url = self.tailwater.http_url();
        let command = format!("curl '{url}/v0/pipes/users_snapshot.ndjson?limit={ROWS}'");
        self.screen.note(&format!("\n$ {command}"));
        let silent = command.replacen("curl", "curl --silent --show-error --fail", 1);
        let output = Command::new("sh").args(["-c", &silent]).output().context("run curl")?;
        let answer = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(answer.lines().count() == ROWS, "not {ROWS} rows: {answer}");
        self.screen.note(&answer);
        Ok(())
    }

    /// Pauses the workload, waits until the copy has caught up, and says how the two compare.
    fn compare(&mut self, swapped_at: &str) -> Result<()> {
        let counts = self.stack.workload.pause()?;
        let paused = Instant::now();
        let (source, mut last) = (self.stack.database(), Comparison::default());
        let caught_up = wait_for(CATCH_UP_DEADLINE, "the copy to equal the source", || {
            if self.interrupt.is_set() {
                return Ok(());
            }
            last = Comparison::make(&source, self.tailwater, Some(swapped_at))?;
            ensure!(last.is_equal(), "{last}");
            Ok(())
        });
        self.interrupt.check()?;
        caught_up?;
        let [first, second] = last.masked.map(|rows| grouped(rows as f64));
        self.screen.note(&format!(
            "source and copy are equal after {} inserts, {} updates and {} deletes: {} rows, every \
             column of every row\n(e-mail as j***@example.com by the plugin's first version in \
             {first} rows, as j...@example.com by its second in {second}; compared {:.1} s after the \
             last commit)",
            grouped(counts.inserts as f64),
            grouped(counts.updates as f64),
            grouped(counts.deletes as f64),
            grouped(last.rows as f64),
            paused.elapsed().as_secs_f64(),
        ));
        Ok(())
    }

    /// Says where everything is, and goes on until Ctrl-C.
    fn stay(&mut self) -> Result<()> {
        self.stack.workload.resume()?;
        let mut lines = vec![
            "\nEverything goes on until Ctrl-C.".to_owned(),
            format!("  HTTP        {}", self.tailwater.http_url()),
            format!("  PostgreSQL  {}", self.stack.database().url()),
        ];
        lines.extend(
            self.stack.kafka.iter().map(|kafka| format!("  Kafka       {}", kafka.bootstrap())),
        );
        let file = plugin_file(self.tailwater, SWAPPED);
        lines.push(format!("  plugins     {}", file.parent().unwrap_or(&file).display()));
        lines.push(format!("  log         {}", self.tailwater.log_file().display()));
        self.screen.note(&lines.join("\n"));
        while !self.interrupt.is_set() {
            match self.screen.is_terminal() {
                true => match self.look() {
                    // Ctrl-C is what was asked for here.
                    Err(_) if self.interrupt.is_set() => {}
                    outcome => outcome?,
                },
                false => self.interrupt.wait_set(),
            }
        }
        Ok(())
    }
}
