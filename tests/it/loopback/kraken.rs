//! Kraken v2 rules (book-checksum-v2): a book kept by applying each message and cutting to the subscribed depth has
//! the checksum the message says, CRC32 over the ten best asks then bids with dots and leading zeros removed; one
//! acknowledgement a symbol; trade ids count up.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;
use tapeway::loopback::{Options, Rate, Venue, start};

use super::client::{Client, flat_out, get, one, stop};

const VENUE: Venue = Venue::Kraken;

/// A book kept from the messages' text, the only place where the trailing zeros are.
#[derive(Default)]
struct TextBook {
    bids: BTreeMap<Decimal, (String, String)>,
    asks: BTreeMap<Decimal, (String, String)>,
}

impl TextBook {
    fn apply(&mut self, text: &str, depth: usize) {
        for (key, side) in [("\"bids\":[", &mut self.bids), ("\"asks\":[", &mut self.asks)] {
            let levels = text.split_once(key).unwrap().1.split_once(']').unwrap().0;
            for level in levels.split("{\"price\":").skip(1) {
                let (price, rest) = level.split_once(",\"qty\":").unwrap();
                let qty = rest.split('}').next().unwrap();
                let key: Decimal = price.parse().unwrap();
                if qty.parse::<Decimal>().unwrap().is_zero() {
                    assert!(side.remove(&key).is_some(), "removed but never there: {price}");
                } else {
                    side.insert(key, (price.into(), qty.into()));
                }
            }
        }
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    fn checksum(&self) -> u64 {
        let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
        let best = self.asks.values().take(10).chain(self.bids.values().rev().take(10));
        let text: String = best.map(|(price, qty)| digits(price) + &digits(qty)).collect();
        crc32fast::hash(text.as_bytes()).into()
    }
}

fn subscribe(channel: &str, more: &str) -> String {
    format!(
        r#"{{"method":"subscribe","params":{{"channel":"{channel}","symbol":["BTC/USD","ETH/USD"]{more}}},"req_id":5}}"#
    )
}

#[tokio::test]
async fn ten_thousand_book_messages_have_the_checksum_of_the_book_they_make() {
    for depth in [10, 25, 100] {
        let server = start(Options { wait_subscriptions: 2, ..flat_out(VENUE) }).unwrap();
        let mut client = Client::open(&server, VENUE, "/v2").await;
        let status = client.json().await;
        assert_eq!((&status["channel"], &status["data"][0]["system"]), (&"status".into(), &"online".into()));
        client.send(subscribe("book", &format!(",\"depth\":{depth}"))).await;
        let (mut books, mut acknowledged) = (BTreeMap::<String, TextBook>::new(), 0);
        let mut seen = 0;
        while seen < 10_000 {
            let text = client.text().await.unwrap();
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["method"] == "subscribe" {
                assert_eq!((&message["success"], &message["req_id"]), (&true.into(), &5.into()));
                assert_eq!(message["result"]["depth"], depth);
                acknowledged += 1;
                continue;
            } else if message["channel"] == "heartbeat" {
                continue;
            }
            let data = &message["data"][0];
            let symbol = data["symbol"].as_str().unwrap().to_owned();
            if message["type"] == "snapshot" {
                assert!(books.insert(symbol.clone(), TextBook::default()).is_none());
            }
            let book = books.get_mut(&symbol).expect("a snapshot comes first");
            book.apply(&text, depth);
            assert_eq!(book.checksum(), data["checksum"].as_u64().unwrap(), "depth {depth}, message {seen}: {text}");
            assert!(book.bids.len() <= depth && book.asks.len() >= depth.min(20));
            seen += 1;
        }
        assert_eq!(acknowledged, 2);
        drop(client);
        stop(server).await;
    }
}

#[tokio::test]
async fn trades_begin_with_a_snapshot_and_count_up() {
    let server = start(one(VENUE, Rate::RowsPerSecond(30_000.0))).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let mut client = Client::open(&server, VENUE, "/v2").await;
    client.send(subscribe("trade", ",\"snapshot\":true")).await;
    let mut last = BTreeMap::new();
    let mut all: BTreeMap<u64, Value> = BTreeMap::new();
    while all.len() < 300 {
        let message = client.until(|message| message["channel"] == "trade").await;
        for trade in message["data"].as_array().unwrap() {
            let id = trade["trade_id"].as_u64().unwrap();
            if let Some(before) = last.insert(trade["symbol"].as_str().unwrap().to_owned(), id) {
                assert_eq!(id, before + 1);
            }
            if trade["symbol"] == "BTC/USD" {
                all.insert(id, trade.clone());
            }
        }
    }
    // The REST page after the first trade's time begins with the second.
    let ids: Vec<u64> = all.keys().copied().collect();
    let answer = get(&server, VENUE, "/0/public/Trades?pair=XBTUSD&since=1&count=1000").await.json();
    let page = answer["result"]["XXBTZUSD"].as_array().unwrap();
    let at = page.iter().position(|trade| trade[6].as_u64() == Some(ids[0])).expect("still kept");
    for (trade, id) in page[at..].iter().zip(&ids) {
        let sent = &all[id];
        assert_eq!(trade[6].as_u64(), Some(*id));
        assert_eq!(trade[0].as_str().unwrap().parse::<f64>().unwrap(), sent["price"].as_f64().unwrap());
        assert_eq!(trade[3] == "b", sent["side"] == "buy");
    }
    let since = answer["result"]["last"].as_str().unwrap();
    let next = get(&server, VENUE, &format!("/0/public/Trades?pair=BTC/USD&since={since}&count=1")).await.json();
    let after = page.last().unwrap()[6].as_u64().unwrap() + 1;
    assert!(next["result"]["XXBTZUSD"].as_array().unwrap().iter().all(|trade| trade[6].as_u64() == Some(after)));
    stop(server).await;
}

#[tokio::test]
async fn ticker_instruments_ping_and_resubscription_work_as_documented() {
    let server = start(one(VENUE, Rate::RowsPerSecond(10_000.0))).unwrap();
    let mut client = Client::open(&server, VENUE, "/v2").await;
    client.send(subscribe("ticker", ",\"event_trigger\":\"bbo\"")).await;
    let ticker = client.until(|message| message["channel"] == "ticker" && message["type"] == "update").await;
    assert!(ticker["data"][0]["bid"].as_f64() < ticker["data"][0]["ask"].as_f64());

    client.send(r#"{"method":"subscribe","params":{"channel":"instrument"}}"#).await;
    let list = client.until(|message| message["channel"] == "instrument").await;
    assert_eq!(list["data"]["pairs"].as_array().unwrap().len(), 3);
    assert_eq!(list["data"]["pairs"][0]["price_precision"], 1);

    client.send(r#"{"method":"ping","req_id":9}"#).await;
    assert_eq!(client.until(|message| message["method"] == "pong").await["req_id"], 9);
    client.until(|message| message["channel"] == "heartbeat").await;

    client.send(subscribe("book", "")).await;
    let is_btc = |message: &Value| message["channel"] == "book" && message["data"][0]["symbol"] == "BTC/USD";
    assert_eq!(client.until(is_btc).await["type"], "snapshot");
    client.send(subscribe("book", "")).await;
    client.until(|message| message["error"] == "Already subscribed").await;
    client.send(r#"{"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"]}}"#).await;
    client.until(|message| message["method"] == "unsubscribe" && message["success"] == true).await;
    client.send(r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":10}}"#).await;
    client.until(|message| message["method"] == "subscribe" && message["success"] == true).await;
    assert_eq!(client.until(is_btc).await["type"], "snapshot");

    client.send(r#"{"method":"subscribe","params":{"channel":"book","symbol":["NO/PE"]}}"#).await;
    let error = client.until(|message| message["success"] == false).await;
    assert_eq!(error["error"], "Currency pair not supported NO/PE");
    client.send(r#"{"method":"subscribe","params":{"channel":"book","symbol":["SOL/USD"],"depth":11}}"#).await;
    client.until(|message| message["error"] == "Subscription depth not supported").await;
    stop(server).await;
}

/// The oracle of these tests, checked against what the venue itself sent.
#[test]
fn the_text_book_has_the_checksums_of_recorded_sessions() {
    for (name, depth) in [("xb_v2_btcusd_d10_202608", 10), ("xb_v2_xrpusd_d25_202608", 25)] {
        let Some(lines) = super::recording::corpus(&format!("frames/kraken/{name}.jsonl.zst")) else { return };
        let mut book = TextBook::default();
        let mut matched = 0;
        for line in lines {
            let raw = line["raw"].as_str().unwrap();
            let message: Value = serde_json::from_str(raw).unwrap();
            if message["channel"] != "book" {
                continue;
            } else if message["type"] == "snapshot" {
                book = TextBook::default();
            }
            book.apply(raw, depth);
            assert_eq!(book.checksum(), message["data"][0]["checksum"].as_u64().unwrap(), "{name}: {raw}");
            matched += 1;
        }
        assert!(matched > 200);
    }
}
