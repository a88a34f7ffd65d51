//! OKX `books`: the chain where it is sent, the checksum where it is not 0; trades by ids with their count.

use crate::harness::{Lane, plan};

const VENUE: &str = "okx";

fn lane() -> Lane {
    let mut lane = Lane::new(VENUE);
    lane.open(&plan(VENUE, &["BTC-USDT"]));
    lane
}

fn push(action: &str, previous: i64, id: i64) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[["1.0","2","0","1"]],"ts":"1700000000000","checksum":0,"seqId":{id},"prevSeqId":{previous}}}]}}"#
    )
}

fn trade(id: i64, count: i64) -> String {
    format!(
        r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{id}","px":"1.0","sz":"2","side":"sell","ts":"1700000000000","count":"{count}"}}]}}"#
    )
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[test]
fn a_broken_chain_is_a_gap_and_resubscribes_the_book() {
    let mut lane = lane();
    lane.text(&push("snapshot", -1, 100));
    assert!(!has(&lane.text(&push("update", 100, 105)), "AFTER_GAP"));
    let lines = lane.text(&push("update", 107, 110));
    assert!(has(&lines, "book sequence missing 106..107") && has(&lines, "AFTER_GAP"), "{lines:?}");
    assert!(has(&lines, r#"send {"op":"unsubscribe""#) && has(&lines, r#"send {"op":"subscribe""#), "{lines:?}");
    assert!(has(&lane.text(&push("snapshot", -1, 120)), "resynced"));
}

#[test]
fn a_keep_alive_and_a_renumbering_after_maintenance_follow() {
    let mut lane = lane();
    lane.text(&push("snapshot", -1, 100));
    assert!(!has(&lane.text(&push("update", 100, 100)), "gap"));
    assert!(!has(&lane.text(&push("update", 100, 3)), "gap"));
    assert!(!has(&lane.text(&push("update", 3, 4)), "gap"));
}

#[test]
fn an_undecodable_frame_of_a_numbered_book_shows_at_the_next() {
    let mut lane = lane();
    lane.text(&push("snapshot", -1, 100));
    assert!(!has(&lane.text(&push("update", 100, 105)[..80]), "gap"));
    assert!(has(&lane.text(&push("update", 105, 106)), "book sequence missing 101..105"));
}

#[test]
fn a_trade_that_merges_others_covers_their_ids() {
    let mut lane = lane();
    lane.text(&trade(100, 1));
    assert!(!has(&lane.text(&trade(103, 3)), "gap"));
    assert!(has(&lane.text(&trade(106, 2)), "trades sequence missing 104..104"));
}

#[test]
fn a_silent_connection_is_asked_for_a_sign_and_its_answer_is_no_frame() {
    let mut lane = lane();
    let sent: Vec<_> = (0..45).flat_map(|_| lane.tick()).collect();
    assert_eq!(sent, ["ping", "ping"]);
    assert!(lane.text("pong").is_empty());
}

#[test]
fn an_announced_closing_asks_for_a_reconnect() {
    let lines = lane().text(r#"{"event":"notice","code":"64008","msg":"service upgrade","connId":"a"}"#);
    assert!(has(&lines, "reconnect venue_restart service upgrade"), "{lines:?}");
}
