//! Kraken's WebSocket v1 messages: read from old recordings, never asked for.
//!
//! ```text
//! [channelID, {"as":[[price,qty,time],..],"bs":[..]}, "book-1000", "XMR/USD"]          snapshot, no checksum
//! [channelID, {"a":[..],"c":"123"}, "book-1000", pair]                                  update
//! [channelID, {"a":[..]}, {"b":[..],"c":"123"}, "book-1000", pair]                      update of both sides
//! [channelID, [[price,qty,time,side,orderType,misc],..], "trade", pair]
//! {"event":"heartbeat"|"systemStatus"|"subscriptionStatus"|"pong",...}
//! ```
//!
//! Trades have no id, so nothing can be proven of them.

use rust_decimal::Decimal;

use super::wire::Book;
use crate::{
    adapter::Outbox,
    error::FrameError,
    event::{Flags, Side, Trade},
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
        pair: &'i str,
        depth: Option<u32>,
        parts: [Option<View<'t, 'i>>; 2],
    },
    Trades {
        pair: &'i str,
        trades: Items<'t, 'i>,
    },
    Subscribed {
        pair: &'i str,
        depth: Option<u32>,
    },
    Refusal {
        pair: Option<&'i str>,
        reason: &'i str,
    },
    /// A documented message that is not recorded.
    Other,
}

/// Whether a root is a message of this version.
pub(super) fn is_legacy(root: View<'_, '_>) -> bool {
    root.items().is_some() || root.get("event").is_some()
}

/// Reads one frame.
///
/// # Errors
///
/// [`FrameError`]: a documented message without what it must have, or no documented message.
pub(super) fn read<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let Some(items) = root.items() else { return read_event(root) };
    let mut fields = [None; 5];
    let count = items.len();
    for (slot, item) in fields.iter_mut().zip(items) {
        *slot = Some(item);
    }
    let (parts, name, pair) = match (count, fields) {
        (4, [_, first, name, pair, _]) => ([first, None], name, pair),
        (5, [_, first, second, name, pair]) => ([first, second], name, pair),
        _ => return Err(FrameError::Unknown { head: root.shown() }),
    };
    let (Some(name), Some(pair)) = (name.and_then(View::text), pair.and_then(View::text)) else {
        return Err(FrameError::Unknown { head: root.shown() });
    };
    match name {
        "trade" => {
            let trades = parts[0].and_then(View::items).ok_or_else(|| FrameError::missing("trade", "an array"))?;
            Ok(Message::Trades { pair, trades })
        }
        "ticker" | "spread" => Ok(Message::Other),
        name if name.starts_with("ohlc") => Ok(Message::Other),
        name if name.starts_with("book") => Ok(Message::Book { pair, depth: depth_of(name), parts }),
        other => Err(FrameError::Unknown { head: format!("channel {other:?}") }),
    }
}

fn read_event<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    match root.need_text("event")? {
        "heartbeat" | "systemStatus" | "pong" => Ok(Message::Other),
        "subscriptionStatus" => match root.need_text("status")? {
            "error" => Ok(Message::Refusal {
                pair: root.get("pair").and_then(View::text),
                reason: root.get("errorMessage").and_then(View::text).unwrap_or("no reason given"),
            }),
            "subscribed" => {
                let name = root.need_text("channelName")?;
                if !name.starts_with("book") {
                    return Ok(Message::Other);
                }
                Ok(Message::Subscribed { pair: root.need_text("pair")?, depth: depth_of(name) })
            }
            _ => Ok(Message::Other),
        },
        "error" => Ok(Message::Refusal {
            pair: None,
            reason: root.get("errorMessage").and_then(View::text).unwrap_or("no reason given"),
        }),
        other => Err(FrameError::Unknown { head: format!("event {other:?}") }),
    }
}

