//! What a process and what is behind it hold at one moment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tailwater_test_support::Tailwater;

/// One moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Duration,
    values: [f64; Watched::ALL.len()],
    /// Changes a second that were written.
    pub(super) rate: f64,
}

/// What could grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Memory,
    EngineMemory,
    Threads,
    Descriptors,
    Parts,
    Files,
}

impl Watched {
    pub(super) const ALL: [Watched; 6] = [
        Watched::Memory,
        Watched::EngineMemory,
        Watched::Threads,
        Watched::Descriptors,
        Watched::Parts,
        Watched::Files,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Watched::Memory => "memory, MiB",
            Watched::EngineMemory => "memory of the engine, MiB",
            Watched::Threads => "threads",
            Watched::Descriptors => "file descriptors",
            Watched::Parts => "parts on disk",
            Watched::Files => "files beside the parts",
        }
    }

    /// What it may rise by beside a tenth: these come and go with the load.
    pub(super) fn slack(self) -> f64 {
        match self {
            Watched::Memory => 8.0,
            Watched::EngineMemory => 64.0,
            Watched::Threads | Watched::Descriptors => 4.0,
            Watched::Parts => 100.0,
            Watched::Files => 16.0,
        }
    }

    pub(super) fn of(self, sample: &Sample) -> f64 {
        sample.values[self as usize]
    }

    pub(super) fn median(self, samples: &[Sample]) -> f64 {
        let mut values: Vec<f64> = samples.iter().map(|sample| self.of(sample)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
}

impl Sample {
    pub(super) fn take(
        tailwater: &Tailwater,
        process: u32,
        rate: f64,
        at: Duration,
    ) -> Result<Self> {
        let engine = children(process)?;
        let (parts, files) = count(&tailwater.directory().join("tailwater-data"))?;
        let value = |watched| -> Result<f64> {
            Ok(match watched {
                Watched::Memory => status(process, "VmRSS:")? / 1024.0,
                Watched::EngineMemory => {
                    let all: Result<Vec<f64>> =
                        engine.iter().map(|child| status(*child, "VmRSS:")).collect();
                    all?.iter().sum::<f64>() / 1024.0
                }
                Watched::Threads => status(process, "Threads:")?,
                Watched::Descriptors => fs::read_dir(format!("/proc/{process}/fd"))?.count() as f64,
                Watched::Parts => parts,
                Watched::Files => files,
            })
        };
        let mut values = [0.0; Watched::ALL.len()];
        for (slot, watched) in values.iter_mut().zip(Watched::ALL) {
            *slot = value(watched)?;
        }
        Ok(Self { at, values, rate })
    }
}

/// A number of `/proc/PID/status`.
fn status(process: u32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| format!("find {name}"))?.parse()?)
}

fn children(process: u32) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(all)
}

/// Parts of tables below a directory, and files that belong to none. What goes away meanwhile
/// is not counted.
fn count(directory: &Path) -> Result<(f64, f64)> {
    let (mut parts, mut files, mut left) = (0.0, 0.0, vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match entry.file_name().to_str() {
                Some(name) if is_directory && is_part(name) => parts += 1.0,
                _ if is_directory => left.push(entry.path()),
                _ => files += 1.0,
            }
        }
    }
    Ok((parts, files))
}

/// `<partition>_<first block>_<last block>_<level>`
fn is_part(name: &str) -> bool {
    let numbers: Vec<&str> = name.rsplitn(4, '_').take(3).collect();
    let number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.len() == 3 && numbers.iter().all(number) && name.matches('_').count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_its_name() {
        assert!(is_part("all_1_17_2"));
        assert!(is_part("202611_1_1_0"));
        assert!(!is_part("detached"));
        assert!(!is_part("format_version_1"));
    }
}
