//! Faults do what they say, to the frames they say, and the truth file names them.

use serde_json::{Value, json};
use tapeway::loopback::{Channel, Fault, FaultKind, Options, Rate, Server, Venue, When, start};

use super::client::{Client, get, one, request, stop, stop_and_read, truth};

const SPOT: Venue = Venue::BinanceSpot;

fn paced(venue: Venue) -> Options {
    one(venue, Rate::RowsPerSecond(20_000.0))
}

fn on_trades(kind: FaultKind) -> Fault {
    Fault::new(kind).symbol("BTCUSDT").channel(Channel::Trades)
}

/// Runs a market with one fault on one trade and returns the trade ids a client got (0 for a frame that is no
/// JSON), the id the truth blames and its `sent`.
async fn trades_with(kind: FaultKind) -> (Vec<u64>, u64, Value) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth.ndjson");
    let server = start(Options { truth: Some(path.clone()), ..paced(SPOT) }).unwrap();
    let mut client = Client::open(&server, SPOT, "/ws/btcusdt@trade").await;
    client.json().await;
    server.fault(&on_trades(kind));
    let mut got = Vec::new();
    for _ in 0..300 {
        got.push(client.text().await.unwrap());
    }
    let (rest, _) = stop_and_read(server, &mut client).await;
    got.extend(rest);
    let ids = got.iter().map(|text| serde_json::from_str::<Value>(text).map_or(0, |json| json["t"].as_u64().unwrap()));
    let (events, _) = truth(&path);
    let blamed: Vec<&Value> = events.iter().filter(|event| event.get("fault").is_some()).collect();
    assert_eq!(blamed.len(), 1, "one fault on one frame");
    assert_eq!(blamed[0]["fault"], kind.name());
    (ids.collect(), blamed[0]["id"].as_u64().unwrap(), blamed[0]["sent"].clone())
}

/// Positions where the ids do not count up by one.
fn breaks(ids: &[u64]) -> Vec<(u64, u64)> {
    ids.windows(2).filter(|pair| pair[1] != pair[0] + 1).map(|pair| (pair[0], pair[1])).collect()
}

#[tokio::test]
async fn a_dropped_frame_is_missing_and_nothing_else_is() {
    let (ids, blamed, sent) = trades_with(FaultKind::Drop).await;
    assert_eq!(breaks(&ids), [(blamed - 1, blamed + 1)]);
    assert_eq!(sent, json!([]));
}

#[tokio::test]
async fn a_duplicated_frame_comes_twice() {
    let (ids, blamed, sent) = trades_with(FaultKind::Duplicate).await;
    assert_eq!(breaks(&ids), [(blamed, blamed)]);
    assert_eq!(sent, json!([1]));
}

#[tokio::test]
async fn a_swapped_frame_comes_after_the_next_one() {
    let (ids, blamed, sent) = trades_with(FaultKind::Swap).await;
    assert_eq!(breaks(&ids), [(blamed - 1, blamed + 1), (blamed + 1, blamed), (blamed, blamed + 2)]);
    assert_eq!(sent, json!([1]));
}

#[tokio::test]
async fn a_corrupted_frame_is_no_json() {
    let (ids, blamed, sent) = trades_with(FaultKind::Corrupt).await;
    assert_eq!(breaks(&ids), [(blamed - 1, 0), (0, blamed + 1)]);
    assert_eq!(sent, json!([1]));
}

#[tokio::test]
async fn a_stalled_subscription_is_silent_while_its_siblings_move_until_it_is_taken_back() {
    let server = start(paced(SPOT)).unwrap();
    let mut client = Client::open(&server, SPOT, "/stream?streams=btcusdt@trade/btcusdt@depth/ethusdt@trade").await;
    let stream = |message: &Value| message["stream"].as_str().unwrap().to_owned();
    client.until(|message| stream(message) == "btcusdt@trade").await;
    assert_eq!(
        request(&server, SPOT, "POST", "/loopback/fault?kind=stall&symbol=BTCUSDT&channel=trades").await.status,
        200
    );
    // What was on its way still comes; then at least a few hundred frames of the others and none of it.
    let mut silent = 0;
    while silent < 500 {
        silent = if stream(&client.json().await) == "btcusdt@trade" { 0 } else { silent + 1 };
    }
    server.fault(&Fault::new(FaultKind::Stall).when(When::Off));
    client.until(|message| stream(message) == "btcusdt@trade").await;
    stop(server).await;
}

#[tokio::test]
async fn close_cuts_every_connection_and_new_ones_may_be_refused() {
    let server = start(paced(SPOT)).unwrap();
    let mut clients =
        [Client::open(&server, SPOT, "/ws/btcusdt@trade").await, Client::open(&server, SPOT, "/ws").await];
    server.fault(&Fault::new(FaultKind::RefuseConnections));
    server.fault(&Fault::new(FaultKind::Close));
    for client in &mut clients {
        client.rest().await;
    }
    let refused = Client::try_open(&server, SPOT, "/ws").await.err().expect("refused");
    assert!(refused.contains("503"), "{refused}");
    server.fault(&Fault::new(FaultKind::RefuseConnections).when(When::Off));
    Client::open(&server, SPOT, "/ws/btcusdt@trade").await.json().await;
    stop(server).await;
}

