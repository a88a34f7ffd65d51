//! OKX's and OKCoin's instrument list: `GET /api/v5/public/instruments`.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::{
    error::{FrameError, head},
    metadata::{Instrument, InstrumentKind},
    number,
    time::epoch,
};

#[derive(Deserialize)]
struct Answer {
    data: Vec<Listing>,
}

/// One listing; fields that a kind does not have are empty texts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Listing {
    inst_id: String,
    inst_type: String,
    base_ccy: String,
    quote_ccy: String,
    uly: String,
    exp_time: String,
    list_time: String,
    tick_sz: String,
    lot_sz: String,
    ct_val: String,
    state: String,
}

/// Reads an instrument list.
pub(super) fn parse(body: &mut [u8]) -> Result<Vec<Instrument>, FrameError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| FrameError::Syntax {
        at: error.column(),
        what: error.to_string(),
        head: head(body),
    })?;
    answer.data.into_iter().map(Listing::normalize).collect()
}

impl Listing {
    fn normalize(self) -> Result<Instrument, FrameError> {
        let kind = match self.inst_type.as_str() {
            "SPOT" | "MARGIN" => InstrumentKind::Spot,
            "SWAP" => InstrumentKind::Perp,
            "FUTURES" => InstrumentKind::Future,
            "OPTION" => InstrumentKind::Option,
            other => return Err(FrameError::field("instType", "SPOT, MARGIN, SWAP, FUTURES or OPTION", other)),
        };
        // Derivatives name their currencies by the underlying only: `BTC-USDT`.
        let (base, quote) = match (self.base_ccy.as_str(), self.uly.split_once('-')) {
            ("", Some((base, quote))) => (base, quote),
            (base, _) => (base, self.quote_ccy.as_str()),
        };
        let is_spot = kind == InstrumentKind::Spot;
        Ok(Instrument {
            base: base.to_uppercase(),
            quote: quote.to_uppercase(),
            kind,
            expiry: self.exp_time.parse().ok().and_then(epoch),
            price_tick: step("tickSz", &self.tick_sz)?,
            qty_step: step("lotSz", &self.lot_sz)?,
            contract_size: if is_spot { Some(Decimal::ONE) } else { step("ctVal", &self.ct_val)? },
            listed: self.list_time.parse().ok().and_then(epoch),
            is_trading: self.state == "live",
            symbol: self.inst_id,
        })
    }
}

fn step(field: &'static str, text: &str) -> Result<Option<Decimal>, FrameError> {
    if text.is_empty() {
        return Ok(None);
    }
    number::decimal(text).map(Some).ok_or_else(|| FrameError::field(field, "a number", text))
}
