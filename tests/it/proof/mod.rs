//! The proof: kill anything at any moment, and the database still holds exactly the rows of the journaled frames.
//!
//! Loopback venues stream from a seed to the real daemon process. Meanwhile the daemon is killed with SIGKILL, the
//! database is stopped as in a crash and started again, and its connection is cut in the middle of a COMMIT, before and
//! after the server has it. In the end, for every frame that the journal holds, the multiset of rows in the database
//! equals the rows that the adapter gives for it; and everything the venues made while nobody listened is named in
//! `audit.gaps`: trades by id, books by id or by time. A gap of trades is fetched again in the end, or says what could not
//! be had.
//!
//! Replay a failure with the seed it prints: `TAPEWAY_SEED=<n> cargo test --test it proof`. `TAPEWAY_PROOF_SECONDS` and
//! `TAPEWAY_PROOF_RATE` make it longer and faster.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tapeway::loopback::{self, Options, Rate, Venue};

use crate::{
    cluster::{Cluster, Flavor},
    process::{self, Daemon},
    proxy::{Cut, Proxy},
};

pub(crate) mod gaps;
pub(crate) mod rows;

#[test]
fn every_journaled_frame_is_in_plain_postgresql_exactly_once() {
    prove(Flavor::Plain);
}

#[test]
fn every_journaled_frame_is_in_timescaledb_exactly_once() {
    prove(Flavor::Timescale);
}

/// What is done to the daemon and the database.
#[derive(Clone, Copy, Debug)]
enum Blow {
    KillDaemon,
    CrashDatabase,
    CutCommit(Cut),
}

fn prove(flavor: Flavor) {
    let seed = from_env("TAPEWAY_SEED").unwrap_or_else(rand::random::<u32>);
    let seconds = from_env("TAPEWAY_PROOF_SECONDS").unwrap_or(SECONDS);
    let rate = from_env("TAPEWAY_PROOF_RATE").unwrap_or(ROWS_PER_SECOND);
    println!("{flavor:?}: TAPEWAY_SEED={seed}, {seconds} s at {rate} rows/s");
    let Some(cluster) = Cluster::start(flavor) else { return };
    let mut rng = SmallRng::seed_from_u64(seed.into());
    let folder = tempfile::Builder::new().prefix("tapeway-proof-").tempdir().unwrap();
    let truth = folder.path().join("truth.ndjson");
    let venues = loopback::start(Options {
        seed: seed.into(),
        symbols: SYMBOLS,
        rate: Rate::RowsPerSecond(rate.into()),
        truth: Some(truth.clone()),
        is_lossless: true,
        ..Options::default()
    })
    .unwrap();
    let proxy = Proxy::start(cluster.port);
    let database = cluster.database_at("proof", proxy.port);
    let config = write_config(folder.path(), database.url.expose(), &venues);
    let mut daemon = Daemon::start(folder.path(), &config);

    let blows = strike(&mut rng, Duration::from_secs(seconds.into()), &cluster, &proxy, &mut daemon);
    assert!(proxy.cuts() >= 2, "SEED={seed}: the connection was cut in COMMIT {} times only", proxy.cuts());

    venues.pause();
    daemon.until_drained();
    gaps::until_settled(&cluster, "proof");
    daemon.until_drained();
    daemon.stop();
    let made = venues.stop().unwrap().rows();
    let told = format!("SEED={seed}");
    let journal = folder.path().join("journal");
    let equal = rows::compare(&journal, (&cluster, "proof"), &told);
    let named = gaps::check(&truth, (&cluster, "proof"), &told);
    println!(
        "{flavor:?}: SEED={seed}: {blows:?}; venues made {made} rows; {equal} rows in the database, each exactly as its \
         frame gives it; {} trades missed and fetched again; {} trades and {} book messages not to be had, all named in \
         audit.gaps",
        named.healed, named.trades, named.books
    );
    assert!(equal > 0, "SEED={seed}: nothing was recorded");
    planted_damage_is_found(&journal, &cluster);
}

