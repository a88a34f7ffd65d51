//! The venues the loopback server can be, and the instruments it lists on each.

use std::{fmt, str::FromStr};

/// A venue the loopback server speaks for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Venue {
    /// Binance spot.
    BinanceSpot,
    /// Binance USD-M futures.
    BinanceUsdm,
    /// Coinbase Exchange feed.
    Coinbase,
    /// Kraken spot, WebSocket v2.
    Kraken,
}

impl Venue {
    /// Every venue, in the order ports are given out.
    pub const ALL: [Self; 4] = [Self::BinanceSpot, Self::BinanceUsdm, Self::Coinbase, Self::Kraken];

    /// The venue's name in YAML, SQL and the truth file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BinanceSpot => "binance-spot",
            Self::BinanceUsdm => "binance-usdm",
            Self::Coinbase => "coinbase",
            Self::Kraken => "kraken",
        }
    }

    /// The first `count` symbols of this venue's loopback market, as the venue spells them.
    #[must_use]
    pub fn symbols(self, count: usize) -> Vec<String> {
        (0..count).map(|index| Instrument::nth(self, index).symbol).collect()
    }
}

impl fmt::Display for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Venue {
    type Err = UnknownVenue;

    fn from_str(name: &str) -> Result<Self, UnknownVenue> {
        Self::ALL.into_iter().find(|venue| venue.name() == name).ok_or_else(|| UnknownVenue(name.into()))
    }
}

/// Not a venue of the loopback server.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a loopback venue; binance-spot, binance-usdm, coinbase and kraken are")]
pub struct UnknownVenue(String);

/// One instrument of a loopback market.
#[derive(Clone, Debug)]
pub(super) struct Instrument {
    /// As the venue spells it.
    pub(super) symbol: String,
    pub(super) base: String,
    pub(super) quote: &'static str,
    /// Decimal places of the smallest price step; that step is 1 in the model.
    pub(super) price_scale: u32,
    /// Decimal places of the smallest quantity step.
    pub(super) qty_scale: u32,
    /// Decimal places written for prices and quantities (Binance spot always writes 8).
    pub(super) price_decimals: u32,
    pub(super) qty_decimals: u32,
    /// Where the price begins, in smallest steps.
    pub(super) price_start: i64,
    /// A usual quantity, in smallest steps.
    pub(super) qty_usual: u64,
}

impl Instrument {
    /// Instrument number `index` of a venue: well-known coins first, then made-up ones.
    pub(super) fn nth(venue: Venue, index: usize) -> Self {
        let (base, price, price_scale, qty_scale) = match COINS.get(index) {
            Some((base, price, price_scale, qty_scale)) => ((*base).to_owned(), *price, *price_scale, *qty_scale),
            None => (format!("LB{index:04}"), 20_000 + 37 * index as i64 % 80_000, 3, 2),
        };
        let (quote, symbol) = match venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => ("USDT", format!("{base}USDT")),
            Venue::Coinbase => ("USD", format!("{base}-USD")),
            Venue::Kraken => ("USD", format!("{base}/USD")),
        };
        let (price_scale, qty_scale, price_start) = match venue {
            Venue::BinanceSpot | Venue::Coinbase => (price_scale, qty_scale + 2, price),
            // Futures and Kraken have coarser prices where there is room for it.
            Venue::BinanceUsdm if price > 1_000_000 => (price_scale - 1, qty_scale, price / 10),
            Venue::Kraken if price > 1_000_000 => (price_scale - 1, 8, price / 10),
            Venue::BinanceUsdm => (price_scale, qty_scale, price),
            Venue::Kraken => (price_scale, 8, price),
        };
        let (price_decimals, qty_decimals) = match venue {
            Venue::BinanceSpot => (8, 8),
            Venue::BinanceUsdm => (price_scale.max(2), qty_scale),
            Venue::Coinbase => (price_scale, 8),
            Venue::Kraken => (price_scale, 8),
        };
        let qty_usual =
            10_u64.pow(qty_scale) / (price_start.unsigned_abs() / 10_u64.pow(price_scale) / 10_000 + 1) + 20;
        Self { symbol, base, quote, price_scale, qty_scale, price_decimals, qty_decimals, price_start, qty_usual }
    }
}

/// Base, price in smallest steps, decimal places of price and of quantity.
const COINS: &[(&str, i64, u32, u32)] = &[
    ("BTC", 6_183_763, 2, 3),
    ("ETH", 268_340, 2, 3),
    ("SOL", 15_462, 2, 2),
    ("XRP", 61_320, 5, 1),
    ("DOGE", 103_110, 6, 0),
    ("ADA", 34_120, 5, 1),
    ("AVAX", 23_470, 3, 2),
    ("LINK", 10_312, 3, 2),
    ("LTC", 60_120, 3, 3),
    ("DOT", 45_180, 4, 1),
    ("BCH", 33_870, 2, 3),
    ("UNI", 61_400, 4, 1),
    ("ATOM", 47_310, 4, 2),
    ("XLM", 98_700, 6, 0),
    ("NEAR", 41_200, 4, 1),
    ("APT", 61_980, 4, 2),
    ("FIL", 37_140, 4, 2),
    ("ARB", 53_270, 5, 1),
    ("OP", 13_120, 4, 1),
    ("INJ", 18_455, 3, 1),
    ("AAVE", 10_170, 2, 2),
    ("SUI", 85_310, 5, 1),
    ("TIA", 52_140, 4, 1),
    ("ETC", 19_230, 3, 2),
    ("ALGO", 126_400, 6, 0),
    ("ICP", 74_210, 4, 2),
    ("HBAR", 51_320, 6, 0),
    ("MKR", 201_450, 2, 4),
    ("GRT", 151_200, 6, 0),
    ("SNX", 13_440, 4, 1),
    ("CRV", 27_650, 5, 1),
    ("SAND", 26_610, 5, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_venue_is_found_by_its_name_and_nothing_else_is() {
        for venue in Venue::ALL {
            assert_eq!(venue.name().parse::<Venue>().unwrap(), venue);
        }
        assert!("binance".parse::<Venue>().unwrap_err().to_string().contains("`binance`"));
    }

    #[test]
    fn symbols_are_distinct_and_spelt_as_the_venue_does() {
        for venue in Venue::ALL {
            let symbols = venue.symbols(200);
            let distinct: std::collections::BTreeSet<_> = symbols.iter().collect();
            assert_eq!(distinct.len(), 200);
        }
        assert_eq!(Venue::Kraken.symbols(1), ["BTC/USD"]);
        assert_eq!(Venue::Coinbase.symbols(1), ["BTC-USD"]);
        assert_eq!(Venue::BinanceSpot.symbols(1), ["BTCUSDT"]);
    }
}
