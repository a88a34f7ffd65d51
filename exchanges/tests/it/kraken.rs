//! Kraken WebSocket v2: books proven by checksum and cut to depth, trades by ids.

use tapeway_exchanges::{adapter::CloseKind, event::Channel};

use crate::harness::{Lane, plan};

const VENUE: &str = "kraken";

fn lane() -> Lane {
    let mut lane = Lane::new(VENUE);
    lane.open(&plan(VENUE, &["BTC/USD", "ETH/USD"]));
    lane
}

/// `(price, qty)` texts as they stand in the frame.
type Levels<'a> = &'a [(&'a str, &'a str)];

fn book(kind: &str, symbol: &str, bids: Levels<'_>, asks: Levels<'_>, checksum: u32) -> String {
    let side = |levels: Levels<'_>| {
        let levels: Vec<_> = levels.iter().map(|(p, q)| format!(r#"{{"price":{p},"qty":{q}}}"#)).collect();
        levels.join(",")
    };
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":[{}],"asks":[{}],"checksum":{checksum},"timestamp":"2026-08-01T02:53:53.646219Z"}}]}}"#,
        side(bids),
        side(asks)
    )
}

/// The documented checksum of a whole book, from its texts.
fn crc(bids: Levels<'_>, asks: Levels<'_>) -> u32 {
    let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_string();
    let side = |levels: Levels<'_>| levels.iter().take(10).map(|(p, q)| digits(p) + &digits(q)).collect::<String>();
    crc32fast::hash((side(asks) + &side(bids)).as_bytes())
}

const BIDS: Levels<'_> = &[("100.10", "1.00000000"), ("100.00", "0.00500000")];
const ASKS: Levels<'_> = &[("100.20", "2.50000000")];

fn trade(id: i64) -> String {
    format!(
        r#"{{"symbol":"BTC/USD","side":"sell","price":100.10,"qty":0.50,"ord_type":"limit","trade_id":{id},"timestamp":"2026-08-01T02:53:53.646219Z"}}"#
    )
}

