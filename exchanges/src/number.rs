//! Text to [`Decimal`], exactly: never through a float, never rounded.
//!
//! ```text
//! number   = [-] digits [. digits] [(e|E) [+|-] digits]
//! fits     = at most 28 digits behind the dot and a mantissa below 2^96
//! ```
//!
//! What a `Decimal` cannot hold with every digit is an error that the caller turns into a visible
//! reject. Trailing zeros are kept (`61800.30` has scale 2): some venues' checksums need them.

use rust_decimal::Decimal;

use crate::error::FrameError;

/// The number a text spells, with the scale it was written with; `None` when it is no number, or one
/// that a `Decimal` cannot hold exactly.
#[must_use]
#[inline]
pub fn decimal(text: &str) -> Option<Decimal> {
    match plain(text.as_bytes()) {
        Some((number, len)) if len == text.len() => Some(number),
        Some(_) | None => slow(text),
    }
}

/// The number of plain digits, with one dot among them or none, that a text begins with, and its length in bytes; `None`
/// when it begins with none, or with one of more than [`FAST_BYTES_MAX`] bytes.
#[inline]
pub(crate) fn plain(text: &[u8]) -> Option<(Decimal, usize)> {
    let (mut mantissa, mut dot, mut len) = (0_u64, usize::MAX, 0);
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit)); // Too long a number is refused below.
        } else if byte == b'.' && dot == usize::MAX && len > 0 {
            dot = len;
        } else {
            break;
        }
        len += 1;
    }
    let behind = if dot == usize::MAX { 0 } else { len - dot - 1 };
    if len == 0 || len > FAST_BYTES_MAX || len == dot.wrapping_add(1) {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = mantissa.to_le_bytes();
    let (low, mid) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    Some((Decimal::from_parts(low, mid, 0, false, u32::try_from(behind).ok()?), len))
}

/// A price as venues of this crate publish them: zero or more.
///
/// # Errors
///
/// [`FrameError::Field`]: no number, negative, or more digits than can be held exactly.
#[inline]
pub fn price(field: &'static str, text: &str) -> Result<Decimal, FrameError> {
    not_negative(field, text, "a price of zero or more in at most 28 digits")
}

/// A quantity: zero or more.
///
/// # Errors
///
/// [`FrameError::Field`]: no number, negative, or more digits than can be held exactly.
#[inline]
pub fn qty(field: &'static str, text: &str) -> Result<Decimal, FrameError> {
    not_negative(field, text, "a quantity of zero or more in at most 28 digits")
}

#[inline]
fn not_negative(field: &'static str, text: &str, rule: &'static str) -> Result<Decimal, FrameError> {
    match decimal(text) {
        Some(value) if !value.is_sign_negative() => Ok(value),
        Some(_) | None => Err(FrameError::field(field, rule, text)),
    }
}

/// Signs, exponents and more digits than a `u64` holds.
#[cold]
fn slow(text: &str) -> Option<Decimal> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    if whole.is_empty() {
        return None;
    }
    let mut mantissa = 0u128;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        mantissa = mantissa.checked_mul(10)?.checked_add(u128::from(byte - b'0'))?;
    }
    fit(mantissa, i32::try_from(fraction.len()).ok()? - exponent, is_negative)
}

fn exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Brings scale and mantissa into a `Decimal`'s bounds without changing the value: only trailing zeros go.
fn fit(mut mantissa: u128, mut scale: i32, is_negative: bool) -> Option<Decimal> {
    if mantissa == 0 {
        scale = scale.clamp(0, SCALE_MAX);
    }
    while (scale > SCALE_MAX || (mantissa > MANTISSA_MAX && scale > 0)) && mantissa.is_multiple_of(10) {
        mantissa /= 10;
        scale -= 1;
    }
    while scale < 0 {
        mantissa = mantissa.checked_mul(10)?;
        scale += 1;
    }
    let mantissa = i128::try_from(mantissa).ok()?;
    Decimal::try_from_i128_with_scale(if is_negative { -mantissa } else { mantissa }, u32::try_from(scale).ok()?).ok()
}

/// Longest text whose digits are sure to fit a `u64`: 19 digits, or 18 and a dot.
pub(crate) const FAST_BYTES_MAX: usize = 19;
/// Longest text looked at: 29 digits, leading and trailing zeros, sign, dot and exponent.
const TEXT_BYTES_MAX: usize = 80;
/// Largest mantissa of a `Decimal`.
const MANTISSA_MAX: u128 = (1 << 96) - 1;
/// Most digits a `Decimal` has behind the dot.
const SCALE_MAX: i32 = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Option<String> {
        decimal(text).map(|value| value.to_string())
    }

    #[test]
    fn digits_and_trailing_zeros_are_kept() {
        for text in ["0", "61800.30", "0.00000010", "9999999999999999999", "18446744073709551616.5", "1.0", "000.5"] {
            let value = decimal(text).unwrap();
            assert_eq!(value.scale() as usize, text.split_once('.').map_or(0, |(_, f)| f.len()), "{text}");
        }
        assert_eq!(shown("61800.30").unwrap(), "61800.30");
        assert_eq!(shown("0.00000000").unwrap(), "0.00000000");
        assert_eq!(shown("7922816251426433759354395033.5").unwrap(), "7922816251426433759354395033.5");
    }

    #[test]
    fn exponents_are_exact() {
        assert_eq!(shown("1.58E-4").unwrap(), "0.000158");
        assert_eq!(shown("2.315E+4").unwrap(), "23150");
        assert_eq!(shown("1e-08").unwrap(), "0.00000001");
        assert_eq!(shown("10e-29").unwrap(), "0.0000000000000000000000000001");
    }

    #[test]
    fn what_cannot_be_held_exactly_is_refused() {
        for text in ["1e-29", "79228162514264337593543950336", "1e29", "0.00000000000000000000000000001", "1e99999"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", ".", "-", "1.", ".5", "1..2", "1.2.3", "NaN", "Infinity", "+1", "1e", "1e+-2", "0x1", "1 ", "1_0", "٣"]
        {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    #[test]
    fn negative_prices_and_quantities_are_refused_by_name() {
        assert_eq!(decimal("-1.50").unwrap().to_string(), "-1.50");
        let error = qty("q", "-1").unwrap_err().to_string();
        assert_eq!(error, "field `q` should be a quantity of zero or more in at most 28 digits, found \"-1\"");
    }

    proptest! {
        /// The reference is rust_decimal's own exact parser, for the texts both accept.
        #[test]
        fn any_plain_number_equals_the_reference(whole in "[0-9]{1,20}", fraction in "[0-9]{0,9}") {
            let text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            if let Ok(reference) = Decimal::from_str_exact(&text) {
                let ours = decimal(&text).unwrap();
                prop_assert_eq!(ours, reference);
                prop_assert_eq!(ours.scale(), reference.scale());
            }
        }

        #[test]
        fn any_text_is_a_number_or_refused(text in ".{0,90}") {
            if let Some(value) = decimal(&text) {
                prop_assert!(value.scale() <= 28);
            }
        }
    }
}
