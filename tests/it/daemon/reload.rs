//! SIGHUP: what changed changes, what did not notices nothing, and what is wrong does no harm.

use std::fs;

use rustix::process::Signal;
use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::{PATIENCE, lane, lanes, wait};

const SPOT: Venue = Venue::BinanceSpot;

#[test]
fn symbols_come_and_go_without_a_connection_being_dropped() {
    let setup = Setup { venues: vec![SPOT, Venue::Kraken], symbols: 4, venue: "lanes: 2\n", ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let names = SPOT.symbols(4);
    world.write_venue(SPOT, &names[..3], "lanes: 2\n");
    let mut daemon = world.start_recording();
    // Kraken's instrument list is a connection of its own.
    daemon.until_logged(&["instruments described", "kraken"]);
    let before = [SPOT, Venue::Kraken].map(|venue| world.stats(venue).connections);
    assert_eq!(before, [2, 3]);

    let after = [&names[..2], &names[3..]].concat();
    world.write_venue(SPOT, &after, "lanes: 2\n");
    daemon.signal(Signal::HUP);
    daemon.until_logged(&["configuration read again"]);
    world.until_count(0, &rows_of(&names[3]));
    // The last frames of the symbol that goes may still be on their way.
    let (gone, come) = (rows_of(&names[2]), rows_of(&names[3]));
    wait(PATIENCE, "the removed symbol ends", || {
        let before = world.count(&gone);
        world.until_count(world.count(&come), &come);
        world.count(&gone) == before
    });
    let status = daemon.until("subscriptions are as planned", |status| {
        let spot = lanes(status).into_iter().filter(|lane| lane["venue"] == SPOT.name());
        spot.map(|lane| lane["subscriptions"]["live"].as_u64().unwrap()).sum::<u64>() == 9
    });
    assert_eq!(lanes(&status).iter().map(|lane| lane["reconnects"].as_u64().unwrap()).sum::<u64>(), 0);
    assert_eq!([SPOT, Venue::Kraken].map(|venue| world.stats(venue).connections), before);
    daemon.until_ready();
    world.finish(daemon);
}

fn rows_of(symbol: &str) -> String {
    format!(
        "SELECT count(*) FROM market_data.book_deltas JOIN market_data.instruments USING (instrument_id)
         WHERE venue = 'binance-spot' AND symbol = '{symbol}'"
    )
}

#[test]
fn a_broken_configuration_leaves_the_old_one_in_force_and_is_shown_until_it_is_put_right() {
    let setup = Setup { venues: vec![SPOT], ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    let good = fs::read_to_string(world.venue_file(SPOT)).unwrap();
    fs::write(world.venue_file(SPOT), format!("{good}depth_of_book: 7\nlanes: many\n")).unwrap();
    daemon.signal(Signal::HUP);
    let status = daemon.until("it is shown", |status| !status["not_ready"].as_array().unwrap().is_empty());
    let shown = status["not_ready"][0].as_str().unwrap();
    assert!(shown.starts_with("2 problems in the configuration on disk, the old one is in force: "), "{shown}");
    assert!(shown.contains("binance-spot.yaml:"), "{shown}");
    for key in ["depth_of_book", "lanes"] {
        daemon.until_logged(&[key]);
    }
    world.until_more(SPOT, "trades");
    assert_eq!(world.stats(SPOT).connections, 1);
    assert_eq!(daemon.readyz().0, 503);

    fs::write(world.venue_file(SPOT), good).unwrap();
    daemon.signal(Signal::HUP);
    daemon.until_ready();
    world.finish(daemon);
}

#[test]
fn a_venue_that_is_enabled_starts_one_that_is_removed_is_drained_and_both_can_be_taken_back() {
    let setup = Setup { venues: vec![SPOT, Venue::Kraken], ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let file = world.venue_file(Venue::Kraken);
    let enabled = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let mut daemon = world.start();
    daemon.until_ready();
    world.until_more(SPOT, "trades");

    for round in 0..2 {
        fs::write(&file, &enabled).unwrap();
        daemon.signal(Signal::HUP);
        daemon.until("the lane is open", |status| lane(status, "kraken.0")["connection"] == "open");
        world.until_more(Venue::Kraken, "trades");
        world.until_more(Venue::Kraken, "book_deltas");
        assert_eq!(daemon.metrics().sum("tapeway_connections_up", &["lane=\"kraken.0\""]), 1.0, "round {round}");

        if round == 0 {
            fs::remove_file(&file).unwrap();
        } else {
            fs::write(&file, enabled.replace("enabled: true", "enabled: false")).unwrap();
        }
        daemon.signal(Signal::HUP);
        let status = daemon.until("the lane is drained", |status| {
            let lane = lane(status, "kraken.0");
            lane["is_live"] == false && lane["rows_pending"] == 0
        });
        assert_eq!(lane(&status, "kraken.0")["connection"], "stopped");
        wait(PATIENCE, "its connections are closed", || world.stats(Venue::Kraken).connections_open == 0);
        // Neither up nor down, so that no alert fires for what is meant to be.
        let up = daemon.metrics().series("tapeway_connections_up", &["lane=\"kraken.0\""]);
        assert!(up.len() == 1 && up[0].1.is_nan(), "{up:?}");
        assert_eq!(daemon.metrics().sum("tapeway_subscriptions", &["lane=\"kraken.0\""]), 0.0);
        daemon.until_ready();
    }
    assert_eq!(world.stats(SPOT).connections, 1, "the other venue noticed something");

    fs::write(&file, &enabled).unwrap();
    daemon.signal(Signal::HUP);
    daemon.until("the lane is open", |status| lane(status, "kraken.0")["connection"] == "open");
    world.until_more(Venue::Kraken, "trades");
    let finished = world.finish(daemon);
    let ids = finished.psql("SELECT count(*) FROM audit.lanes WHERE name = 'kraken.0'");
    assert_eq!(ids, "1", "the lane goes on in the same journal");
    let gaps = finished.psql("SELECT count(*) FROM audit.gaps WHERE venue = 'kraken' AND cause = 'downtime'");
    assert_ne!(gaps, "0", "what was missed in between is named");
}

#[test]
fn reloads_while_a_venue_is_away_are_heard_and_the_last_one_counts() {
    let setup = Setup { venues: vec![Venue::Kraken], symbols: 8, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let names = Venue::Kraken.symbols(8);
    let away = |count: usize| {
        world.write_venue(Venue::Kraken, &names[..count], "");
        let file = world.venue_file(Venue::Kraken);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace(&world.venues.ws_url(Venue::Kraken), "ws://127.0.0.1:1")).unwrap();
    };
    away(1);
    let mut daemon = world.start();
    daemon.until_logged(&["cannot connect", "127.0.0.1:1"]);
    for count in 2..=8 {
        away(count);
        daemon.signal(Signal::HUP);
        let words = format!("symbols={count} before={}", count - 1);
        daemon.until_logged(&["lane's plan changes", &words]);
    }
    // The last one brings the right address and is acted on at once.
    world.write_venue(Venue::Kraken, &names[..3], "");
    daemon.signal(Signal::HUP);
    daemon.until("the lane is open", |status| {
        lane(status, "kraken.0")["connection"] == "open" && lane(status, "kraken.0")["symbols"] == 3
    });
    world.until_more(Venue::Kraken, "trades");
    world.finish(daemon);
}

#[test]
fn a_venue_recorded_by_pattern_waits_for_the_instrument_list_and_says_so_and_others_do_not_wait() {
    let faults = vec!["kind=deny_http&venue=binance-spot"];
    let Some(world) = World::new(Setup { venues: vec![SPOT, Venue::Kraken], faults, ..Setup::default() }) else {
        return;
    };
    world.write_venue(SPOT, &["*USDT".to_owned()], "");
    let mut daemon = world.start();
    world.until_more(Venue::Kraken, "trades");
    daemon.until_logged(&["no instrument list", "binance-spot", "429"]);
    let status = daemon.until("it is shown", |status| !status["not_ready"].as_array().unwrap().is_empty());
    assert_eq!(status["not_ready"][0], "venue binance-spot: waits for its instrument list");
    world.fault("kind=deny_http&venue=binance-spot&state=off");
    daemon.until_ready();
    let status = daemon.until("the lane is open", |status| lane(status, "binance-spot.0")["connection"] == "open");
    assert_eq!(lane(&status, "binance-spot.0")["symbols"], 2);
    world.until_more(SPOT, "trades");

    // After a restart the journal remembers what the pattern stood for.
    daemon.kill();
    world.fault("kind=deny_http&venue=binance-spot");
    daemon.restart();
    let status = daemon.until("the lane is open", |status| lane(status, "binance-spot.0")["connection"] == "open");
    assert_eq!(lane(&status, "binance-spot.0")["symbols"], 2);
    world.until_more(SPOT, "trades");
    let status = daemon.until("it answers", |_| true);
    assert_eq!(status["not_ready"][0], "venue binance-spot: waits for its instrument list");
    world.fault("kind=deny_http&venue=binance-spot&state=off");
    daemon.until_ready();
    world.finish(daemon);
}

#[test]
fn a_lane_moves_to_another_address_with_the_next_reload() {
    let setup = Setup { venues: vec![SPOT], ..Setup::default() };
    let (Some(world), Some(other)) = (World::new(setup), World::new(Setup { venues: vec![SPOT], ..Setup::default() }))
    else {
        return;
    };
    let mut daemon = world.start_recording();
    let text = fs::read_to_string(world.venue_file(SPOT)).unwrap();
    let text = text.replace(&world.venues.ws_url(SPOT), &other.venues.ws_url(SPOT));
    fs::write(world.venue_file(SPOT), text.replace(&world.venues.http_url(SPOT), &other.venues.http_url(SPOT)))
        .unwrap();
    daemon.signal(Signal::HUP);
    wait(PATIENCE, "the lane is at its new address", || other.stats(SPOT).connections_open == 1);
    wait(PATIENCE, "the lane has left the old one", || world.stats(SPOT).connections_open == 0);
    daemon.until("the lane is open", |status| lane(status, "binance-spot.0")["connection"] == "open");
    daemon.until_logged(&["disconnected", "rotation", "the lane's URL changed"]);
    daemon.stop();
}
