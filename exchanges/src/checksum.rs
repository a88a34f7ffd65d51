//! Book checksums: CRC-32 (IEEE) over the best levels' text, in each venue's own order and spelling.

use crate::{book::Book, digits::Text, event::Side};

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
    pub fn kraken(&mut self, book: &Book) -> u32 {
        self.text.clear();
        for (price, qty) in
            book.levels(Side::Sell).take(KRAKEN_LEVELS).chain(book.levels(Side::Buy).take(KRAKEN_LEVELS))
        {
            self.text.push_mantissa(price);
            self.text.push_mantissa(qty);
        }
        crc32fast::hash(self.text.bytes())
    }

    /// OKX (until 2026) and Bitget v1: the 25 best levels, bid and ask in turn, each as `price:quantity`, all
    /// joined by `:`; a side that has fewer levels is passed over. The CRC-32 is given as a signed number.
    #[must_use]
    pub fn interleaved(&mut self, book: &Book) -> i32 {
        self.text.clear();
        let (mut bids, mut asks) = (book.levels(Side::Buy), book.levels(Side::Sell));
        for _ in 0..INTERLEAVED_LEVELS {
            for (price, qty) in bids.next().into_iter().chain(asks.next()) {
                for number in [price, qty] {
                    self.text.push_decimal(number);
                    self.text.push_byte(b':');
                }
            }
        }
        let text = self.text.bytes();
        crc32fast::hash(text.strip_suffix(b":").unwrap_or(text)).cast_signed()
    }
}

/// Levels a side that Kraken's checksum covers, whatever the subscribed depth.
const KRAKEN_LEVELS: usize = 10;
/// Levels a side that the interleaved checksum covers.
const INTERLEAVED_LEVELS: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    fn book(side: Side, levels: &[(&str, &str)]) -> Book {
        let mut book = Book::default();
        put(&mut book, side, levels);
        book
    }

    fn put(book: &mut Book, side: Side, levels: &[(&str, &str)]) {
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
        assert_eq!(Checksum::default().kraken(&book), 3_310_070_434);
    }

    /// The text the checksum is taken of, as OKX documents it: `bid:qty:ask:qty:...`, then the longer side.
    #[test]
    fn the_interleaved_text_passes_over_the_shorter_side() {
        let mut book = book(Side::Buy, &[("3366.1", "7"), ("3366", "6")]);
        put(&mut book, Side::Sell, &[("3366.8", "9"), ("3368", "8"), ("3372", "8")]);
        let expected = crc32fast::hash(b"3366.1:7:3366.8:9:3366:6:3368:8:3372:8").cast_signed();
        assert_eq!(Checksum::default().interleaved(&book), expected);
    }
}
