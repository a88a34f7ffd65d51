//! Numbers as the text that venues take checksums of, many a message: without a call a digit or a copy a number.
//!
//! Eight digits are made at once inside one 64-bit word (halves, then hundreds, then tens) and stored as a word, whatever
//! of it counts; the next number overwrites the rest.

use std::fmt::Write as _;

use rust_decimal::Decimal;

/// Text being put together, in memory that is reused.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// Longer than what counts by [`SLACK`] at least while a number is put in.
    bytes: Vec<u8>,
    len: usize,
}

impl Text {
    /// Nothing is in it any more.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends the digits of a number as it was written, without dot, sign and leading zeros: nothing for zero.
    #[inline]
    pub(crate) fn push_mantissa(&mut self, number: Decimal) {
        match u64::try_from(number.mantissa().unsigned_abs()) {
            Ok(mantissa) => self.push_digits(mantissa),
            Err(_) => self.push_shown(number.mantissa().unsigned_abs()),
        }
    }

    /// Appends a number of zero or more as a [`Decimal`] is shown: with its dot and its trailing zeros.
    #[inline]
    pub(crate) fn push_decimal(&mut self, number: Decimal) {
        let scale = number.scale() as usize;
        match u64::try_from(number.mantissa()) {
            Ok(mantissa) if mantissa < E16 && scale < 16 => {
                let digits = sixteen(mantissa);
                let before_dot = 16 - scale;
                let zeros = ((digits ^ ZEROS_TWICE).trailing_zeros() as usize / 8).min(before_dot - 1);
                self.put(&(digits >> (8 * zeros)).to_le_bytes(), before_dot - zeros);
                if scale > 0 {
                    self.push_byte(b'.');
                    self.put(&(digits >> (8 * before_dot)).to_le_bytes(), scale);
                }
            }
            Ok(_) | Err(_) => self.push_shown(number),
        }
    }

    #[inline]
    pub(crate) fn push_byte(&mut self, byte: u8) {
        self.put(&[byte], 1);
    }

    /// What was put in.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn push_digits(&mut self, value: u64) {
        if value < E8 {
            self.put_significant(value);
        } else if value < E16 {
            self.put_significant(value / E8);
            self.put(&eight(value % E8).to_le_bytes(), 8);
        } else {
            self.put_significant(value / E16);
            self.put(&sixteen(value % E16).to_le_bytes(), 16);
        }
    }

    /// Stores the digits of a value below 10^8 from the first that is not zero on.
    #[inline]
    fn put_significant(&mut self, value: u64) {
        let digits = eight(value);
        let zeros = (digits ^ ZEROS).trailing_zeros() / 8;
        self.put(&digits.checked_shr(8 * zeros).unwrap_or(0).to_le_bytes(), 8 - zeros as usize);
    }

    /// Stores all of `bytes`, of which the first `count` count.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: &[u8; N], count: usize) {
        let end = self.len + N;
        if self.bytes.len() < end {
            self.bytes.resize(2 * (end + SLACK), 0);
        }
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len += count;
    }

    /// The long way, for numbers of more digits.
    #[cold]
    fn push_shown(&mut self, number: impl std::fmt::Display) {
        write!(self, "{number}").expect("writing to memory cannot fail");
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.push_byte(byte));
        Ok(())
    }
}

/// Sixteen digits of a value below 10^16 as text, the first in the lowest byte.
#[inline]
fn sixteen(value: u64) -> u128 {
    u128::from(eight(value / E8)) | (u128::from(eight(value % E8)) << 64)
}

/// Eight digits of a value below 10^8 as text, the first in the lowest byte.
#[inline]
const fn eight(value: u64) -> u64 {
    // Two numbers of four digits, then four of two, then eight of one; a division by a constant is a product and a shift.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    (tens | ((twos - 10 * tens) << 8)) | ZEROS
}

/// Eight times the digit zero.
const ZEROS: u64 = 0x3030_3030_3030_3030;
/// Sixteen times.
const ZEROS_TWICE: u128 = 0x3030_3030_3030_3030_3030_3030_3030_3030;
const E8: u64 = 100_000_000;
const E16: u64 = 10_000_000_000_000_000;
/// What is stored at once beyond what counts.
const SLACK: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_written_as_it_is_shown(
            mantissa in prop_oneof![
                0..1_000_i128,
                0..i128::from(u64::MAX) + 1,
                Just(0), Just(99_999_999), Just(100_000_000), Just(i128::from(u64::MAX)),
                Just(9_999_999_999_999_999), Just(10_000_000_000_000_000),
                0..79_228_162_514_264_337_593_543_950_335_i128,
            ],
            scale in 0..=28_u32,
        ) {
            let number = Decimal::from_i128_with_scale(mantissa, scale);
            let mut text = Text::default();
            for _ in 0..3 {
                text.push_decimal(number);
                text.push_byte(b' ');
                text.push_mantissa(number);
            }
            let digits = if mantissa == 0 { String::new() } else { mantissa.to_string() };
            prop_assert_eq!(std::str::from_utf8(text.bytes()).unwrap(), format!("{number} {digits}").repeat(3));
            text.clear();
            prop_assert!(text.bytes().is_empty());
        }
    }
}
