//! Emitting the levels of one book message.

use rust_decimal::Decimal;

use crate::{
    adapter::Outbox,
    error::FrameError,
    event::{Flags, Level, Side},
    ids::{Micros, Nanos, SymbolIx},
    json::View,
    number,
};

/// What all rows of one book message have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LevelHead {
    symbol: SymbolIx,
    flags: Flags,
    time: Micros,
    seq: Option<i64>,
}

impl LevelHead {
    /// Without a venue time, rows carry the receive time and say so.
    pub(crate) fn new(
        received: Nanos,
        symbol: SymbolIx,
        seq: Option<i64>,
        venue_time: Option<Micros>,
        flags: Flags,
    ) -> Self {
        let flags = if venue_time.is_some() { flags } else { flags.with(Flags::VENUE_TIME_BAD) };
        Self { symbol, flags, time: venue_time.unwrap_or(received.micros()), seq }
    }

    /// Emits one level.
    #[inline]
    pub(crate) fn push(&self, side: Side, price: Decimal, qty: Decimal, out: &mut Outbox) {
        let Self { symbol, flags, time, seq } = *self;
        out.push_level(Level { frame: 0, symbol, side, flags, time, price, qty, seq });
    }

    /// Emits an array of `[price, quantity, ...]` texts. The caller drops what was pushed on an error.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: no array, or an element that is no level.
    #[inline]
    pub(crate) fn push_pairs(
        &self,
        side: Side,
        field: &'static str,
        levels: Option<View<'_, '_>>,
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let levels = levels.ok_or_else(|| FrameError::missing(field, "an array of levels"))?;
        let items = levels.items().ok_or_else(|| FrameError::field(field, "an array of levels", &levels.shown()))?;
        for level in items {
            let pair = level.pair();
            let (price, qty) =
                pair.ok_or_else(|| FrameError::field(field, "price and quantity as strings", &level.shown()))?;
            self.push(side, number::price(field, price)?, number::qty(field, qty)?, out);
        }
        Ok(())
    }
}