fn trades(kind: &str, ids: &[i64]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| trade(*id)).collect();
    format!(r#"{{"channel":"trade","type":"{kind}","data":[{}]}}"#, ids.join(","))
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[test]
fn bare_numbers_keep_their_digits_and_trailing_zeros() {
    let lines = lane().text(&book("snapshot", "BTC/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    assert!(has(&lines, "bid 100.10 x 1.00000000") && !has(&lines, "AFTER_GAP"), "{lines:?}");
}

#[test]
fn a_wrong_checksum_breaks_the_book_and_resubscribes_it() {
    let mut lane = lane();
    lane.text(&book("snapshot", "BTC/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    lane.text(&book("snapshot", "ETH/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    let lines = lane.text(&book("update", "BTC/USD", &[("100.10", "7.0")], &[], 1));
    assert!(has(&lines, "BTC/USD book checksum") && has(&lines, "AFTER_GAP"), "{lines:?}");
    assert!(has(&lines, r#"send {"method":"unsubscribe""#) && has(&lines, r#"send {"method":"subscribe""#));

    let lines = lane.text(&book("update", "BTC/USD", &[("100.10", "8.0")], &[], 1));
    assert!(has(&lines, "AFTER_GAP") && !has(&lines, "gap ") && !has(&lines, "send"), "{lines:?}");
    let after: Levels<'_> = &[("100.10", "8.0"), ("100.00", "0.00500000")];
    let lines = lane.text(&book("update", "ETH/USD", &after[..1], &[], crc(after, ASKS)));
    assert!(!has(&lines, "AFTER_GAP"), "the other book goes on: {lines:?}");

    let lines = lane.text(&book("snapshot", "BTC/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    assert!(has(&lines, "resynced") && !has(&lines, "AFTER_GAP"), "{lines:?}");
}

#[test]
fn levels_beyond_the_subscribed_depth_are_forgotten() {
    let mut plan = plan(VENUE, &["BTC/USD"]);
    plan.book_depth = Some(10);
    let mut lane = Lane::new(VENUE);
    lane.open(&plan);
    let prices: Vec<String> = (0..11).map(|step| format!("{}.0", 200 - step)).collect();
    let all: Vec<(&str, &str)> = prices.iter().map(|price| (price.as_str(), "1.0")).collect();
    lane.text(&book("snapshot", "BTC/USD", &all[1..], &[], crc(&all[1..], &[])));
    // A better bid pushes out the tenth; when it goes, nine are left until the venue sends another.
    lane.text(&book("update", "BTC/USD", &all[..1], &[], crc(&all[..10], &[])));
    let lines = lane.text(&book("update", "BTC/USD", &[(&prices[0], "0.0")], &[], crc(&all[1..10], &[])));
    assert!(!has(&lines, "gap"), "{lines:?}");
}

#[test]
fn the_depth_of_the_acknowledgement_counts() {
    let mut lane = lane();
    lane.text(r#"{"method":"subscribe","result":{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"},"success":true}"#);
    let prices: Vec<String> = (0..11).map(|step| format!("{}.0", 200 - step)).collect();
    let all: Vec<(&str, &str)> = prices.iter().map(|price| (price.as_str(), "1.0")).collect();
    lane.text(&book("snapshot", "BTC/USD", &all[1..], &[], crc(&all[1..], &[])));
    lane.text(&book("update", "BTC/USD", &all[..1], &[], crc(&all[..10], &[])));
    let lines = lane.text(&book("update", "BTC/USD", &[(&prices[0], "0.0")], &[], crc(&all[1..10], &[])));
    assert!(!has(&lines, "gap"), "{lines:?}");
}

#[test]
fn a_snapshot_on_a_live_book_replaces_it_without_a_gap() {
    let mut lane = lane();
    lane.text(&book("snapshot", "BTC/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    let lines = lane.text(&book("snapshot", "BTC/USD", &BIDS[1..], ASKS, crc(&BIDS[1..], ASKS)));
    assert!(!has(&lines, "gap") && !has(&lines, "closed"), "{lines:?}");
}

#[test]
fn an_undecodable_book_frame_breaks_the_book_because_the_checksum_sees_ten_levels_only() {
    let mut lane = lane();
    lane.text(&book("snapshot", "BTC/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    let cut = book("update", "BTC/USD", BIDS, &[], 1);
    assert!(has(&lane.text(&cut[..90]), "BTC/USD book undecodable"));
}

#[test]
fn a_snapshot_of_trades_gives_those_not_seen_yet_oldest_first() {
    let mut lane = lane();
    lane.text(&trades("snapshot", &[3, 2, 1]));
    lane.text(&trades("update", &[4]));
    lane.close(CloseKind::Lost);
    lane.open(&plan(VENUE, &["BTC/USD", "ETH/USD"]));
    let lines = lane.text(&trades("snapshot", &[6, 5, 4, 3]));
    let ids: Vec<_> = lines.iter().filter_map(|line| line.split(" id ").nth(1)).map(|rest| &rest[..1]).collect();
    assert_eq!((ids, has(&lines, "gap")), (vec!["5", "6"], false));
}

#[test]
fn trades_missed_by_more_than_a_snapshot_holds_are_a_gap() {
    let mut lane = lane();
    lane.text(&trades("update", &[4]));
    lane.close(CloseKind::Lost);
    lane.open(&plan(VENUE, &["BTC/USD", "ETH/USD"]));
    assert!(has(&lane.text(&trades("snapshot", &[8, 9])), "trades reconnect missing 5..7"));
}

#[test]
fn a_refused_subscription_is_seen() {
    let mut lane = lane();
    let lines = lane.text(r#"{"error":"Currency pair not supported ETH/USD","method":"subscribe","success":false}"#);
    assert!(has(&lines, "reject refused"), "{lines:?}");
    assert!(lane.subscription(Channel::Book, "ETH/USD").starts_with("Refused"));
    assert_eq!(lane.subscription(Channel::Book, "BTC/USD"), "Requested");
}

#[test]
fn a_restart_knows_the_book_and_its_depth() {
    let mut lane = lane();
    lane.text(&book("snapshot", "BTC/USD", BIDS, ASKS, crc(BIDS, ASKS)));
    lane.restart(VENUE);
    let after: Levels<'_> = &[("100.10", "3.00000000"), BIDS[1]];
    let lines = lane.text(&book("update", "BTC/USD", &after[..1], &[], crc(after, ASKS)));
    assert!(!has(&lines, "gap") && !has(&lines, "AFTER_GAP"), "{lines:?}");
}
