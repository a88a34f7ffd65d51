//! Noticing that somebody set the host's clock.
//!
//! Receive times, and the timers that adapters and the watchdog count from them, are of the host's clock. One that is set
//! back would stop those timers for as long, one that is set forward would let them all run out. So a step ends the
//! connection: with the next one every timer begins anew. Limits and pauses count by the monotonic clock and do not notice.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Holds the host's clock against the monotonic one.
#[derive(Debug)]
pub(super) struct ClockSteps {
    wall: SystemTime,
    steady: Instant,
}

impl ClockSteps {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// What was done to the clock since the last look, in words; `None` when it was nothing worth mentioning.
    pub(super) fn look(&mut self) -> Option<String> {
        let before = std::mem::replace(self, Self::new());
        step(before.wall, self.wall, self.steady - before.steady)
    }
}

fn step(before: SystemTime, now: SystemTime, elapsed: Duration) -> Option<String> {
    let expected = before + elapsed;
    match now.duration_since(expected) {
        Ok(ahead) if ahead > STEP_MIN => Some(format!("the host's clock was set forward by {ahead:.0?}")),
        Err(behind) if behind.duration() > STEP_MIN => {
            Some(format!("the host's clock was set back by {:.0?}", behind.duration()))
        }
        Ok(_) | Err(_) => None,
    }
}

/// Smaller steps are what slewing and a busy machine make.
const STEP_MIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_time_that_passed() {
        let (start, hour, second) = (SystemTime::UNIX_EPOCH, Duration::from_secs(3_600), Duration::from_secs(1));
        let noon = start + 12 * hour;
        assert_eq!(step(noon, noon + second, second), None);
        assert_eq!(step(noon, noon + 4 * second, second), None);
        assert_eq!(step(noon, noon + hour, hour), None, "a thread that slept is no step");
        assert_eq!(step(noon, noon - hour, second).unwrap(), "the host's clock was set back by 3601s");
        assert_eq!(step(noon, noon + hour + second, second).unwrap(), "the host's clock was set forward by 3600s");
    }
}
