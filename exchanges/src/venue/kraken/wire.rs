//! Kraken's WebSocket v2 messages, read off the tape with every bare number kept as text.
//!
//! Source: docs.kraken.com/api, "Spot WebSocket v2" (book, trade, ticker, status, instrument); NOTES.md has
//! the evidence.

use crate::{
    adapter::{At, Outbox},
    error::FrameError,
    event::{Flags, Quote, Side, Trade},
    ids::{Micros, SymbolIx},
    json::{Items, View},
    levels::LevelHead,
    number, time,
};

/// What a frame is.
#[derive(Debug)]
pub(super) enum Message<'t, 'i> {
    Book {
        is_snapshot: bool,
        books: Items<'t, 'i>,
    },
    Trades {
        is_snapshot: bool,
        trades: Items<'t, 'i>,
    },
    Quotes(Items<'t, 'i>),
    /// An answer to `subscribe` or `unsubscribe`.
    Answer(Answer<'i>),
    /// A documented message of a channel that is not recorded.
    Other,
}

/// An answer to `subscribe` or `unsubscribe`.
#[derive(Debug)]
pub(super) struct Answer<'i> {
    pub(super) is_subscribe: bool,
    pub(super) channel: Option<&'i str>,
    pub(super) symbol: Option<&'i str>,
    pub(super) depth: Option<u32>,
    pub(super) refusal: Option<&'i str>,
}

/// Reads one frame.
///
/// # Errors
///
/// [`FrameError`]: a documented message without what it must have, or no documented message.
#[inline]
pub(super) fn read<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let Some(channel) = root.get("channel") else { return read_answer(root) };
    let is_snapshot = root.get("type").and_then(View::text) == Some("snapshot");
    match channel.text() {
        Some("book") => Ok(Message::Book { is_snapshot, books: root.need_items("data")? }),
        Some("trade") => Ok(Message::Trades { is_snapshot, trades: root.need_items("data")? }),
        Some("ticker") => Ok(Message::Quotes(root.need_items("data")?)),
        Some("heartbeat" | "status" | "instrument" | "ohlc" | "level3") => Ok(Message::Other),
        _ => Err(FrameError::Unknown { head: format!("channel {:?}", channel.shown()) }),
    }
}

fn read_answer<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let method = root.get("method").and_then(View::text);
    let is_subscribe = match method {
        Some("subscribe") => true,
        Some("unsubscribe") => false,
        Some("pong" | "ping") => return Ok(Message::Other),
        Some(other) => return Err(FrameError::Unknown { head: format!("method {other:?}") }),
        None if root.get("error").is_some() => true, // The request could not be read at all.
        None => return Err(FrameError::Unknown { head: root.shown() }),
    };
    let result = root.get("result");
    let of_result = |field| result.and_then(|result| result.get(field));
    let symbol = of_result("symbol").or_else(|| root.get("symbol"));
    let refusal = match root.get("success").and_then(View::bool) {
        Some(true) => None,
        Some(false) | None => Some(root.get("error").and_then(View::text).unwrap_or("no reason given")),
    };
    Ok(Message::Answer(Answer {
        is_subscribe,
        channel: of_result("channel").and_then(View::text),
        symbol: symbol.and_then(View::text),
        depth: of_result("depth").and_then(View::int).and_then(|depth| u32::try_from(depth).ok()),
        refusal,
    }))
}

/// A time that may be missing: snapshots of some channels have none.
pub(super) fn optional_time(item: View<'_, '_>) -> Result<Option<Micros>, FrameError> {
    item.get("timestamp").and_then(View::text).map(|text| time::rfc3339("timestamp", text)).transpose()
}

/// Emits the `{"price":..,"qty":..}` levels of one side. The caller drops what was pushed on an error.
pub(super) fn push_levels(
    head: &LevelHead,
    side: Side,
    field: &'static str,
    item: View<'_, '_>,
    out: &mut Outbox,
) -> Result<(), FrameError> {
    for level in item.need_items(field)? {
        let price = number::price("price", level.need_text("price")?)?;
        let qty = number::qty("qty", level.need_text("qty")?)?;
        head.push(side, price, qty, out);
    }
    Ok(())
}

/// One trade of a `trade` message; `side` is the aggressor's.
pub(super) fn trade(symbol: SymbolIx, item: View<'_, '_>) -> Result<(i64, Trade), FrameError> {
    let id = item.need_int("trade_id")?;
    let side = match item.need_text("side")? {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        other => return Err(FrameError::field("side", "`buy` or `sell`", other)),
    };
    let trade = Trade {
        frame: 0,
        symbol,
        side,
        flags: Flags::NONE,
        time: time::rfc3339("timestamp", item.need_text("timestamp")?)?,
        price: number::price("price", item.need_text("price")?)?,
        qty: number::qty("qty", item.need_text("qty")?)?,
        trade_id: Some(id),
        trade_ref: None,
    };
    Ok((id, trade))
}

/// The best bid and ask of a `ticker` message.
pub(super) fn quote(at: At, symbol: SymbolIx, item: View<'_, '_>) -> Result<Quote, FrameError> {
    let side = |price: &'static str, qty: &'static str| {
        if item.get(price).is_some_and(View::is_null) {
            return Ok(None);
        }
        let value = number::price(price, item.need_text(price)?)?;
        let amount = number::qty(qty, item.need_text(qty)?)?;
        Ok((!value.is_zero()).then_some((value, amount)))
    };
    let (bid, ask) = (side("bid", "bid_qty")?, side("ask", "ask_qty")?);
    let venue_time = optional_time(item)?;
    let flags = if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD };
    let time = venue_time.unwrap_or(at.received.micros());
    Ok(Quote { frame: 0, symbol, flags, time, bid, ask, seq: None })
}
