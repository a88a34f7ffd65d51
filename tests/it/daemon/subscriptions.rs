//! A subscription that is refused or falls silent is seen, named, and does not take others with it.

use std::collections::HashSet;

use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::{PATIENCE, lane, lanes, wait};

#[test]
fn a_refused_subscription_is_seen_everywhere_and_the_others_flow_on() {
    let Some(world) = World::new(Setup {
        faults: vec![
            "kind=refuse_subscriptions&venue=kraken&symbol=ETH/USD",
            "kind=refuse_subscriptions&venue=coinbase&symbol=ETH-USD",
            "kind=refuse_subscriptions&venue=binance-usdm",
        ],
        ..Setup::default()
    }) else {
        return;
    };
    let names = [Venue::Kraken, Venue::Coinbase].map(|venue| venue.symbols(2));
    assert_eq!([&*names[0][1], &*names[1][1]], ["ETH/USD", "ETH-USD"]);
    let mut daemon = world.start();
    // On Binance a message is refused whole, on the others the symbol.
    let refused = [("binance-usdm.0", 6), ("coinbase.0", 2), ("kraken.0", 3), ("binance-spot.0", 0)];
    let status = daemon.until("refusals are counted", |status| {
        refused.iter().all(|(name, count)| lane(status, name)["subscriptions"]["refused"] == *count)
    });
    for (name, symbol) in [("kraken.0", "ETH/USD"), ("coinbase.0", "ETH-USD"), ("binance-usdm.0", "BTCUSDT")] {
        let problems = lane(&status, name)["problems"].as_array().unwrap().clone();
        let problem = format!("subscription trades {symbol} was refused: ");
        assert!(problems.iter().any(|one| one.as_str().unwrap().starts_with(&problem)), "{name}: {problems:?}");
        daemon.until_logged(&["WARN", name, &problem]);
        let metric = format!("lane=\"{name}\"");
        assert!(daemon.metrics().sum("tapeway_subscriptions", &[&metric, "state=\"refused\""]) >= 2.0);
        let table = daemon.table();
        assert!(table.contains(&format!("  {name}: {problem}")), "{table}");
    }
    for (venue, symbol) in [(Venue::Kraken, &names[0][0]), (Venue::Coinbase, &names[1][0])] {
        for table in ["trades", "book_deltas"] {
            wait(PATIENCE, "the other symbol flows", || world.rows_of(venue, symbol, table) > 20);
        }
    }
    assert_eq!(world.rows(Venue::BinanceUsdm, "trades"), 0);
    let table = daemon.table();
    assert!(table.lines().any(|line| line.starts_with("binance-usdm.0") && line.contains("0/6")), "{table}");
    world.finish(daemon);
}

/// What the watchdog knows of a subscription it learns once a second, so this takes its time.
#[test]
fn silence_of_a_subscription_or_a_connection_is_found_and_the_gap_is_called_a_stall() {
    let venues = [Venue::BinanceSpot, Venue::BinanceUsdm, Venue::Kraken];
    let silent = "limits:\n  connects: 1_000\n  silence: 3s\n";
    let setup = Setup { venues: venues.to_vec(), rate: 900.0, venue: silent, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    let mut seen: [HashSet<String>; 3] = Default::default();
    daemon.until("the watchdog has seen enough", |status| {
        for (lane, seen) in lanes(status).iter().zip(&mut seen) {
            seen.insert(lane["last_frame"].to_string());
        }
        seen.iter().all(|seen| seen.len() > 16)
    });
    assert!(daemon.logged(&["silent"]).is_none(), "{}", daemon.tail());
    // One channel of one symbol; everything but pings (which come every 20 s); everything but heartbeats.
    world.fault("kind=stall&venue=binance-spot&symbol=ETHUSDT&channel=trades");
    world.fault("kind=stall&venue=binance-usdm");
    world.fault("kind=stall&venue=kraken");
    let found = [
        ("binance-usdm", "the connection is silent"),
        ("binance-spot", "subscription trades ETHUSDT is silent for"),
        ("kraken", "all subscriptions are silent for"),
    ];
    for (venue, words) in found {
        daemon.until_logged(&["WARN", &format!("{venue}.0"), words]);
        daemon.until_logged(&["disconnected", &format!("{venue}.0"), "stall"]);
        world.fault(&format!("kind=stall&venue={venue}&state=off"));
    }
    for venue in venues {
        daemon.until("it is open", |status| lane(status, &format!("{}.0", venue.name()))["connection"] == "open");
        let gaps = "SELECT count(*) FROM audit.gaps WHERE cause = 'stall'";
        world
            .until_count(0, &format!("{gaps} AND channel = 'book' AND state <> 'open' AND venue = '{}'", venue.name()));
        world.until_more(venue, "trades");
    }
    let stalled = "SELECT count(*) FROM audit.gaps g JOIN market_data.instruments USING (instrument_id)
                   WHERE cause = 'stall' AND channel = 'trades' AND symbol = 'ETHUSDT' AND g.venue = 'binance-spot'
                     AND first_missing IS NOT NULL AND last_missing IS NOT NULL";
    world.until_count(0, stalled);
    assert!(daemon.metrics().sum("tapeway_reconnects_total", &["reason=\"stall\""]) >= 3.0);
    // Kraken's checksum does not cover the depth at which changes were missed right after the new snapshot.
    world.finish_unproven(daemon);
}
