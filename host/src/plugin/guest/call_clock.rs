//! When a call has to end, and how long it computed, which on a busy machine is less than what passed.
//!
//! To ask for a thread's time costs more than a short call, so it is asked only of calls that last longer than a
//! tick, from the first one on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use crate::plugin::guest::engine::TICK;

/// Of one call.
#[derive(Debug, Default)]
pub(crate) struct CallClock {
    /// Ticks that it has behind the first one.
    left: u64,
    /// What its thread had computed by then.
    since: Option<Duration>,
}

impl CallClock {
    /// Of a call that begins, and the ticks after which it is looked at.
    pub(crate) fn start(time: Duration) -> (CallClock, u64) {
        (CallClock { left: ticks(time) - 1, since: None }, 1)
    }

    /// What becomes of the call when its ticks have passed.
    pub(crate) fn ring(&mut self) -> UpdateDeadline {
        if self.since.is_some() || self.left == 0 {
            return UpdateDeadline::Interrupt;
        }
        self.since = Some(thread_time());
        UpdateDeadline::Continue(self.left)
    }

    /// What the call, which has ended, computed after its first tick.
    pub(crate) fn computed(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| thread_time().saturating_sub(since))
    }
}

/// One tick more, because the current one has partly passed.
pub(crate) fn ticks(time: Duration) -> u64 {
    let ticks = time.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
}

/// For how long this thread ran on a core so far.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_looked_at_once_and_ends_when_its_time_is_over() {
        let (mut clock, first) = CallClock::start(TICK * 100);
        assert_eq!((first, clock.computed()), (1, Duration::ZERO));
        let UpdateDeadline::Continue(rest) = clock.ring() else { panic!("it ended at once") };
        assert_eq!(first + rest, ticks(TICK * 100));
        let before = thread_time();
        while thread_time() < before + TICK {}
        assert!(clock.computed() >= TICK);
        assert!(matches!(clock.ring(), UpdateDeadline::Interrupt));
    }

    #[test]
    fn a_call_that_has_no_time_ends_at_the_first_look() {
        let (mut clock, _) = CallClock::start(Duration::ZERO);
        assert!(matches!(clock.ring(), UpdateDeadline::Interrupt));
    }
}
