//! The decode that one would write first: serde_json into borrowed types with decimal prices.
//!
//! It does less than an adapter: no continuity, no books, no checksums, times left as they are written.

use std::hint::black_box;

use memchr::memmem::find;
use rust_decimal::Decimal;
use serde::Deserialize;

/// Decodes one frame of a venue; returns its rows, or `None` if there is no typed decode of that venue.
pub(super) fn rows(venue: &str, frame: &[u8]) -> Option<usize> {
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    let has = |name: &[u8]| find(head, name).is_some();
    match venue {
        name if name.starts_with("binance") => Some(if has(b"@depth") {
            parse(frame, |frame: &Envelope<Depth<'_>>| frame.data.b.len() + frame.data.a.len())
        } else if has(b"@trade") || has(b"@aggTrade") {
            parse(frame, |_: &Envelope<Trade<'_>>| 1)
        } else if has(b"@bookTicker") {
            parse(frame, |_: &Envelope<Ticker<'_>>| 1)
        } else {
            0
        }),
        "coinbase" => Some(if has(b"\"l2update\"") {
            parse(frame, |frame: &Update<'_>| frame.changes.len())
        } else if has(b"match\"") {
            parse(frame, |_: &Match<'_>| 1)
        } else if has(b"\"snapshot\"") {
            parse(frame, |frame: &Snapshot<'_>| frame.bids.len() + frame.asks.len())
        } else {
            0
        }),
        "kraken" => Some(if has(b"\"book\"") {
            parse(frame, |frame: &Data<Book<'_>>| frame.data.iter().map(|book| book.bids.len() + book.asks.len()).sum())
        } else if has(b"\"trade\"") {
            parse(frame, |frame: &Data<Print<'_>>| frame.data.len())
        } else if has(b"\"ticker\"") {
            parse(frame, |frame: &Data<Best<'_>>| frame.data.len())
        } else {
            0
        }),
        "okx" => Some(if has(b"\"books\"") {
            parse(frame, |frame: &Data<OkxBook<'_>>| {
                frame.data.iter().map(|book| book.bids.len() + book.asks.len()).sum()
            })
        } else if has(b"\"trades\"") {
            parse(frame, |frame: &Data<OkxTrade<'_>>| frame.data.len())
        } else {
            0
        }),
        _ => None,
    }
}

/// Rows of a frame of type `T`; none if it is not one (an acknowledgement, a heartbeat).
fn parse<'a, T: Deserialize<'a>>(frame: &'a [u8], rows: impl FnOnce(&T) -> usize) -> usize {
    black_box(serde_json::from_slice::<T>(frame)).as_ref().map_or(0, rows)
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

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Level {
    price: Decimal,
    qty: Decimal,
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
    price: Decimal,
    qty: Decimal,
    trade_id: i64,
    timestamp: &'a str,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Best<'a> {
    symbol: &'a str,
    bid: Decimal,
    bid_qty: Decimal,
    ask: Decimal,
    ask_qty: Decimal,
    timestamp: Option<&'a str>,
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
        ];
        for (venue, frame, expected) in cases {
            assert_eq!(rows(venue, frame.as_bytes()), Some(expected), "{venue}: {frame}");
        }
        assert_eq!(rows("acme", b"{}"), None);
    }
}
