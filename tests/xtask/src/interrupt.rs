//! Ctrl-C and SIGTERM as a flag, so that what was started is stopped in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use tailwater_test_support::wait_until;

const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Set by the first SIGINT or SIGTERM; the second one ends the process at once, and with it, by
/// their parent-death signals, all that it started.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order the handler of the second signal finds the flag set by the first.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once it is set: for long ways that `?` is to end.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.is_set(), "interrupted");
        Ok(())
    }

    /// Returns when it is set, and after `longest` at the latest; whether it is set.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        wait_until(longest, "Ctrl-C", || self.is_set()).is_ok()
    }

    /// Returns when it is set.
    pub(crate) fn wait_set(&self) {
        while !self.wait(FOREVER) {}
    }
}
