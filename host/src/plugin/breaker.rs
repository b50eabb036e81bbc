//! When a plugin fails on most of what it is shown, it is the plugin that is broken and not the rows:
//! the chain stops before a whole table is set aside row by row.

use crate::plugin::error::Error;
use crate::plugin::options::Options;

/// Counts rows and failures of the version that runs, older ones for less.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    rows: u64,
    failed: u64,
}

impl Breaker {
    /// Takes in a batch.
    ///
    /// # Errors
    /// [`Error::Broken`]; it begins anew then.
    pub(super) fn count(&mut self, options: &Options, rows: u64, failed: u64) -> Result<(), Error> {
        self.rows += rows;
        self.failed += failed;
        let percent = u64::from(options.breaker_percent);
        if options.breaker_rows == 0 || self.rows < options.breaker_rows {
            return Ok(());
        }
        if self.failed * 100 <= self.rows * percent {
            // What lies further back counts half each time a window is full.
            self.rows /= 2;
            self.failed /= 2;
            return Ok(());
        }
        let Breaker { rows, failed } = std::mem::take(self);
        Err(Error::Broken { plugin: options.name.clone(), failed, rows })
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
    fn without_a_window_it_stays_closed() {
        assert!(Breaker::default().count(&options(0, 50), 1_000_000, 1_000_000).is_ok());
    }
}
