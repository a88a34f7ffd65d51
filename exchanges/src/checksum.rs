//! Book checksums: CRC-32 (IEEE) over the best levels' text, in each venue's own order and spelling.
//!
//! Few levels change from one message to the next, and all of the best are in every checksum: the text of a level is
//! kept beside it until it changes.

use crate::{book::Book, digits::Text};

/// A book with the text of its levels, as far as it has been needed. One book serves one spelling.
pub type Spelled = Book<Spelling>;

/// A level's text; none until it is needed, nor when it is too long.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Spelling {
    bytes: [u8; SPELLING_BYTES],
    len: u8,
}

/// Computes checksums in a reused buffer.
#[derive(Debug, Default)]
pub struct Checksum {
    text: Text,
}

impl Checksum {
    /// Kraken, v1 and v2 (docs.kraken.com, guides, "Spot WebSockets (v2) book checksum"):
    ///
    /// 1. the ten best asks, lowest price first, then the ten best bids, highest price first;
    /// 2. of each level the price, then the quantity, without the dot and without leading zeros, trailing
    ///    zeros kept: which is the mantissa of the number as written;
    /// 3. CRC-32 of the whole.
    #[must_use]
    pub fn kraken(&mut self, book: &mut Spelled) -> u32 {
        self.text.clear();
        let [bids, asks] = book.levels_mut();
        for (price, qty, spelling) in asks.take(KRAKEN_LEVELS).chain(bids.take(KRAKEN_LEVELS)) {
            spelling.spell(&mut self.text, |text| {
                text.push_mantissa(price);
                text.push_mantissa(qty);
            });
        }
        crc32fast::hash(self.text.bytes())
    }

    /// OKX (until 2026) and Bitget v1: the 25 best levels, bid and ask in turn, each as `price:quantity`, all
    /// joined by `:`; a side that has fewer levels is passed over. The CRC-32 is given as a signed number.
    #[must_use]
    pub fn interleaved(&mut self, book: &mut Spelled) -> i32 {
        self.text.clear();
        let [mut bids, mut asks] = book.levels_mut();
        for _ in 0..INTERLEAVED_LEVELS {
            for (price, qty, spelling) in bids.next().into_iter().chain(asks.next()) {
                spelling.spell(&mut self.text, |text| {
                    for number in [price, qty] {
                        text.push_decimal(number);
                        text.push_byte(b':');
                    }
                });
            }
        }
        let text = self.text.bytes();
        crc32fast::hash(text.strip_suffix(b":").unwrap_or(text)).cast_signed()
    }
}

impl Spelling {
    /// Appends the level's text, which `write` appends when it is not kept.
    #[inline]
    fn spell(&mut self, text: &mut Text, write: impl FnOnce(&mut Text)) {
        if self.len > 0 {
            text.put(&self.bytes, usize::from(self.len));
        } else {
            let begin = text.bytes().len();
            write(text);
            self.keep(&text.bytes()[begin..]);
        }
    }

    fn keep(&mut self, text: &[u8]) {
        if let (Some(bytes), Ok(len)) = (self.bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            bytes.copy_from_slice(text);
            self.len = len;
        }
    }
}

/// Longest text kept: with its length and the level's two numbers a line of the processor's cache.
const SPELLING_BYTES: usize = 31;
/// Levels a side that Kraken's checksum covers, whatever the subscribed depth.
const KRAKEN_LEVELS: usize = 10;
/// Levels a side that the interleaved checksum covers.
const INTERLEAVED_LEVELS: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;

    fn book(side: Side, levels: &[(&str, &str)]) -> Spelled {
        let mut book = Spelled::default();
        put(&mut book, side, levels);
        book
    }

    fn put(book: &mut Spelled, side: Side, levels: &[(&str, &str)]) {
        let number = |text| crate::number::decimal(text).unwrap();
        for (price, qty) in levels {
            book.set(side, number(price), number(qty));
        }
    }

    /// The worked example of Kraken's guide: its documented checksum is 3310070434.
    #[test]
    fn krakens_guide_gives_its_documented_checksum() {
        let mut book = book(
            Side::Sell,
            &[
                ("45285.2", "0.00100000"),
                ("45286.4", "1.54571953"),
                ("45286.6", "1.54571109"),
                ("45289.6", "1.54560911"),
                ("45290.2", "0.15890660"),
                ("45291.8", "1.54553491"),
                ("45294.7", "0.04454749"),
                ("45296.1", "0.35380000"),
                ("45297.5", "0.09945542"),
                ("45299.5", "0.18772827"),
            ],
        );
        put(
            &mut book,
            Side::Buy,
            &[
                ("45283.5", "0.10000000"),
                ("45283.4", "1.54582015"),
                ("45282.1", "0.10000000"),
                ("45281.0", "0.10000000"),
                ("45280.3", "1.54592586"),
                ("45279.0", "0.07990000"),
                ("45277.6", "0.03310103"),
                ("45277.5", "0.30000000"),
                ("45277.3", "1.54602737"),
                ("45276.6", "0.15445238"),
            ],
        );
        assert_eq!(Checksum::default().kraken(&mut book), 3_310_070_434);
    }

    /// The text the checksum is taken of, as OKX documents it: `bid:qty:ask:qty:...`, then the longer side.
    #[test]
    fn the_interleaved_text_passes_over_the_shorter_side() {
        let mut book = book(Side::Buy, &[("3366.1", "7"), ("3366", "6")]);
        put(&mut book, Side::Sell, &[("3366.8", "9"), ("3368", "8"), ("3372", "8")]);
        let expected = crc32fast::hash(b"3366.1:7:3366.8:9:3366:6:3368:8:3372:8").cast_signed();
        assert_eq!(Checksum::default().interleaved(&mut book), expected);
    }
}
