//! Token buckets for what a venue counts: client messages, connection attempts, REST weight.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Lets at most so many tokens through in any stretch of time of a given length, shared by all who hold it: half of them at
/// once, if none went for a while, and the other half evenly. A full burst and a full flow behind it would be twice what
/// the venue allows, and venues close connections and ban addresses for that.
#[derive(Debug)]
pub struct Limiter {
    most: f64,
    burst: f64,
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    /// At most `most` tokens in any `per`, with a full burst to begin with. Panics if either is zero: the checked
    /// configuration has neither.
    pub fn new(most: u32, per: Duration) -> Self {
        assert!(most > 0 && !per.is_zero(), "a limiter must let something through");
        let burst = (most / 2).max(1);
        let flow = (most - burst).max(1);
        let (most, burst) = (f64::from(most), f64::from(burst));
        let bucket = Mutex::new(Bucket { tokens: burst, at: Instant::now() });
        Self { most, burst, per_second: f64::from(flow) / per.as_secs_f64(), bucket }
    }

    /// Waits until `tokens` may go, and takes them. More than may ever go counts as that much. Takers are served
    /// in the order they ask: each books its place in time.
    pub async fn take(&self, tokens: u32) {
        let at = self.book(f64::from(tokens).min(self.most));
        sleep_until(at).await;
    }

    /// When the next single token will be there. Takes nothing.
    pub fn next(&self) -> Instant {
        let bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.at + Duration::from_secs_f64(((1.0 - bucket.tokens) / self.per_second).max(0.0))
    }

    /// Takes one token if it is there now.
    pub fn try_take(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        self.refill(&mut bucket, Instant::now());
        let is_there = bucket.tokens >= 1.0 - ROUNDING;
        if is_there {
            bucket.tokens -= 1.0;
        }
        is_there
    }

    /// Lets nothing through for `pause`: the venue asked for it.
    pub fn pause(&self, pause: Duration) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        self.refill(&mut bucket, Instant::now());
        bucket.tokens = bucket.tokens.min(-pause.as_secs_f64() * self.per_second);
    }

    fn book(&self, tokens: f64) -> Instant {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        self.refill(&mut bucket, now);
        bucket.tokens -= tokens;
        now + Duration::from_secs_f64((-bucket.tokens / self.per_second).max(0.0))
    }

    fn refill(&self, bucket: &mut Bucket, now: Instant) {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = since.mul_add(self.per_second, bucket.tokens).min(self.burst);
        bucket.at = now;
    }
}

/// What a sum of refills may fall short of a whole token by rounding alone.
const ROUNDING: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_stretch_of_time_has_more_than_the_limit_and_half_of_it_goes_at_once() {
        for most in [1, 2, 5, 10, 300] {
            let limiter = Limiter::new(most, Duration::from_secs(1));
            let start = Instant::now();
            let mut times = Vec::new();
            for index in 0..most * 4 {
                if index == most * 2 {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                }
                limiter.take(1).await;
                times.push(start.elapsed());
            }
            for (index, time) in times.iter().enumerate() {
                let end = *time + Duration::from_millis(998);
                let count = times[index..].iter().take_while(|other| **other < end).count();
                assert!(count <= most as usize, "{count} of {most} from {time:?} on");
            }
            let at_once = times.iter().take_while(|time| time.is_zero()).count();
            assert_eq!(at_once, (most as usize / 2).max(1));
            assert!(times.last().unwrap() <= &Duration::from_secs(9), "{:?}", times.last());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everyone_back() {
        let limiter = Limiter::new(100, Duration::from_secs(1));
        let start = Instant::now();
        limiter.pause(Duration::from_secs(3));
        limiter.take(1).await;
        assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    }
}
