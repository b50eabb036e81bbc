//! When a plugin fails on most of what it is shown, it is the plugin that is broken and not the rows:
//! the chain stops before a whole table is set aside row by row.
//!
//! One that hangs is known by fewer rows, because all tables wait for them: by the time that calls took which
//! were cut off.

use std::time::Duration;

use crate::plugin::error::Error;
use crate::plugin::options::Options;

/// Deadlines that calls may take in a row that are cut off: more than on a machine that is busy for a moment.
const DEADLINES_MAX: u32 = 32;

/// Counts rows and failures of the version that runs, older ones for less.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    rows: u64,
    failed: u64,
    /// Why it failed on the last one.
    reason: String,
    /// What calls that were cut off took since one was answered.
    hung: Duration,
}

impl Breaker {
    /// A call was answered.
    pub(super) fn answered(&mut self) {
        self.hung = Duration::ZERO;
    }

    /// A call was cut off after that time.
    pub(super) fn hung(&mut self, given: Duration) {
        self.hung += given;
    }

    /// It failed on a row.
    pub(super) fn failed(&mut self, reason: &str) {
        reason.clone_into(&mut self.reason);
    }

    /// Takes in a batch.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Hanging`]; it begins anew then.
    pub(super) fn count(&mut self, options: &Options, rows: u64, failed: u64) -> Result<(), Error> {
        self.rows += rows;
        self.failed += failed;
        let percent = u64::from(options.breaker_percent);
        if options.breaker_rows > 0 && self.hung >= options.deadline() * DEADLINES_MAX {
            *self = Breaker::default();
            return Err(Error::Hanging { plugin: options.name.clone(), deadlines: DEADLINES_MAX });
        }
        if options.breaker_rows == 0 || self.rows < options.breaker_rows {
            return Ok(());
        }
        if self.failed * 100 <= self.rows * percent {
            // What lies further back counts half each time a window is full.
            self.rows /= 2;
            self.failed /= 2;
            return Ok(());
        }
        let Breaker { rows, failed, reason, .. } = std::mem::take(self);
        Err(Error::Broken { plugin: options.name.clone(), failed, rows, reason })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn options(breaker_rows: u64, breaker_percent: u32) -> Options {
        let options = Options::of_component(Path::new("p.wasm"), Vec::new());
        Options { breaker_rows, breaker_percent, ..options }
    }

    #[test]
    fn a_few_failures_never_open_it_however_many_rows_there_are() {
        let mut breaker = Breaker::default();
        assert!((0..1000).all(|_| breaker.count(&options(100, 50), 40, 20).is_ok()));
    }

    #[test]
    fn a_version_that_begins_to_fail_opens_it_within_two_windows() {
        let mut breaker = Breaker::default();
        assert!((0..100).all(|_| breaker.count(&options(100, 50), 10, 0).is_ok()));
        let failing = (1..).find(|_| breaker.count(&options(100, 50), 10, 10).is_err());
        assert!(failing.is_some_and(|batches| batches <= 20), "{failing:?}");
    }

    #[test]
    fn calls_that_hang_in_a_row_open_it_however_few_rows_there_are() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            let mut hangs = || {
                breaker.hung(options(1000, 50).deadline());
                breaker.count(&options(1000, 50), 1, 1)
            };
            assert!((1..DEADLINES_MAX).all(|_| hangs().is_ok()));
            assert!(matches!(hangs(), Err(Error::Hanging { deadlines: DEADLINES_MAX, .. })));
        }
        for _ in 0..DEADLINES_MAX {
            breaker.hung(options(1000, 50).deadline());
            breaker.answered();
        }
        assert!(breaker.count(&options(1000, 50), 1, 1).is_ok(), "not in a row");
    }

    #[test]
    fn without_a_window_it_stays_closed() {
        let mut breaker = Breaker::default();
        (0..DEADLINES_MAX).for_each(|_| breaker.hung(options(0, 50).deadline()));
        assert!(breaker.count(&options(0, 50), 1_000_000, 1_000_000).is_ok());
    }
}
