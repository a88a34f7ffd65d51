//! Signals, the supervisor, and a second daemon where there is one already.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::{Daemon, PATIENCE};

#[test]
fn an_interrupt_stops_cleanly_with_everything_committed() {
    let Some(world) = World::new(Setup::default()) else { return };
    let mut daemon = world.start_recording();
    daemon.signal(Signal::INT);
    assert!(daemon.wait_for_end().success(), "{}", daemon.tail());
    assert!(daemon.logged(&["stopped; everything received is committed"]).is_some(), "{}", daemon.tail());
    for lane in ["binance-spot.0", "binance-usdm.0", "coinbase.0", "kraken.0"] {
        assert!(daemon.logged(&["session ended", lane]).is_some(), "{}", daemon.tail());
    }
    let open = world.psql(
        "SELECT count(*) FROM audit.watermarks w WHERE rows_total = 0 OR rows_total <>
             (SELECT count(*) FROM market_data.trades t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.book_deltas t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.order_books t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.quotes t WHERE t.lane_id = w.lane_id)",
    );
    assert_eq!(open, "0");
    daemon.restart();
    world.finish(daemon);
}

#[test]
fn a_second_daemon_on_the_same_journal_is_refused_and_told_who_has_it() {
    let Some(world) = World::new(Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() }) else { return };
    let daemon = world.start_recording();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut second = Daemon::start(elsewhere.path(), &world.config());
    assert_eq!(second.wait_for_end().code(), Some(1));
    let log = second.log();
    let last = log.lines().last().unwrap();
    let pid = daemon.pid().to_string();
    assert!(last.starts_with("tapeway: ") && last.contains(&pid) && last.contains("journal"), "{log}");
    world.until_more(Venue::BinanceSpot, "trades");
    world.finish(daemon);
}

#[test]
fn an_endpoint_that_is_taken_is_named() {
    let Some(world) = World::new(Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() }) else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = world.config().join("tapeway.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("127.0.0.1:0", &address)).unwrap();
    let mut daemon = world.start();
    assert_eq!(daemon.wait_for_end().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains(&format!("tapeway: http.listen {address}: ")), "{log}");
}

#[test]
fn systemd_is_told_of_the_start_the_state_the_life_a_reload_and_the_stop() {
    let Some(world) = World::new(Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() }) else { return };
    let path = world.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")];
    let mut daemon = Daemon::start_with(world.folder.path(), &world.config(), &environment);
    let mut heard = Heard { socket, messages: Vec::new() };

    heard.until(&mut daemon, "it is ready", |message| message.lines().any(|line| line == "READY=1"));
    heard.until(&mut daemon, "it lives", |message| message.lines().any(|line| line == "WATCHDOG=1"));
    daemon.until_ready();
    heard.until(&mut daemon, "its state", |message| {
        message.lines().any(|line| line.starts_with("STATUS=1 lanes, ") && line.contains(" rows committed, "))
    });
    heard.messages.clear();
    daemon.signal(Signal::HUP);
    heard.until(&mut daemon, "a reload", |message| {
        message.contains("RELOADING=1") && message.contains("MONOTONIC_USEC=")
    });
    heard.until(&mut daemon, "its end", |message| message.lines().any(|line| line == "READY=1"));
    world.proxy.down();
    heard.until(&mut daemon, "why it is not ready", |message| {
        message.contains("STATUS=not ready: ") && message.contains("database")
    });
    world.proxy.up();
    daemon.until_ready();
    daemon.signal(Signal::TERM);
    heard.until(&mut daemon, "the stop", |message| message.lines().any(|line| line == "STOPPING=1"));
    assert!(
        heard.messages.iter().any(|message| message.contains("EXTEND_TIMEOUT_USEC=30000000")),
        "{:?}",
        heard.messages
    );
    assert!(daemon.wait_for_end().success());
}

/// What systemd would have been told.
struct Heard {
    socket: UnixDatagram,
    messages: Vec<String>,
}

impl Heard {
    fn until(&mut self, daemon: &mut Daemon, what: &str, is_it: impl Fn(&str) -> bool) {
        let started = Instant::now();
        let mut buf = [0; 4_096];
        while !self.messages.iter().any(|message| is_it(message)) {
            assert!(started.elapsed() < PATIENCE, "{what} was not told: {:?}\n{}", self.messages, daemon.tail());
            if let Ok(len) = self.socket.recv(&mut buf) {
                self.messages.push(String::from_utf8_lossy(&buf[..len]).into_owned());
            }
        }
    }
}
