//! Moments as people read them, in UTC.

/// Microseconds since 1970 as `2026-11-20T14:05:54.123456Z`, without a fraction that is zero.
#[must_use]
pub fn iso(micros: i64) -> String {
    let (second, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let of_day = second.rem_euclid(DAY_SECONDS);
    let (hour, minute, of_minute) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    format!("{}T{hour:02}:{minute:02}:{of_minute:02}{fraction}Z", date(second.div_euclid(DAY_SECONDS)))
}

/// Days since 1970 as `2026-11-20`.
#[must_use]
pub fn date(days: i64) -> String {
    // Years that begin in March have the leap day last; 719,468 days lie between 0000-03-01 and 1970.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Day of a moment in microseconds, in days since 1970.
#[must_use]
pub const fn day_of(micros: i64) -> i64 {
    micros.div_euclid(DAY_MICROS)
}

/// Seconds of a day.
pub const DAY_SECONDS: i64 = 86_400;
/// Microseconds of a day.
pub const DAY_MICROS: i64 = DAY_SECONDS * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(iso(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(date(day_of(1_795_183_554_000_000)), "2026-11-20");
    }
}
