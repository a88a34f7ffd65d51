//! Missing trades are fetched: exactly those, each once, flagged, across restarts; and what cannot be had is said.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tapeway_exchanges::{decoder::Decoder, event::Events, ids::FramePos};

use crate::harness::{Input, render, spec};

mod world;

use world::World;

const VENUES: [&str; 6] = ["binance-spot", "binance-usdm", "binance-coinm", "coinbase", "kraken", "okx"];

#[test]
fn a_gap_is_fetched_flagged_and_healed() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose(6..=8);
        world.trade(9);
        assert_eq!(
            (world.asked.iter().filter(|request| request.tag.starts_with("trades:")).count(), world.gaps),
            (1, 1)
        );
        assert!(world.answer());
        assert_eq!(world.rows, [(5, false), (9, false), (6, true), (7, true), (8, true)], "{venue}");
        assert_eq!(world.ends(), ["healed 3"], "{venue}");
        assert!(!world.answer(), "{venue}: nothing more is asked for");
        world.trade(10);
        assert_eq!(world.gaps, 1, "{venue}");
    }
}

#[test]
fn a_restart_in_the_middle_asks_for_the_rest() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose(6..=49);
        world.trade(50);
        world.rows_max = 21;
        assert!(world.answer());
        let came = world.rows.len() - 2;
        assert!(came > 0 && world.ends().is_empty(), "{venue}: {came}");
        world.restart();
        world.rows_max = usize::MAX;
        while world.answer() {}
        let ids: BTreeSet<_> = world.ids().into_iter().collect();
        assert_eq!(world.rows.len(), ids.len(), "{venue}");
        // Futures: the newest 20 of them one by one, the other 24 in threes.
        let rows = if venue.ends_with('m') { 28 } else { 44 };
        assert_eq!(world.ends(), [format!("healed {rows}")], "{venue}");
    }
}

#[test]
fn what_was_missed_while_nothing_ran_is_fetched_after_it() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose(6..=7);
        world.restart(); // The connection was never closed: the process died.
        world.trade(8);
        assert!(world.told.last().unwrap().1[0].contains("trades downtime missing 6..7"), "{venue}");
        while world.answer() {}
        assert_eq!((world.ids(), world.ends()), (vec![5, 8, 6, 7], vec!["healed 2".to_owned()]), "{venue}");
    }
}

#[test]
fn a_trade_that_comes_late_by_the_stream_is_not_fetched_too() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose(6..=7);
        world.trade(8);
        world.trade(7);
        world.answer();
        world.trade(6);
        assert_eq!(world.rows, [(5, false), (8, false), (7, false), (6, true)], "{venue}");
        assert_eq!(world.ends(), ["healed 2"], "{venue}");
    }
}

#[test]
fn a_refusal_for_good_ends_the_gap_with_the_venues_words() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.trade(8);
        let body = r#"{"code":-2015,"msg":"Invalid API-key","message":"x","error":[]}"#;
        assert!(world.answer_with(401, body));
        let end = &world.ends()[0];
        assert!(
            end.starts_with("unhealable 0: 2 trades: ") && end.contains("401") && end.contains("Invalid API-key"),
            "{end}"
        );
        assert!(!world.answer() && world.rejects == 1, "{venue}");
        world.restart();
        assert!(world.take().is_none(), "{venue}");
    }
}

