//! Two daemons with journals of their own, the same lanes and one database: one writes, the other waits.

use std::fs;

use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::{Daemon, lane, sum};

const SPOT: Venue = Venue::BinanceSpot;

#[test]
fn the_second_daemon_stands_by_without_doubling_rows_and_takes_over_when_the_first_ends() {
    let setup = Setup { venues: vec![SPOT], ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut first = world.start_recording();
    let elsewhere = tempfile::tempdir().unwrap();
    let config = elsewhere.path().join("config");
    fs::create_dir_all(config.join("exchanges")).unwrap();
    let main = fs::read_to_string(world.config().join("tapeway.yaml")).unwrap();
    let journal = elsewhere.path().join("journal").display().to_string();
    fs::write(config.join("tapeway.yaml"), main.replace(&world.journal().display().to_string(), &journal)).unwrap();
    fs::copy(world.venue_file(SPOT), config.join("exchanges/binance-spot.yaml")).unwrap();

    let mut second = Daemon::start(elsewhere.path(), &config);
    let status = second.until("it stands by, recording", |status| {
        status["writers"][0]["standby"][0] == "binance-spot.0" && sum(status, "rows_received") > 300
    });
    assert_eq!(sum(&status, "rows_committed"), 0);
    let (code, text) = second.readyz();
    assert!(code == 503 && text.contains("lane binance-spot.0: held by another daemon"), "{text}");
    assert_eq!(second.metrics().sum("tapeway_lanes_standby", &[]), 1.0);
    world.until_more(SPOT, "trades");
    let lanes = "SELECT count(DISTINCT lane_id) FROM market_data.trades";
    assert_eq!((world.psql(lanes), doubles(&world)), ("1".into(), "0".into()));

    first.kill();
    second.until("it took over", |status| {
        lane(status, "binance-spot.0")["rows_committed"].as_u64() > Some(300)
            && status["writers"][0]["standby"][0].is_null()
    });
    second.until_ready();
    assert_eq!(world.psql(lanes), "2");
    // What the first one had committed was left out, and that is written down.
    world
        .until_count(0, "SELECT count(*) FROM audit.rejects WHERE detail LIKE '%while another daemon wrote this lane'");
    world.venues.pause();
    second.until_drained();
    second.stop();
    // Both connections carry the same trades at about the same moment: only at the seam may one be there twice.
    let seam: u32 = doubles(&world).parse().unwrap();
    assert!(seam <= SEAM_TRADES_MAX, "{seam} trades are there twice");
    let missing = world.psql(
        "SELECT coalesce(sum(next - trade_id - 1), 0) FROM (
             SELECT trade_id, lead(trade_id) OVER (PARTITION BY instrument_id ORDER BY trade_id) AS next FROM market_data.trades
         ) AS pairs WHERE next > trade_id + 1",
    );
    println!("at the seam: {seam} trades twice, {missing} missing");
    assert!(missing.parse::<u32>().unwrap() <= SEAM_TRADES_MAX, "{missing} trades are missing");
}

/// Trades that are there more than once.
fn doubles(world: &World) -> String {
    world.psql("SELECT count(*) - count(DISTINCT (instrument_id, trade_id)) FROM market_data.trades")
}

/// Trades of one burst of the loopback venue, far more than one.
const SEAM_TRADES_MAX: u32 = 50;
