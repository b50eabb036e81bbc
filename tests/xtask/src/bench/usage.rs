//! What a process used, by the kernel's account.

use std::fs;

use anyhow::{Context as _, Result};

/// The kernel counts processor time in these, a hundred a second on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process's processor time and memory so far; its children apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// In user and kernel mode, in seconds.
    pub(super) cpu_seconds: f64,
    /// The most that was resident at once, in MiB, where somebody looked before its end.
    pub(super) peak_rss_mb: Option<f64>,
}

impl Usage {
    pub(super) fn of(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let cpu_seconds = cpu_seconds(&stat).context("read a process's stat")?;
        let peak_rss_mb = Some(peak_rss_mb(&status).context("read a process's status")?);
        Ok(Self { cpu_seconds, peak_rss_mb })
    }
}

/// Processor time of the children of this process that have ended, in seconds.
pub(super) fn cpu_seconds_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    seconds_at(&stat, CHILDREN).context("read our own stat")
}

/// Where the times in user and kernel mode are behind the name: fields 14 and 15,
const OWN: usize = 11;
/// and those of ended children, 16 and 17.
const CHILDREN: usize = 13;

fn cpu_seconds(stat: &str) -> Option<f64> {
    seconds_at(stat, OWN)
}

/// The name may hold anything but ends with the last parenthesis.
fn seconds_at(stat: &str, first: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(first);
    let ticks = |field: Option<&str>| field?.parse::<f64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) / TICKS_PER_SECOND)
}

fn peak_rss_mb(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 30 70 20 0 4 0 100 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(seconds_at(stat, CHILDREN), Some(1.0));
    }

    #[test]
    fn the_peak_is_read_in_mebibytes() {
        assert_eq!(peak_rss_mb("VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\n"), Some(2.0));
    }
}
