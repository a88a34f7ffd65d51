//! Kraken's instrument list: the snapshot of the `instrument` channel.

use rust_decimal::Decimal;

use crate::{
    error::FrameError,
    json::{Json, View},
    metadata::{Instrument, InstrumentKind},
    number,
};

/// Asks for the list.
pub(super) const SUBSCRIBE: &str = r#"{"method":"subscribe","params":{"channel":"instrument","snapshot":true}}"#;

/// Reads one message; the list when it is the `instrument` snapshot.
pub(super) fn parse(bytes: &mut [u8]) -> Result<Option<Vec<Instrument>>, FrameError> {
    Json::new().read_keeping_numbers(bytes, |root| {
        let text = |key| root.get(key).and_then(View::text);
        if text("channel") != Some("instrument") || text("type") != Some("snapshot") {
            return match text("error") {
                Some(reason) => Err(FrameError::Refused { what: "the instrument list".into(), reason: reason.into() }),
                None => Ok(None),
            };
        }
        let data = root.get("data").ok_or_else(|| FrameError::missing("data", "an object"))?;
        data.need_items("pairs")?.map(instrument).collect::<Result<_, _>>().map(Some)
    })
}

fn instrument(pair: View<'_, '_>) -> Result<Instrument, FrameError> {
    Ok(Instrument {
        symbol: pair.need_text("symbol")?.into(),
        base: pair.need_text("base")?.to_uppercase(),
        quote: pair.need_text("quote")?.to_uppercase(),
        kind: InstrumentKind::Spot,
        expiry: None,
        price_tick: step("price_increment", pair)?,
        qty_step: step("qty_increment", pair)?,
        contract_size: Some(Decimal::ONE),
        listed: None,
        is_trading: pair.get("status").and_then(View::text) == Some("online"),
    })
}

fn step(field: &'static str, pair: View<'_, '_>) -> Result<Option<Decimal>, FrameError> {
    let text = pair.get(field).and_then(View::text);
    text.map(|text| number::decimal(text).ok_or_else(|| FrameError::field(field, "a number", text))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_gives_every_pair_with_its_steps() {
        let mut bytes = br#"{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[
            {"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_increment":1e-08,"price_increment":0.1},
            {"symbol":"OLD/EUR","base":"OLD","quote":"EUR","status":"delisted","qty_increment":0.00100,"price_increment":0.010}
        ]}}"#
        .to_vec();
        let list = parse(&mut bytes).unwrap().unwrap();
        let shown: Vec<_> = list.iter().map(|i| (&*i.symbol, i.qty_step.unwrap().to_string(), i.is_trading)).collect();
        assert_eq!(shown, [("BTC/USD", "0.00000001".into(), true), ("OLD/EUR", "0.00100".into(), false)]);
    }

    #[test]
    fn other_messages_are_passed_over_and_a_refusal_is_not() {
        assert_eq!(parse(&mut br#"{"channel":"status","type":"update","data":[]}"#.to_vec()), Ok(None));
        assert!(parse(&mut br#"{"method":"subscribe","success":false,"error":"no"}"#.to_vec()).is_err());
    }
}
