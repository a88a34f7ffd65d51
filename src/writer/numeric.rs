//! PostgreSQL's binary `NUMERIC`, straight from a [`Decimal`]'s mantissa.
//!
//! ```text
//! length i32 | groups i16 | weight i16 | sign u16 (0x4000 negative) | scale u16 | group u16 *
//! value = sum of group[i] * 10000^(weight - i); leading and trailing zero groups are left out
//! ```

use bytes::BytesMut;
use rust_decimal::Decimal;

/// Appends `value` as a field: its length, then its bytes, equal to those of `numeric_send`.
pub fn put_numeric(buf: &mut BytesMut, value: Decimal) {
    let scale = value.scale();
    let mantissa = value.mantissa().unsigned_abs();
    let pad = PADS[(scale % 4) as usize];
    let mut groups = [0u16; GROUPS_MAX];
    // Most prices and quantities fit into 64 bits even when padded; 128-bit division is a call.
    let count = match u64::try_from(mantissa) {
        Ok(small) if small <= u64::MAX / 1_000 => split_u64(small * pad, &mut groups),
        Ok(_) | Err(_) => split_u128(mantissa * u128::from(pad), &mut groups),
    };
    let trailing = groups[..count].iter().take_while(|group| **group == 0).count();
    let kept = count - trailing;
    let mut out = [0u8; 4 + 8 + 2 * GROUPS_MAX];
    let len = 8 + 2 * kept;
    put(&mut out, 2, as_u16(len)); // The length is below 2^16: its upper half stays zero.
    put(&mut out, 4, as_u16(kept));
    let weight = if count == 0 { 0 } else { as_i16(count) - 1 - as_i16(scale.div_ceil(4) as usize) };
    put(&mut out, 6, weight.cast_unsigned());
    put(&mut out, 8, if value.is_sign_negative() && count != 0 { 0x4000 } else { 0 });
    put(&mut out, 10, as_u16(scale as usize));
    for (at, group) in groups[trailing..count].iter().rev().enumerate() {
        put(&mut out, 12 + 2 * at, *group);
    }
    buf.extend_from_slice(&out[..4 + len]);
}

/// Splits into base-10000 groups, lowest first; returns how many.
fn split_u64(mut rest: u64, groups: &mut [u16; GROUPS_MAX]) -> usize {
    let mut count = 0;
    while rest != 0 {
        groups[count] = as_u16((rest % 10_000) as usize);
        rest /= 10_000;
        count += 1;
    }
    count
}

fn split_u128(rest: u128, groups: &mut [u16; GROUPS_MAX]) -> usize {
    // 10^16 at a time: two divisions of 128 bits instead of eight.
    let (mut rest, mut at, mut count) = (rest, 0, 0);
    while rest != 0 {
        let mut low = (rest % E16) as u64;
        rest /= E16;
        for group in &mut groups[at..at + 4] {
            *group = as_u16((low % 10_000) as usize);
            low /= 10_000;
        }
        at += 4;
        count = at;
    }
    while count > 0 && groups[count - 1] == 0 {
        count -= 1;
    }
    count
}

fn put(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "groups are below 10000, counts and scales below 100")]
const fn as_u16(value: usize) -> u16 {
    value as u16
}

const fn as_i16(value: usize) -> i16 {
    as_u16(value).cast_signed()
}

/// What makes the digits after the point a whole number of groups, by scale modulo 4.
const PADS: [u64; 4] = [1, 1_000, 100, 10];
/// 29 digits of a Decimal and 3 of padding are 8 groups.
const GROUPS_MAX: usize = 8;
const E16: u128 = 10_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> Vec<u8> {
        let mut buf = BytesMut::new();
        put_numeric(&mut buf, text.parse().unwrap());
        buf.to_vec()
    }

    #[test]
    fn values_look_as_numeric_send_writes_them() {
        // Taken from `select numeric_send(...)` of PostgreSQL 15.
        assert_eq!(sent("0"), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sent("0.00"), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(sent("-1.50"), [0, 0, 0, 12, 0, 2, 0, 0, 0x40, 0, 0, 2, 0, 1, 0x13, 0x88]);
        assert_eq!(sent("10000"), [0, 0, 0, 10, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sent("0.00001"), [0, 0, 0, 10, 0, 1, 0xff, 0xfe, 0, 0, 0, 5, 0x03, 0xe8]);
    }
}
