//! Coinbase Exchange feed messages, read off the tape.
//!
//! Source: docs.cdp.coinbase.com/exchange/websocket-feed (channels); NOTES.md has the evidence.

use rust_decimal::Decimal;

use crate::{
    adapter::Outbox,
    error::FrameError,
    event::Side,
    ids::Micros,
    json::{Items, View},
    levels::LevelHead,
    number,
    scan::{Scan, clear},
    time,
};

/// What a frame is.
#[derive(Debug)]
pub(super) enum Message<'t, 'i> {
    /// `match` and `last_match`.
    Match(MatchWire<'i>),
    Snapshot {
        product: &'i str,
        time: Option<Micros>,
        bids: Option<View<'t, 'i>>,
        asks: Option<View<'t, 'i>>,
    },
    Update {
        product: &'i str,
        time: Option<Micros>,
        changes: Changes<'t, 'i>,
    },
    /// `last_trade_id` is `None` when the venue does not say (it writes 0).
    Heartbeat {
        product: &'i str,
        time: Micros,
        last_trade_id: Option<i64>,
    },
    /// Every channel that is subscribed now.
    Subscriptions(Items<'t, 'i>),
    Refusal {
        reason: String,
    },
    /// A documented message of a channel that is not recorded.
    Other,
}

/// The changes of an update, as they were read.
#[derive(Debug)]
pub(super) enum Changes<'t, 'i> {
    Tape(Items<'t, 'i>),
    Scanned(&'t [Change]),
}

/// Side, price and new quantity of one change.
pub(super) type Change = (Side, Decimal, Decimal);

/// One trade.
#[derive(Debug)]
pub(super) struct MatchWire<'i> {
    pub(super) product: &'i str,
    pub(super) fill: Fill,
}

/// What a trade is, by the stream and by REST alike.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) trade_id: i64,
    pub(super) time: Micros,
    pub(super) price: Decimal,
    pub(super) qty: Decimal,
    /// The aggressor: the wire's `side` is the maker's.
    pub(super) side: Side,
}

/// Reads one frame.
///
/// # Errors
///
/// [`FrameError`]: a documented message without what it must have, or no documented message.
#[inline]
pub(super) fn read<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    match root.need_text("type")? {
        "l2update" => Ok(Message::Update {
            product: root.need_text("product_id")?,
            time: optional_time(root)?,
            changes: Changes::Tape(root.need_items("changes")?),
        }),
        "match" | "last_match" => Ok(Message::Match(MatchWire::read(root)?)),
        "heartbeat" => Ok(Message::Heartbeat {
            product: root.need_text("product_id")?,
            time: time::rfc3339("time", root.need_text("time")?)?,
            last_trade_id: Some(root.need_int("last_trade_id")?).filter(|id| *id > 0),
        }),
        "snapshot" => Ok(Message::Snapshot {
            product: root.need_text("product_id")?,
            time: optional_time(root)?,
            bids: root.get("bids"),
            asks: root.get("asks"),
        }),
        "subscriptions" => Ok(Message::Subscriptions(root.need_items("channels")?)),
        "error" => {
            let (message, reason) = (root.get("message"), root.get("reason"));
            let texts: Vec<_> = [message, reason].into_iter().flatten().filter_map(View::text).collect();
            Ok(Message::Refusal { reason: texts.join(": ") })
        }
        "ticker" | "status" | "auction" | "rfq_match" | "received" | "open" | "done" | "change" | "activate" => {
            Ok(Message::Other)
        }
        other => Err(FrameError::Unknown { head: format!("type {other:?}") }),
    }
}