#[test]
fn krakens_own_errors_are_read() {
    let mut world = World::new("kraken");
    world.trade(5);
    world.trade(8);
    for _ in 0..50 {
        assert!(world.answer_with(200, r#"{"error":["EAPI:Rate limit exceeded"]}"#));
    }
    assert!(world.ends().is_empty());
    world.answer_with(200, r#"{"error":["EQuery:Unknown asset pair"]}"#);
    assert!(world.ends()[0].contains("EQuery:Unknown asset pair"), "{:?}", world.ends());
}

#[test]
fn okxs_own_errors_are_read() {
    let mut world = World::new("okx");
    world.trade(5);
    world.trade(8);
    for _ in 0..50 {
        assert!(world.answer_with(200, r#"{"code":"50011","msg":"Too Many Requests","data":[]}"#));
    }
    assert!(world.ends().is_empty());
    world.answer_with(200, r#"{"code":"51001","msg":"Instrument ID does not exist","data":[]}"#);
    assert!(world.ends()[0].contains("Instrument ID does not exist (code 51001)"), "{:?}", world.ends());
}

#[test]
fn of_trades_that_okx_merges_into_one_message_each_that_is_missing_is_fetched() {
    let mut world = World::new("okx");
    world.trade(5);
    world.lose(6..=8);
    let merged = r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"11","px":"2.0","sz":"3","side":"buy","ts":"1700000000011","count":"3"}]}"#;
    world.feed(Input::text(1_700_000_000_000_000_000, merged)); // 9, 10 and 11.
    world.lose(9..=11);
    while world.answer() {}
    assert_eq!(world.rows, [(5, false), (11, false), (6, true), (7, true), (8, true)]);
    assert_eq!(world.ends(), ["healed 3"]);
}

#[test]
fn a_venue_that_is_busy_is_asked_again_later_and_later_and_nothing_is_given_up() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose([6]);
        world.trade(7);
        let mut delays = Vec::new();
        for status in [429, 418, 500, 502, 503, 429, 429, 429, 429, 429, 429, 429] {
            delays.push(world.asked.iter().find(|request| request.tag.starts_with("trades:")).unwrap().delay);
            assert!(world.answer_with(status, "{}"));
        }
        assert!(delays.is_sorted() && delays[11].as_secs() == 300, "{delays:?}");
        assert!(world.ends().is_empty());
        world.answer();
        assert_eq!(world.ends(), ["healed 1"]);
    }
}

#[test]
fn answers_that_are_none_are_borne_a_few_times() {
    for venue in VENUES {
        for body in
            ["", "{", "[]", r#"{"error":[],"result":{"X":[],"last":"1"}}"#, r#"[{"id":"x"}]"#, "<html>", "7", "null"]
        {
            let mut world = World::new(venue);
            world.trade(5);
            world.lose([6]);
            world.trade(7);
            (0..5).for_each(|_| assert!(world.answer_with(200, body)));
            assert!(world.ends().is_empty(), "{venue} {body}: {:?}", world.ends());
            world.answer();
            assert_eq!((world.ids(), world.ends()), (vec![5, 7, 6], vec!["healed 1".to_owned()]), "{venue} {body}");

            let mut world = World::new(venue);
            world.trade(5);
            world.trade(7);
            (0..6).for_each(|_| assert!(world.answer_with(200, body)));
            assert!(world.ends()[0].starts_with("unhealable 0: 1 trades: not served in 6 tries"), "{:?}", world.ends());
            assert!(!world.answer());
        }
    }
}

#[test]
fn what_the_history_does_not_have_is_said_and_the_rest_is_fetched() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose([6, 9]);
        world.trade(10);
        while world.answer() {}
        assert_eq!(world.ids(), [5, 10, 6, 9], "{venue}");
        let end = &world.ends()[0];
        assert!(end.starts_with("unhealable 2: 2 trades: the venue"), "{venue}: {end}");
    }
}

#[test]
fn an_instrument_taken_out_gives_up_what_it_missed() {
    for venue in VENUES {
        let mut world = World::new(venue);
        world.trade(5);
        world.lose([6]);
        world.trade(7);
        world.without_symbols();
        assert_eq!(world.ends(), ["unhealable 0: 1 trades: the instrument is no longer recorded"], "{venue}");
        world.answer();
        assert_eq!(world.ids(), [5, 7], "{venue}");
    }
}

/// Futures serve single trades for the newest only; older ones as aggregates.
mod merged_trades {
    use super::*;

    #[test]
    fn older_ones_are_taken_where_every_trade_in_a_row_is_missing() {
        let mut world = World::new("binance-usdm");
        world.rows_max = 5; // The list of the newest begins at 18.
        world.trade(5);
        world.lose(6..=19);
        (20..=22).for_each(|id| world.trade(id));
        while world.answer() {}
        let fetched: Vec<_> = world.rows.iter().filter(|(_, is_fetched)| *is_fetched).map(|(id, _)| *id).collect();
        // 18 and 19 one by one; then 6..=8, 9..=11, 12..=14 and 15..=17 in one row each.
        assert_eq!(fetched, [18, 19, 8, 11, 14, 17]);
        assert_eq!(world.ends(), ["healed 6"]);
    }

