//! Binance rules (web-socket-streams.md; How to manage a local order book correctly): combined and raw streams,
//! SUBSCRIBE with an id, `U == last u + 1` on spot and `pu == last u` on USD-M, a snapshot whose `lastUpdateId` lies
//! within a depth event, a bookTicker that shows the top of the book at its `u`.

use std::collections::BTreeMap;

use serde_json::Value;
use tapeway::loopback::{Options, Rate, Venue, start};

use super::client::{Book, Client, PATIENCE, flat_out, get, one, stop};

const BOTH: [Venue; 2] = [Venue::BinanceSpot, Venue::BinanceUsdm];

fn stream_path(venue: Venue) -> &'static str {
    if venue == Venue::BinanceSpot { "/stream" } else { "/public/stream" }
}

#[tokio::test]
async fn a_subscription_is_acknowledged_listed_and_ended() {
    for venue in BOTH {
        let server = start(one(venue, Rate::RowsPerSecond(20_000.0))).unwrap();
        let mut client = Client::open(&server, venue, stream_path(venue)).await;
        client.send(r#"{"method":"SUBSCRIBE","params":["btcusdt@trade","btcusdt@depth@100ms"],"id":7}"#).await;
        assert_eq!(client.text().await.unwrap(), r#"{"result":null,"id":7}"#);
        let trade = client.until(|message| message["stream"] == "btcusdt@trade").await;
        assert_eq!(trade["data"]["e"], "trade");
        assert_eq!(trade["data"]["s"], "BTCUSDT");
        client.send(r#"{"method":"LIST_SUBSCRIPTIONS","id":"l"}"#).await;
        let list = client.until(|message| message["id"] == "l").await;
        assert_eq!(list["result"].as_array().unwrap().len(), 2);
        client.send(r#"{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":8}"#).await;
        client.until(|message| message["id"] == 8).await;
        for _ in 0..200 {
            assert_eq!(client.json().await["stream"], "btcusdt@depth@100ms");
        }
        client.send("nonsense").await;
        client.until(|message| message["error"]["code"] == 3).await;
        stop(server).await;
    }
}

#[tokio::test]
async fn streams_in_the_url_need_no_subscribe_and_raw_streams_no_wrapper() {
    let server = start(one(Venue::BinanceSpot, Rate::RowsPerSecond(20_000.0))).unwrap();
    let mut combined = Client::open(&server, Venue::BinanceSpot, "/stream?streams=btcusdt@trade/ethusdt@depth").await;
    combined.until(|message| message["stream"] == "btcusdt@trade").await;
    combined.until(|message| message["stream"] == "ethusdt@depth").await;
    let mut raw = Client::open(&server, Venue::BinanceSpot, "/ws/btcusdt@trade").await;
    assert_eq!(raw.json().await["e"], "trade");
    let micros = "/stream?streams=btcusdt@trade&timeUnit=MICROSECOND";
    let mut micros = Client::open(&server, Venue::BinanceSpot, micros).await;
    let (ms, us) = (combined.until(|m| m["data"]["e"] == "trade").await, micros.json().await);
    let ratio = us["data"]["T"].as_u64().unwrap() / ms["data"]["T"].as_u64().unwrap();
    assert!((999..=1_001).contains(&ratio), "{us}");
    assert!(Client::try_open(&server, Venue::BinanceSpot, "/v2").await.is_err());
    stop(server).await;
}

#[tokio::test]
async fn ten_thousand_frames_follow_the_sequence_rules() {
    for venue in BOTH {
        let server = start(flat_out(venue)).unwrap();
        let names = venue.symbols(3);
        let streams: Vec<String> = names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .flat_map(|name| ["trade", "depth@100ms", "bookTicker"].map(|channel| format!("{name}@{channel}")))
            .collect();
        let path = format!("{}?streams={}", stream_path(venue), streams.join("/"));
        let mut client = Client::open(&server, venue, &path).await;
        let (mut trades, mut books) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..10_000 {
            let message = client.json().await;
            let data = &message["data"];
            let symbol = data["s"].as_str().unwrap().to_owned();
            if data["e"] == "trade" {
                let id = data["t"].as_u64().unwrap();
                if let Some(before) = trades.insert(symbol, id) {
                    assert_eq!(id, before + 1);
                }
            } else if data["e"] == "depthUpdate" {
                let (first, last) = (data["U"].as_u64().unwrap(), data["u"].as_u64().unwrap());
                assert!(first <= last);
                if let Some(before) = books.insert(symbol, last) {
                    let linked = if venue == Venue::BinanceSpot { first - 1 } else { data["pu"].as_u64().unwrap() };
                    assert_eq!(linked, before);
                }
            }
        }
        assert_eq!((trades.len(), books.len()), (3, 3));
        drop(client);
        stop(server).await;
    }
}

/// The join rule: buffer, ask for a snapshot, drop what it holds, then the first kept event overlaps it.
#[tokio::test]
async fn a_snapshot_and_the_frames_after_it_make_the_book_the_quotes_show() {
    for venue in BOTH {
        let server = start(one(venue, Rate::RowsPerSecond(30_000.0))).unwrap();
        let path = format!("{}?streams=btcusdt@depth@100ms/btcusdt@bookTicker", stream_path(venue));
        let mut client = Client::open(&server, venue, &path).await;
        let first = client.until(|message| message["data"]["e"] == "depthUpdate").await;
        let rest = if venue == Venue::BinanceSpot { "/api/v3/depth" } else { "/fapi/v1/depth" };
        let snapshot = get(&server, venue, &format!("{rest}?symbol=BTCUSDT&limit=1000")).await.json();
        let snapshot_id = snapshot["lastUpdateId"].as_u64().unwrap();
        assert!(snapshot_id >= first["data"]["u"].as_u64().unwrap());
        let mut book = Book::default();
        book.apply(&snapshot["bids"], &snapshot["asks"]);

        let (mut joined, mut last_id, mut quote, mut compared) = (false, snapshot_id, Value::Null, 0);
        let mut message = first;
        while compared < 500 {
            let data = &message["data"];
            if data["e"] == "depthUpdate" {
                let (first, last) = (data["U"].as_u64().unwrap(), data["u"].as_u64().unwrap());
                let is_stale = if venue == Venue::BinanceSpot { last <= snapshot_id } else { last < snapshot_id };
                if !is_stale {
                    if joined {
                        let linked = if venue == Venue::BinanceSpot { first - 1 } else { data["pu"].as_u64().unwrap() };
                        assert_eq!(linked, last_id);
                    } else if venue == Venue::BinanceSpot {
                        assert!(first <= snapshot_id + 1 && snapshot_id < last, "{first} {snapshot_id} {last}");
                    } else {
                        let is_linked = data["pu"].as_u64().unwrap() == snapshot_id;
                        assert!(first <= snapshot_id && snapshot_id <= last || is_linked);
                    }
                    joined = true;
                    last_id = last;
                    book.apply(&data["b"], &data["a"]);
                    if quote["u"] == data["u"] {
                        let [bid, ask] = book.top();
                        let of = |key: &str| quote[key].as_str().unwrap().to_owned();
                        assert_eq!((bid.0, bid.1), (of("b").parse().unwrap(), of("B")));
                        assert_eq!((ask.0, ask.1), (of("a").parse().unwrap(), of("A")));
                        compared += 1;
                    }
                }
            } else {
                quote = data.clone();
            }
            message = client.json().await;
        }
        stop(server).await;
    }
}

#[tokio::test]
async fn trades_can_be_asked_for_again_by_id() {
    for venue in BOTH {
        let server = start(one(venue, Rate::RowsPerSecond(50_000.0))).unwrap();
        let path = format!("{}?streams=btcusdt@trade/btcusdt@aggTrade", stream_path(venue));
        let mut client = Client::open(&server, venue, &path).await;
        let (mut streamed, mut merged) = (BTreeMap::new(), BTreeMap::new());
        while streamed.len() < 50 {
            let message = client.until(|message| message["data"]["e"].is_string()).await;
            let data = message["data"].clone();
            match data["t"].as_u64() {
                Some(id) if data["X"].is_null() || data["X"] == "MARKET" => drop(streamed.insert(id, data)),
                Some(_) => {} // Outside the book: not served by REST.
                None => drop(merged.insert(data["l"].as_u64().unwrap(), data)),
            }
        }
        let first = *streamed.keys().next().unwrap();
        let base = if venue == Venue::BinanceSpot { "/api/v3" } else { "/fapi/v1" };
        let path = format!("{base}/historicalTrades?symbol=BTCUSDT&fromId={first}&limit=50");
        let page = get(&server, venue, &path).await.json();
        assert_eq!(page.as_array().unwrap().len(), 50);
        for (trade, (id, sent)) in page.as_array().unwrap().iter().zip(&streamed) {
            assert_eq!(trade["id"].as_u64(), Some(*id));
            assert_eq!((&trade["price"], &trade["qty"]), (&sent["p"], &sent["q"]));
            assert_eq!((&trade["isBuyerMaker"], &trade["time"]), (&sent["m"], &sent["T"]));
        }
        let agg = &merged[&first];
        let id = agg["a"].as_u64().unwrap();
        let page = get(&server, venue, &format!("{base}/aggTrades?symbol=BTCUSDT&fromId={id}&limit=2")).await.json();
        for key in ["a", "p", "q", "f", "l", "T", "m"] {
            assert_eq!(page[0][key], agg[key], "{key}");
        }
        assert_eq!(page[1]["l"].as_u64(), streamed.keys().nth(1).copied());
        let info = get(&server, venue, &format!("{base}/exchangeInfo")).await.json();
        assert_eq!(info["symbols"].as_array().unwrap().len(), 3);
        assert_eq!(info["symbols"][0]["symbol"], "BTCUSDT");
        assert_eq!(get(&server, venue, &format!("{base}/depth?symbol=NOPE")).await.status, 400);
        stop(server).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_disconnected() {
    let ms = std::time::Duration::from_millis;
    let options = Options {
        ping_every: ms(20),
        pong_within: ms(100),
        symbols: 1,
        ..one(Venue::BinanceSpot, Rate::RowsPerSecond(100.0))
    };
    let server = start(options).unwrap();
    // Two more clients: one answers because it reads, the other is only a socket.
    let mut good = Client::open(&server, Venue::BinanceSpot, "/ws/btcusdt@trade").await;
    let silent = Client::open(&server, Venue::BinanceSpot, "/ws").await.ws.into_inner();
    let gone = async {
        let mut stream = silent;
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await.map(|_| bytes)
    };
    let reading = async {
        loop {
            good.text().await.expect("the client that answers stays connected");
        }
    };
    tokio::select! {
        bytes = tokio::time::timeout(PATIENCE, gone) => {
            assert!(bytes.unwrap().is_ok_and(|bytes| bytes.contains(&0x89)), "a ping frame came before the end");
        }
        () = reading => {}
    }
    stop(server).await;
}