/// The comparison is worth something only if it can fail: one row is taken away, one doubled, one changed.
fn planted_damage_is_found(journal: &Path, cluster: &Cluster) {
    // TimescaleDB limits what one statement may decompress; plain PostgreSQL takes the setting without meaning.
    let damage = |sql: String| {
        cluster.psql("proof", &format!("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0; {sql}"))
    };
    let some = "WHERE (lane_id, frame_pos) IN (SELECT lane_id, frame_pos FROM market_data.trades GROUP BY 1, 2 HAVING count(*) = 1 \
                ORDER BY 1, 2 OFFSET 3 LIMIT 1)";
    let other = some.replace("OFFSET 3", "OFFSET 5");
    damage(format!("INSERT INTO market_data.trades SELECT * FROM market_data.trades {other}"));
    damage(format!("DELETE FROM market_data.trades {some}"));
    let third = some.replace("OFFSET 3", "OFFSET 7");
    damage(format!("UPDATE market_data.trades SET price = price + 1 {third}"));
    let found = rows::difference(journal, (cluster, "proof"));
    assert_eq!((found.missing, found.surplus), (2, 2), "planted damage was not found: {found:#?}");
}

/// Strikes at random moments until the time is over, each kind at least as often as promised. Returns kills, crashes and
/// cuts asked for.
fn strike(rng: &mut SmallRng, length: Duration, cluster: &Cluster, proxy: &Proxy, daemon: &mut Daemon) -> [usize; 3] {
    let mut blows = vec![Blow::KillDaemon; KILLS];
    blows.extend([Blow::CrashDatabase; CRASHES]);
    blows.extend([Cut::BeforeServer, Cut::AfterServer, Cut::AfterServer].map(Blow::CutCommit));
    for last in (1..blows.len()).rev() {
        blows.swap(last, rng.random_range(0..=last));
    }
    let pause = length / u32::try_from(blows.len()).unwrap();
    let mut counts = [0; 3];
    for blow in blows {
        let started = Instant::now();
        std::thread::sleep(pause.mul_f64(rng.random_range(0.2..0.8)));
        match blow {
            Blow::KillDaemon => {
                daemon.kill();
                std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
                daemon.restart();
                counts[0] += 1;
            }
            Blow::CrashDatabase => {
                cluster.stop();
                std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
                cluster.up();
                counts[1] += 1;
            }
            Blow::CutCommit(cut) => {
                let before = proxy.cuts();
                proxy.cut_next(cut);
                process::wait(Duration::from_secs(30), "a COMMIT goes through the proxy", || proxy.cuts() > before);
                counts[2] += 1;
            }
        }
        std::thread::sleep(pause.saturating_sub(started.elapsed()));
    }
    counts
}

fn write_config(folder: &Path, database: &str, venues: &loopback::Server) -> std::path::PathBuf {
    let config = folder.join("config");
    fs::create_dir_all(config.join("exchanges")).unwrap();
    let journal = folder.join("journal");
    let main = format!(
        "journal:\n  dir: {}\n  segment_bytes_max: 4MiB\n  free_bytes_min: 64MiB\nwriter:\n  pin: off\n\
         database:\n  url: {database}\nhttp:\n  listen: 127.0.0.1:0\nlogging:\n  level: info\n",
        journal.display(),
    );
    fs::write(config.join("tapeway.yaml"), main).unwrap();
    for venue in Venue::ALL {
        let channels = if venue == Venue::Coinbase { "[trades, book]" } else { "[trades, book, quotes]" };
        let symbols = venue.symbols(SYMBOLS).join("\", \"");
        let text = format!(
            "enabled: true\nsymbols: [\"{symbols}\"]\nchannels: {channels}\nws_url: {}\nhttp_url: {}\n\
             limits:\n  connects: 1_000\n",
            venues.ws_url(venue),
            venues.http_url(venue),
        );
        fs::write(config.join(format!("exchanges/{}.yaml", venue.name())), text).unwrap();
    }
    config
}

fn from_env(name: &str) -> Option<u32> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Length of the chaos.
const SECONDS: u32 = 22;
/// Rows a second over all venues.
const ROWS_PER_SECOND: u32 = 20_000;
/// Instruments on each venue.
const SYMBOLS: usize = 4;
/// SIGKILLs of the daemon.
const KILLS: usize = 6;
/// Immediate stops of the database.
const CRASHES: usize = 3;
