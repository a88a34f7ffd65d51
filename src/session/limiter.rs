//! Token buckets for what a venue counts: client messages, connection attempts, REST weight.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Lets at most `burst` tokens through at once and `burst` in every `per`, shared by all who hold it.
#[derive(Debug)]
pub struct Limiter {
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
    /// A full bucket. Panics if `burst` or `per` is zero: the checked configuration has neither.
    pub fn new(burst: u32, per: Duration) -> Self {
        assert!(burst > 0 && !per.is_zero(), "a limiter must let something through");
        let burst = f64::from(burst);
        let bucket = Mutex::new(Bucket { tokens: burst, at: Instant::now() });
        Self { burst, per_second: burst / per.as_secs_f64(), bucket }
    }

    /// Waits until `tokens` may go, and takes them. More than the burst counts as the burst. Takers are served
    /// in the order they ask: each books its place in time.
    pub async fn take(&self, tokens: u32) {
        let at = self.book(f64::from(tokens).min(self.burst));
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
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let limiter = Limiter::new(5, Duration::from_secs(1));
        let start = Instant::now();
        for _ in 0..5 {
            limiter.take(1).await;
        }
        assert_eq!(start.elapsed().as_millis(), 0);
        for _ in 0..10 {
            limiter.take(1).await;
        }
        assert_eq!(start.elapsed().as_millis().div_ceil(100), 20);
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
