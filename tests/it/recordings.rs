//! `tapeway normalize` and `tapeway book`: recorded frames in, the documented JSON out, and never a wrong book
//! printed as if it were right.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn tapeway(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tapeway"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let bytes = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().expect("the binary ends");
    feeder.join().expect("the feeder does not panic");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("output is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

/// A recording of these inputs: direction, connection and text, with the URL of an HTTP answer.
fn recording(inputs: &[(&str, u64, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (dir, conn, raw) in inputs {
        let mut line = json!({ "ts_recv_ns": 1_700_000_000_000_000_000_i64, "conn": conn, "dir": dir, "raw": raw });
        if *dir == "rest" {
            line["url"] = "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000".into();
        }
        text.extend_from_slice(line.to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

const DEPTH: &str = r#"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":5,"u":9,"pu":4,"b":[["58710.20","0.014"],["61510.90","0.000"]],"a":[]}}"#;
const SNAPSHOT: &str =
    r#"{"lastUpdateId":9,"T":1723161256400,"bids":[["58710.20","0.014"]],"asks":[["58711.00","1.500"]]}"#;
const TRADE: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#;
const QUOTE: &str = r#"{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":11,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}"#;
const SKIPPING: &str = r#"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256500,"T":1723161256500,"s":"BTCUSDT","U":21,"u":25,"pu":20,"b":[["58710.20","9.000"]],"a":[]}}"#;

#[test]
fn each_kind_of_event_has_its_documented_shape() {
    let input = recording(&[
        ("out", 0, "subscribe"),
        ("in", 0, DEPTH),
        ("in", 0, TRADE),
        ("rest", 0, SNAPSHOT),
        ("in", 0, QUOTE),
        ("in", 0, SKIPPING),
        ("in", 0, &DEPTH[..100]),
    ]);
    let output = tapeway(&["normalize", "--venue", "binance-usdm"], &input);
    assert!(output.status.success(), "{output:?}");
    let expected = [
        json!({"frame":1,"kind":"book","symbol":"BTCUSDT","is_snapshot":false,"bids":[["58710.20","0.014"],["61510.90","0"]],
            "asks":[],"seq":9,"ts_exchange_us":1_723_161_256_298_000_i64,"flags":["AFTER_GAP"]}),
        json!({"frame":2,"kind":"trade","symbol":"BTCUSDT","price":"61800.30","qty":"0.006","side":"buy",
            "trade_id":"5266583935","ts_exchange_us":1_723_161_256_322_000_i64,"flags":[]}),
        json!({"frame":3,"kind":"book","symbol":"BTCUSDT","is_snapshot":true,"bids":[["58710.20","0.014"]],
            "asks":[["58711.00","1.500"]],"seq":9,"ts_exchange_us":1_723_161_256_400_000_i64,"flags":["SNAPSHOT"]}),
        json!({"frame":4,"kind":"quote","symbol":"BTCUSDT","bid_price":"61800.20","bid_qty":"2.507","ask_price":"61800.30",
            "ask_qty":"2.510","seq":11,"ts_exchange_us":1_723_161_256_313_000_i64,"flags":[]}),
        json!({"frame":5,"kind":"gap","symbol":"BTCUSDT","channel":"book","cause":"sequence","first_missing":10,"last_missing":20}),
        json!({"frame":5,"kind":"book","symbol":"BTCUSDT","is_snapshot":false,"bids":[["58710.20","9.000"]],
            "asks":[],"seq":25,"ts_exchange_us":1_723_161_256_500_000_i64,"flags":["AFTER_GAP"]}),
    ];
    let found = lines(&output);
    assert_eq!(found[..6], expected);
    assert_eq!((found.len(), &found[6]["kind"], &found[6]["frame"]), (7, &json!("error"), &json!(6)));
}

#[test]
fn an_undecodable_frame_fails_the_command_only_when_asked_to_be_strict() {
    let input = recording(&[("in", 0, TRADE), ("in", 0, "{")]);
    assert!(tapeway(&["normalize", "--venue", "binance-usdm"], &input).status.success());
    let strict = tapeway(&["normalize", "--venue", "binance-usdm", "--strict"], &input);
    assert_eq!((strict.status.code(), lines(&strict).len()), (Some(1), 2));
    let clean = recording(&[("in", 0, TRADE)]);
    assert!(tapeway(&["normalize", "--venue", "binance-usdm", "--strict", "-"], &clean).status.success());
}

#[test]
fn a_line_that_is_no_frame_is_an_error_of_that_line() {
    let mut input = recording(&[("in", 0, TRADE)]);
    input.extend_from_slice(b"what?\n");
    let found = lines(&tapeway(&["normalize", "--venue", "binance-usdm"], &input));
    assert_eq!((found.len(), &found[1]["kind"], &found[1]["frame"]), (2, &json!("error"), &json!(1)));
}

#[test]
fn a_compressed_file_reads_like_a_plain_one_whatever_its_name() {
    let input = recording(&[("in", 0, DEPTH), ("in", 0, TRADE)]);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file is written");
        path
    };
    let plain = write("a", &input);
    let compressed = write("b", &zstd::encode_all(&input[..], 3).expect("it compresses"));
    let run = |path: &Path| {
        let path = path.to_str().expect("the path is UTF-8");
        tapeway(&["normalize", "--venue", "binance-usdm", path], b"").stdout
    };
    assert!(!run(&plain).is_empty());
    assert_eq!(run(&plain), run(&compressed));
}

#[test]
fn every_connection_has_a_numbering_of_its_own() {
    let input = recording(&[("in", 0, DEPTH), ("in", 1, SKIPPING)]);
    let found = lines(&tapeway(&["normalize", "--venue", "binance-usdm"], &input));
    assert!(found.iter().all(|line| line["kind"] == "book"), "{found:?}");
}

#[test]
fn an_unknown_venue_is_wrong_usage_and_the_known_ones_are_named() {
    let output = tapeway(&["normalize", "--venue", "nowhere"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("kraken"));
}

#[test]
fn a_live_book_is_printed_to_the_asked_depth() {
    let input = recording(&[("in", 0, DEPTH), ("rest", 0, SNAPSHOT)]);
    let output = tapeway(&["book", "--venue", "binance-usdm", "--depth", "1"], &input);
    let book: Value = serde_json::from_slice(&output.stdout).expect("output is JSON");
    let book = &book["symbols"]["BTCUSDT"];
    assert_eq!(book["state"], "live");
    assert_eq!(book["bids"], json!([["58710.20", "0.014"]]));
    assert_eq!(book["deltas_before_snapshot"], 1);
}

#[test]
fn a_broken_book_is_never_printed_as_if_it_were_right() {
    let input = recording(&[("in", 0, DEPTH), ("rest", 0, SNAPSHOT), ("in", 0, SKIPPING)]);
    let output = tapeway(&["book", "--venue", "binance-usdm"], &input);
    let whole: Value = serde_json::from_slice(&output.stdout).expect("output is JSON");
    let book = &whole["symbols"]["BTCUSDT"];
    assert_eq!((&book["state"], &book["bids"]), (&json!("broken"), &json!([])));
    assert_eq!(book["bids_unproven"], json!([["58710.20", "0.014"]]));
    assert_eq!(book["gaps"][0]["first_missing"], 10);
}

#[test]
fn deltas_without_a_snapshot_are_counted_and_make_no_book() {
    let output = tapeway(&["book", "--venue", "binance-usdm"], &recording(&[("in", 0, DEPTH)]));
    let whole: Value = serde_json::from_slice(&output.stdout).expect("output is JSON");
    let book = &whole["symbols"]["BTCUSDT"];
    assert_eq!((&book["state"], &book["deltas_before_snapshot"]), (&json!("syncing"), &json!(1)));
    assert_eq!(book["bids"], json!([]));
}
