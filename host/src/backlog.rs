//! Changes that committed long ago. Nobody waits for one of them in particular, and what carries them on
//! costs by the step rather than by the change: a transaction of Kafka's, an insert of ClickHouse's. So
//! the steps are fewer and larger until the stream has caught up, which it does sooner that way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The age from which on a commit is long ago.
const AGE: Duration = Duration::from_secs(1);
/// How many times as long a step waits for more of them.
const FACTOR: u32 = 10;
/// No step becomes longer than this: what waits in it grows old, and must not be taken for a backlog forever.
const LONGEST: Duration = Duration::from_millis(500);

/// Whether changes are behind whose newest commit was then, in microseconds since 1970. Rows of a copy, which
/// have 0, are not. Where the clocks of the two machines differ by more than a second, all are or none.
#[must_use]
pub fn is_behind(newest_commit: i64, now: SystemTime) -> bool {
    let commit = UNIX_EPOCH + Duration::from_micros(newest_commit.max(0).unsigned_abs());
    newest_commit != 0 && now.duration_since(commit).is_ok_and(|age| age > AGE)
}

/// How long a step waits for more that usually waits for `interval`.
#[must_use]
pub fn patience(interval: Duration, is_behind: bool) -> Duration {
    if is_behind { (interval * FACTOR).min(LONGEST).max(interval) } else { interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_behind_when_their_newest_commit_is_more_than_a_second_old() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert!(is_behind(998_900_000, now) && is_behind(1, now) && is_behind(-1, now));
        assert!(!is_behind(999_100_000, now) && !is_behind(1_000_000_000, now));
        assert!(!is_behind(2_000_000_000, now), "the source's clock is ahead");
        assert!(!is_behind(0, now), "rows of a copy");
    }

    #[test]
    fn what_is_behind_waits_ten_times_as_long_and_half_a_second_at_most() {
        let wait =
            |interval, is_behind| patience(Duration::from_millis(interval), is_behind).as_millis();
        assert_eq!((wait(25, false), wait(25, true)), (25, 250));
        assert_eq!((wait(100, false), wait(100, true)), (100, 500));
        assert_eq!((wait(3_000, false), wait(3_000, true)), (3_000, 3_000));
    }
}
