//! Two connections a lane: whatever one of them suffers, nothing is missing, nothing is doubled and nothing is a gap.
//!
//! `TAPEWAY_TWINS_SECONDS` makes it longer.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tapeway::loopback::Venue;
use tokio_tungstenite::tungstenite;

use super::world::{Finished, Setup, World};
use crate::process::{Daemon, lanes};

#[test]
fn connections_cut_every_few_seconds_leave_no_gap_and_no_double_when_each_has_a_twin() {
    let setup = Setup { rate: ROWS_PER_SECOND, symbols: 4, venue: "redundancy: 2\n", ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    until_both_open(&mut daemon);
    let reconnects = |daemon: &mut Daemon| daemon.metrics().sum("tapeway_reconnects_total", &["reason=\"lost\""]);
    let length = std::env::var("TAPEWAY_TWINS_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let (start, mut cuts) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(length) || cuts < 3 {
        sleep(BETWEEN_CUTS);
        until_both_open(&mut daemon);
        let before = reconnects(&mut daemon);
        world.fault("kind=close_one");
        let cut = format!("one connection of every venue is cut, {before} were");
        daemon.until(&cut, |status| lost(status) >= before + 4.0);
        cuts += 1;
    }
    until_both_open(&mut daemon);
    let metrics = daemon.metrics();
    for venue in Venue::ALL {
        let label = format!("venue=\"{}\"", venue.name());
        let [repeats, filled] = ["tapeway_repeats_dropped_total", "tapeway_holes_filled_total"];
        let (repeats, filled) = (metrics.sum(repeats, &[&label]), metrics.sum(filled, &[&label]));
        println!("{venue}: {repeats} repeats not stored, {filled} holes of one connection filled by the other");
        assert!(repeats > 0.0, "{venue}: the twin delivered nothing");
        assert_eq!(metrics.sum("tapeway_gaps_total", &[&label]), 0.0, "{venue}");
    }
    let finished = world.finish(daemon);
    assert_whole(&finished, Cause::Downtime);
    println!("{cuts} cuts of each of {} venues", Venue::ALL.len());
}

#[test]
fn a_connection_at_the_end_of_its_life_is_replaced_before_it_ends() {
    let setup = Setup {
        rate: ROWS_PER_SECOND / 4.0,
        venue: "limits:\n  connects: 1_000\n  lifetime: 10s\n",
        ..Setup::default()
    };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    daemon.until("every connection was replaced twice", |status| {
        lanes(status).iter().all(|lane| lane["reconnects"].as_u64() >= Some(2))
    });
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("tapeway_gaps_total", &[]), 0.0);
    assert!(metrics.sum("tapeway_reconnects_total", &["reason=\"rotation\""]) >= 8.0);
    assert_eq!(metrics.sum("tapeway_reconnects_total", &["reason=\"lost\""]), 0.0);
    assert_whole(&world.finish(daemon), Cause::Downtime);
}

#[test]
fn a_venue_that_announces_its_restart_is_left_for_a_new_connection_without_a_gap() {
    let venues = vec![Venue::BinanceSpot, Venue::BinanceUsdm];
    let Some(world) = World::new(Setup { venues, ..Setup::default() }) else { return };
    let mut daemon = world.start_recording();
    world.fault("kind=notice");
    daemon.until("every connection was replaced", |status| {
        lanes(status).iter().all(|lane| lane["reconnects"] == 1 && lane["connections"].as_array().unwrap().len() == 1)
    });
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("tapeway_reconnects_total", &["reason=\"venue_restart\""]), 2.0);
    assert_eq!(metrics.sum("tapeway_gaps_total", &[]), 0.0);
    assert_whole(&world.finish(daemon), Cause::Downtime);
}

#[test]
fn a_connection_that_is_replaced_is_read_to_its_end() {
    let Some(world) = World::new(Setup { venues: vec![Venue::Coinbase], symbols: 1, ..Setup::default() }) else {
        return;
    };
    let text = format!(
        "enabled: true\nsymbols: [BTC-USD]\nchannels: [trades]\nws_url: ws://127.0.0.1:{}\nhttp_url: {}\n\
         limits:\n  connects: 1_000\n  lifetime: 10s\n",
        lagging(),
        world.venues.http_url(Venue::Coinbase),
    );
    fs::write(world.venue_file(Venue::Coinbase), text).unwrap();
    let mut daemon = world.start();
    daemon.until("two connections were replaced", |status| {
        lanes(status).iter().any(|lane| lane["reconnects"].as_u64() >= Some(2))
    });
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("tapeway_reconnects_total", &["reason=\"lost\""]), 0.0);
    assert_eq!(metrics.sum("tapeway_gaps_total", &[]), 0.0);
    daemon.until_drained();
    let trades = world.psql("SELECT trade_id FROM market_data.trades ORDER BY 1");
    let trades: Vec<i64> = trades.lines().map(|id| id.parse().unwrap()).collect();
    assert!(trades.len() >= 6 && trades.windows(2).all(|ids| ids[1] == ids[0] + 1), "{trades:?}");
    daemon.stop();
}

