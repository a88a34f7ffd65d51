//! A database that is not there: recording does not wait for it, and nothing is lost.

use std::sync::Arc;

use rustix::process::Signal;
use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::{
    cluster::{Cluster, Flavor},
    process::{PATIENCE, lanes, sum, wait},
    proxy::Cut,
};

#[test]
fn sessions_record_from_a_cold_start_without_a_database_and_all_rows_arrive_later() {
    let Some(cluster) = Cluster::start(Flavor::Plain).map(Arc::new) else { return };
    let world = World::on(cluster.clone(), Setup::default());
    cluster.stop();
    let mut daemon = world.start();
    daemon.until("every lane records", |status| {
        let lanes = lanes(status);
        lanes.len() == 4 && lanes.iter().all(|lane| lane["rows_received"].as_u64() > Some(500))
    });
    daemon.until("it says why it is not ready", |status| {
        let text = status["not_ready"].to_string();
        text.contains("the database is not prepared: ") && !text.contains("not connected yet")
    });
    let (code, text) = daemon.readyz();
    assert!(code == 503 && text.contains("writer 0: database down: "), "{text}");
    assert_eq!(daemon.metrics().sum("tapeway_database_up", &[]), 0.0);
    assert!(daemon.table().contains("database DOWN"));
    cluster.up();
    daemon.until_ready();
    assert_eq!(daemon.readyz(), (200, "ready\n".into()));
    world.finish(daemon);
}

#[test]
fn a_stop_with_the_database_down_keeps_its_deadline_says_what_is_left_and_the_next_start_commits_it() {
    let setup =
        Setup { venues: vec![Venue::BinanceSpot, Venue::Kraken], main: "shutdown_deadline: 2s", ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    world.proxy.down();
    daemon.until("rows wait", |status| lanes(status).iter().all(|lane| lane["rows_pending"].as_u64() > Some(200)));
    daemon.signal(Signal::TERM);
    // Everything is safe in the journal: not a failure.
    assert!(daemon.wait_for_end().success(), "{}", daemon.tail());
    for lane in ["binance-spot.0", "kraken.0"] {
        let line = daemon.logged(&["not done at the deadline: writer 0: lane", lane, "frames left"]);
        assert!(line.is_some(), "{}", daemon.tail());
    }
    assert!(daemon.logged(&["session", "still running"]).is_none(), "{}", daemon.tail());
    assert!(daemon.logged(&["the next start commits the rest from the journal"]).is_some(), "{}", daemon.tail());
    world.proxy.up();
    daemon.restart();
    daemon.until_ready();
    world.finish(daemon);
}

#[test]
fn a_database_that_goes_away_under_load_is_seen_and_costs_nothing() {
    let setup = Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    for _ in 0..2 {
        world.proxy.down();
        daemon.until("it is seen", |status| status["writers"][0]["is_database_up"] == false);
        let before = sum(&daemon.until("it answers", |_| true), "appended");
        daemon.until("it records on", |status| sum(status, "appended") > before + 100);
        world.proxy.up();
        daemon.until_ready();
    }
    wait(PATIENCE, "reconnects are counted", || daemon.metrics().sum("tapeway_database_reconnects_total", &[]) >= 2.0);
    world.finish(daemon);
}

/// The worst server is one that is there: it takes the connection and everything that is sent, and never answers. Here it
/// falls silent in the middle of a COMMIT, which it carries out.
#[test]
fn a_database_that_takes_connections_and_never_answers_is_given_up_in_time_and_the_watermark_decides() {
    let database = "  connect_timeout: 1s\n  statement_timeout: 2s\n";
    let setup = Setup { venues: vec![Venue::BinanceSpot], database, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    for round in 1..=2 {
        world.proxy.cut_next(Cut::Mute);
        daemon.until("the silence is seen", |status| {
            let writer = &status["writers"][0];
            writer["is_database_up"] == false && writer["last_error"].to_string().contains("no answer within")
        });
        let timeouts = |daemon: &mut crate::process::Daemon| {
            daemon.metrics().sum("tapeway_database_reconnects_total", &["reason=\"timeout\""])
        };
        let before = timeouts(&mut daemon);
        wait(PATIENCE, "new connections are given up as well", || timeouts(&mut daemon) >= before + 2.0);
        let before = sum(&daemon.until("it answers", |_| true), "appended");
        daemon.until("it records on", |status| sum(status, "appended") > before + 100);
        world.proxy.speak();
        daemon.until_ready();
        assert_eq!(world.proxy.cuts(), round, "a COMMIT was left without its answer");
    }
    // The same when it falls silent at any other moment.
    world.proxy.mute();
    daemon.until("the silence is seen", |status| status["writers"][0]["is_database_up"] == false);
    world.proxy.speak();
    daemon.until_ready();
    world.finish(daemon);
}
