//! Real recordings give the books, gaps and checksums that an independent reference found in them.
//!
//! The corpus lies outside the repository (`TAPEWAY_CORPUS`, default `../shared/corpus`); without it each test
//! says that it was skipped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde_json::Value;
use tapeway_exchanges::{
    adapter::At,
    book::Book,
    conn::Conn,
    decoder::Decoder,
    event::{Events, Note, Side},
    ids::{FramePos, Nanos},
    input::Kind,
    replica::{Replica, Replicas, State},
};

use crate::harness::{Input, spec};

/// The corpus folder, or a line that says why there is nothing to test.
pub(crate) fn corpus() -> Option<PathBuf> {
    let path = std::env::var_os("TAPEWAY_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    if path.join("README.md").is_file() {
        return Some(path);
    }
    println!("SKIPPED: no corpus at {}", path.display());
    None
}

/// A recording's inputs by connection, each with the index of its line.
pub(crate) fn read(corpus: &Path, venue: &str, name: &str) -> BTreeMap<u64, Vec<(u64, Input)>> {
    let path = corpus.join(format!("frames/{venue}/{name}.jsonl.zst"));
    let reader = BufReader::new(zstd::Decoder::new(fs::File::open(&path).unwrap()).unwrap());
    let mut connections: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    for (index, line) in (0..).zip(reader.lines()) {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let raw = line["raw"].as_str().unwrap();
        let received = line["ts_recv_ns"].as_i64().unwrap();
        let input = match line["dir"].as_str().unwrap() {
            "in" => Input::text(received, raw),
            "rest" => match (spec(venue).tag_of_url)(line["url"].as_str().unwrap()) {
                Some(tag) => Input::http(received, &tag, 200, raw),
                None => continue,
            },
            _ => continue,
        };
        connections.entry(line["conn"].as_u64().unwrap()).or_default().push((index, input));
    }
    connections
}

/// Everything a recording comes to: final books by symbol, notes with the line they came from, rows.
#[derive(Default)]
struct Outcome {
    books: BTreeMap<String, Replica<u64>>,
    notes: Vec<(u64, Note)>,
    rows: usize,
}

fn decode(venue: &str, connections: &BTreeMap<u64, Vec<(u64, Input)>>) -> Outcome {
    let mut outcome = Outcome::default();
    for inputs in connections.values() {
        let mut decoder = Decoder::new(spec(venue), FramePos::FIRST);
        decoder.log_books();
        let mut replicas = Replicas::default();
        for (line, input) in inputs {
            let at = At { pos: decoder.next(), received: Nanos(input.received), conn: Conn::FIRST };
            decoder.apply(at, input.kind, &mut input.bytes.clone());
            let log = decoder.take_book_log();
            let events = decoder.swap_events(Events::default());
            replicas.on_chunk(&events, &log, |_| *line);
            outcome.rows += events.rows();
            outcome.notes.extend(events.notes.into_iter().map(|note| (*line, note)));
        }
        for (symbol, replica) in replicas.iter() {
            outcome.books.insert(decoder.symbols().name(symbol).to_string(), replica.clone());
        }
    }
    outcome
}

fn side(book: &Book, side: Side) -> Vec<Vec<String>> {
    book.levels(side).take(50).map(|(price, qty)| vec![price.to_string(), qty.to_string()]).collect()
}

