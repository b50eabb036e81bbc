//! How fast a version is.

use std::time::Duration;

/// Rows that both versions must have seen before their speeds are compared.
const PACE_ROWS: u64 = 1_000;
/// How much slower than the version before a version may be.
const PACE_RATIO: u32 = 10;
/// What is fast enough, however fast the version before was, per row.
const PACE_FLOOR: Duration = Duration::from_micros(50);

/// What a version took so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    pub(crate) rows: u64,
    pub(crate) time: Duration,
}

impl Pace {
    fn per_row(&self) -> Option<Duration> {
        let per_row = || self.time.as_nanos() / u128::from(self.rows);
        let known = (self.rows >= PACE_ROWS).then(per_row)?;
        Some(Duration::from_nanos(u64::try_from(known).unwrap_or(u64::MAX)))
    }

    /// How long so many rows are likely to take; none if that is not known yet.
    pub(crate) fn expected(&self, rows: u64) -> Option<Duration> {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Some(self.per_row()?.saturating_mul(rows))
    }

    pub(crate) fn is_far_slower_than(&self, before: &Pace) -> bool {
        let (Some(now), Some(before)) = (self.per_row(), before.per_row()) else { return false };
        now > PACE_FLOOR && now > before * PACE_RATIO
    }
}

/// Rows of which the time of one is told.
const USUAL_ROWS: u64 = 16;

/// What calls take that are answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usual {
    pub(super) rows: u64,
    pub(super) time: Duration,
    /// The least that a new instance took for its first answer.
    pub(super) first: Option<Duration>,
}

impl Usual {
    /// Takes in a call that was answered, with so many rows; `fresh`: it was the instance's first one.
    pub(crate) fn note(&mut self, rows: usize, time: Duration, fresh: bool) {
        self.rows += rows as u64;
        self.time += time;
        if fresh {
            self.first = Some(self.first.map_or(time, |least| least.min(time)));
        }
    }

    /// No call was answered yet.
    pub(crate) fn is_unknown(&self) -> bool {
        self.rows == 0
    }

    /// How long so many rows take; nothing if too few were seen.
    pub(crate) fn of(&self, rows: usize) -> Duration {
        if self.rows < USUAL_ROWS {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.time.as_secs_f64() * rows as f64 / self.rows as f64)
    }

    /// What a new instance takes beside the rows that it is shown, as far as that is known.
    pub(crate) fn warming_up(&self) -> Duration {
        self.first.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rows: u64, per_row: u64) -> Pace {
        Pace { rows, time: Duration::from_micros(rows * per_row) }
    }

    #[test]
    fn only_what_is_far_slower_over_many_rows_is_too_slow() {
        assert!(pace(1_000, 60).is_far_slower_than(&pace(5_000, 5)));
        assert!(!pace(1_000, 60).is_far_slower_than(&pace(5_000, 6)), "not ten times");
        assert!(!pace(1_000, 40).is_far_slower_than(&pace(5_000, 1)), "fast enough");
        assert!(!pace(999, 60).is_far_slower_than(&pace(5_000, 5)), "too few rows");
    }
}
