//! Coinbase Exchange rules: one `subscriptions` message for each request, `last_match` then matches whose ids count
//! up, a `snapshot` then `l2update`s, a heartbeat a second with the last trade id, trades paged by id.

use std::collections::BTreeMap;

use serde_json::Value;
use tapeway::loopback::{Options, Rate, Venue, start};

use super::client::{Client, PATIENCE, flat_out, get, one, set, stop};

const VENUE: Venue = Venue::Coinbase;
const SUBSCRIBE: &str = r#"{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],
    "channels":["matches","level2_batch",{"name":"heartbeat","product_ids":["BTC-USD"]}]}"#;

#[tokio::test]
async fn ten_thousand_frames_follow_the_sequence_rules() {
    let server = start(Options { wait_subscriptions: 5, ..flat_out(VENUE) }).unwrap();
    let mut client = Client::open(&server, VENUE, "/").await;
    client.send(SUBSCRIBE).await;
    let ack = client.json().await;
    assert_eq!(ack["type"], "subscriptions");
    assert_eq!(ack["channels"][0]["name"], "matches");
    assert_eq!(ack["channels"][0]["product_ids"], serde_json::json!(["BTC-USD", "ETH-USD"]));
    assert_eq!(ack["channels"][2]["product_ids"], serde_json::json!(["BTC-USD"]));
    let (mut trades, mut books) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..10_000 {
        let message = client.json().await;
        let product = message["product_id"].as_str().unwrap().to_owned();
        match message["type"].as_str().unwrap() {
            "match" | "last_match" => {
                let id = message["trade_id"].as_u64().unwrap();
                if let Some(before) = trades.insert(product, id) {
                    assert_eq!(id, before + 1);
                }
            }
            "snapshot" => {
                let mut sides = [BTreeMap::new(), BTreeMap::new()];
                for (side, key) in sides.iter_mut().zip(["bids", "asks"]) {
                    let levels = message[key].as_array().unwrap();
                    levels.iter().for_each(|l| set(side, l[0].as_str().unwrap(), l[1].as_str().unwrap()));
                }
                assert!(books.insert(product, sides).is_none(), "one snapshot a subscription");
            }
            "l2update" => {
                let sides = books.get_mut(&product).expect("a snapshot comes first");
                for change in message["changes"].as_array().unwrap() {
                    let [side, price, qty] = [0, 1, 2].map(|at| change[at].as_str().unwrap());
                    let side = &mut sides[usize::from(side == "sell")];
                    let is_removed = qty.parse::<rust_decimal::Decimal>().unwrap().is_zero();
                    assert!(!is_removed || side.contains_key(&price.parse().unwrap()), "removed but never there");
                    set(side, price, qty);
                }
                assert!(sides[0].last_key_value().unwrap().0 < sides[1].first_key_value().unwrap().0);
            }
            "heartbeat" => assert_eq!(product, "BTC-USD"),
            other => panic!("{other}"),
        }
    }
    assert_eq!((trades.len(), books.len()), (2, 2));
    drop(client);
    stop(server).await;
}

#[tokio::test]
async fn a_late_subscriber_is_told_the_last_match() {
    let server = start(one(VENUE, Rate::RowsPerSecond(20_000.0))).unwrap();
    let mut first = Client::open(&server, VENUE, "/").await;
    first.send(SUBSCRIBE).await;
    first.until(|message| message["type"] == "match" && message["product_id"] == "BTC-USD").await;
    let mut late = Client::open(&server, VENUE, "/").await;
    late.send(SUBSCRIBE).await;
    assert_eq!(late.json().await["type"], "subscriptions");
    let last = late.json().await;
    assert_eq!(last["type"], "last_match");
    let product = last["product_id"].clone();
    let next = late.until(|message| message["type"] == "match" && message["product_id"] == product).await;
    assert_eq!(next["trade_id"].as_u64(), last["trade_id"].as_u64().map(|id| id + 1));
    let beat = late.until(|message| message["type"] == "heartbeat").await;
    assert!(beat["last_trade_id"].as_u64().unwrap() >= last["trade_id"].as_u64().unwrap());
    stop(server).await;
}

#[tokio::test]
async fn what_the_venue_refuses_is_an_error_message() {
    let server = start(one(VENUE, Rate::RowsPerSecond(1_000.0))).unwrap();
    let mut client = Client::open(&server, VENUE, "/").await;
    for (request, reason) in [
        (r#"{"type":"subscribe","product_ids":["NO-SUCH"],"channels":["matches"]}"#, "NO-SUCH is not a valid product"),
        (r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2"]}"#, "require authentication"),
        (r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["nothing"]}"#, "not a valid channel"),
    ] {
        client.send(request).await;
        let error = client.json().await;
        assert_eq!(error["type"], "error");
        assert!(error["reason"].as_str().unwrap().contains(reason), "{error}");
    }
    stop(server).await;
}

#[tokio::test]
async fn a_client_that_never_subscribes_is_disconnected() {
    let options = Options { subscribe_within: std::time::Duration::ZERO, ..one(VENUE, Rate::RowsPerSecond(100.0)) };
    let server = start(options).unwrap();
    let mut client = Client::open(&server, VENUE, "/").await;
    assert_eq!(tokio::time::timeout(PATIENCE, client.text()).await.unwrap(), None);
    stop(server).await;
}

#[tokio::test]
async fn trades_are_paged_backwards_by_id() {
    let server = start(one(VENUE, Rate::RowsPerSecond(50_000.0))).unwrap();
    let mut client = Client::open(&server, VENUE, "/").await;
    client.send(r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}"#).await;
    let mut streamed: BTreeMap<u64, Value> = BTreeMap::new();
    while streamed.len() < 60 {
        let message = client.until(|message| message["type"] == "match").await;
        streamed.insert(message["trade_id"].as_u64().unwrap(), message);
    }
    let (first, last) = (*streamed.keys().next().unwrap(), *streamed.keys().last().unwrap());
    let mut after = last + 1;
    let mut found = Vec::new();
    while found.last().is_none_or(|id| *id > first) {
        let answer = get(&server, VENUE, &format!("/products/BTC-USD/trades?after={after}&limit=25")).await;
        for trade in answer.json().as_array().unwrap() {
            let id = trade["trade_id"].as_u64().unwrap();
            found.push(id);
            if let Some(sent) = streamed.get(&id) {
                for key in ["price", "size", "side", "time"] {
                    assert_eq!(trade[key], sent[key], "{key}");
                }
            }
        }
        after = *found.last().unwrap();
        assert!(answer.head.contains(&format!("cb-after: {after}")), "{}", answer.head);
    }
    assert!(found.is_sorted_by(|newer, older| *newer == older + 1));
    let newer = get(&server, VENUE, &format!("/products/BTC-USD/trades?before={last}&limit=1000")).await.json();
    assert!(newer.as_array().unwrap().iter().all(|trade| trade["trade_id"].as_u64().unwrap() > last));
    let products = get(&server, VENUE, "/products").await.json();
    assert_eq!(products[0]["id"], "BTC-USD");
    stop(server).await;
}