    #[test]
    fn a_row_that_holds_a_trade_recorded_before_is_not_taken() {
        let mut world = World::new("binance-usdm");
        world.rows_max = 5;
        world.trade(7);
        world.lose(8..=19);
        (20..=22).for_each(|id| world.trade(id));
        while world.answer() {}
        assert_eq!(world.ids().len(), world.ids().into_iter().collect::<BTreeSet<_>>().len());
        assert!(!world.ids().contains(&8), "6..=8 holds 7, which is there");
        assert_eq!(world.ends(), ["unhealable 5: 1 trades: the venue has them only merged with others, or not at all"]);
    }
}

/// What happens next to a lane.
#[derive(Clone, Debug)]
enum Step {
    /// So many trades come.
    Trades(i64),
    /// So many are made and do not come.
    Lost(i64),
    /// So many requests are answered, by at most so many rows.
    Answers(usize, usize),
    /// A request is answered with nonsense.
    Nonsense(u16, &'static str),
    Reconnect,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1i64..40).prop_map(Step::Trades),
        4 => (1i64..400).prop_map(Step::Lost),
        4 => (1usize..5, 2usize..200).prop_map(|(times, rows)| Step::Answers(times, rows)),
        1 => prop::sample::select(vec![(429u16, ""), (500, "{}"), (503, "")]).prop_map(|(status, body)| Step::Nonsense(status, body)),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// In the end each trade the venue made is there once, whatever was lost, however small the pages, wherever it was
    /// restarted; and the journal alone gives the very same events.
    #[test]
    fn every_trade_is_there_once_in_the_end(at in 0usize..VENUES.len(), steps in steps()) {
        let venue = VENUES[at];
        let mut world = World::new(venue);
        let mut next = 1_000;
        world.trade(next);
        for step in steps {
            match step {
                Step::Trades(count) => (0..count).for_each(|_| {
                    next += 1;
                    world.trade(next);
                }),
                Step::Lost(count) => {
                    world.lose(next + 1..=next + count);
                    next += count;
                }
                Step::Answers(times, rows) => {
                    // The newest trades come in one list of a size of its own; a short one is another test's matter.
                    world.rows_max = if venue.ends_with('m') { usize::MAX } else { rows };
                    (0..times).for_each(|_| _ = world.answer());
                }
                Step::Nonsense(status, body) => _ = world.answer_with(status, body),
                Step::Reconnect => {
                    world.close();
                    world.open();
                }
                Step::Restart => world.restart(),
            }
        }
        world.trade(next + 1);
        world.rows_max = usize::MAX;
        let mut answers = 0;
        while world.answer() {
            answers += 1;
            prop_assert!(answers < 1_000, "{venue}: no end of asking");
        }
        let mut ids = world.ids();
        ids.sort_unstable();
        if venue.ends_with('m') && ids != (1_000..=next + 1).collect::<Vec<_>>() {
            // What was beyond the newest came in rows for several, or could not be had.
            ids.dedup();
            prop_assert_eq!(ids.len(), world.rows.len());
            prop_assert!(world.told.iter().any(|(input, _)| String::from_utf8_lossy(&input.bytes).contains(":agg-")));
        } else {
            prop_assert_eq!(ids, (1_000..=next + 1).collect::<Vec<_>>(), "{}", venue);
            prop_assert!(world.ends.iter().all(|end| end.detail.is_none()), "{:?}", world.ends());
        }
        prop_assert_eq!(world.ends.len(), world.gaps, "{}: every gap has an end", venue);
        let mut again = Decoder::new(spec(venue), FramePos::FIRST);
        for (input, lines) in &world.told {
            let at = tapeway_exchanges::adapter::At {
                pos: again.next(),
                received: tapeway_exchanges::ids::Nanos(input.received),
                conn: tapeway_exchanges::conn::Conn::FIRST,
            };
            again.apply(at, input.kind, &mut input.bytes.clone());
            again.actions().clear();
            prop_assert_eq!(&render(&again.swap_events(Events::default())), lines);
        }
    }
}
