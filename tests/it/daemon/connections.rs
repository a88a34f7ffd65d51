//! Connections that venues close and refuse, and snapshots that do not come.

use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::{lane, lanes};

/// How a book's gap over a lost connection ends: without numbers nobody can tell whether something was missed; with
/// them it is known, and it may have been nothing.
fn ends_of_reconnect(venue: Venue) -> &'static [&'static str] {
    match venue {
        Venue::BinanceSpot | Venue::BinanceUsdm => &["resynced", "healed"],
        Venue::Coinbase | Venue::Kraken => &["unprovable"],
    }
}

#[test]
fn a_connection_the_venue_closes_comes_back_and_books_are_resynced() {
    let Some(world) = World::new(Setup::default()) else { return };
    let mut daemon = world.start_recording();
    world.fault("kind=close");
    daemon.until("every lane is back", |status| {
        lanes(status).iter().all(|lane| lane["reconnects"] == 1 && lane["connection"] == "open")
    });
    for venue in Venue::ALL {
        let gaps = "SELECT count(*) FROM audit.gaps WHERE cause = 'reconnect' AND channel = 'book'";
        let ends = ends_of_reconnect(venue);
        let states = ends.join("', '");
        world.until_count(1, &format!("{gaps} AND state IN ('{states}') AND venue = '{}'", venue.name()));
        world.until_more(venue, "trades");
        let (venue, metrics) = (format!("venue=\"{}\"", venue.name()), daemon.metrics());
        let closed = |end: &&str| metrics.sum("tapeway_gaps_closed_total", &[&venue, &format!("end=\"{end}\"")]);
        assert_eq!(metrics.sum("tapeway_reconnects_total", &[&venue, "reason=\"lost\""]), 1.0);
        assert!(metrics.sum("tapeway_gaps_total", &[&venue, "cause=\"reconnect\""]) >= 2.0);
        assert!(ends.iter().map(closed).sum::<f64>() >= 2.0);
    }
    let finished = world.finish(daemon);
    let open = finished
        .psql("SELECT count(*) FROM audit.gaps WHERE channel = 'book' AND state = 'open' AND cause <> 'downtime'");
    assert_eq!(open, "0", "only the gap that begins with the end is open");
}

#[test]
fn a_venue_that_refuses_connections_is_tried_again_and_again_until_it_takes_them() {
    let Some(world) = World::new(Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() }) else { return };
    let mut daemon = world.start_recording();
    world.fault("kind=refuse_connections&state=on&status=503");
    world.fault("kind=close");
    for failures in 1..=4 {
        let line = daemon.until_logged(&["cannot connect", "will try again", &format!("failures={failures}")]);
        assert!(line.contains("503"), "{line}");
    }
    let (code, text) = daemon.readyz();
    assert!(code == 503 && text.contains("lane binance-spot.0: not connected: cannot connect: "), "{text}");
    assert_eq!(daemon.metrics().sum("tapeway_connections_up", &[]), 0.0);
    assert_eq!(daemon.metrics().sum("tapeway_subscriptions", &[]), 0.0, "nothing is known without a connection");
    world.fault("kind=refuse_connections&state=off");
    daemon.until("it is open", |status| lane(status, "binance-spot.0")["connection"] == "open");
    world.until_more(Venue::BinanceSpot, "trades");
    daemon.until_ready();
    world.finish(daemon);
}

#[test]
fn a_snapshot_that_is_denied_or_late_makes_a_book_later_and_loses_nothing() {
    let venues = vec![Venue::BinanceSpot, Venue::BinanceUsdm, Venue::Kraken, Venue::Coinbase];
    let faults = vec![
        "kind=deny_http&venue=binance-spot&status=429",
        "kind=slow_snapshot&venue=binance-usdm&delay_ms=3000",
        "kind=slow_snapshot&venue=kraken&channel=book&delay_ms=3000",
        "kind=slow_snapshot&venue=coinbase&channel=book&delay_ms=3000",
    ];
    let Some(world) = World::new(Setup { venues: venues.clone(), faults, ..Setup::default() }) else { return };
    let mut daemon = world.start();
    daemon.until_ready();
    // Trades do not wait, and neither do changes of a book that is not there yet: they are flagged.
    world.until_more(Venue::BinanceSpot, "trades");
    world.until_more(Venue::BinanceSpot, "book_deltas");
    world.until_count(0, "SELECT count(*) FROM audit.rejects WHERE detail LIKE '%429%'");
    let snapshots = |venue: Venue| {
        format!(
            "SELECT count(*) FROM market_data.book_deltas JOIN market_data.instruments USING (instrument_id)
             WHERE flags & 2 <> 0 AND venue = '{}'",
            venue.name()
        )
    };
    assert_eq!(world.count(&snapshots(Venue::BinanceSpot)), 0);
    world.fault("kind=deny_http&venue=binance-spot&state=off");
    for venue in venues {
        world.until_count(0, &snapshots(venue));
    }
    let finished = world.finish(daemon);
    let unflagged = finished.psql(
        "SELECT count(*) FROM market_data.book_deltas d WHERE flags & (2 | 8) = 0 AND lane_id IN (SELECT lane_id FROM audit.lanes WHERE venue LIKE 'binance-%')
           AND frame_pos < (SELECT min(frame_pos) FROM market_data.book_deltas s WHERE s.instrument_id = d.instrument_id
                              AND s.lane_id = d.lane_id AND s.flags & 2 <> 0)",
    );
    assert_eq!(unflagged, "0", "changes before the first snapshot are flagged AFTER_GAP");
}
