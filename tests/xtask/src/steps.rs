//! The steps that the commands have in common, each announced and timed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{setup as machine, workspace_root};

use crate::guests::build_guests;

/// Runs one step and says how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {title}");
    let start = Instant::now();
    let outcome = work().with_context(|| format!("{title} failed"))?;
    println!("== {title}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(outcome)
}

pub(crate) fn setup() -> Result<()> {
    step("setting the machine up", machine::everything)
}

pub(crate) fn guests() -> Result<()> {
    step("building the plugins", || {
        for plugin in build_guests()? {
            println!("{}", plugin.display());
        }
        Ok(())
    })
}

/// How the `tailwater` binary is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Dependencies are optimised a little; the tests run the same binary.
    Dev,
    /// As for production.
    Release,
}

/// Builds the `tailwater` binary; where it is. `--workspace`, because the features of dependencies
/// are unified over what is selected: selected alone, it would compile most of them again.
pub(crate) fn binary(profile: Profile) -> Result<PathBuf> {
    let (title, directory) = match profile {
        Profile::Dev => ("building tailwater (the tests' build; --release is faster)", "debug"),
        Profile::Release => ("building tailwater, optimised", "release"),
    };
    step(title, || {
        let mut build = cargo();
        build.args(["build", "--workspace", "--bin", "tailwater"]);
        if profile == Profile::Release {
            build.arg("--release");
        }
        run(&mut build)?;
        Ok(target_directory().join(directory).join("tailwater"))
    })
}

/// The environment in which tests find what was built for them.
pub(crate) fn test_environment(binary: PathBuf) -> Result<Vec<(&'static str, OsString)>> {
    Ok(vec![
        ("TAILWATER_BIN", binary.into()),
        ("TAILWATER_PLUGINS", plugins_directory().into()),
        ("TAILWATER_LIBCHDB", machine::chdb_library()?.into()),
        ("TAILWATER_CACHE", tailwater_test_support::cache::directory()?.into()),
    ])
}

/// Where built plugins are, as `<name>.wasm`.
pub(crate) fn plugins_directory() -> PathBuf {
    target_directory().join("plugins")
}

pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO");
    let mut command = Command::new(program.as_deref().unwrap_or(OsStr::new("cargo")));
    command.current_dir(workspace_root());
    command
}

/// Runs a command with our own output; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
