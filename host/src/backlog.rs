//! When the steps are taken that carry changes on, and cost by the step rather than by the change: a transaction
//! of Kafka's, an insert of ClickHouse's.
//!
//! A step is taken some time after the one before. A change that comes after a pause finds that long
//! ago, and waits only for what comes in one go with it: the rows of a transaction, or records that a consumer
//! fetches partition by partition.
//!
//! Changes that committed long ago are another matter, and so are copied rows as long as more of them come. Nobody
//! waits for one of them in particular, so the steps are fewer and larger until the stream has caught up, which it
//! does sooner that way.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The age from which on a commit is long ago.
const AGE: Duration = Duration::from_secs(1);
/// How many times as long a step waits for more of them.
const FACTOR: u32 = 10;
/// No step becomes longer than this: what waits in it grows old, and must not be taken for a backlog forever.
const LONGEST: Duration = Duration::from_millis(500);

/// What comes in one go comes no farther apart than that.
const GAP: Duration = Duration::from_millis(10);

/// When changes came that wait for a step: the first of them and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    first: Instant,
    last: Instant,
}

impl Came {
    /// More of them came, or the first.
    pub fn more(known: &mut Option<Came>, now: Instant) {
        known.get_or_insert(Came { first: now, last: now }).last = now;
    }

    /// When to take the step, `patience` after the one `before`.
    #[must_use]
    pub fn due(self, before: Option<Instant>, patience: Duration) -> Instant {
        let gathered = (self.last + GAP).min(self.first + patience);
        before.map_or(gathered, |before| gathered.max(before + patience))
    }
}

/// Whether changes are behind whose newest commit was then, in microseconds since 1970. By this rows of a copy, which
/// have 0, are not. Where the clocks of the two machines differ by more than a second, all are or none.
#[must_use]
pub fn is_behind(newest_commit: i64, now: SystemTime) -> bool {
    let commit = UNIX_EPOCH + Duration::from_micros(newest_commit.max(0).unsigned_abs());
    newest_commit != 0 && now.duration_since(commit).is_ok_and(|age| age > AGE)
}

/// How far two steps are apart that are usually `interval` apart.
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
    fn a_step_comes_an_interval_after_the_one_before_and_soon_after_a_pause() {
        let (start, interval) = (Instant::now(), Duration::from_millis(50));
        let at = |ms| start + Duration::from_millis(ms);
        let due = |first, last, before: Option<u64>| {
            let came = Came { first: at(first), last: at(last) };
            (came.due(before.map(at), interval) - start).as_millis()
        };
        assert_eq!((due(100, 100, None), due(100, 100, Some(0))), (110, 110), "after a pause");
        assert_eq!((due(100, 109, None), due(100, 130, Some(60))), (119, 140), "more of it came");
        assert_eq!((due(100, 100, Some(90)), due(100, 145, Some(99))), (140, 150), "all the time");
        let mut came = None;
        for ms in [100, 120, 130] {
            Came::more(&mut came, at(ms));
        }
        assert_eq!(came, Some(Came { first: at(100), last: at(130) }));
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
