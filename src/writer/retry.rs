//! How long to wait before trying the database again.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Doubling, capped and jittered: many shards that lost one database do not come back at one moment.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    rng: StdRng,
}

impl Backoff {
    /// Begins with short waits. `seed`: another for each shard.
    pub(super) fn new(seed: u64) -> Self {
        Self { next: FIRST, rng: StdRng::seed_from_u64(seed) }
    }

    /// The next wait: between half and all of the current step.
    pub(super) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LAST);
        step.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// Something worked: begin again with short waits.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_cap_and_begin_again() {
        let mut backoff = Backoff::new(1);
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait <= LAST && wait >= FIRST / 2);
        }
        assert!(backoff.wait() >= LAST / 2);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
