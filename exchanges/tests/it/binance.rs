//! Binance, "How to manage a local order book correctly", spot and futures, and its trade ids.

use tapeway_exchanges::{adapter::CloseKind, event::Channel};

use crate::harness::{Lane, events, plan};

const SPOT: &str = "binance-spot";
const USDM: &str = "binance-usdm";

fn lane(venue: &str) -> Lane {
    let mut lane = Lane::new(venue);
    lane.open(&plan(venue, &["BTCUSDT"]));
    lane
}

fn spot_delta(first: i64, last: i64) -> String {
    format!(
        r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1700000000000,"s":"BTCUSDT","U":{first},"u":{last},"b":[["1.0","2.0"]],"a":[]}}}}"#
    )
}

fn futures_delta(previous: i64, first: i64, last: i64) -> String {
    format!(
        r#"{{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate","E":1700000000000,"T":1700000000000,"s":"BTCUSDT","U":{first},"u":{last},"pu":{previous},"b":[["1.0","2.0"]],"a":[]}}}}"#
    )
}

fn snapshot(id: i64) -> String {
    format!(r#"{{"lastUpdateId":{id},"T":1700000000000,"bids":[["1.0","1.0"]],"asks":[]}}"#)
}

fn trade(id: i64) -> String {
    format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1700000000000,"T":1700000000000,"s":"BTCUSDT","t":{id},"p":"1.0","q":"2.0","m":true}}}}"#
    )
}

fn is_whole(lines: &[String]) -> bool {
    assert!(lines.iter().any(|line| line.contains(" level ")), "{lines:?}");
    !lines.iter().any(|line| line.contains("AFTER_GAP"))
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

/// Spot: 1. buffer; 2. a snapshot with `lastUpdateId` below the first `U` - 1 is too old; 3. drop `u <=
/// lastUpdateId`; 4. the first kept has `U <= lastUpdateId + 1 <= u`; 5. then a gap iff `U > last u + 1`.
mod spot_books {
    use super::*;

    #[test]
    fn deltas_before_the_snapshot_are_emitted_as_not_whole() {
        assert!(!is_whole(&lane(SPOT).text(&spot_delta(101, 103))));
    }

    #[test]
    fn a_snapshot_too_old_to_join_is_asked_for_again() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        let lines = lane.http("depth:BTCUSDT", 200, &snapshot(99));
        assert!(events(lines.clone()).is_empty() && has(&lines, "get /api/v3/depth"), "{lines:?}");
        assert!(!is_whole(&lane.text(&spot_delta(104, 105))));
    }

    #[test]
    fn a_snapshot_that_ends_just_before_the_first_delta_joins() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        assert!(is_whole(&lane.http("depth:BTCUSDT", 200, &snapshot(100))));
        assert!(is_whole(&lane.text(&spot_delta(104, 105))));
    }

    #[test]
    fn a_delta_older_than_the_snapshot_is_emitted_as_not_belonging_to_it() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        lane.http("depth:BTCUSDT", 200, &snapshot(105));
        assert!(!is_whole(&lane.text(&spot_delta(104, 105))));
        assert!(is_whole(&lane.text(&spot_delta(106, 106))));
    }

    #[test]
    fn a_snapshot_before_the_first_delta_joins_a_delta_that_covers_the_next_id() {
        let mut lane = lane(SPOT);
        lane.http("depth:BTCUSDT", 200, &snapshot(100));
        assert!(is_whole(&lane.text(&spot_delta(99, 101))));
    }

    #[test]
    fn a_first_delta_that_begins_after_the_snapshot_is_a_gap() {
        let mut lane = lane(SPOT);
        lane.http("depth:BTCUSDT", 200, &snapshot(100));
        let lines = lane.text(&spot_delta(103, 104));
        assert!(has(&lines, "book sequence missing 101..102") && !is_whole(&lines), "{lines:?}");
    }

    #[test]
    fn a_skipped_id_is_a_gap_and_the_revealing_frame_the_new_baseline() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        lane.http("depth:BTCUSDT", 200, &snapshot(103));
        assert!(has(&lane.text(&spot_delta(105, 106)), "missing 104..104"));
        assert!(events(lane.http("depth:BTCUSDT", 200, &snapshot(103))).is_empty());
        let lines = lane.http("depth:BTCUSDT", 200, &snapshot(104));
        assert!(has(&lines, "closed") && has(&lines, "resynced"), "{lines:?}");
        assert!(is_whole(&lane.text(&spot_delta(107, 108))));
    }

    #[test]
    fn every_break_is_named_while_no_snapshot_comes() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        assert!(has(&lane.text(&spot_delta(105, 106)), "missing 104..104"));
        assert!(has(&lane.text(&spot_delta(108, 109)), "missing 107..107"));
        let lines = lane.http("depth:BTCUSDT", 200, &snapshot(109));
        assert_eq!(lines.iter().filter(|line| line.contains(" closed ")).count(), 2);
    }

    #[test]
    fn one_snapshot_is_asked_for_at_a_time() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        let lines = lane.text(&spot_delta(105, 106));
        assert!(!has(&lines, "get "), "the first request is still on its way: {lines:?}");
    }

    #[test]
    fn an_undecodable_delta_shows_as_a_gap_at_the_next() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        let broken = spot_delta(104, 106).replace("\"2.0\"", "\"2.0x\"");
        let lines = lane.text(&broken);
        assert!(has(&lines, "reject field") && !has(&lines, "level"), "{lines:?}");
        assert!(has(&lane.text(&spot_delta(107, 108)), "missing 104..106"));
    }

    #[test]
    fn a_repeated_snapshot_older_than_the_live_book_says_nothing() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        lane.http("depth:BTCUSDT", 200, &snapshot(103));
        lane.text(&spot_delta(104, 105));
        assert!(events(lane.http("depth:BTCUSDT", 200, &snapshot(104))).is_empty());
        assert!(is_whole(&lane.text(&spot_delta(106, 106))));
    }
}

