//! Fetching through the ordinary clients, so that a machine's mirror and proxy settings hold, and
//! checking what came against a pinned digest.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

pub(crate) use tailwater_project::run;

use crate::progress::Progress;
use crate::wait_for;

/// How often a running fetch is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Runs `command` under one progress line; `percent` is asked now and then how far it is. On failure
/// the error carries the end of what the command printed.
pub(crate) fn run_with_progress(
    title: &str,
    command: &mut Command,
    percent: impl Fn() -> u64,
) -> Result<()> {
    let mut progress = Progress::start(title);
    let output = tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    let status = loop {
        match wait_for(LOOK, "the command to end", || child.try_wait()?.context("it runs")) {
            Ok(status) => break status,
            Err(_) => progress.percent(percent().min(99)),
        }
    };
    ensure!(status.success(), "{command:?} ended with {status}:\n{}", tail(output)?);
    progress.finish();
    Ok(())
}

/// Fetches `url` to `file` and checks its SHA-256, given in hex; `size` in bytes is for the progress.
pub(crate) fn fetch(title: &str, url: &str, file: &Path, size: u64, sha256: &str) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--retry", "3", "--output"]);
    curl.arg(file).arg(url);
    run_with_progress(title, &mut curl, || {
        fs::metadata(file).map_or(0, |metadata| metadata.len() * 100 / size)
    })?;
    check_sha256(file, sha256)
}

/// An error unless `file` has the SHA-256 `expected`, given in hex.
pub(crate) fn check_sha256(file: &Path, expected: &str) -> Result<()> {
    let mut input = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == expected, "{} has sha256 {found}, expected {expected}", file.display());
    Ok(())
}

fn tempfile() -> Result<File> {
    let path = std::env::temp_dir().join(crate::unique_name(".tailwater_output"));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn tail(mut output: File) -> Result<String> {
    use std::io::{Seek as _, SeekFrom};
    output.seek(SeekFrom::Start(0))?;
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(30)..].join("\n"))
}
