//! `cargo xtask fuzz`: libFuzzer over everything that strangers write.
//!
//! Coverage wants its own compiler flags, for our crates only: this program is the wrapper that cargo
//! calls in place of the compiler, so that dependencies are not built once more.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::workspace_root;

use crate::steps;

/// Set while cargo calls this program in place of the compiler.
const WRAPPING: &str = "TAILWATER_FUZZ_BUILD";
/// Tells the fuzzer which target runs.
const TARGET: &str = "TAILWATER_FUZZ_TARGET";

const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Takes minutes to compile, which a run of a few seconds is not worth.
const OPTIMISED: [&str; 2] = ["--config", "profile.dev.package.tailwater.opt-level=2"];

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// These targets only; all of them run at the same time
    targets: Vec<String>,
}

/// In place of the compiler: calls it with more flags. Returns if this is not what is asked.
pub(crate) fn compile_if_asked() -> Result<()> {
    if std::env::var_os(WRAPPING).is_none() {
        return Ok(());
    }
    let mut arguments = std::env::args_os().skip(1);
    let compiler = arguments.next().context("the compiler's name is missing")?;
    let mut command = Command::new(compiler);
    command.args(arguments).args(FLAGS);
    Err(command.exec()).context("start the compiler")
}

/// Sets up, builds and fuzzes.
pub(crate) fn run(options: &Options) -> Result<()> {
    steps::setup()?;
    fuzz(&options.targets, options.seconds, &OPTIMISED)
}

/// A few seconds of each target, for the test command: what is kept is tried again, and a little more.
pub(crate) fn briefly() -> Result<()> {
    fuzz(&[], 3, &[])
}

/// Fuzzes the targets that are chosen, built with more arguments of cargo; all if none is.
fn fuzz(chosen: &[String], seconds: u32, arguments: &[&str]) -> Result<()> {
    let binary = steps::step("building the fuzzer", || build(arguments))?;
    let mut targets = known(&binary)?;
    for target in chosen {
        let known = targets.join(", ");
        ensure!(targets.contains(target), "there is no target `{target}`: {known}");
    }
    targets.retain(|target| chosen.is_empty() || chosen.contains(target));
    steps::step(&format!("fuzzing for {seconds} s"), || {
        let start = |target: &String| start(&binary, target, seconds);
        let mut running = targets.iter().map(start).collect::<Result<Vec<_>>>()?;
        let mut found = Vec::new();
        for (target, (fuzzer, log)) in targets.iter().zip(&mut running) {
            let status = fuzzer.wait()?;
            let text = fs::read_to_string(&log).unwrap_or_default();
            println!("{target}: {}", text.lines().last().unwrap_or_default());
            if !status.success() {
                found.push(format!("{target} ({})", log.display()));
            }
        }
        ensure!(found.is_empty(), "the fuzzer found something: {}", found.join(", "));
        Ok(())
    })
}

fn build(arguments: &[&str]) -> Result<PathBuf> {
    let directory = steps::target_directory().join("fuzz");
    let mut cargo = steps::cargo();
    cargo.args(["build", "--quiet", "--package", "tailwater-fuzz"]).args(arguments);
    cargo.env(WRAPPING, "1").env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?);
    steps::run(&mut cargo)?;
    fs::create_dir_all(&directory)?;
    // Another build would put the empty program in its place.
    let kept = directory.join("tailwater-fuzz");
    fs::copy(steps::target_directory().join("debug/tailwater-fuzz"), &kept)?;
    Ok(kept)
}

/// The names of the targets: told no name, the fuzzer prints them.
fn known(binary: &Path) -> Result<Vec<String>> {
    let output = Command::new(binary).env_remove(TARGET).output()?;
    let names: Vec<_> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    ensure!(output.status.success() && !names.is_empty(), "the fuzzer names no target");
    Ok(names)
}

fn start(binary: &PathBuf, target: &str, seconds: u32) -> Result<(std::process::Child, PathBuf)> {
    let directory = steps::target_directory().join("fuzz").join(target);
    let grown = directory.join("corpus");
    fs::create_dir_all(&grown)?;
    let log = directory.join("log");
    let output = fs::File::create(&log)?;
    let mut artifacts = OsString::from("-artifact_prefix=");
    artifacts.push(directory.join(""));
    let mut command = Command::new(binary);
    command.env(TARGET, target);
    command.arg(format!("-max_total_time={seconds}"));
    command.args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=0"]);
    command.arg(artifacts).arg(grown);
    // What is in the repository is read and never written.
    command.arg(workspace_root().join("tests/fuzz/corpus").join(target));
    command.stdout(output.try_clone()?).stderr(output);
    Ok((command.spawn().with_context(|| format!("start {}", binary.display()))?, log))
}