/// Futures: drop `u < lastUpdateId`; join at `U <= lastUpdateId <= u` or `pu == lastUpdateId`; then a gap iff
/// `pu` is not the last `u`.
mod futures_books {
    use super::*;

    #[test]
    fn a_delta_that_covers_the_snapshots_id_joins() {
        let mut lane = lane(USDM);
        lane.http("depth:BTCUSDT", 200, &snapshot(1_000));
        assert!(!is_whole(&lane.text(&futures_delta(980, 985, 999))));
        assert!(is_whole(&lane.text(&futures_delta(999, 1_000, 1_004))));
    }

    #[test]
    fn a_delta_that_names_the_snapshots_id_as_previous_joins() {
        let mut lane = lane(USDM);
        lane.http("depth:BTCUSDT", 200, &snapshot(1_000));
        assert!(is_whole(&lane.text(&futures_delta(1_000, 1_007, 1_009))));
    }

    #[test]
    fn ids_need_not_be_contiguous_as_long_as_the_chain_holds() {
        let mut lane = lane(USDM);
        lane.text(&futures_delta(980, 985, 999));
        lane.http("depth:BTCUSDT", 200, &snapshot(990));
        assert!(is_whole(&lane.text(&futures_delta(999, 1_500, 1_600))));
    }

    #[test]
    fn a_broken_chain_is_a_gap_up_to_the_named_previous_id() {
        let mut lane = lane(USDM);
        lane.text(&futures_delta(980, 985, 999));
        assert!(has(&lane.text(&futures_delta(1_003, 1_004, 1_006)), "book sequence missing 1000..1003"));
    }

    #[test]
    fn a_repeated_or_late_frame_is_neither_emitted_nor_a_gap() {
        let mut lane = lane(USDM);
        lane.text(&futures_delta(980, 985, 999));
        assert!(lane.text(&futures_delta(980, 985, 999)).is_empty());
        assert!(lane.text(&futures_delta(970, 975, 980)).is_empty());
        assert!(!has(&lane.text(&futures_delta(999, 1_000, 1_001)), "gap"));
    }
}

mod trades {
    use super::*;

    #[test]
    fn the_maker_being_the_buyer_makes_the_seller_the_aggressor() {
        let mut lane = lane(SPOT);
        assert!(has(&lane.text(&trade(1)), " trade BTCUSDT sell "));
        assert!(has(&lane.text(&trade(2).replace("\"m\":true", "\"m\":false")), " trade BTCUSDT buy "));
    }

    #[test]
    fn what_a_lost_connection_missed_is_named_by_id_with_its_cause() {
        for (kind, cause) in [
            (CloseKind::Lost, "reconnect"),
            (CloseKind::Rotation, "reconnect"),
            (CloseKind::Protocol, "reconnect"),
            (CloseKind::Stall, "stall"),
            (CloseKind::VenueRestart, "venue_restart"),
            (CloseKind::Shutdown, "downtime"),
            (CloseKind::JournalFull, "downtime"),
        ] {
            let mut lane = lane(SPOT);
            lane.text(&trade(5));
            lane.close(kind);
            lane.open(&plan(SPOT, &["BTCUSDT"]));
            let lines = lane.text(&trade(9));
            assert!(has(&lines, &format!("trades {cause} missing 6..8")), "{kind:?}: {lines:?}");
        }
    }

