//! The server around the venues: one seed is one truth, the truth is what clients got, slow clients are held to the
//! rule asked for, TLS and plain share a port, and a stop loses nothing.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject};
use serde_json::{Value, json};
use tapeway::loopback::{Kinds, Options, Rate, Venue, start};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async;

use super::client::{Client, flat_out, get, one, request, stop, stop_and_read, truth};

fn truth_of(seed: u64, venue: Venue) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth.ndjson");
    let options = Options {
        seed,
        truth: Some(path.clone()),
        rows_max: Some(20_000),
        epoch_us: Some(1_700_000_000_000_000),
        ..one(venue, Rate::RowsPerSecond(1_000_000.0))
    };
    let server = start(options).unwrap();
    while server.stats().rows() < 20_000 {
        std::thread::sleep(Duration::from_millis(2));
    }
    server.stop().unwrap();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn one_seed_is_one_truth() {
    for venue in Venue::ALL {
        let (once, again, other) = (truth_of(5, venue), truth_of(5, venue), truth_of(6, venue));
        assert!(once == again, "{venue}: two runs of one seed differ");
        assert!(once != other, "{venue}: two seeds are the same");
        assert!(once.lines().count() > 1_000);
    }
}

#[tokio::test]
async fn the_truth_is_what_the_client_got_in_the_order_it_got_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth.ndjson");
    let options = Options { truth: Some(path.clone()), wait_subscriptions: 3, ..flat_out(Venue::BinanceUsdm) };
    let server = start(options).unwrap();
    let streams = "/public/stream?streams=btcusdt@depth/btcusdt@trade/btcusdt@bookTicker";
    let mut client = Client::open(&server, Venue::BinanceUsdm, streams).await;
    let mut got = Vec::new();
    while got.len() < 5_000 {
        got.push(client.text().await.unwrap());
    }
    let (rest, summary) = stop_and_read(server, &mut client).await;
    got.extend(rest);
    assert_eq!(summary.venues[0].frames, got.len() as u64);

    let (events, notes) = truth(&path);
    assert!(events.iter().enumerate().all(|(index, event)| event["n"] == index), "n counts every event");
    let sent: Vec<&Value> = events.iter().filter(|event| event["sent"] == json!([1])).collect();
    assert!(events.iter().any(|event| event["symbol"] != "BTCUSDT" && event["sent"] == json!([])));
    assert_eq!(sent.len(), got.len());
    for (event, text) in sent.into_iter().zip(&got) {
        let data = serde_json::from_str::<Value>(text).unwrap()["data"].take();
        let same = |pairs: &[(&str, &str)]| pairs.iter().all(|(ours, theirs)| event[ours] == data[theirs]);
        let is_same = match event["kind"].as_str().unwrap() {
            "trade" => {
                let side = if data["m"] == true { "sell" } else { "buy" };
                let is_off_book = event.get("off_book").is_some() == (data["X"] != "MARKET");
                same(&[("id", "t"), ("price", "p"), ("qty", "q")]) && event["side"] == side && is_off_book
            }
            "book" => same(&[("U", "U"), ("u", "u"), ("pu", "pu"), ("bids", "b"), ("asks", "a")]),
            "quote" => same(&[("u", "u"), ("bid_price", "b"), ("bid_qty", "B"), ("ask_price", "a"), ("ask_qty", "A")]),
            other => panic!("{other}"),
        };
        assert!(is_same, "{event}\n{text}");
    }
    let kinds: Vec<&str> = notes.iter().map(|note| note["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["open", "subscribe", "subscribe", "subscribe", "closed"]);
    let closed = notes.last().unwrap();
    assert_eq!(closed["queued"], closed["written"], "everything left: {closed}");
}

#[tokio::test]
async fn the_market_moves_on_while_nobody_listens() {
    let server = start(one(Venue::BinanceSpot, Rate::RowsPerSecond(20_000.0))).unwrap();
    let next_id = async || {
        let mut client = Client::open(&server, Venue::BinanceSpot, "/ws/btcusdt@trade").await;
        client.json().await["t"].as_u64().unwrap()
    };
    let before = next_id().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(next_id().await > before + 10);
    stop(server).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_others_are_not() {
    let options = Options { buffer_bytes_max: 1 << 20, ..one(Venue::BinanceSpot, Rate::RowsPerSecond(300_000.0)) };
    let server = start(options).unwrap();
    let streams = "/stream?streams=btcusdt@depth/ethusdt@depth/solusdt@depth";
    let deaf = Client::open(&server, Venue::BinanceSpot, streams).await;
    let mut good = Client::open(&server, Venue::BinanceSpot, streams).await;
    let mut last = None;
    while server.stats().venues[0].slow_clients_cut == 0 {
        for _ in 0..200 {
            let message = good.json().await;
            if message["stream"] == "btcusdt@depth" {
                let (first, end) = (message["data"]["U"].as_u64().unwrap(), message["data"]["u"].as_u64());
                assert!(last.is_none_or(|last: u64| first == last + 1), "a good client misses nothing");
                last = end;
            }
        }
    }
    assert_eq!(server.stats().venues[0].connections_open, 1);
    drop(deaf);
    stop(server).await;
}

#[tokio::test]
async fn a_lossless_market_waits_for_the_slowest_client() {
    let server = start(flat_out(Venue::BinanceSpot)).unwrap();
    let streams = "/stream?streams=btcusdt@depth/ethusdt@depth/solusdt@depth";
    let mut slow = Client::open(&server, Venue::BinanceSpot, streams).await;
    let mut before = 0;
    // The market has stopped once two looks at it, a while apart, see the same.
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let rows = server.stats().rows();
        if rows == before && rows > 0 {
            break;
        }
        before = rows;
    }
    let held_at = server.stats().rows();
    assert_eq!(held_at, before, "the market ran away from a client that does not read");
    // Commands are served meanwhile, and reading lets it run again.
    assert_eq!(get(&server, Venue::BinanceSpot, "/api/v3/depth?symbol=BTCUSDT").await.status, 200);
    while server.stats().rows() == held_at {
        for _ in 0..1_000 {
            slow.text().await.unwrap();
        }
    }
    stop_and_read(server, &mut slow).await;
}

#[tokio::test]
async fn only_the_kinds_asked_for_are_made() {
    let kinds = Kinds { has_trades: true, has_book: false, has_quotes: false };
    let server = start(Options { kinds, ..one(Venue::BinanceSpot, Rate::RowsPerSecond(20_000.0)) }).unwrap();
    let path = "/stream?streams=btcusdt@depth/btcusdt@trade/btcusdt@bookTicker";
    let mut client = Client::open(&server, Venue::BinanceSpot, path).await;
    for _ in 0..300 {
        assert_eq!(client.json().await["stream"], "btcusdt@trade");
    }
    let stats = stop(server).await;
    let symbol = stats.venues[0].symbols[0];
    assert!(symbol.trades.made > 0 && symbol.book.made == 0 && symbol.quotes.made == 0);
}

#[tokio::test]
async fn a_paced_market_keeps_its_rate_from_below() {
    let server = start(one(Venue::Coinbase, Rate::RowsPerSecond(10_000.0))).unwrap();
    let begun = std::time::Instant::now();
    while server.stats().rows() < 5_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(400), "5,000 rows at 10,000 a second took {:?}", begun.elapsed());
    stop(server).await;
}

