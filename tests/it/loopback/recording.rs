//! A recording is played in order, under the subscriptions a client makes, with depth answers that fit the moment.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
};

use serde_json::Value;
use tapeway::loopback::{Options, Rate, Venue, start};

use super::client::{Book, Client, get, one, stop, stop_and_read};

/// The lines of a corpus file, or `None` and a notice when the corpus is not here.
pub(super) fn corpus(name: &str) -> Option<Vec<Value>> {
    let path = corpus_path(name)?;
    let reader = BufReader::new(zstd::stream::read::Decoder::new(std::fs::File::open(path).unwrap()).unwrap());
    Some(reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect())
}

fn corpus_path(name: &str) -> Option<PathBuf> {
    let root = std::env::var("TAPEWAY_CORPUS").unwrap_or_else(|_| "../shared/corpus".into());
    let path = PathBuf::from(root).join(name);
    if !path.exists() {
        println!("SKIPPED: {} is not here (TAPEWAY_CORPUS)", path.display());
        return None;
    }
    Some(path)
}

fn line(dir: &str, url: &str, raw: &str) -> String {
    serde_json::json!({"ts_recv_ns": 0, "conn": 0, "dir": dir, "url": url, "raw": raw}).to_string()
}

#[tokio::test]
async fn frames_come_as_recorded_and_a_depth_answer_holds_what_was_played() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.jsonl");
    let update = |first: u64, last: u64, level: &str| {
        let book = format!(r#""U":{first},"u":{last},"b":[{level}],"a":[]"#);
        format!(r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","s":"BTCUSDT",{book}}}}}"#)
    };
    let trade = r#"{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":7,"p":"1.5","q":"2"}}"#;
    let snapshot = r#"{"lastUpdateId":11,"bids":[["1.0","5"]],"asks":[["2.0","5"]]}"#;
    let frames = [update(10, 11, r#"["1.0","5"]"#), trade.into(), update(12, 13, r#"["1.1","4"]"#)];
    let mut file = std::fs::File::create(&path).unwrap();
    writeln!(file, "{}", line("out", "", "{}")).unwrap();
    writeln!(file, "{}", line("in", "", &frames[0])).unwrap();
    writeln!(file, "{}", line("rest", "https://x/api/v3/depth?symbol=BTCUSDT&limit=1000", snapshot)).unwrap();
    writeln!(file, "{}", line("in", "", &frames[1])).unwrap();
    writeln!(file, "{}", line("in", "", &frames[2])).unwrap();
    drop(file);

    let venue = Venue::BinanceSpot;
    let truth = dir.path().join("truth.ndjson");
    let options = Options {
        recording: Some((venue, path)),
        wait_subscriptions: 2,
        truth: Some(truth.clone()),
        ..one(venue, Rate::Max)
    };
    let server = start(options).unwrap();
    let before = get(&server, venue, "/api/v3/depth?symbol=BTCUSDT").await;
    assert_eq!(before.body, snapshot);
    let mut client = Client::open(&server, venue, "/stream?streams=btcusdt@depth@100ms/btcusdt@trade").await;
    for frame in &frames {
        assert_eq!(&client.text().await.unwrap(), frame);
    }
    let after = get(&server, venue, "/api/v3/depth?symbol=BTCUSDT").await.json();
    assert_eq!(after["lastUpdateId"], 13);
    assert_eq!(after["bids"], serde_json::json!([["1.1", "4"], ["1.0", "5"]]));
    stop(server).await;
    let (events, _) = super::client::truth(&truth);
    let lines: Vec<_> = events.iter().map(|event| (event["line"].as_u64(), event["sent"].clone())).collect();
    assert_eq!(lines, [1, 3, 4].map(|line| (Some(line), serde_json::json!([1]))));
}

#[tokio::test]
async fn a_recorded_session_reaches_the_client_whole_and_its_depth_answers_join() {
    let name = "frames/binance-usdm/hft_btcusdt_20240808.jsonl.zst";
    let (Some(lines), Some(path)) = (corpus(name), corpus_path(name)) else { return };
    let recorded: Vec<&str> =
        lines.iter().filter(|line| line["dir"] == "in").map(|line| line["raw"].as_str().unwrap()).collect();
    let venue = Venue::BinanceUsdm;
    let options =
        Options { recording: Some((venue, path)), wait_subscriptions: 3, is_lossless: true, ..one(venue, Rate::Max) };
    let server = start(options).unwrap();
    let streams = "/public/stream?streams=btcusdt@depth@0ms/btcusdt@trade/btcusdt@bookTicker";
    let mut client = Client::open(&server, venue, streams).await;
    let (mut book, mut snapshot_id, mut joined) = (Book::default(), None, false);
    for (index, expected) in recorded.iter().enumerate() {
        let text = client.text().await.unwrap();
        assert_eq!(&text, expected, "frame {index}");
        if index == 20_000 {
            let snapshot = get(&server, venue, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000").await.json();
            book.apply(&snapshot["bids"], &snapshot["asks"]);
            snapshot_id = snapshot["lastUpdateId"].as_u64();
        } else if let Some(id) = snapshot_id.filter(|_| text.contains("depthUpdate")) {
            let data = serde_json::from_str::<Value>(&text).unwrap()["data"].take();
            if data["u"].as_u64().unwrap() > id {
                assert!(
                    joined || data["pu"].as_u64() == Some(id),
                    "the first event after the snapshot is linked to it"
                );
                joined = true;
                book.apply(&data["b"], &data["a"]);
                book.top();
            }
        }
    }
    assert!(joined);
    let (rest, summary) = stop_and_read(server, &mut client).await;
    assert!(rest.is_empty());
    assert_eq!(summary.venues[0].frames, recorded.len() as u64);
}
