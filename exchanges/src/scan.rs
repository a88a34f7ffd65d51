//! Frames of one known spelling, read in one pass without a tape.
//!
//! A venue's most frequent message is written by one program, always in one order and without spaces. A [`Scan`] reads
//! exactly that, and gives up (`None`) at the first byte that is anything else. It changes nothing, so the frame is then
//! read as any other is, errors included; what a scan accepts must mean the same there. A frame that begins with a space
//! is never accepted: this is how tests compare the two ways.

use rust_decimal::Decimal;

use crate::{
    adapter::Outbox,
    event::Side,
    levels::LevelHead,
    number::{self, FAST_BYTES_MAX},
};

/// What is left of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a>(&'a [u8]);

/// Levels of one message: price and quantity, in the order they came. Its memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    pub(crate) bids: Vec<(Decimal, Decimal)>,
    pub(crate) asks: Vec<(Decimal, Decimal)>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(frame: &'a [u8]) -> Self {
        Self(frame)
    }

    /// Steps over `text`, which must come next.
    #[inline]
    pub(crate) fn step<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        let (next, rest) = self.0.split_first_chunk::<N>()?;
        (next == text).then(|| self.0 = rest)
    }

    /// Steps over `text` if it comes next.
    #[inline]
    pub(crate) fn skip<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        self.step(text).is_some()
    }

    /// The rest of a string whose quote was stepped over, and its end. Only printable ASCII without escapes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.0.iter().position(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\'))?;
        let (text, rest) = self.0.split_at(len);
        self.0 = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// As [`bytes`](Self::bytes).
    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// As [`text`](Self::text): `snapshot` gives `true`, `update` `false`.
    #[inline]
    pub(crate) fn update_or_snapshot(&mut self) -> Option<bool> {
        match self.skip(br#"update""#) {
            true => Some(false),
            false => self.step(br#"snapshot""#).map(|()| true),
        }
    }

    /// Elements up to the end of their array, whose beginning was stepped over; `one` reads one of them.
    #[inline]
    pub(crate) fn items(&mut self, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.skip(b"]") {
            return Some(());
        }
        loop {
            one(self)?;
            if !self.skip(b",") {
                return self.step(b"]");
            }
        }
    }

    /// `["price","quantity"]`; further texts are passed over.
    #[inline]
    pub(crate) fn level(&mut self) -> Option<(Decimal, Decimal)> {
        self.step(br#"[""#)?;
        let price = self.number()?;
        self.step(br#"",""#)?;
        let qty = self.number()?;
        self.step(br#"""#)?;
        while self.skip(br#",""#) {
            self.bytes()?;
        }
        self.step(b"]")?;
        Some((price, qty))
    }

    /// An array of [`level`](Self::level)s whose beginning was stepped over.
    #[inline]
    pub(crate) fn levels(&mut self, levels: &mut Vec<(Decimal, Decimal)>) -> Option<()> {
        self.items(|scan| {
            levels.push(scan.level()?);
            Some(())
        })
    }

    /// A number of plain digits, with a dot among them or not.
    #[inline]
    pub(crate) fn number(&mut self) -> Option<Decimal> {
        let (number, len) = number::plain(self.0)?;
        self.0 = &self.0[len..];
        Some(number)
    }

    /// A whole number of plain digits, the first of several not zero.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i64> {
        let (mut value, mut len) = (0_i64, 0);
        let begins_with_zero = self.0.first() == Some(&b'0');
        while let Some(digit) = self.0.get(len).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            len += 1;
        }
        self.0 = &self.0[len..];
        (len > 0 && len < FAST_BYTES_MAX && (len == 1 || !begins_with_zero)).then_some(value)
    }

    /// As [`int`](Self::int), behind a minus or not.
    #[inline]
    pub(crate) fn signed(&mut self) -> Option<i64> {
        if self.skip(b"-") { self.int().map(|value| -value) } else { self.int() }
    }

    /// Nothing must be left.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

impl Levels {
    pub(crate) fn clear(&mut self) {
        clear(&mut self.bids);
        clear(&mut self.asks);
    }

    /// Emits them, bids first.
    #[inline]
    pub(crate) fn push(&self, head: &LevelHead, out: &mut Outbox) {
        for (side, levels) in [(Side::Buy, &self.bids), (Side::Sell, &self.asks)] {
            levels.iter().for_each(|(price, qty)| head.push(side, *price, *qty, out));
        }
    }
}

/// Empties what a scan fills, and gives up what one huge frame has made of it.
#[inline]
pub(crate) fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(LEVELS_KEPT);
}

/// Levels a side whose memory is kept from frame to frame; a deep snapshot needs more, for itself alone.
const LEVELS_KEPT: usize = 16_384;

/// Holds that a frame is scanned, and none that is changed in one of these ways or cut anywhere.
#[cfg(test)]
pub(crate) fn assert_strict(frame: &str, changes: &[(&str, &str)], mut is_scanned: impl FnMut(&[u8]) -> bool) {
    assert!(is_scanned(frame.as_bytes()));
    for (from, to) in changes {
        let other = frame.replacen(from, to, 1);
        assert_ne!(other, frame);
        assert!(!is_scanned(other.as_bytes()), "{other}");
    }
    for cut in 0..frame.len() {
        assert!(!is_scanned(&frame.as_bytes()[..cut]), "cut at {cut}");
    }
}
