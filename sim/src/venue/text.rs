//! Numbers and moments as venues write them.

/// A number of smallest steps with so many decimals.
#[must_use]
pub fn decimal(value: u64, decimals: u32) -> String {
    let unit = 10u64.pow(decimals);
    format!("{}.{:0width$}", value / unit, value % unit, width = decimals as usize)
}

/// RFC 3339 with microseconds. Moments of one month after [`EPOCH_US`] are enough for any run.
#[must_use]
pub fn rfc3339(time_us: i64) -> String {
    let since = (time_us - EPOCH_US).max(0).unsigned_abs();
    let (seconds, micros) = (since / 1_000_000, since % 1_000_000);
    let (day, hour, minute, second) = (2 + seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// 2024-01-02T00:00:00Z, when every world begins.
pub const EPOCH_US: i64 = 1_704_153_600_000_000;
