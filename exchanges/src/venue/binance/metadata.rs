//! Binance's instrument lists: `exchangeInfo` of all three markets.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::{
    error::{FrameError, head},
    ids::Micros,
    metadata::{Instrument, InstrumentKind},
    number,
    time::epoch,
};

#[derive(Deserialize)]
struct ExchangeInfo {
    symbols: Vec<Listing>,
}

/// One listing, spot or futures; what a market does not have is `None`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    symbol: String,
    base_asset: String,
    quote_asset: String,
    status: Option<String>,
    /// COIN-M's name for `status`.
    contract_status: Option<String>,
    /// Futures: `PERPETUAL`, `CURRENT_QUARTER`, `TRADIFI_PERPETUAL`, ...; empty before listing.
    contract_type: Option<String>,
    delivery_date: Option<i64>,
    onboard_date: Option<i64>,
    /// COIN-M: quote units a contract.
    contract_size: Option<serde_json::Number>,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<String>,
    step_size: Option<String>,
}

/// Reads an `exchangeInfo` body.
pub(super) fn parse(body: &mut [u8]) -> Result<Vec<Instrument>, FrameError> {
    let info: ExchangeInfo = serde_json::from_slice(body).map_err(|error| FrameError::Syntax {
        at: error.column(),
        what: error.to_string(),
        head: head(body),
    })?;
    info.symbols.into_iter().map(Listing::normalize).collect()
}

impl Listing {
    fn normalize(self) -> Result<Instrument, FrameError> {
        let kind = match self.contract_type.as_deref() {
            None => InstrumentKind::Spot,
            Some(kind) if kind.contains("PERPETUAL") => InstrumentKind::Perp,
            Some(_) if self.symbol.contains('_') && !self.symbol.ends_with("_PERP") => InstrumentKind::Future,
            Some(_) => InstrumentKind::Perp, // Listed but not open yet: the type is empty.
        };
        let expiry = (kind == InstrumentKind::Future).then_some(self.delivery_date).flatten().and_then(epoch);
        let contract_size = match &self.contract_size {
            Some(size) => Some(decimal("contractSize", &size.to_string())?),
            None => Some(Decimal::ONE),
        };
        Ok(Instrument {
            price_tick: self.filter("PRICE_FILTER", "tickSize", |filter| filter.tick_size.as_deref())?,
            qty_step: self.filter("LOT_SIZE", "stepSize", |filter| filter.step_size.as_deref())?,
            base: self.base_asset.to_uppercase(),
            quote: self.quote_asset.to_uppercase(),
            kind,
            expiry,
            contract_size,
            listed: self.onboard_date.and_then(epoch).filter(|at| at.0 > Micros(0).0),
            is_trading: self.status.or(self.contract_status).as_deref() == Some("TRADING"),
            symbol: self.symbol,
        })
    }

    fn filter(
        &self,
        kind: &str,
        field: &'static str,
        value: fn(&Filter) -> Option<&str>,
    ) -> Result<Option<Decimal>, FrameError> {
        let text = self.filters.iter().find(|filter| filter.filter_type == kind).and_then(value);
        text.map(|text| decimal(field, text)).transpose()
    }
}

fn decimal(field: &'static str, text: &str) -> Result<Decimal, FrameError> {
    number::decimal(text).ok_or_else(|| FrameError::field(field, "a number", text))
}