/// What one book message holds besides its levels.
#[derive(Debug)]
pub(super) struct BookParts<'t, 'i> {
    pub(super) is_snapshot: bool,
    pub(super) checksum: Option<u32>,
    /// The newest of the levels' own times.
    pub(super) time: Option<Micros>,
    bids: Option<View<'t, 'i>>,
    asks: Option<View<'t, 'i>>,
}

impl<'t, 'i> BookParts<'t, 'i> {
    /// Puts the one or two payloads of a book message together.
    pub(super) fn read(parts: [Option<View<'t, 'i>>; 2]) -> Result<Self, FrameError> {
        let mut whole = Self { is_snapshot: false, checksum: None, time: None, bids: None, asks: None };
        for (key, value) in parts.into_iter().flatten().flat_map(View::entries) {
            match key {
                "a" => whole.asks = Some(value),
                "b" => whole.bids = Some(value),
                "as" => (whole.is_snapshot, whole.asks) = (true, Some(value)),
                "bs" => (whole.is_snapshot, whole.bids) = (true, Some(value)),
                "c" => whole.checksum = Some(checksum(value)?),
                _ => {}
            }
        }
        for level in [whole.bids, whole.asks].into_iter().flatten().filter_map(View::items).flatten() {
            let text = level.items().and_then(|mut items| items.nth(2)).and_then(View::text);
            whole.time = whole.time.max(text.map(|text| time::seconds("timestamp", text)).transpose()?);
        }
        Ok(whole)
    }

    /// Emits the levels. The caller drops what was pushed on an error.
    pub(super) fn push(&self, head: &LevelHead, out: &mut Outbox) -> Result<(), FrameError> {
        if self.bids.is_some() {
            head.push_pairs(Side::Buy, "b", self.bids, out)?;
        }
        if self.asks.is_some() {
            head.push_pairs(Side::Sell, "a", self.asks, out)?;
        }
        Ok(())
    }
}

