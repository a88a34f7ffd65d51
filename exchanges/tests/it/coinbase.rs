//! Coinbase Exchange: trades are proven by ids, books by nothing.

use tapeway_exchanges::{adapter::CloseKind, event::Channel};

use crate::harness::{Lane, events, plan};

const VENUE: &str = "coinbase";

fn lane() -> Lane {
    let mut lane = Lane::new(VENUE);
    lane.open(&plan(VENUE, &["BTC-USD", "ETH-USD"]));
    lane
}

fn trade(kind: &str, id: i64) -> String {
    format!(
        r#"{{"type":"{kind}","trade_id":{id},"side":"sell","size":"0.1","price":"100.00","product_id":"BTC-USD","sequence":1,"time":"2026-03-21T03:47:27.000000Z"}}"#
    )
}

fn heartbeat(last: i64) -> String {
    format!(
        r#"{{"type":"heartbeat","last_trade_id":{last},"product_id":"BTC-USD","sequence":1,"time":"2026-03-21T03:47:27.000000Z"}}"#
    )
}

fn snapshot(product: &str) -> String {
    format!(r#"{{"type":"snapshot","product_id":"{product}","bids":[["99.00","1"]],"asks":[["101.00","2"]]}}"#)
}

fn update(product: &str) -> String {
    format!(
        r#"{{"type":"l2update","product_id":"{product}","changes":[["buy","99.50","0.00000000"]],"time":"2026-03-21T03:47:27.000000Z"}}"#
    )
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[test]
fn the_wires_side_is_the_makers() {
    assert!(has(&lane().text(&trade("match", 1)), " trade BTC-USD buy "));
}

#[test]
fn the_last_match_is_a_trade_and_emitted_once() {
    let mut lane = lane();
    assert!(has(&lane.text(&trade("last_match", 10)), "id 10"));
    lane.text(&trade("match", 11));
    lane.close(CloseKind::Lost);
    lane.open(&plan(VENUE, &["BTC-USD", "ETH-USD"]));
    assert!(lane.text(&trade("last_match", 11)).is_empty());
}

#[test]
fn the_last_match_after_a_reconnect_names_what_was_missed() {
    let mut lane = lane();
    lane.text(&trade("match", 11));
    lane.close(CloseKind::Lost);
    lane.open(&plan(VENUE, &["BTC-USD", "ETH-USD"]));
    let lines = lane.text(&trade("last_match", 15));
    assert!(has(&lines, "trades reconnect missing 12..14") && has(&lines, "id 15"), "{lines:?}");
}

#[test]
fn a_heartbeat_names_trades_that_never_came() {
    let mut lane = lane();
    lane.text(&trade("match", 11));
    assert!(lane.text(&heartbeat(11)).is_empty());
    assert!(has(&lane.text(&heartbeat(13)), "trades sequence missing 12..13"));
    assert!(!has(&lane.text(&trade("match", 14)), "gap"));
}

#[test]
fn a_heartbeat_of_zero_says_nothing() {
    let mut lane = lane();
    lane.text(&trade("match", 11));
    assert!(lane.text(&heartbeat(0)).is_empty());
}

#[test]
fn updates_before_the_snapshot_are_emitted_as_not_whole() {
    let mut lane = lane();
    assert!(has(&lane.text(&update("BTC-USD")), "AFTER_GAP"));
    lane.text(&snapshot("BTC-USD"));
    assert!(!has(&lane.text(&update("BTC-USD")), "AFTER_GAP"));
}

#[test]
fn an_undecodable_update_breaks_its_book_alone_and_asks_for_a_new_snapshot() {
    let mut lane = lane();
    lane.text(&snapshot("BTC-USD"));
    lane.text(&snapshot("ETH-USD"));
    let cut = update("BTC-USD");
    let lines = lane.text(&cut[..cut.len() - 60]);
    assert!(has(&lines, "gap") && has(&lines, "BTC-USD book undecodable") && !has(&lines, "ETH-USD"), "{lines:?}");
    assert!(has(&lines, r#"send {"type":"unsubscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}"#));
    assert!(has(&lane.text(&update("BTC-USD")), "AFTER_GAP"));
    assert!(!has(&lane.text(&update("ETH-USD")), "AFTER_GAP"));
    assert!(has(&lane.text(&snapshot("BTC-USD")), "resynced"));
    assert!(!has(&lane.text(&update("BTC-USD")), "AFTER_GAP"));
}

#[test]
fn a_frame_that_names_no_product_breaks_every_book() {
    let mut lane = lane();
    lane.text(&snapshot("BTC-USD"));
    lane.text(&snapshot("ETH-USD"));
    let lines = events(lane.text("}garbage"));
    assert_eq!(lines.iter().filter(|line| line.contains("book undecodable")).count(), 2, "{lines:?}");
}

#[test]
fn an_undecodable_trade_shows_by_the_next_id_and_breaks_no_book() {
    let mut lane = lane();
    lane.text(&snapshot("BTC-USD"));
    lane.text(&trade("match", 1));
    let cut = trade("match", 2);
    assert!(!has(&lane.text(&cut[..cut.len() - 5]), "gap"));
    assert!(has(&lane.text(&trade("match", 3)), "missing 2..2"));
}

#[test]
fn a_second_resync_waits_for_its_turn() {
    let mut lane = lane();
    lane.text(&snapshot("BTC-USD"));
    let cut = &update("BTC-USD")[..60].to_string();
    assert!(has(&lane.text(cut), "send "));
    lane.text(&snapshot("BTC-USD"));
    assert!(!has(&lane.text(cut), "send "));
    let sent: Vec<_> = (0..5).flat_map(|_| lane.tick()).collect();
    assert_eq!(sent.len(), 2, "{sent:?}");
}

#[test]
fn the_list_of_subscriptions_makes_them_live_and_a_refusal_is_seen() {
    let mut lane = lane();
    lane.text(r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]}]}"#);
    assert_eq!(lane.subscription(Channel::Trades, "BTC-USD"), "Live");
    assert_eq!(lane.subscription(Channel::Trades, "ETH-USD"), "Requested");
    let lines =
        lane.text(r#"{"type":"error","message":"Failed to subscribe","reason":"ETH-USD is not a valid product"}"#);
    assert!(has(&lines, "reject refused"), "{lines:?}");
    assert!(lane.subscription(Channel::Book, "ETH-USD").starts_with("Refused"));
    assert_eq!(lane.subscription(Channel::Book, "BTC-USD"), "Requested");
}

#[test]
fn products_refused_with_another_are_asked_for_again_without_it() {
    let mut lane = lane();
    let refusal = |product: &str| {
        format!(r#"{{"type":"error","message":"Failed to subscribe","reason":"{product} is not a valid product"}}"#)
    };
    let lines = lane.text(&refusal("ETH-USD"));
    let sent: Vec<_> = lines.iter().filter(|line| line.contains("send ")).collect();
    assert!(sent.len() == 1 && sent[0].contains(r#""product_ids":["BTC-USD"]"#), "{lines:?}");
    assert!(sent[0].contains("matches") && sent[0].contains("level2_batch"), "{lines:?}");
    // The last one has nobody left to ask for; a name inside a longer one is not meant.
    assert!(!has(&lane.text(&refusal("BTC-USDT")), "send "));
    let lines = lane.text(&refusal("BTC-USD"));
    assert!(!has(&lines, "send "), "{lines:?}");
}
