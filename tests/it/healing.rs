//! Trades that were missed are in the database in the end, each once and as the venue made it.
//!
//! Loopback venues withhold, repeat and swap trades and refuse some requests, and the daemon is killed again and again.
//! When the markets stand still and no gap is open any more, every trade made between the first and the last one seen is
//! there exactly once, with the time, side, price and quantity of the truth file; but for those that USD-M does not
//! serve, which are named by gaps that say so. Replay a failure with the seed it prints: `TAPEWAY_SEED=<n>`.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::Deserialize;
use tapeway::loopback::{self, Kinds, Options, Rate, Venue};

use crate::{
    cluster::{Cluster, Flavor},
    process::{self, Daemon},
    proof::{gaps, rows},
};

#[test]
fn every_trade_a_venue_serves_is_there_once_whatever_was_missed() {
    let seed = std::env::var("TAPEWAY_SEED").map_or_else(|_| rand::random(), |seed| seed.parse::<u32>().unwrap());
    println!("TAPEWAY_SEED={seed}");
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let mut rng = SmallRng::seed_from_u64(seed.into());
    let folder = tempfile::Builder::new().prefix("tapeway-healing-").tempdir().unwrap();
    let truth = folder.path().join("truth.ndjson");
    let faults = [
        "kind=drop&channel=trades&p=0.01",
        "kind=duplicate&channel=trades&p=0.01",
        "kind=swap&channel=trades&p=0.01",
        "kind=corrupt&channel=trades&p=0.002",
        "kind=deny_http&p=0.05&status=500",
        "kind=deny_http&p=0.02&status=429",
    ];
    let venues = loopback::start(Options {
        seed: seed.into(),
        symbols: SYMBOLS,
        rate: Rate::RowsPerSecond(ROWS_PER_SECOND),
        kinds: Kinds { has_trades: true, has_book: false, has_quotes: false },
        truth: Some(truth.clone()),
        is_lossless: true,
        faults: faults.map(|fault| fault.parse().unwrap()).to_vec(),
        ..Options::default()
    })
    .unwrap();
    let database = cluster.database("healing");
    let config = write_config(folder.path(), database.url.expose(), &venues);
    let mut daemon = Daemon::start(folder.path(), &config);
    let stored = || cluster.psql("healing", "SELECT to_regclass('market_data.trades')").trim().len() > 2;
    process::wait(Duration::from_secs(60), "the tables are there", stored);
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(rng.random_range(1_500..3_500)));
        daemon.kill();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..2_500)));
        daemon.restart();
    }
    std::thread::sleep(Duration::from_secs(2));
    venues.pause();
    daemon.until_drained();
    gaps::until_settled(&cluster, "healing");
    daemon.until_drained();
    daemon.stop();
    venues.stop().unwrap();

    let told = format!("SEED={seed}");
    rows::compare(&folder.path().join("journal"), (&cluster, "healing"), &told);
    gaps::check(&truth, (&cluster, "healing"), &told);
    let stored = stored_trades(&cluster, seed);
    let missing = missing(&truth, &stored, seed);
    let count = |sql: &str| cluster.psql("healing", sql).trim().parse::<u64>().unwrap();
    let fetched = count("SELECT count(*) FROM market_data.trades WHERE flags & 4 <> 0");
    let healed = count("SELECT count(*) FROM audit.gaps WHERE state = 'healed'");
    let downtimes = count("SELECT count(*) FROM audit.gaps WHERE state = 'healed' AND cause = 'downtime'");
    // Each of the others holds a trade outside the book, says so, and counts right.
    let rest = cluster.psql(
        "healing",
        "SELECT g.venue, i.symbol, first_missing, last_missing, healed_rows, detail
         FROM audit.gaps g JOIN market_data.instruments i USING (instrument_id) WHERE state = 'unhealable'",
    );
    let mut named = 0;
    for line in rest.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [first, last, rows] = [2, 3, 4].map(|at| fields[at].parse::<i64>().unwrap());
        let of_gap = |key: &&Key| key.0 == fields[0] && key.1 == fields[1] && (first..=last).contains(&key.2);
        let lost = missing.iter().filter(of_gap).count();
        assert!(lost > 0, "SEED={seed}: nothing of a gap is missing: {line}");
        assert_eq!(i64::try_from(lost).unwrap() + rows, last - first + 1, "SEED={seed}: {line}");
        assert!(fields[5].starts_with(&format!("{lost} trades: the venue")), "SEED={seed}: {line}");
        named += lost;
    }
    println!(
        "SEED={seed}: {} trades stored, {fetched} of them fetched; {healed} gaps healed, {downtimes} of them of downtimes; \
         {} trades outside the book not served and named",
        stored.len(),
        missing.len()
    );
    assert_eq!(named, missing.len(), "SEED={seed}: a missing trade is in no gap: {missing:?}");
    assert!(fetched > 100 && downtimes > 0, "SEED={seed}: hardly anything was missed");
}

