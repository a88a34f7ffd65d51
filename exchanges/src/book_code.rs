//! A book as short text, for saved states: base64 over bytes.
//!
//! ```text
//! book  = version u8 = 1 | side (bids) | side (asks)
//! side  = count varint | level*                        worst first
//! level = scale u8 (price) | step varint | scale u8 (quantity) | mantissa varint
//! step  = the price's mantissa less that of the level before, 0 before the first, zigzag
//! varint: 7 bits a byte, low first
//! ```

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::{book::Book, event::Side};

/// Writes a book.
pub(crate) fn serialize<S: Serializer>(book: &Book, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD_NO_PAD.encode(bytes(book)))
}

/// Reads what [`serialize`] wrote.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Book, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
    read(&bytes).ok_or_else(|| D::Error::custom("a book's bytes end early or hold what is no number"))
}

fn bytes(book: &Book) -> Vec<u8> {
    let mut out = vec![VERSION];
    for side in [Side::Buy, Side::Sell] {
        let levels = book.levels(side);
        put(&mut out, levels.len() as u128);
        let mut before = 0;
        let mut worst_first: Vec<_> = levels.collect();
        worst_first.reverse();
        for (price, qty) in worst_first {
            out.push(scale(price));
            let mantissa = price.mantissa();
            put(&mut out, zigzag(mantissa - before));
            before = mantissa;
            out.push(scale(qty));
            put(&mut out, qty.mantissa().unsigned_abs());
        }
    }
    out
}

fn read(bytes: &[u8]) -> Option<Book> {
    let mut rest = bytes.strip_prefix(&[VERSION])?;
    let mut book = Book::default();
    for side in [Side::Buy, Side::Sell] {
        let count = take(&mut rest)?;
        let mut before = 0_i128;
        let mut levels = Vec::new();
        for _ in 0..count {
            let price_scale = take_byte(&mut rest)?;
            before = before.checked_add(unzigzag(take(&mut rest)?))?;
            let price = Decimal::try_from_i128_with_scale(before, price_scale.into()).ok()?;
            let qty_scale = take_byte(&mut rest)?;
            let mantissa = i128::try_from(take(&mut rest)?).ok()?;
            levels.push((price, Decimal::try_from_i128_with_scale(mantissa, qty_scale.into()).ok()?));
        }
        book.extend(side, levels.into_iter());
    }
    rest.is_empty().then_some(book)
}

fn scale(number: Decimal) -> u8 {
    u8::try_from(number.scale()).expect("a scale is at most 28")
}

const fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)).cast_unsigned()
}

const fn unzigzag(value: u128) -> i128 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn put(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits fit") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits fit"));
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

fn take(rest: &mut &[u8]) -> Option<u128> {
    let mut value = 0_u128;
    for shift in (0..128).step_by(7) {
        let byte = take_byte(rest)?;
        value |= u128::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_book_comes_back_digit_for_digit(
            levels in proptest::collection::vec((any::<bool>(), 0..=i64::MAX, 0..=28_u32, 1..=i64::MAX, 0..=28_u32), 0..60),
        ) {
            let mut book = Book::default();
            for (is_bid, price, price_scale, qty, qty_scale) in levels {
                let side = if is_bid { Side::Buy } else { Side::Sell };
                let price = Decimal::from_i128_with_scale(price.into(), price_scale);
                book.set(side, price, Decimal::from_i128_with_scale(qty.into(), qty_scale));
            }
            let back = read(&bytes(&book)).unwrap();
            let text = |book: &Book| format!("{book:?}");
            prop_assert_eq!(text(&back), text(&book));
        }

        #[test]
        fn any_bytes_are_a_book_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&[&[VERSION][..], &bytes].concat());
        }
    }
}
