//! Coinbase's instrument list: `GET /products`.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::{
    error::{FrameError, head},
    metadata::{Instrument, InstrumentKind},
    number,
};

#[derive(Deserialize)]
struct Product {
    id: String,
    base_currency: String,
    quote_currency: String,
    quote_increment: Option<String>,
    base_increment: Option<String>,
    status: Option<String>,
    #[serde(default)]
    trading_disabled: bool,
}

/// Reads a `/products` body.
pub(super) fn parse(body: &mut [u8]) -> Result<Vec<Instrument>, FrameError> {
    let products: Vec<Product> = serde_json::from_slice(body).map_err(|error| FrameError::Syntax {
        at: error.column(),
        what: error.to_string(),
        head: head(body),
    })?;
    products.into_iter().map(Product::normalize).collect()
}

impl Product {
    fn normalize(self) -> Result<Instrument, FrameError> {
        Ok(Instrument {
            price_tick: step("quote_increment", self.quote_increment.as_deref())?,
            qty_step: step("base_increment", self.base_increment.as_deref())?,
            symbol: self.id,
            base: self.base_currency.to_uppercase(),
            quote: self.quote_currency.to_uppercase(),
            kind: InstrumentKind::Spot,
            expiry: None,
            contract_size: Some(Decimal::ONE),
            listed: None,
            is_trading: self.status.as_deref() == Some("online") && !self.trading_disabled,
        })
    }
}

fn step(field: &'static str, text: Option<&str>) -> Result<Option<Decimal>, FrameError> {
    text.map(|text| number::decimal(text).ok_or_else(|| FrameError::field(field, "a number", text))).transpose()
}