/// Venue, symbol, trade id.
type Key = (String, String, i64);

/// What is stored of each trade: time in microseconds, side, price, quantity. Panics when one is there twice.
fn stored_trades(cluster: &Cluster, seed: u32) -> HashMap<Key, String> {
    let mut stored = HashMap::new();
    let rows = cluster.psql(
        "healing",
        "SELECT i.venue, i.symbol, trade_id, concat_ws(' ', (extract(epoch FROM time) * 1000000)::bigint, side, price, qty)
         FROM market_data.trades JOIN market_data.instruments i USING (instrument_id)",
    );
    for line in rows.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let key = (fields[0].into(), fields[1].into(), fields[2].parse().unwrap());
        let twice = stored.insert(key, fields[3].to_owned());
        assert_eq!(twice, None, "SEED={seed}: {line} is there twice");
    }
    stored
}

#[derive(Deserialize)]
struct Line {
    venue: String,
    #[serde(default)]
    symbol: String,
    kind: String,
    #[serde(default)]
    id: i64,
    #[serde(default)]
    price: String,
    #[serde(default)]
    qty: String,
    #[serde(default)]
    side: String,
    #[serde(default)]
    time_us: i64,
    #[serde(default)]
    off_book: bool,
}

/// Trades between the first and the last one stored of their instrument that are not there. Panics when one is there
/// otherwise than it was made, was never made, or is missing though the venue serves it.
fn missing(truth: &Path, stored: &HashMap<Key, String>, seed: u32) -> Vec<Key> {
    let mut ends: HashMap<(&str, &str), (i64, i64)> = HashMap::new();
    for (venue, symbol, id) in stored.keys() {
        let (first, last) = ends.entry((venue, symbol)).or_insert((*id, *id));
        (*first, *last) = ((*first).min(*id), (*last).max(*id));
    }
    assert_eq!(ends.len(), SYMBOLS * Venue::ALL.len(), "SEED={seed}: not every instrument was recorded");
    let (mut missing, mut found) = (Vec::new(), 0);
    for line in BufReader::new(File::open(truth).unwrap()).lines() {
        let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
        if line.kind != "trade" {
            continue;
        }
        let unit = if line.venue.starts_with("binance") { 1_000 } else { 1 };
        let side = if line.side == "buy" { 1 } else { -1 };
        let made = format!("{} {side} {} {}", line.time_us / unit * unit, line.price, line.qty);
        let (first, last) = ends[&(line.venue.as_str(), line.symbol.as_str())];
        let key = (line.venue, line.symbol, line.id);
        match stored.get(&key) {
            Some(stored) => {
                assert_eq!(*stored, made, "SEED={seed}: {key:?} is not as it was made");
                found += 1;
            }
            None if (first..=last).contains(&key.2) => {
                assert!(line.off_book, "SEED={seed}: {key:?} is missing and the venue serves it");
                missing.push(key);
            }
            None => {}
        }
    }
    assert_eq!(found, stored.len(), "SEED={seed}: a trade is stored that was never made");
    missing
}

fn write_config(folder: &Path, database: &str, venues: &loopback::Server) -> PathBuf {
    let config = folder.join("config");
    fs::create_dir_all(config.join("exchanges")).unwrap();
    let main = format!(
        "journal:\n  dir: {}\n  segment_bytes_max: 4MiB\n  free_bytes_min: 64MiB\nwriter:\n  pin: off\n\
         database:\n  url: {database}\nhttp:\n  listen: 127.0.0.1:{}\nlogging:\n  level: info\n",
        folder.join("journal").display(),
        tapeway::demo::cluster::free_port().unwrap(),
    );
    fs::write(config.join("tapeway.yaml"), main).unwrap();
    for venue in Venue::ALL {
        let symbols = venue.symbols(SYMBOLS).join("\", \"");
        let text = format!(
            "enabled: true\nsymbols: [\"{symbols}\"]\nchannels: [trades]\nws_url: {}\nhttp_url: {}\n\
             limits:\n  connects: 1_000\n",
            venues.ws_url(venue),
            venues.http_url(venue),
        );
        fs::write(config.join(format!("exchanges/{}.yaml", venue.name())), text).unwrap();
    }
    config
}

/// Trades a second over all venues.
const ROWS_PER_SECOND: f64 = 2_000.0;
/// Instruments on each venue.
const SYMBOLS: usize = 3;
/// SIGKILLs of the daemon.
const KILLS: usize = 5;
