//! The pauses between attempts at something that waiting may mend.

use std::time::Duration;

use rand::Rng;

/// Doubles the pause after every attempt that failed, up to the longest. Each is shorter by up to a quarter, at
/// random, so that many who wait for the same thing do not all come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From the first pause to the longest.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, next: first }
    }

    /// The pause after an attempt that failed.
    pub fn pause(&mut self, random: &mut impl Rng) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        whole.mul_f64(random.random_range(0.75..=1.0))
    }

    /// Begins with the first pause again: the last attempt got somewhere.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut random = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new(FIRST, FIRST * 5);
        let mut is_of = |whole: Duration, backoff: &mut Backoff| {
            let pause = backoff.pause(&mut random);
            assert!(whole * 3 / 4 <= pause && pause <= whole, "{pause:?} of {whole:?}");
        };
        for times in [1, 2, 4, 5, 5] {
            is_of(FIRST * times, &mut backoff);
        }
        backoff.reset();
        is_of(FIRST, &mut backoff);
    }

    #[test]
    fn two_that_wait_for_the_same_come_back_at_different_times() {
        let mut random = StdRng::seed_from_u64(7);
        let mut pause = || Backoff::new(FIRST, FIRST).pause(&mut random);
        assert_ne!(pause(), pause());
    }
}