/// Reads a frame that is a snapshot or an update of one side in the spelling it always has, its depth and its levels; `None`
/// for any other.
#[inline]
pub(super) fn scan<'a>(frame: &'a [u8], levels: &mut Levels) -> Option<(u32, Book<'a>)> {
    let mut scan = Scan::new(frame);
    let mut time = None;
    scan.step(b"[")?;
    scan.int()?;
    levels.clear();
    let is_snapshot = scan.skip(br#",{"as":["#);
    let checksum = if is_snapshot {
        scan_levels(&mut scan, &mut levels.asks, &mut time)?;
        scan.step(br#","bs":["#)?;
        scan_levels(&mut scan, &mut levels.bids, &mut time)?;
        None
    } else {
        let side = if scan.skip(br#",{"a":["#) {
            &mut levels.asks
        } else {
            scan.step(br#",{"b":["#)?;
            &mut levels.bids
        };
        scan_levels(&mut scan, side, &mut time)?;
        scan.step(br#","c":""#)?;
        let checksum = u32::try_from(scan.int()?).ok()?;
        scan.step(br#"""#)?;
        Some(checksum)
    };
    scan.step(br#"},"book-"#)?;
    let depth = u32::try_from(scan.int()?).ok()?;
    scan.step(br#"",""#)?;
    let pair = scan.text()?;
    scan.step(b"]")?;
    scan.end()?;
    Some((depth, Book { symbol: pair, is_snapshot, checksum, time }))
}

/// `["price","volume","time"]`, and `"r"` in one that is published once more, up to the end of their array.
#[inline]
fn scan_levels(scan: &mut Scan<'_>, side: &mut Vec<(Decimal, Decimal)>, newest: &mut Option<Micros>) -> Option<()> {
    scan.items(|scan| {
        scan.step(br#"[""#)?;
        let price = scan.number()?;
        scan.step(br#"",""#)?;
        side.push((price, scan.number()?));
        scan.step(br#"",""#)?;
        *newest = (*newest).max(Some(time::parse_seconds(scan.bytes()?)?));
        scan.skip(br#","r""#);
        scan.step(b"]")
    })
}

/// One trade; without an id.
pub(super) fn trade(symbol: SymbolIx, item: View<'_, '_>) -> Result<Trade, FrameError> {
    const RULE: &str = "price, volume, time and side as strings";
    let mut texts = item.items().into_iter().flatten().map(View::text);
    let (Some(Some(price)), Some(Some(qty)), Some(Some(seconds)), Some(Some(side))) =
        (texts.next(), texts.next(), texts.next(), texts.next())
    else {
        return Err(FrameError::field("trade", RULE, &item.shown()));
    };
    Ok(Trade {
        frame: 0,
        symbol,
        side: match side {
            "b" => Side::Buy,
            "s" => Side::Sell,
            other => return Err(FrameError::field("side", "`b` or `s`", other)),
        },
        flags: Flags::NONE,
        time: time::seconds("time", seconds)?,
        price: number::price("price", price)?,
        qty: number::qty("volume", qty)?,
        trade_id: None,
        trade_ref: None,
    })
}

fn checksum(value: View<'_, '_>) -> Result<u32, FrameError> {
    let number = value.int().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| FrameError::field("c", "an unsigned 32-bit checksum", &value.shown()))
}

/// `book-1000` is a book of 1000 levels.
fn depth_of(name: &str) -> Option<u32> {
    name.strip_prefix("book-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::assert_strict;

    const UPDATE: &str = r#"[992,{"b":[["352.55000000","11.52000000","1618678135.026625"],["352.5","0","1618678134.9","r"]],"c":"1139871795"},"book-1000","XMR/USD"]"#;

    #[test]
    fn an_update_of_one_side_is_scanned() {
        let mut levels = Levels::default();
        let (depth, update) = scan(UPDATE.as_bytes(), &mut levels).unwrap();
        assert_eq!((update.symbol, depth, update.is_snapshot), ("XMR/USD", 1_000, false));
        assert_eq!(update.checksum, Some(1_139_871_795));
        assert_eq!(update.time, Some(Micros(1_618_678_135_026_625)));
        let shown: Vec<_> = levels.bids.iter().map(|(price, qty)| format!("{price}:{qty}")).collect();
        assert_eq!(shown, ["352.55000000:11.52000000", "352.5:0"]);
        assert!(levels.asks.is_empty());
        scan(UPDATE.replace(r#"{"b""#, r#"{"a""#).as_bytes(), &mut levels).unwrap();
        assert_eq!((levels.asks.len(), levels.bids.len()), (2, 0));
    }

    #[test]
    fn a_snapshot_is_scanned() {
        let mut levels = Levels::default();
        let frame =
            br#"[992,{"as":[["353.1","2","1618678135.5"]],"bs":[["352.5","1.0","1618678134.9"]]},"book-10","XMR/USD"]"#;
        let (depth, snapshot) = scan(frame, &mut levels).unwrap();
        assert_eq!((snapshot.symbol, depth, snapshot.is_snapshot), ("XMR/USD", 10, true));
        assert_eq!((snapshot.checksum, snapshot.time), (None, Some(Micros(1_618_678_135_500_000))));
        assert_eq!((levels.asks.len(), levels.bids.len()), (1, 1));
    }

    #[test]
    fn any_other_spelling_is_left_to_the_parser() {
        let mut levels = Levels::default();
        let others = [
            ("[992", " [992"),
            ("\"b\"", "\"bs\""),
            ("\"352.5\"", "\"-352.5\""),
            ("\"352.5\"", "352.5"),
            ("1618678134.9", "161867813490.9"),
            ("1139871795", "4294967296"),
            ("book-1000", "book-"),
            ("},\"book", "},{\"a\":[]},\"book"),
            ("XMR/USD", "XMR\\/USD"),
        ];
        assert_strict(UPDATE, &others, |frame| scan(frame, &mut levels).is_some());
    }
}
