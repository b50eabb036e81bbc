//! Running the programs of a toolchain.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It cannot be run, or fails; the error carries what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    // Cargo writes what machines read to the one, and what people read to the other.
    let said = if stderr.trim().is_empty() { &stdout } else { &stderr };
    ensure!(output.status.success(), "{program} ended with {}: {said}", output.status);
    Ok(stdout.into_owned())
}
