//! Venue times to [`Micros`].

use crate::{error::FrameError, ids::Micros};

/// A time given as an integer since the Unix epoch, in milliseconds or, above [`MILLIS_MAX`], in
/// microseconds: Binance sends either, by a connection's `timeUnit`.
#[must_use]
pub const fn epoch(value: i64) -> Option<Micros> {
    if value <= 0 {
        None
    } else if value > MILLIS_MAX {
        Some(Micros(value))
    } else {
        Some(Micros(value * 1_000))
    }
}

/// A time given as RFC 3339 in UTC: `2021-04-17T16:43:37.089723Z`. Digits beyond microseconds are cut.
///
/// # Errors
///
/// [`FrameError::Field`]: anything else.
pub fn rfc3339(field: &'static str, text: &str) -> Result<Micros, FrameError> {
    parse_rfc3339(text.as_bytes()).ok_or_else(|| FrameError::field(field, "a UTC time like 2021-04-17T16:43:37Z", text))
}

/// A time given as decimal seconds: `1618678142.557535`.
///
/// # Errors
///
/// [`FrameError::Field`]: anything else.
pub fn seconds(field: &'static str, text: &str) -> Result<Micros, FrameError> {
    parse_seconds(text.as_bytes())
        .ok_or_else(|| FrameError::field(field, "seconds since 1970 like 1618678142.557535", text))
}

/// As [`seconds`], of which `None` is the error.
pub(crate) fn parse_seconds(text: &[u8]) -> Option<Micros> {
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..dot], text.get(dot + 1..).unwrap_or_default());
    if whole.is_empty() || whole.len() > 10 {
        return None;
    }
    Some(Micros(number(whole)? * 1_000_000 + micros(fraction)?))
}

/// As [`rfc3339`], of which `None` is the error.
pub(crate) fn parse_rfc3339(text: &[u8]) -> Option<Micros> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1] = *date else {
        return None;
    };
    let (year, month, day) = (number(&[y0, y1, y2, y3])?, number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?);
    let fraction = match rest {
        [b'Z'] => &[],
        [b'.', fraction @ .., b'Z'] if !fraction.is_empty() => fraction,
        _ => return None,
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 || year < 1970
    {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Micros(seconds * 1_000_000 + micros(fraction)?))
}

/// Microseconds in the digits behind a dot; further digits are cut.
fn micros(fraction: &[u8]) -> Option<i64> {
    if fraction.len() > 18 {
        return None;
    }
    let (cut, beyond) = fraction.split_at(fraction.len().min(6));
    number(beyond)?;
    Some(number(cut)? * SCALES[cut.len()])
}

/// Digits only; zero for none. At most 18 digits, so it cannot overflow.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

/// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that a leap day is last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_TO_EPOCH
}

/// Microseconds in the last of so many digits.
const SCALES: [i64; 7] = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
/// Largest value read as milliseconds: the year 5138; as microseconds it would lie in 1973.
pub const MILLIS_MAX: i64 = 100_000_000_000_000;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_microseconds_are_told_apart_by_size() {
        assert_eq!(epoch(1_723_161_256_322), Some(Micros(1_723_161_256_322_000)));
        assert_eq!(epoch(1_723_161_256_322_123), Some(Micros(1_723_161_256_322_123)));
        assert_eq!(epoch(0), None);
        assert_eq!(epoch(-5), None);
    }

    #[test]
    fn rfc3339_agrees_with_known_moments() {
        let of = |text| rfc3339("time", text).map(|micros| micros.0);
        assert_eq!(of("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(of("2000-02-29T12:00:00.5Z"), Ok(951_825_600_500_000));
        assert_eq!(of("2021-04-17T16:43:37.089723Z"), Ok(1_618_677_817_089_723));
        assert_eq!(of("2023-09-25T09:04:31.742599999Z"), Ok(1_695_632_671_742_599));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in [
            "",
            "2021-04-17",
            "2021-04-17T16:43:37",
            "2021-13-17T16:43:37Z",
            "2021-04-17T16:43:37.Z",
            "2021-04-17T16:43:37.1xZ",
        ] {
            assert!(rfc3339("time", text).is_err(), "{text}");
        }
        for text in ["", ".5", "12345678901", "1618678142.5x", "-1"] {
            assert!(seconds("time", text).is_err(), "{text}");
        }
    }

    #[test]
    fn decimal_seconds_keep_their_microseconds() {
        assert_eq!(seconds("time", "1618678142.557535").unwrap(), Micros(1_618_678_142_557_535));
        assert_eq!(seconds("time", "1618678142.5").unwrap(), Micros(1_618_678_142_500_000));
        assert_eq!(seconds("time", "1618678142").unwrap(), Micros(1_618_678_142_000_000));
    }
}