#[test]
fn a_twin_comes_and_goes_with_a_reload_and_a_killed_daemon_goes_on_with_both() {
    let Some(world) = World::new(Setup { symbols: 3, ..Setup::default() }) else { return };
    let mut daemon = world.start_recording();
    let write = |redundancy: &str, symbols: usize| {
        for venue in Venue::ALL {
            world.write_venue(venue, &venue.symbols(3)[..symbols], redundancy);
        }
    };
    write("redundancy: 2\n", 3);
    daemon.signal(Signal::HUP);
    until_both_open(&mut daemon);
    write("redundancy: 2\n", 2);
    daemon.signal(Signal::HUP);
    daemon.until("both connections of every lane have two symbols", |status| {
        let live = |lane: &Value| {
            let per_symbol = if lane["venue"] == "coinbase" { 2 } else { 3 };
            lane["subscriptions"]["live"] == 2 * 2 * per_symbol
        };
        lanes(status).into_iter().all(live)
    });
    write("redundancy: 1\n", 2);
    daemon.signal(Signal::HUP);
    daemon.until("every lane has one connection", |status| {
        lanes(status).iter().all(|lane| lane["connections"].as_array().unwrap().len() == 1)
    });
    assert_eq!(daemon.metrics().sum("tapeway_gaps_total", &[]), 0.0);
    write("redundancy: 2\n", 2);
    daemon.signal(Signal::HUP);
    until_both_open(&mut daemon);
    assert_eq!(daemon.metrics().sum("tapeway_gaps_total", &[]), 0.0);
    daemon.kill();
    daemon.restart();
    daemon.until_ready();
    until_both_open(&mut daemon);
    for venue in Venue::ALL {
        world.until_more(venue, "book_deltas");
    }
    let finished = world.finish(daemon);
    let ends =
        finished.psql("SELECT count(*) FROM audit.sessions WHERE detail LIKE '%the process ended while it was open'");
    assert_eq!(ends, "8", "the end of both connections of each lane is journaled by the next start");
    let seconds = finished.psql("SELECT count(*) FROM audit.sessions WHERE detail LIKE 'connection 1: %'");
    assert!(seconds.parse::<u32>().unwrap() >= 16, "{seconds} opens and closes of second connections");
}

/// A venue whose connections lag: each brings a trade, and the two after that when it is told that it is closed. The next
/// connection begins behind them. Gives its port.
fn lagging() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (nr, stream) in (0..).zip(listener.incoming()) {
            // A connection ends as it ends.
            thread::spawn(move || drop(lag(stream.unwrap(), nr * 3)));
        }
    });
    port
}

fn lag(stream: TcpStream, before: i64) -> io::Result<()> {
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    let mut stream = tungstenite::accept(stream).map_err(io::Error::other)?.get_ref().try_clone()?;
    let put = |stream: &mut TcpStream, text: &str| {
        let len = u16::try_from(text.len()).unwrap().to_be_bytes();
        stream.write_all(&[&[TEXT, 126], &len[..], text.as_bytes()].concat())
    };
    let trade = |kind: &str, id: i64| {
        format!(
            "{{\"type\":\"{kind}\",\"trade_id\":{id},\"side\":\"buy\",\"size\":\"1\",\"price\":\"100\",\
             \"product_id\":\"BTC-USD\",\"sequence\":{id},\"time\":\"2026-01-01T00:00:00.{id:06}Z\"}}"
        )
    };
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let mut len = [0; 2];
        if head[1] & 0x7F == 126 {
            stream.read_exact(&mut len)?;
        } else {
            len[1] = head[1] & 0x7F;
        }
        let mut rest = vec![0; usize::from(u16::from_be_bytes(len)) + 4]; // And a mask.
        stream.read_exact(&mut rest)?;
        match head[0] {
            TEXT => {
                put(
                    &mut stream,
                    r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]}]}"#,
                )?;
                put(&mut stream, &trade("last_match", before + 1))?;
            }
            CLOSE => {
                put(&mut stream, &trade("match", before + 2))?;
                put(&mut stream, &trade("match", before + 3))?;
                return stream.write_all(&[CLOSE, 0]);
            }
            _ => {}
        }
    }
}

