//! What a venue says about its instruments, apart from market data.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{error::FrameError, ids::Micros, symbols::SYMBOL_BYTES_MAX};

/// One instrument as the venue lists it, normalized. Fields the venue does not give are `None`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Instrument {
    /// The venue's own spelling, as used in its streams.
    pub symbol: String,
    /// Base currency, upper case, the venue's name for it (`BTC`, not `XBT`, where the venue offers both).
    pub base: String,
    /// Quote currency, upper case.
    pub quote: String,
    /// What it is.
    pub kind: InstrumentKind,
    /// When it expires: dated futures and options.
    pub expiry: Option<Micros>,
    /// Smallest price step.
    pub price_tick: Option<Decimal>,
    /// Smallest quantity step.
    pub qty_step: Option<Decimal>,
    /// Quote units (linear) or base units (inverse) one contract stands for; 1 for spot.
    pub contract_size: Option<Decimal>,
    /// When it was listed.
    pub listed: Option<Micros>,
    /// Whether it trades now.
    pub is_trading: bool,
}

/// Kinds of instruments.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstrumentKind {
    /// Currency against currency, delivered at once.
    Spot,
    /// Perpetual swap.
    Perp,
    /// Dated future.
    Future,
    /// Option.
    Option,
}

impl InstrumentKind {
    /// The name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::Perp => "perp",
            Self::Future => "future",
            Self::Option => "option",
        }
    }
}

/// Takes out of a list the instruments whose symbol cannot be one (empty, or longer than a lane takes); gives how many.
pub fn drop_unnamed(list: &mut Vec<Instrument>) -> usize {
    let before = list.len();
    list.retain(|one| (1..=SYMBOL_BYTES_MAX).contains(&one.symbol.len()));
    before - list.len()
}

/// Where a venue's instrument list comes from, and how to read it.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// `GET http_url + path`; the whole list in one body.
    Http {
        /// Path and query.
        path: &'static str,
        /// REST request weight.
        weight: u32,
        /// Reads the body.
        parse: fn(&mut [u8]) -> Result<Vec<Instrument>, FrameError>,
    },
    /// A WebSocket connection to `ws_url + path`: send one message, read until the list is there.
    WebSocket {
        /// Path below the venue's WebSocket base URL.
        path: &'static str,
        /// What to send.
        subscribe: &'static str,
        /// Reads one message; `None` when it is not the list.
        parse: ParseMessage,
    },
}

/// Reads one WebSocket message of an instrument list; `None` when it is some other message.
pub type ParseMessage = fn(&mut [u8]) -> Result<Option<Vec<Instrument>>, FrameError>;