/// Reads a frame that is one update in the spelling it always has: its product, its time and, in `changes`, its levels;
/// `None` for any other.
#[inline]
pub(super) fn scan<'a>(frame: &'a [u8], changes: &mut Vec<Change>) -> Option<(&'a str, Option<Micros>)> {
    let mut scan = Scan::new(frame);
    scan.step(br#"{"type":"l2update","product_id":""#)?;
    let product = scan.text()?;
    scan.step(br#","changes":["#)?;
    clear(changes);
    scan.items(|scan| {
        let side = if scan.skip(br#"["buy",""#) {
            Side::Buy
        } else {
            scan.step(br#"["sell",""#)?;
            Side::Sell
        };
        let price = scan.number()?;
        scan.step(br#"",""#)?;
        changes.push((side, price, scan.number()?));
        scan.step(br#""]"#)
    })?;
    scan.step(br#","time":""#)?;
    let time = time::parse_rfc3339(scan.bytes()?)?;
    scan.step(b"}")?;
    scan.end()?;
    Some((product, Some(time)))
}

impl<'i> MatchWire<'i> {
    fn read(root: View<'_, 'i>) -> Result<Self, FrameError> {
        Ok(Self { product: root.need_text("product_id")?, fill: Fill::read(root)? })
    }
}

impl Fill {
    pub(super) fn read(root: View<'_, '_>) -> Result<Self, FrameError> {
        Ok(Self {
            trade_id: root.need_int("trade_id")?,
            time: time::rfc3339("time", root.need_text("time")?)?,
            price: number::price("price", root.need_text("price")?)?,
            qty: number::qty("size", root.need_text("size")?)?,
            side: match book_side(root.need_text("side")?)? {
                Side::Buy => Side::Sell,
                Side::Sell => Side::Buy,
                Side::Unknown => Side::Unknown,
            },
        })
    }
}

impl Changes<'_, '_> {
    /// Emits them. The caller drops what was pushed on an error.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: a change is none.
    pub(super) fn push(self, head: &LevelHead, out: &mut Outbox) -> Result<(), FrameError> {
        let mut push = |(side, price, qty): Change| head.push(side, price, qty, out);
        match self {
            Self::Tape(mut items) => items.try_for_each(|item| change(item).map(&mut push)),
            Self::Scanned(changes) => {
                changes.iter().copied().for_each(push);
                Ok(())
            }
        }
    }
}

#[inline]
fn change(change: View<'_, '_>) -> Result<Change, FrameError> {
    const RULE: &str = "side, price and size as strings";
    let mut texts = change.items().into_iter().flatten().map(View::text);
    let (Some(Some(side)), Some(Some(price)), Some(Some(qty))) = (texts.next(), texts.next(), texts.next()) else {
        return Err(FrameError::field("changes", RULE, &change.shown()));
    };
    Ok((book_side(side)?, number::price("changes", price)?, number::qty("changes", qty)?))
}

fn book_side(text: &str) -> Result<Side, FrameError> {
    match text {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        other => Err(FrameError::field("side", "`buy` or `sell`", other)),
    }
}

/// Snapshots had no time in 2021 and have one today.
fn optional_time(root: View<'_, '_>) -> Result<Option<Micros>, FrameError> {
    root.get("time").and_then(View::text).map(|text| time::rfc3339("time", text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::assert_strict;

    const UPDATE: &str = r#"{"type":"l2update","product_id":"SKL-BTC","changes":[["sell","0.00001306","660.5"],["buy","0.00001300","0"]],"time":"2021-04-17T16:43:37.075687Z"}"#;

    #[test]
    fn an_update_as_the_venue_spells_it_is_scanned() {
        let mut changes = Vec::new();
        let time = Some(Micros(1_618_677_817_075_687));
        assert_eq!(scan(UPDATE.as_bytes(), &mut changes), Some(("SKL-BTC", time)));
        let shown: Vec<_> = changes.iter().map(|(side, price, qty)| format!("{side:?} {price} {qty}")).collect();
        assert_eq!(shown, ["Sell 0.00001306 660.5", "Buy 0.00001300 0"]);
    }

    #[test]
    fn any_other_spelling_is_left_to_the_parser() {
        let mut changes = Vec::new();
        let others = [
            ("{\"type\"", " {\"type\""),
            ("\"660.5\"", "660.5"),
            ("\"660.5\"", "\"-660.5\""),
            ("\"660.5\"", "\"660.5\",\"1\""),
            ("sell", "hold"),
            ("SKL-BTC", "SKL\\u002dBTC"),
            ("16:43", "16-43"),
            (",\"time\"", ",\"x\":1,\"time\""),
        ];
        assert_strict(UPDATE, &others, |frame| scan(frame, &mut changes).is_some());
    }
}
