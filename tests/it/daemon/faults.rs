//! Frames that are dropped, doubled, swapped or damaged on the way.

use std::{thread::sleep, time::Duration};

use serde_json::Value;
use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::Metrics;

#[test]
fn whatever_frames_suffer_no_row_vanishes_between_the_counters_at_any_scrape() {
    // A book without numbers (Coinbase) or with a checksum of its top alone (Kraken) cannot tell of every dropped frame.
    let faults = vec![
        "kind=duplicate&p=0.02",
        "kind=corrupt&p=0.01",
        "kind=swap&p=0.01",
        "kind=drop&channel=trades&p=0.02",
        "kind=drop&channel=quotes&p=0.02",
        "kind=drop&channel=book&venue=binance-spot&p=0.01",
        "kind=drop&channel=book&venue=binance-usdm&p=0.01",
        "kind=checksum&venue=kraken&p=0.01",
    ];
    let Some(world) = World::new(Setup { faults, rate: 3_000.0, ..Setup::default() }) else { return };
    let mut daemon = world.start();
    let mut scrapes = 0;
    while scrapes < 40 || Venue::ALL.iter().any(|venue| rejects(&world, *venue) == 0) {
        assert_balanced(&daemon.metrics());
        scrapes += 1;
        sleep(Duration::from_millis(50));
    }
    // Undisturbed again, everything recovers.
    for kind in ["duplicate", "corrupt", "swap", "drop", "checksum"] {
        world.fault(&format!("kind={kind}&state=off"));
    }
    for venue in Venue::ALL {
        world.until_more(venue, "trades");
        world.until_more(venue, "book_deltas");
    }
    world.venues.pause();
    daemon.until_drained();
    let metrics = daemon.metrics();
    assert_balanced(&metrics);
    for venue in Venue::ALL {
        let label = format!("venue=\"{}\"", venue.name());
        let counted = metrics.sum("tapeway_decode_errors_total", &[&label]);
        assert_eq!(counted, f64::from(u32::try_from(rejects(&world, venue)).unwrap()), "{venue}");
        assert!(metrics.sum("tapeway_gaps_total", &[&label]) > 0.0, "{venue}");
    }
    assert_eq!(metrics.sum("tapeway_lane_rows_pending", &[]), 0.0);
    world.finish(daemon);
}

fn rejects(world: &World, venue: Venue) -> u64 {
    world.count(&format!(
        "SELECT count(*) FROM audit.rejects JOIN audit.lanes USING (lane_id) WHERE venue = '{}'",
        venue.name()
    ))
}

fn assert_balanced(metrics: &Metrics) {
    for (labels, received) in metrics.series("tapeway_lane_rows_received", &[]) {
        let rest: f64 = ["committed", "rejected", "pending"]
            .iter()
            .map(|kind| metrics.sum(&format!("tapeway_lane_rows_{kind}"), &[&labels]))
            .sum();
        assert!((received - rest).abs() < 0.5, "{labels}: received {received}, the rest is {rest}");
    }
}

#[test]
fn dropped_frames_are_gaps_with_exactly_their_ids() {
    let venues = vec![Venue::BinanceSpot, Venue::BinanceUsdm];
    let Some(world) = World::new(Setup { venues: venues.clone(), ..Setup::default() }) else { return };
    let daemon = world.start_recording();
    world.fault("kind=drop&symbol=BTCUSDT&channel=book&count=3");
    world.fault("kind=drop&symbol=ETHUSDT&channel=trades&count=2");
    let gaps =
        |channel: &str| format!("SELECT count(*) FROM audit.gaps WHERE cause = 'sequence' AND channel = '{channel}'");
    world.until_count(1, &gaps("trades"));
    world.until_count(1, &format!("{} AND state = 'resynced'", gaps("book")));
    let finished = world.finish(daemon);
    for venue in venues {
        for (symbol, kind, channel) in [("BTCUSDT", "book", "book"), ("ETHUSDT", "trade", "trades")] {
            let dropped = finished.truth(|line| {
                line["venue"] == venue.name()
                    && line["symbol"] == symbol
                    && line["kind"] == kind
                    && line["fault"] == "drop"
            });
            let id = |line: &Value, book: &str| line[if kind == "book" { book } else { "id" }].as_i64().unwrap();
            // USD-M's ids are shared by all symbols: what follows the last one seen may have been ours.
            let first = if venue == Venue::BinanceUsdm && kind == "book" {
                dropped[0]["pu"].as_i64().unwrap() + 1
            } else {
                id(&dropped[0], "U")
            };
            let expected = format!("{first}|{}", id(dropped.last().unwrap(), "u"));
            let found = finished.psql(&format!(
                "SELECT first_missing, last_missing FROM audit.gaps g JOIN market_data.instruments USING (instrument_id)
                 WHERE g.venue = '{}' AND symbol = '{symbol}' AND channel = '{channel}' AND cause = 'sequence'",
                venue.name()
            ));
            assert_eq!(found, expected, "{venue} {symbol} {channel}: {dropped:?}");
        }
    }
}