    #[test]
    fn an_open_without_a_close_means_that_the_process_died() {
        let mut lane = lane(SPOT);
        lane.text(&trade(5));
        lane.text(&spot_delta(101, 103));
        lane.restart(SPOT);
        let lines = lane.open(&plan(SPOT, &["BTCUSDT"]));
        assert!(has(&lines, "book downtime missing 104..-"), "{lines:?}");
        assert!(has(&lane.text(&trade(9)), "trades downtime missing 6..8"));
    }

    #[test]
    fn aggregates_are_trades_only_where_single_trades_do_not_come() {
        let aggregate =
            |id: i64| trade(id).replace("\"e\":\"trade\"", "\"e\":\"aggTrade\"").replace("\"t\":", "\"a\":");
        let mut lane = lane(SPOT);
        assert!(has(&lane.text(&aggregate(7)), "id 7"));
        assert!(has(&lane.text(&aggregate(9)), "missing 8..8"));
        let lines = lane.text(&trade(500));
        assert!(has(&lines, "id 500") && !has(&lines, "gap"), "{lines:?}");
        assert!(lane.text(&aggregate(10)).is_empty());
    }
}

mod subscriptions {
    use super::*;

    #[test]
    fn an_acknowledgement_makes_them_live_and_a_refusal_is_seen() {
        let mut lane = lane(SPOT);
        assert_eq!(lane.subscription(Channel::Trades, "BTCUSDT"), "Requested");
        lane.text(r#"{"result":null,"id":1}"#);
        assert_eq!(lane.subscription(Channel::Trades, "BTCUSDT"), "Live");

        lane.plan(&plan(SPOT, &["BTCUSDT", "ETHUSDT"]));
        let lines = lane.text(r#"{"code":2,"msg":"Invalid request","id":2}"#);
        assert!(has(&lines, "reject refused"), "{lines:?}");
        assert_eq!(lane.subscription(Channel::Book, "ETHUSDT"), "Requested", "it may be the fault of another stream");
        assert!(has(&lines, r#""params":["ethusdt@trade"],"id":3"#), "{lines:?}");
        lane.text(r#"{"result":null,"id":3}"#);
        let lines = lane.text(r#"{"code":2,"msg":"Invalid request","id":4}"#);
        assert!(has(&lines, r#""params":["ethusdt@depth@100ms"],"id":5"#), "{lines:?}");
        lane.text(r#"{"code":2,"msg":"Invalid request","id":5}"#);
        lane.text(r#"{"result":null,"id":6}"#);
        assert_eq!(lane.subscription(Channel::Trades, "ETHUSDT"), "Live");
        assert_eq!(lane.subscription(Channel::Book, "ETHUSDT"), "Refused(\"Invalid request (code 2)\")");
        assert_eq!(lane.subscription(Channel::Quotes, "ETHUSDT"), "Live");
        assert_eq!(lane.subscription(Channel::Book, "BTCUSDT"), "Live");
    }

    #[test]
    fn an_unknown_symbol_shows_by_its_snapshot() {
        let mut lane = lane(SPOT);
        lane.http("depth:BTCUSDT", 400, r#"{"code":-1121,"msg":"Invalid symbol."}"#);
        assert!(lane.subscription(Channel::Book, "BTCUSDT").contains("Invalid symbol"));
    }

    #[test]
    fn an_instrument_taken_out_of_the_plan_leaves_no_gap_and_asks_for_nothing() {
        let mut lane = lane(SPOT);
        lane.text(&spot_delta(101, 103));
        lane.text(&spot_delta(105, 106));
        let lines = events(lane.plan(&plan(SPOT, &["ETHUSDT"])));
        assert!(lines.len() == 1 && has(&lines, "book sequence unhealable"), "{lines:?}");
        assert!(lane.http("depth:BTCUSDT", 200, &snapshot(106)).is_empty());
        assert!(lane.http("depth:BTCUSDT", 500, "").is_empty());
        lane.text(&spot_delta(107, 108));
        assert!(!has(&lane.close(CloseKind::Lost), "gap"));
    }

    #[test]
    fn a_changed_plan_sends_the_difference_alone() {
        let mut lane = lane(SPOT);
        let lines = lane.plan(&plan(SPOT, &["ETHUSDT"]));
        assert!(has(&lines, r#"send {"method":"UNSUBSCRIBE","params":["btcusdt@trade""#), "{lines:?}");
        assert!(has(&lines, r#"send {"method":"SUBSCRIBE","params":["ethusdt@trade""#), "{lines:?}");
        assert!(lane.plan(&plan(SPOT, &["ETHUSDT"])).is_empty());
    }
}
