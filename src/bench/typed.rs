//! The decode that one would write first: serde_json into borrowed types with decimal prices.
//!
//! It does less than an adapter: no continuity, no books, no checksums, times left as they are written. What it does not
//! want it reads through, as a tagged enum would. Numbers that a venue writes bare are taken as text first: serde_json's way
//! to a `Decimal` is through a float, which loses the digits that are to be stored.

use std::{hint::black_box, str::FromStr as _};

use memchr::memmem::find;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;
use tapeway_exchanges::input::{Kind, split_http};

/// Decodes one frame or HTTP answer of a venue; returns its rows, or `None` if there is no typed decode of that venue.
pub(super) fn rows(venue: &str, kind: Kind, frame: &[u8]) -> Option<usize> {
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    let has = |name: &[u8]| find(head, name).is_some();
    match kind {
        Kind::Text | Kind::Binary => {}
        Kind::Http => {
            let mut answer = frame.to_vec();
            let Ok((_, _, body)) = split_http(&mut answer) else { return Some(0) };
            return venue
                .starts_with("binance")
                .then(|| parse(body, |book: &Answer| book.bids.len() + book.asks.len()));
        }
        Kind::Open | Kind::Close | Kind::Plan => return Some(0),
    }
    let count = match venue {
        name if name.starts_with("binance") => {
            if has(b"@depth") {
                parse(frame, |frame: &Envelope<Depth<'_>>| frame.data.b.len() + frame.data.a.len())
            } else if has(b"@trade") || has(b"@aggTrade") {
                parse(frame, |_: &Envelope<Trade<'_>>| 1)
            } else if has(b"@bookTicker") {
                parse(frame, |_: &Envelope<Ticker<'_>>| 1)
            } else {
                pass(frame)
            }
        }
        "coinbase" => {
            if has(b"\"l2update\"") {
                parse(frame, |frame: &Update<'_>| frame.changes.len())
            } else if has(b"match\"") {
                parse(frame, |_: &Match<'_>| 1)
            } else if has(b"\"snapshot\"") {
                parse(frame, |frame: &Snapshot<'_>| frame.bids.len() + frame.asks.len())
            } else {
                pass(frame)
            }
        }
        "kraken" => {
            if head.starts_with(b"[") {
                legacy(frame)
            } else if has(b"\"book\"") {
                parse(frame, |frame: &Data<Book<'_>>| {
                    frame.data.iter().map(|book| book.bids.len() + book.asks.len()).sum()
                })
            } else if has(b"\"trade\"") {
                parse(frame, |frame: &Data<Print<'_>>| frame.data.len())
            } else if has(b"\"ticker\"") {
                parse(frame, |frame: &Data<Best<'_>>| frame.data.len())
            } else {
                pass(frame)
            }
        }
        "okx" | "okcoin" => {
            if has(b"\"books\"") {
                parse(frame, |frame: &Data<OkxBook<'_>>| {
                    frame.data.iter().map(|book| book.bids.len() + book.asks.len()).sum()
                })
            } else if has(b"\"trades\"") {
                parse(frame, |frame: &Data<OkxTrade<'_>>| frame.data.len())
            } else {
                pass(frame)
            }
        }
        "bitget" => {
            if has(b"\"books\"") {
                parse(frame, |frame: &Data<BitgetBook<'_>>| {
                    frame.data.iter().map(|book| book.bids.len() + book.asks.len()).sum()
                })
            } else if has(b"\"trade\"") {
                parse(frame, |frame: &Data<(&str, Decimal, Decimal, &str)>| frame.data.len())
            } else {
                pass(frame)
            }
        }
        _ => return None,
    };
    Some(count)
}

/// Rows of a frame of type `T`; none if it is not one (an acknowledgement, a heartbeat).
fn parse<'a, T: Deserialize<'a>>(frame: &'a [u8], rows: impl FnOnce(&T) -> usize) -> usize {
    black_box(serde_json::from_slice::<T>(frame)).as_ref().map_or(0, rows)
}

/// A frame of no wanted kind.
fn pass(frame: &[u8]) -> usize {
    parse(frame, |_: &serde::de::IgnoredAny| 0)
}

/// Kraken's first version: arrays of four, or of five when both sides changed.
fn legacy(frame: &[u8]) -> usize {
    let count = |book: &LegacyBook<'_>| book.bids.len() + book.asks.len() + book.new_bids.len() + book.new_asks.len();
    if frame.ends_with(b"\"]") && find(frame, b"\"book-").is_some() {
        let four = parse(frame, |(_, book, _, _): &(u64, LegacyBook<'_>, &str, &str)| count(book));
        if four > 0 {
            return four;
        }
        return parse(frame, |(_, a, b, _, _): &(u64, LegacyBook<'_>, LegacyBook<'_>, &str, &str)| count(a) + count(b));
    }
    if find(frame, b"\"trade\"").is_some() {
        return parse(frame, |(_, list, _, _): &(u64, Vec<LegacyTrade<'_>>, &str, &str)| list.len());
    }
    pass(frame)
}

/// The kind of a frame is in its first bytes; looking there is cheaper than any of serde's ways to choose.
const HEAD_BYTES: usize = 80;

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct Data<T> {
    data: Vec<T>,
}

type Pair = (Decimal, Decimal);

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Depth<'a> {
    s: &'a str,
    #[serde(rename = "E")]
    event_time: i64,
    #[serde(rename = "T")]
    time: Option<i64>,
    #[serde(rename = "U")]
    first_id: i64,
    u: i64,
    pu: Option<i64>,
    b: Vec<Pair>,
    a: Vec<Pair>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Trade<'a> {
    s: &'a str,
    #[serde(rename = "T")]
    time: i64,
    t: Option<i64>,
    a: Option<i64>,
    p: Decimal,
    q: Decimal,
    #[serde(rename = "X")]
    execution: Option<&'a str>,
    m: bool,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Ticker<'a> {
    s: &'a str,
    #[serde(rename = "T")]
    time: Option<i64>,
    u: i64,
    b: Decimal,
    #[serde(rename = "B")]
    bid_qty: Decimal,
    a: Decimal,
    #[serde(rename = "A")]
    ask_qty: Decimal,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Update<'a> {
    product_id: &'a str,
    #[serde(borrow)]
    changes: Vec<(&'a str, Decimal, Decimal)>,
    time: Option<&'a str>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Snapshot<'a> {
    product_id: &'a str,
    bids: Vec<Pair>,
    asks: Vec<Pair>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Match<'a> {
    product_id: &'a str,
    trade_id: i64,
    price: Decimal,
    size: Decimal,
    side: &'a str,
    time: &'a str,
}

/// A number written bare, with all its digits.
struct Digits(#[expect(dead_code, reason = "parsing it is what is measured")] Decimal);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Decimal::from_str(<&RawValue>::deserialize(from)?.get()).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Level {
    price: Digits,
    qty: Digits,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Book<'a> {
    symbol: &'a str,
    bids: Vec<Level>,
    asks: Vec<Level>,
    checksum: u32,
    timestamp: Option<&'a str>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Print<'a> {
    symbol: &'a str,
    side: &'a str,
    price: Digits,
    qty: Digits,
    trade_id: i64,
    timestamp: &'a str,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Best<'a> {
    symbol: &'a str,
    bid: Digits,
    bid_qty: Digits,
    ask: Digits,
    ask_qty: Digits,
    timestamp: Option<&'a str>,
}

type LegacyLevel<'a> = (Decimal, Decimal, &'a str);
type LegacyTrade<'a> = (Decimal, Decimal, &'a str, &'a str, &'a str, &'a str);

#[derive(Default, Deserialize)]
#[serde(default)]
struct LegacyBook<'a> {
    #[serde(borrow, rename = "bs")]
    bids: Vec<LegacyLevel<'a>>,
    #[serde(borrow, rename = "as")]
    asks: Vec<LegacyLevel<'a>>,
    #[serde(borrow, rename = "b")]
    new_bids: Vec<LegacyLevel<'a>>,
    #[serde(borrow, rename = "a")]
    new_asks: Vec<LegacyLevel<'a>>,
    #[serde(borrow, rename = "c")]
    _checksum: Option<&'a str>,
}

/// A snapshot of Binance's by HTTP.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Answer {
    last_update_id: i64,
    bids: Vec<Pair>,
    asks: Vec<Pair>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct BitgetBook<'a> {
    bids: Vec<Pair>,
    asks: Vec<Pair>,
    checksum: i32,
    ts: &'a str,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct OkxBook<'a> {
    #[serde(borrow)]
    bids: Vec<(Decimal, Decimal, &'a str, &'a str)>,
    #[serde(borrow)]
    asks: Vec<(Decimal, Decimal, &'a str, &'a str)>,
    ts: &'a str,
    checksum: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct OkxTrade<'a> {
    inst_id: &'a str,
    trade_id: &'a str,
    px: Decimal,
    sz: Decimal,
    side: &'a str,
    ts: &'a str,
}

#[cfg(test)]
mod tests {
    use tapeway_exchanges::input::put_http;

    use super::*;

    #[test]
    fn every_kind_of_frame_is_decoded() {
        let cases = [
            (
                "binance-spot",
                r#"{"stream":"a@depth@100ms","data":{"s":"A","E":1,"U":1,"u":2,"b":[["1","2"]],"a":[["3","4"],["5","0"]]}}"#,
                3,
            ),
            (
                "binance-usdm",
                r#"{"stream":"a@trade","data":{"s":"A","T":1,"t":7,"p":"1.5","q":"2","X":"MARKET","m":true}}"#,
                1,
            ),
            (
                "binance-coinm",
                r#"{"stream":"a@bookTicker","data":{"u":1,"s":"A","b":"1","B":"2","a":"3","A":"4","T":5}}"#,
                1,
            ),
            ("coinbase", r#"{"type":"l2update","product_id":"A","changes":[["buy","1.5","2"]],"time":"t"}"#, 1),
            (
                "coinbase",
                r#"{"type":"last_match","trade_id":1,"side":"buy","size":"1","price":"2","product_id":"A","time":"t"}"#,
                1,
            ),
            ("coinbase", r#"{"type":"snapshot","product_id":"A","bids":[["1","2"]],"asks":[["1","2"]]}"#, 2),
            (
                "kraken",
                r#"{"channel":"book","type":"update","data":[{"symbol":"A","bids":[{"price":1.5,"qty":2}],"asks":[],"checksum":1,"timestamp":"t"}]}"#,
                1,
            ),
            (
                "kraken",
                r#"{"channel":"trade","type":"update","data":[{"symbol":"A","side":"buy","price":1.5,"qty":2,"trade_id":1,"timestamp":"t"}]}"#,
                1,
            ),
            (
                "kraken",
                r#"{"channel":"ticker","type":"update","data":[{"symbol":"A","bid":1,"bid_qty":2,"ask":3,"ask_qty":4}]}"#,
                1,
            ),
            (
                "okx",
                r#"{"arg":{"channel":"books","instId":"A"},"data":[{"asks":[["1","2","0","1"]],"bids":[],"ts":"1","checksum":-1}]}"#,
                1,
            ),
            (
                "okx",
                r#"{"arg":{"channel":"trades","instId":"A"},"data":[{"instId":"A","tradeId":"1","px":"1","sz":"2","side":"buy","ts":"1"}]}"#,
                1,
            ),
            ("kraken", r#"{"channel":"heartbeat"}"#, 0),
            ("kraken", r#"[7,{"as":[["1","2","3.5"]],"bs":[["1","2","3.5"]]},"book-10","A/B"]"#, 2),
            ("kraken", r#"[7,{"a":[["1","2","3.5"]]},{"b":[["1","2","3.5"]],"c":"1"},"book-10","A/B"]"#, 2),
            ("kraken", r#"[7,[["1","2","3.5","b","l",""]],"trade","A/B"]"#, 1),
            (
                "bitget",
                r#"{"action":"update","arg":{"channel":"books"},"data":[{"asks":[["1","2"]],"bids":[],"checksum":-1,"ts":"1"}]}"#,
                1,
            ),
            ("bitget", r#"{"action":"update","arg":{"channel":"trade"},"data":[["1","2","3","buy"]]}"#, 1),
        ];
        for (venue, frame, expected) in cases {
            assert_eq!(rows(venue, Kind::Text, frame.as_bytes()), Some(expected), "{venue}: {frame}");
        }
        let mut answer = Vec::new();
        put_http(&mut answer, "snapshot", 200, br#"{"lastUpdateId":1,"bids":[["1","2"]],"asks":[]}"#);
        assert_eq!(rows("binance-spot", Kind::Http, &answer), Some(1));
        assert_eq!(rows("acme", Kind::Text, b"{}"), None);
    }
}
