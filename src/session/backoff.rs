//! How long to wait before trying again: doubling, capped, jittered, and forgotten after a good while.

use std::time::Duration;

use rand::RngExt;

/// Delays of one thing that is tried again and again.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays from about `first` up to `max`.
    pub(super) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// Notes one more failure.
    pub(super) const fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The delay after the failures so far: none after none, then `first`, doubled a failure, at most `max`, of which
    /// the upper half is random so that lanes that fell together do not come back together.
    pub(super) fn delay(&self) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let whole = self.first.saturating_mul(1 << doublings.min(DOUBLINGS_MAX)).min(self.max);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Forgets the failures: it worked.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}

/// Beyond this many doublings every cap is reached.
const DOUBLINGS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_over_after_success() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, max);
        assert_eq!(backoff.delay(), Duration::ZERO);
        for doubling in 0..40u32 {
            let whole = first.saturating_mul(1 << doubling.min(10)).min(max);
            backoff.fail();
            let delay = backoff.delay();
            assert!(delay >= whole / 2 && delay <= whole, "{delay:?} is outside {whole:?}/2 .. {whole:?}");
        }
        backoff.reset();
        backoff.fail();
        assert!(backoff.delay() <= first);
    }
}