/// What may have ended the recording.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Downtime,
}

/// Every trade, book message and quote between the first and the last recorded is there, once; and there is no gap but
/// the one that begins with the stop.
fn assert_whole(finished: &Finished, end: Cause) {
    let Cause::Downtime = end;
    let gaps = finished.psql("SELECT count(*) FROM audit.gaps WHERE NOT (state = 'open' AND cause = 'downtime')");
    assert_eq!(gaps, "0", "{}", finished.psql("SELECT * FROM audit.gaps WHERE cause <> 'downtime' LIMIT 9"));
    let doubled = finished.psql(
        "SELECT count(*) FROM (SELECT instrument_id, trade_id FROM market_data.trades GROUP BY 1, 2 HAVING count(*) > 1) t",
    );
    assert_eq!(doubled, "0", "trades are doubled");
    let mut stored: HashMap<Key, Vec<i64>> = HashMap::new();
    let rows = finished.psql(
        "SELECT venue, symbol, COALESCE(seq, (extract(epoch FROM time) * 1000000)::bigint), side, price, qty, count(*)
         FROM market_data.book_deltas JOIN market_data.instruments USING (instrument_id)
         WHERE flags & 2 = 0 GROUP BY 1, 2, 3, 4, 5, 6",
    );
    for row in rows.lines() {
        let fields: Vec<&str> = row.split('|').collect();
        let key = (fields[0].into(), fields[1].into(), fields[2].parse().unwrap());
        stored.entry(key).or_default().push(fields[6].parse().unwrap());
    }
    let mut made: HashMap<Key, usize> = HashMap::new();
    for line in
        finished.truth(|line| line["kind"] == "book" && (line["depth"].is_null() || line["depth"] == KRAKEN_DEPTH))
    {
        let id = line["u"].as_i64().or_else(|| line["time_us"].as_i64()).unwrap();
        let key = (text(&line, "venue"), text(&line, "symbol"), id);
        let levels = |side: &str| line[side].as_array().map_or(0, Vec::len);
        *made.entry(key).or_default() += levels("bids") + levels("asks");
    }
    let mut ends: HashMap<(&str, &str), (i64, i64)> = HashMap::new();
    for (venue, symbol, id) in stored.keys() {
        let (first, last) = ends.entry((venue, symbol)).or_insert((*id, *id));
        (*first, *last) = ((*first).min(*id), (*last).max(*id));
    }
    let (mut whole, mut wrong) = (0, Vec::new());
    for (key, levels) in &made {
        let Some((first, last)) = ends.get(&(key.0.as_str(), key.1.as_str())) else { continue };
        if *first < key.2 && key.2 < *last {
            let rows: i64 = stored.get(key).map_or(0, |counts| counts.iter().sum());
            whole += 1;
            if rows != i64::try_from(*levels).unwrap() {
                wrong.push(format!("{key:?}: {rows} rows stored, {levels} levels made"));
            }
        }
    }
    assert!(whole > 0, "nothing to compare");
    let rows = ["trades", "book_deltas", "quotes"]
        .map(|table| finished.psql(&format!("SELECT count(*) FROM market_data.{table}")));
    println!("{whole} book messages whole; rows of trades, book_deltas, quotes: {}", rows.join(", "));
    let doubled = finished.psql(
        "SELECT count(*) FROM (SELECT instrument_id, seq FROM market_data.quotes WHERE seq IS NOT NULL
         GROUP BY 1, 2 HAVING count(*) > 1) t",
    );
    assert_eq!(doubled, "0", "quotes are doubled");
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {whole} book messages: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
}

type Key = (String, String, i64);

fn text(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap().into()
}

fn until_both_open(daemon: &mut Daemon) {
    daemon.until("both connections of every lane are open and answered", |status| {
        lanes(status).iter().all(|lane| {
            let connections = lane["connections"].as_array().unwrap();
            let is_good = |one: &Value| one["is_open"] == true && one["subscriptions"]["requested"] == 0;
            connections.len() == 2 && connections.iter().all(is_good)
        })
    });
}

fn lost(status: &Value) -> f64 {
    lanes(status).iter().filter_map(|lane| lane["reconnects"].as_f64()).sum()
}

/// Length of the cuts.
const SECONDS: u64 = 15;
/// Rows a second over all venues.
const ROWS_PER_SECOND: f64 = 20_000.0;
/// Levels a side that are asked of Kraken.
const KRAKEN_DEPTH: u32 = 100;
/// Between two cuts.
const BETWEEN_CUTS: Duration = Duration::from_millis(2_500);
