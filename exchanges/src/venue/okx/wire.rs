//! OKX v5 messages, read off the tape.
//!
//! Source: www.okx.com/docs-v5 (order book trading, market data, WebSocket); NOTES.md has the evidence.

use super::book::Update;
use crate::{
    adapter::At,
    error::FrameError,
    event::{Flags, Quote, Side, Trade},
    ids::SymbolIx,
    json::{Items, View},
    number,
    scan::{Levels, Scan},
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

/// Reads a frame that is one book message in the spelling it always has; `None` for any other.
#[inline]
pub(super) fn scan<'a>(frame: &'a [u8], levels: &'a mut Levels) -> Option<(&'a str, Update<'a, 'a>)> {
    let mut scan = Scan::new(frame);
    scan.step(br#"{"arg":{"channel":"books","instId":""#)?;
    let instrument = scan.text()?;
    scan.step(br#"},"action":""#)?;
    let is_snapshot = scan.update_or_snapshot()?;
    scan.step(br#","data":[{"asks":["#)?;
    levels.clear();
    scan.levels(&mut levels.asks)?;
    scan.step(br#","bids":["#)?;
    scan.levels(&mut levels.bids)?;
    scan.step(br#","ts":""#)?;
    let time = epoch(scan.int()?);
    scan.step(br#"","checksum":"#)?;
    let checksum = scan.signed()?;
    let ids = if scan.skip(br#","seqId":"#) {
        let own = scan.int()?;
        scan.step(br#","prevSeqId":"#)?;
        Some((own, scan.int()?))
    } else if scan.skip(br#","prevSeqId":"#) {
        let previous = scan.int()?;
        scan.step(br#","seqId":"#)?;
        Some((scan.int()?, previous))
    } else {
        None
    };
    scan.step(b"}]}")?;
    scan.end()?;
    Some((instrument, Update::scanned(is_snapshot, ids, time, checksum, levels)?))
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

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::scan::assert_strict;

    const UPDATE: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["8476.98","415","0","13"],["8477","0","0","0"]],"bids":[["8476.97","256.10","0","12"]],"ts":"1597026383085","checksum":-855196043}]}"#;

    #[test]
    fn a_book_message_as_the_venue_spells_it_is_scanned() {
        let mut levels = Levels::default();
        let read = |frame: &str, levels: &mut Levels| {
            let (instrument, Update { is_snapshot, ids, head, .. }) = scan(frame.as_bytes(), levels)?;
            Some((instrument == "BTC-USDT", is_snapshot, ids, head.time.map(|time| time.0), head.checksum))
        };
        let time = Some(1_597_026_383_085_000);
        assert_eq!(read(UPDATE, &mut levels), Some((true, false, None, time, Some(-855_196_043))));
        let shown = |levels: &[(Decimal, Decimal)]| {
            levels.iter().map(|(price, qty)| format!("{price}:{qty}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((&*shown(&levels.bids), &*shown(&levels.asks)), ("8476.97:256.10", "8476.98:415 8477:0"));
        for (ids, said) in [(r#","seqId":7,"prevSeqId":5"#, (7, 5)), (r#","prevSeqId":5,"seqId":7"#, (7, 5))] {
            let numbered = UPDATE.replace("-855196043", &format!("0{ids}"));
            assert_eq!(read(&numbered, &mut levels), Some((true, false, Some(said), time, None)));
        }
        let snapshot = UPDATE.replace("\"update\"", "\"snapshot\"");
        assert_eq!(read(&snapshot, &mut levels), Some((true, true, None, time, Some(-855_196_043))));
    }

    #[test]
    fn any_other_spelling_is_left_to_the_parser() {
        let mut levels = Levels::default();
        let others = [
            ("{\"arg\"", " {\"arg\""),
            ("\"books\"", "\"books5\""),
            ("\"415\"", "415"),
            ("\"415\"", "\"-415\""),
            ("\"415\"", "\"4.15e2\""),
            ("\"13\"", "\"1\\n3\""),
            ("-855196043", "-0855196043"),
            ("-855196043", "4294967296"),
            ("BTC-USDT", "BTC\u{e9}USDT"),
            ("\"ts\"", "\"a\":1,\"ts\""),
            ("}]}", "},{}]}"),
        ];
        assert_strict(UPDATE, &others, |frame| scan(frame, &mut levels).is_some());
    }
}