#[tokio::test]
async fn tls_and_plain_share_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let options = Options { tls_ca_out: Some(ca.clone()), ..one(Venue::BinanceSpot, Rate::RowsPerSecond(10_000.0)) };
    let server = start(options).unwrap();
    assert!(server.ws_url(Venue::BinanceSpot).starts_with("wss://127.0.0.1:"));
    assert!(server.http_url(Venue::BinanceSpot).starts_with("https://127.0.0.1:"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let trusting = TlsConnector::from(Arc::new(config.clone().with_root_certificates(roots).with_no_client_auth()));
    let strict = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let port = server.port(Venue::BinanceSpot);
    let connect = async |connector: &TlsConnector| {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        connector.connect("127.0.0.1".try_into().unwrap(), stream).await
    };
    assert!(connect(&TlsConnector::from(Arc::new(strict))).await.is_err(), "nobody trusts it who was not told to");

    let url = format!("wss://127.0.0.1:{port}/ws/btcusdt@trade");
    let (mut ws, _) = client_async(url, connect(&trusting).await.unwrap()).await.unwrap();
    let message = futures_util::StreamExt::next(&mut ws).await.unwrap().unwrap();
    assert!(message.into_text().unwrap().contains("\"e\":\"trade\""));

    let mut https = connect(&trusting).await.unwrap();
    https.write_all(b"GET /api/v3/time HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    // A peer that ends TLS without goodbye is an error after the answer, not instead of it.
    drop(https.read_to_end(&mut text).await);
    assert!(String::from_utf8(text).unwrap().contains("serverTime"));
    assert_eq!(get(&server, Venue::BinanceSpot, "/api/v3/time").await.status, 200);
    drop((ws, https));
    stop(server).await;
}

#[tokio::test]
async fn the_directory_and_the_counts_can_be_asked_for() {
    let server = start(Options { symbols: 2, ..Options::default() }).unwrap();
    let directory = get(&server, Venue::Kraken, "/loopback").await.json();
    assert_eq!(directory, server.directory());
    assert_eq!(directory.as_array().unwrap().len(), 4);
    let stats = get(&server, Venue::Coinbase, "/loopback/stats").await.json();
    assert_eq!(stats[0]["venue"], "binance-spot");
    assert_eq!(request(&server, Venue::Coinbase, "POST", "/loopback/fault?kind=melt").await.status, 400);
    stop(server).await;
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    for (options, name) in [
        (Options { symbols: 0, ..Options::default() }, "symbols"),
        (Options { rate: Rate::RowsPerSecond(0.0), ..Options::default() }, "rate"),
        (Options { venues: Vec::new(), ..Options::default() }, "venues"),
        (Options { book_levels: 1, ..Options::default() }, "book_levels"),
    ] {
        let error = start(options).err().expect("it must not start").to_string();
        assert!(error.contains(name), "{error}");
    }
}