#[tokio::test]
async fn a_refused_subscription_is_answered_in_the_venues_words() {
    let refuse = Fault::new(FaultKind::RefuseSubscriptions);
    for venue in Venue::ALL {
        let server = start(Options { faults: vec![refuse.clone()], ..paced(venue) }).unwrap();
        let (path, subscribe) = match venue {
            Venue::BinanceSpot => ("/stream", r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#),
            Venue::BinanceUsdm => ("/public/stream", r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#),
            Venue::Coinbase => ("/", r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}"#),
            Venue::Kraken => ("/v2", r#"{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}"#),
        };
        let mut client = Client::open(&server, venue, path).await;
        client.send(subscribe).await;
        let answer = client.until(|message| message["channel"] != "status").await;
        let is_refused = match venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => answer["error"]["code"] == 2 && answer["id"] == 1,
            Venue::Coinbase => answer["type"] == "error",
            Venue::Kraken => answer["success"] == false,
        };
        assert!(is_refused, "{answer}");
        assert_eq!(server.stats().venues[0].subscriptions, 0);
        stop(server).await;
    }
}

#[tokio::test]
async fn a_wrong_checksum_is_wrong_by_the_truth_too() {
    let server = start(Options { symbols: 1, ..paced(Venue::Kraken) }).unwrap();
    let mut client = Client::open(&server, Venue::Kraken, "/v2").await;
    let subscribe = r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"]}}"#;
    client.send(subscribe).await;
    client.until(|message| message["type"] == "snapshot").await;
    server.fault(&Fault::new(FaultKind::Checksum).when(When::On));
    for _ in 0..1_000 {
        client.json().await;
    }
    // With the fault on, the checksum of an update differs from that of a snapshot taken at the same book.
    let mut second = Client::open(&server, Venue::Kraken, "/v2").await;
    second.send(subscribe).await;
    let snapshot = second.until(|message| message["type"] == "snapshot").await;
    let right = snapshot["data"][0]["checksum"].as_u64().unwrap();
    let wrong = client.until(|message| message["data"][0]["checksum"].as_u64() == Some(right ^ 1)).await;
    assert_eq!(wrong["type"], "update");
    stop(server).await;
}

#[tokio::test]
async fn http_can_be_denied_and_snapshots_can_be_slow() {
    let server = start(paced(SPOT)).unwrap();
    let denied = request(&server, SPOT, "POST", "/loopback/fault?kind=deny_http&count=1").await;
    assert_eq!(denied.status, 200);
    let answer = get(&server, SPOT, "/api/v3/depth?symbol=BTCUSDT").await;
    assert_eq!((answer.status, answer.head.contains("retry-after")), (429, true));
    let slow: Fault = "kind=slow_snapshot&delay_ms=300&symbol=BTCUSDT".parse().unwrap();
    server.fault(&slow);
    let begun = std::time::Instant::now();
    let late = get(&server, SPOT, "/api/v3/depth?symbol=BTCUSDT").await.json();
    assert!(begun.elapsed() >= slow.delay);
    // It is late, not new: the market has moved on since.
    server.fault(&Fault::new(FaultKind::SlowSnapshot).when(When::Off));
    let fresh = get(&server, SPOT, "/api/v3/depth?symbol=BTCUSDT").await.json();
    assert!(fresh["lastUpdateId"].as_u64() > late["lastUpdateId"].as_u64().map(|id| id + 100));
    stop(server).await;

    for venue in [Venue::Coinbase, Venue::Kraken] {
        let server: Server = start(Options { faults: vec![slow_in_band()], ..paced(venue) }).unwrap();
        let (path, subscribe) = match venue {
            Venue::Kraken => ("/v2", r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"]}}"#),
            Venue::BinanceSpot | Venue::BinanceUsdm | Venue::Coinbase => {
                ("/", r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}"#)
            }
        };
        let mut client = Client::open(&server, venue, path).await;
        client.send(subscribe).await;
        client.until(|message| message["type"] == "subscriptions" || message["success"] == true).await;
        let begun = std::time::Instant::now();
        let first = client.until(|message| message["channel"] != "heartbeat").await;
        assert_eq!(first["type"], "snapshot", "no update comes before the snapshot");
        assert!(begun.elapsed() >= slow_in_band().delay / 2);
        stop(server).await;
    }
}

fn slow_in_band() -> Fault {
    Fault { delay: std::time::Duration::from_millis(300), ..Fault::new(FaultKind::SlowSnapshot) }
}

#[tokio::test]
async fn a_probability_leaves_the_market_as_it_was() {
    // Faults come from a random stream of their own: the events of a seed stay the same.
    let dir = tempfile::tempdir().unwrap();
    let run = |faults: Vec<Fault>, name: &str| {
        let path = dir.path().join(name);
        let options = Options {
            truth: Some(path.clone()),
            rows_max: Some(20_000),
            epoch_us: Some(1),
            faults,
            ..one(SPOT, Rate::RowsPerSecond(1_000_000.0))
        };
        let server = start(options).unwrap();
        while server.stats().rows() < 20_000 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        server.stop().unwrap();
        truth(&path).0
    };
    let clean = run(Vec::new(), "clean");
    let faulty = run(vec![Fault::new(FaultKind::Drop).when(When::Chance(0.05))], "faulty");
    assert_eq!(clean.len(), faulty.len());
    let mut struck = 0;
    for (clean, mut faulty) in clean.into_iter().zip(faulty) {
        struck += usize::from(faulty.as_object_mut().unwrap().remove("fault").is_some());
        assert_eq!(clean, faulty);
    }
    assert!(struck > 50, "{struck}");
}