fn final_books(corpus: &Path, venue: &str, name: &str) -> Value {
    let text = fs::read_to_string(corpus.join(format!("final_books/{venue}/{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn assert_same_book(name: &str, replica: &Replica<u64>, expected: &Value) {
    assert_eq!(replica.state, State::Live, "{name}");
    for (ours, theirs) in [(Side::Buy, "bids"), (Side::Sell, "asks")] {
        let expected_levels: Vec<Vec<String>> = serde_json::from_value(expected[theirs].clone()).unwrap();
        assert_eq!(side(&replica.book, ours), expected_levels, "{name} {theirs}");
        assert_eq!(
            replica.book.levels(ours).len() as u64,
            expected["levels_total"][theirs].as_u64().unwrap(),
            "{name}"
        );
    }
    assert_eq!(replica.book.is_crossed(), expected["crossed"].as_bool().unwrap(), "{name}");
}

#[test]
fn every_final_book_is_reproduced_with_its_counts() {
    let Some(corpus) = corpus() else { return };
    for (venue, name) in [
        ("binance-spot", "hft_btcusdt_20240808"),
        ("binance-usdm", "hft_btcusdt_20240808"),
        ("binance-coinm", "hft_btcusd_perp_20240808"),
        ("kraken", "cf_v1_20210417"),
        ("kraken", "xb_v2_btcusd_d10_202608"),
        ("kraken", "xb_v2_xrpusd_d25_202608"),
        ("okx", "cf_20220513"),
        ("okcoin", "cf_20230527"),
        ("bitget", "cf_v1_20220407"),
    ] {
        let outcome = decode(venue, &read(&corpus, venue, name));
        let expected = final_books(&corpus, venue, name);
        let symbols = expected["symbols"].as_object().unwrap();
        assert_eq!(outcome.books.keys().collect::<Vec<_>>(), symbols.keys().collect::<Vec<_>>(), "{venue} {name}");
        for (symbol, expected) in symbols {
            let replica = &outcome.books[symbol];
            let name = format!("{venue} {name} {symbol}");
            assert_same_book(&name, replica, expected);
            for (field, count) in [
                ("snapshots", replica.snapshots),
                ("deltas_applied", replica.deltas_applied),
                ("deltas_ignored_old", replica.deltas_ignored_old),
                ("deltas_before_snapshot", replica.deltas_before_snapshot),
                ("last_book_frame", replica.last_book_frame.unwrap()),
                ("gap_count", replica.gaps.len() as u64),
            ] {
                assert_eq!(count, expected[field].as_u64().unwrap(), "{name}: {field}");
            }
            let checked = expected["checksums"]["checked"].as_u64().unwrap_or(0);
            assert_eq!((replica.checked, replica.mismatched.len()), (checked, 0), "{name}");
        }
    }
}

#[test]
fn the_fault_file_gives_exactly_its_gaps_its_stale_frames_and_its_one_error() {
    let Some(corpus) = corpus() else { return };
    let outcome = decode(VENUE, &read(&corpus, VENUE, FAULT));
    let manifest = manifest(&corpus);
    let mut gaps = Vec::new();
    let mut errors = Vec::new();
    for (line, note) in &outcome.notes {
        match note {
            Note::Gap(gap) => gaps.push((*line, gap.first_missing.unwrap(), gap.last_missing.unwrap())),
            Note::Reject(_) => errors.push(*line),
            Note::GapClosed(_) | Note::Session(_) => {}
        }
    }
    let number = |value: &Value| value.as_i64().unwrap();
    let expected = manifest["expected_gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| (gap["at_line"].as_u64().unwrap(), number(&gap["first_missing"]), number(&gap["last_missing"])));
    assert_eq!(gaps, expected.collect::<Vec<_>>());
    let lines = |field: &str| serde_json::from_value::<Vec<u64>>(manifest[field].clone()).unwrap();
    assert_eq!(errors, lines("expected_undecodable_lines"));
    let book = &outcome.books["BTCUSDT"];
    assert_eq!(book.deltas_stale, lines("expected_stale_lines").len() as u64);
    assert_eq!(book.state, State::Broken);
}

#[test]
fn the_fault_file_resynced_after_each_gap_ends_at_the_unfaulted_book() {
    let Some(corpus) = corpus() else { return };
    let mut connections = read(&corpus, VENUE, FAULT);
    let inputs = connections.get_mut(&0).unwrap();
    for gap in manifest(&corpus)["expected_gaps"].as_array().unwrap() {
        let body = corpus.join("rest").join(VENUE).join(gap["resync_rest"].as_str().unwrap());
        let line = gap["at_line"].as_u64().unwrap();
        let at = inputs.iter().position(|(index, _)| *index == line).unwrap();
        let received = inputs[at].1.received;
        let answer = Input::http(received, "depth:BTCUSDT", 200, &fs::read_to_string(body).unwrap());
        inputs.insert(at + 1, (line, answer));
    }
    let outcome = decode(VENUE, &connections);
    let expected = final_books(&corpus, VENUE, FAULT);
    assert_same_book("fault", &outcome.books["BTCUSDT"], &expected["symbols"]["BTCUSDT"]);
    let count = |wanted: fn(&Note) -> bool| outcome.notes.iter().filter(|(_, note)| wanted(note)).count();
    assert_eq!(count(|note| matches!(note, Note::Gap(_))), 7);
    assert_eq!(count(|note| matches!(note, Note::GapClosed(_))), 7);
}

#[test]
fn no_frame_of_a_recording_is_left_undecoded_and_no_gap_is_invented() {
    let Some(corpus) = corpus() else { return };
    for (venue, names) in RECORDINGS {
        for name in *names {
            let outcome = decode(venue, &read(&corpus, venue, name));
            assert!(outcome.notes.is_empty(), "{venue} {name}: {:?}", outcome.notes.first());
            assert!(outcome.rows > 0, "{venue} {name}");
        }
    }
}

#[test]
fn a_recording_that_begins_mid_session_gives_its_deltas_and_says_that_the_book_is_not_whole() {
    let Some(corpus) = corpus() else { return };
    let outcome = decode("binance-spot", &read(&corpus, "binance-spot", "hft_btcusdt_20240809"));
    let book = &outcome.books["BTCUSDT"];
    assert_eq!((book.state, book.snapshots, book.deltas_applied), (State::Syncing, 0, 0));
    assert!(book.deltas_before_snapshot > 3_000);
}

/// Both days of one lane, one after the other: the second continues the first without a break.
#[test]
fn the_second_day_continues_the_first() {
    let Some(corpus) = corpus() else { return };
    let mut connections = read(&corpus, "binance-spot", "hft_btcusdt_20240808");
    let second = read(&corpus, "binance-spot", "hft_btcusdt_20240809").remove(&0).unwrap();
    connections.get_mut(&0).unwrap().extend(second);
    let outcome = decode("binance-spot", &connections);
    assert!(outcome.notes.is_empty(), "{:?}", outcome.notes.first());
    assert_eq!(outcome.books["BTCUSDT"].state, State::Live);
}

/// Whenever a depth frame's last id equals a quote's id, the top of the book equals the quote.
#[test]
fn the_top_of_the_book_equals_the_venues_own_best_bid_and_ask() {
    let Some(corpus) = corpus() else { return };
    for (venue, name) in [("binance-spot", "hft_btcusdt_20240808"), ("binance-usdm", "hft_btcusdt_20240808")] {
        let mut decoder = Decoder::new(spec(venue), FramePos::FIRST);
        decoder.log_books();
        let mut replicas = Replicas::default();
        let mut quotes = BTreeMap::new();
        let mut compared = 0;
        for (_, input) in read(&corpus, venue, name).remove(&0).unwrap() {
            let at = At { pos: decoder.next(), received: Nanos(input.received), conn: Conn::FIRST };
            decoder.apply(at, input.kind, &mut input.bytes.clone());
            let log = decoder.take_book_log();
            let events = decoder.swap_events(Events::default());
            quotes.extend(events.quotes.iter().map(|quote| (quote.seq.unwrap(), (quote.bid, quote.ask))));
            replicas.on_chunk(&events, &log, |_| 0u64);
            let (Some(message), Some((_, replica))) = (log.first(), replicas.iter().next()) else { continue };
            if let Some((bid, ask)) = message.last_id.and_then(|id| quotes.get(&id))
                && replica.state == State::Live
                && input.kind == Kind::Text
            {
                assert_eq!(
                    (replica.book.levels(Side::Buy).next(), replica.book.levels(Side::Sell).next()),
                    (*bid, *ask)
                );
                compared += 1;
            }
        }
        assert!(compared > 100, "{venue}: only {compared} tops were compared");
    }
}

fn manifest(corpus: &Path) -> Value {
    let text = fs::read_to_string(corpus.join("fault_hft_btcusdt_20240808.manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

const VENUE: &str = "binance-usdm";
const FAULT: &str = "fault_hft_btcusdt_20240808";

/// Recordings of whole sessions, without the fault file.
pub(crate) const RECORDINGS: &[(&str, &[&str])] = &[
    ("binance-spot", &["cf_20211012", "hft_btcusdt_20240808", "hft_btcusdt_20240809"]),
    ("binance-usdm", &["cf_20210722", "hft_btcusdt_20240808"]),
    ("binance-coinm", &["cf_20210722", "hft_btcusd_perp_20240808", "hft_btcusd_perp_20240809"]),
    ("coinbase", &["cf_20210417"]),
    ("kraken", &["cf_v1_20210417", "xb_v2_btcusd_d10_202608", "xb_v2_xrpusd_d25_202608"]),
    ("okx", &["cf_20220513"]),
    ("okcoin", &["cf_20230527"]),
    ("bitget", &["cf_v1_20220407"]),
];
