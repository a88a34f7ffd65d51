//! OKX v5 messages, read off the tape.
//!
//! Source: www.okx.com/docs-v5 (order book trading, market data, WebSocket); NOTES.md has the evidence.

use crate::{
    adapter::At,
    error::FrameError,
    event::{Flags, Quote, Side, Trade},
    ids::SymbolIx,
    json::{Items, View},
    number,
    time::epoch,
};

/// What a frame is.
#[derive(Debug)]
pub(super) enum Message<'t, 'i> {
    Push {
        channel: &'i str,
        instrument: Option<&'i str>,
        is_snapshot: bool,
        data: Items<'t, 'i>,
    },
    Subscribed {
        channel: &'i str,
        instrument: Option<&'i str>,
    },
    Refusal {
        reason: String,
    },
    /// The venue is about to close the connection.
    Notice {
        reason: String,
    },
    Other,
}

/// Reads one frame.
///
/// # Errors
///
/// [`FrameError`]: a documented message without what it must have, or no documented message.
#[inline]
pub(super) fn read<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let arg = root.get("arg");
    let of_arg = |field| arg.and_then(|arg| arg.get(field)).and_then(View::text);
    if let Some(event) = root.get("event") {
        let text = |field| root.get(field).and_then(View::text).unwrap_or_default();
        let reason = || format!("{} (code {})", text("msg"), text("code"));
        return match event.text() {
            Some("subscribe") => Ok(Message::Subscribed {
                channel: of_arg("channel").ok_or_else(|| FrameError::missing("channel", "a string"))?,
                instrument: of_arg("instId"),
            }),
            Some("error" | "channel-conn-count-error") => Ok(Message::Refusal { reason: reason() }),
            Some("notice") => Ok(Message::Notice { reason: reason() }),
            Some("unsubscribe" | "channel-conn-count" | "login") => Ok(Message::Other),
            _ => Err(FrameError::Unknown { head: format!("event {:?}", event.shown()) }),
        };
    }
    let (Some(channel), Some(data)) = (of_arg("channel"), root.get("data").and_then(View::items)) else {
        return Err(FrameError::Unknown { head: "neither an event nor a push".into() });
    };
    let is_snapshot = root.get("action").and_then(View::text) == Some("snapshot");
    Ok(Message::Push { channel, instrument: of_arg("instId"), is_snapshot, data })
}

/// One trade; the ids it covers, first and last: `trades` merges several matches into one (`count`) and
/// gives the last one's id.
pub(super) fn trade(at: At, symbol: SymbolIx, item: View<'_, '_>) -> Result<((i64, i64), Trade), FrameError> {
    let id = item.need_int("tradeId")?;
    let count = item.get("count").and_then(View::int).unwrap_or(1).max(1);
    let venue_time = item.get("ts").and_then(View::int).and_then(epoch);
    let trade = Trade {
        frame: 0,
        symbol,
        side: match item.need_text("side")? {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(FrameError::field("side", "`buy` or `sell`", other)),
        },
        flags: if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD },
        time: venue_time.unwrap_or(at.received.micros()),
        price: number::price("px", item.need_text("px")?)?,
        qty: number::qty("sz", item.need_text("sz")?)?,
        trade_id: Some(id),
        trade_ref: None,
    };
    Ok(((id.saturating_sub(count - 1), id), trade))
}

/// The best bid and ask of a `bbo-tbt` push.
pub(super) fn quote(at: At, symbol: SymbolIx, item: View<'_, '_>) -> Result<Quote, FrameError> {
    let side = |field: &'static str| {
        let Some(best) = item.need_items(field)?.next() else { return Ok(None) };
        let (price, qty) =
            best.pair().ok_or_else(|| FrameError::field(field, "price and quantity as strings", &best.shown()))?;
        Ok(Some((number::price(field, price)?, number::qty(field, qty)?)))
    };
    let (bid, ask) = (side("bids")?, side("asks")?);
    let venue_time = item.get("ts").and_then(View::int).and_then(epoch);
    Ok(Quote {
        frame: 0,
        symbol,
        flags: if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD },
        time: venue_time.unwrap_or(at.received.micros()),
        bid,
        ask,
        seq: item.get("seqId").and_then(View::int),
    })
}
