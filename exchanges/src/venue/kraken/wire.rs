//! Kraken's WebSocket v2 messages, read off the tape with every bare number kept as text.
//!
//! Source: docs.kraken.com/api, "Spot WebSocket v2" (book, trade, ticker, status, instrument); NOTES.md has
//! the evidence.

use rust_decimal::Decimal;

use crate::{
    adapter::{At, Outbox},
    error::FrameError,
    event::{Flags, Quote, Side, Trade},
    ids::{Micros, SymbolIx},
    json::{Items, View},
    levels::LevelHead,
    number,
    scan::{Levels, Scan},
    time,
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

/// A book message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Book<'a> {
    pub(super) is_snapshot: bool,
    pub(super) symbol: &'a str,
    /// `None` when the message carries none.
    pub(super) checksum: Option<u32>,
    pub(super) time: Option<Micros>,
}

/// Reads a frame that is one book message in the spelling it always has, and its levels; `None` for any other.
#[inline]
pub(super) fn scan<'a>(frame: &'a [u8], levels: &mut Levels) -> Option<Book<'a>> {
    let mut scan = Scan::new(frame);
    scan.step(br#"{"channel":"book","type":""#)?;
    let is_snapshot = scan.update_or_snapshot()?;
    scan.step(br#","data":[{"symbol":""#)?;
    let symbol = scan.text()?;
    levels.clear();
    scan.step(br#","bids":["#)?;
    scan.items(|scan| scan_level(scan, &mut levels.bids))?;
    scan.step(br#","asks":["#)?;
    scan.items(|scan| scan_level(scan, &mut levels.asks))?;
    scan.step(br#","checksum":"#)?;
    let checksum = Some(u32::try_from(scan.int()?).ok()?);
    scan.step(br#","timestamp":""#)?;
    let time = Some(time::parse_rfc3339(scan.bytes()?)?);
    scan.step(b"}]}")?;
    scan.end()?;
    Some(Book { is_snapshot, symbol, checksum, time })
}

#[inline]
fn scan_level(scan: &mut Scan<'_>, levels: &mut Vec<(Decimal, Decimal)>) -> Option<()> {
    scan.step(br#"{"price":"#)?;
    let price = scan.number()?;
    scan.step(br#","qty":"#)?;
    levels.push((price, scan.number()?));
    scan.step(b"}")
}

/// A time that may be missing: snapshots of some channels have none.
pub(super) fn optional_time(item: View<'_, '_>) -> Result<Option<Micros>, FrameError> {
    item.get("timestamp").and_then(View::text).map(|text| time::rfc3339("timestamp", text)).transpose()
}

/// All of a book message but its levels.
pub(super) fn book<'i>(is_snapshot: bool, item: View<'_, 'i>) -> Result<Book<'i>, FrameError> {
    let (symbol, time) = (item.need_text("symbol")?, optional_time(item)?);
    let checksum = item.need_int("checksum")?;
    let checksum = u32::try_from(checksum)
        .map_err(|_| FrameError::field("checksum", "an unsigned 32-bit number", &checksum.to_string()))?;
    Ok(Book { is_snapshot, symbol, checksum: Some(checksum), time })
}

/// Emits the `{"price":..,"qty":..}` levels of a book message. The caller drops what was pushed on an error.
pub(super) fn push_levels(head: &LevelHead, item: View<'_, '_>, out: &mut Outbox) -> Result<(), FrameError> {
    for (side, field) in [(Side::Buy, "bids"), (Side::Sell, "asks")] {
        for level in item.need_items(field)? {
            let price = number::price("price", level.need_text("price")?)?;
            let qty = number::qty("qty", level.need_text("qty")?)?;
            head.push(side, price, qty, out);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::assert_strict;

    const UPDATE: &str = r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":45283.5,"qty":0.10000000},{"price":45281,"qty":0}],"asks":[],"checksum":3310070434,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"#;

    #[test]
    fn a_book_message_as_the_venue_spells_it_is_scanned() {
        let mut levels = Levels::default();
        let book = scan(UPDATE.as_bytes(), &mut levels).unwrap();
        assert_eq!((book.is_snapshot, book.symbol, book.checksum), (false, "BTC/USD", Some(3_310_070_434)));
        assert_eq!(book.time, Some(Micros(1_696_613_755_440_295)));
        let shown: Vec<_> = levels.bids.iter().map(|(price, qty)| format!("{price}:{qty}")).collect();
        assert_eq!(shown, ["45283.5:0.10000000", "45281:0"]);
        assert!(levels.asks.is_empty());
        assert!(scan(UPDATE.replace("update", "snapshot").as_bytes(), &mut levels).unwrap().is_snapshot);
    }

    #[test]
    fn any_other_spelling_is_left_to_the_parser() {
        let mut levels = Levels::default();
        let others = [
            ("{\"channel\"", " {\"channel\""),
            ("\"asks\":[]", "\"asks\":[ ]"),
            ("45281,", "-45281,"),
            ("45281,", "4.5281e4,"),
            ("45281,", "45281.,"),
            ("45281,", "45281000000000000000,"),
            ("3310070434", "03310070434"),
            ("3310070434", "4294967296"),
            ("BTC/USD", "BTC\\/USD"),
            ("17:35", "17-35"),
            ("\"bids\"", "\"a\":1,\"bids\""),
            ("]}", "]}}"),
        ];
        assert_strict(UPDATE, &others, |frame| scan(frame, &mut levels).is_some());
    }
}
