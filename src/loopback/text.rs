//! Numbers and times as text, appended to a byte buffer without allocating.
//!
//! Prices and quantities are integers in units of the last decimal place, as the market model keeps them.
#![expect(clippy::cast_possible_truncation, reason = "digits and pairs of digits are below 100")]

/// Appends an unsigned integer.
pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    while value >= 100 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if value >= 10 {
        let pair = value as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an unsigned integer with leading zeros to at least `width` (at most 20) digits.
pub(super) fn put_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut bound = 10_u64;
    let mut digits = 1;
    while value >= bound && digits < 19 {
        bound *= 10;
        digits += 1;
    }
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits)));
    put_u64(out, value);
}

/// Appends `value` units of 10^-`scale` with exactly `decimals` (at least `scale`) decimal places.
pub(super) fn put_decimal(out: &mut Vec<u8>, value: u64, scale: u32, decimals: u32) {
    let unit = POWERS[scale as usize];
    put_u64(out, value / unit);
    if decimals == 0 {
        return;
    }
    out.push(b'.');
    if scale > 0 {
        put_padded(out, value % unit, scale as usize);
    }
    out.extend_from_slice(&ZEROS[..decimals.saturating_sub(scale) as usize]);
}

/// Writes `2026-08-01T02:53:53.398143Z` for microseconds since the Unix epoch, with the day and second
/// worked out once for each second.
#[derive(Debug, Default)]
pub(super) struct IsoClock {
    second: Option<i64>,
    head: Vec<u8>,
}

impl IsoClock {
    /// Appends the time. Times before 1970 are written as 1970.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, time_us: i64) {
        let time_us = time_us.max(0);
        let second = time_us / 1_000_000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.head.clear();
            put_second(&mut self.head, second.unsigned_abs());
        }
        out.extend_from_slice(&self.head);
        out.push(b'.');
        put_padded(out, (time_us % 1_000_000).unsigned_abs(), 6);
        out.push(b'Z');
    }
}

fn put_second(out: &mut Vec<u8>, second: u64) {
    // Days to a civil date with years that begin in March, so that a leap day ends one.
    let (days, of_day) = (second / 86_400, second % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let fields = [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T'), (of_day / 3_600, 2, b':')];
    for (value, width, after) in fields {
        put_padded(out, value, width);
        out.push(after);
    }
    put_padded(out, of_day / 60 % 60, 2);
    out.push(b':');
    put_padded(out, of_day % 60, 2);
}

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";
const ZEROS: &[u8; 18] = b"000000000000000000";
/// Powers of ten by exponent.
pub(super) const POWERS: [u64; 13] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
    1_000_000_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_of_every_length_are_written_as_they_are() {
        for value in [0, 9, 10, 99, 100, 12_345, 1_000_000, u64::MAX] {
            assert_eq!(text(|out| put_u64(out, value)), value.to_string());
        }
        assert_eq!(text(|out| put_padded(out, 42, 6)), "000042");
        assert_eq!(text(|out| put_padded(out, 1_234_567, 6)), "1234567");
    }

    #[test]
    fn decimals_keep_their_trailing_zeros() {
        assert_eq!(text(|out| put_decimal(out, 6_183_763, 2, 8)), "61837.63000000");
        assert_eq!(text(|out| put_decimal(out, 630_000, 1, 1)), "63000.0");
        assert_eq!(text(|out| put_decimal(out, 5, 8, 8)), "0.00000005");
        assert_eq!(text(|out| put_decimal(out, 120, 0, 0)), "120");
        assert_eq!(text(|out| put_decimal(out, 7, 0, 2)), "7.00");
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        let mut clock = IsoClock::default();
        for (us, iso) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_785_552_833_398_143, "2026-08-01T02:53:53.398143Z"),
            (1_709_164_799_999_999, "2024-02-28T23:59:59.999999Z"),
            (1_709_164_800_000_000, "2024-02-29T00:00:00.000000Z"),
            (1_735_689_600_000_001, "2025-01-01T00:00:00.000001Z"),
        ] {
            assert_eq!(text(|out| clock.put(out, us)), iso);
        }
    }
}
