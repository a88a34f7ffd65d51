//! The proof: kill anything at any moment, and the database still holds exactly the rows of the journaled frames.
//!
//! Loopback venues stream from a seed to the real daemon process. Meanwhile the daemon is killed with SIGKILL, the
//! database is stopped as in a crash and started again, its connection is cut in the middle of a COMMIT, before and after
//! the server has it, and venues withhold messages and cut everyone off. In the end, for every frame that the journal
//! holds, the multiset of rows in the database equals the rows that the adapter gives for it; and everything the venues
//! made that is not there is named in `audit.gaps`: trades by id, books by id or by time. A gap of trades is fetched again
//! in the end, or says what could not be had.
//!
//! Replay a failure with the seed it prints: `TAPEWAY_SEED=<n> cargo test --test it proof`. Longer, faster, harder:
//!
//! ```text
//! TAPEWAY_PROOF_SECONDS, _RATE                       length, rows a second over all venues
//! TAPEWAY_PROOF_KILLS, _CRASHES, _CUTS, _VENUE_CUTS  how many blows of each kind, spread over the time
//! TAPEWAY_PROOF_KEEP=<folder>                        leave journal, database and truth there
//! TAPEWAY_PROOF_RECHECK=<what was left there>        only compare again what an earlier run left
//! TAPEWAY_BINARY=<path>                              the daemon, instead of this build's
//! ```
//!
//! The hour, with daemon, venues and comparison all in release (the comparison takes minutes, not a quarter of an hour):
//!
//! ```text
//! TAPEWAY_PROOF_SECONDS=3600 TAPEWAY_PROOF_RATE=24000 TAPEWAY_PROOF_KILLS=105 TAPEWAY_PROOF_CRASHES=32 \
//! TAPEWAY_PROOF_CUTS=52 TAPEWAY_PROOF_VENUE_CUTS=22 TAPEWAY_PROOF_KEEP=/var/tmp/chaos \
//! cargo test --release --test it proof::every_journaled_frame_is_in_timescaledb -- --nocapture
//! ```

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::SmallRng};
use tapeway::loopback::{self, Options, Rate, Venue};

use crate::{
    cluster::{Cluster, Flavor},
    process::Daemon,
    proxy::Proxy,
};
use chaos::{Done, Plan, Stage};
use gaps::Named;
use truth::{Tail, Truth};

mod backlog;
mod chaos;
mod copy;
pub(crate) mod gaps;
mod notes;
pub(crate) mod rows;
pub(crate) mod truth;

#[test]
fn every_journaled_frame_is_in_plain_postgresql_exactly_once() {
    prove(Flavor::Plain);
}

#[test]
fn every_journaled_frame_is_in_timescaledb_exactly_once() {
    prove(Flavor::Timescale);
}

fn prove(flavor: Flavor) {
    if let Some(left) = std::env::var_os("TAPEWAY_PROOF_RECHECK") {
        return recheck(Path::new(&left));
    }
    let seed = from_env("TAPEWAY_SEED").unwrap_or_else(rand::random::<u32>);
    let plan = Plan::from_env();
    println!("{flavor:?}: TAPEWAY_SEED={seed}, {plan:?}");
    let keep = std::env::var_os("TAPEWAY_PROOF_KEEP").map(PathBuf::from);
    let folder = folder(keep.as_deref());
    let pg = keep.is_some().then(|| folder.path().join("pg"));
    let Some(cluster) = Cluster::start_in(flavor, pg.as_deref()) else { return };
    if plan.length >= LONG {
        // Otherwise a crash late in a checkpoint's five minutes takes most of the next blow's time to recover from.
        cluster.append_settings("checkpoint_timeout = 60s\nshared_buffers = 256MB");
        cluster.stop();
        cluster.up();
    }
    let mut rng = SmallRng::seed_from_u64(seed.into());
    let (truth_file, truth_folder) = (folder.path().join("truth.ndjson"), folder.path().join("truth"));
    let venues = loopback::start(Options {
        seed: seed.into(),
        symbols: SYMBOLS,
        rate: Rate::RowsPerSecond(plan.rows_per_second.into()),
        truth: Some(truth_file.clone()),
        is_lossless: true,
        ..Options::default()
    })
    .unwrap();
    let tail = Tail::start(&truth_file, &truth_folder);
    let proxy = Proxy::start(cluster.port);
    let database = cluster.database_at(DATABASE, proxy.port);
    let config = write_config(folder.path(), database.url.expose(), &venues);
    let mut daemon = Daemon::start(folder.path(), &config);

    let told = format!("{flavor:?}: SEED={seed}");
    let begun = Instant::now();
    let mut stage = Stage { cluster: &cluster, proxy: &proxy, venues: &venues, daemon: &mut daemon };
    let done = chaos::strike(&plan, &mut rng, &mut stage, &told);
    // What the last blow left open ends with what comes next.
    daemon.until_ready();
    std::thread::sleep(CALM);
    let (took, limit) = (begun.elapsed(), SETTLE_MIN.max(plan.length));
    venues.pause();
    let settling = Instant::now();
    daemon.until_drained_within(limit);
    let drained = settling.elapsed();
    gaps::until_settled_within(&cluster, DATABASE, limit);
    daemon.until_drained_within(limit);
    let settled = settling.elapsed();
    daemon.stop();
    let made = venues.stop().unwrap().rows();
    let truth = tail.finish();
    let journal = folder.path().join("journal");
    let facts = format!(
        "{done:?}\n  venues made {made} rows in {took:.0?}; drained {drained:.1?}, settled {settled:.1?} after them"
    );
    if keep.is_some() {
        fs::write(folder.path().join("facts"), format!("{told}: {facts}\n")).unwrap();
        println!("{told}: left in {}; {facts}", folder.path().display());
    }
    check(&journal, &truth, &cluster, &told, &facts);
    assert_eq!(cuts(&done), proxy.cuts(), "{told}: {done:?}");
    if keep.is_some() {
        println!("{told}: start its database with: {}", cluster.leave());
    } else {
        planted_damage_is_found(&journal, &cluster);
    }
}

/// Holds rows and gaps against journal and truth, and says all counts in one block.
fn check(journal: &Path, truth: &Truth, cluster: &Cluster, told: &str, facts: &str) {
    let begun = Instant::now();
    let equal = rows::compare(journal, (cluster, DATABASE), told);
    assert!(equal > 0, "{told}: nothing was recorded");
    let rows_took = begun.elapsed();
    let Named { trades, books, healed, dropped } = gaps::check_all(truth, (cluster, DATABASE), told);
    let took = begun.elapsed();
    let mut gaps = String::new();
    for line in cluster.psql(DATABASE, GAPS).lines() {
        write!(gaps, "\n    {}", line.replace('|', "  ")).unwrap();
    }
    println!(
        "{told}: PROVEN\n  {facts}\n  {equal} rows in the database, each exactly as its journaled frame gives it: 0 \
         lost, 0 doubled\n  missed: {healed} trades fetched again; {trades} trades and {books} book messages not to be \
         had, all named in audit.gaps\n  withheld on purpose: {dropped:?}\n  compared in {took:.1?} (rows \
         {rows_took:.1?})\n  gaps by channel, cause, state: number, trades fetched again{gaps}"
    );
    assert_eq!(dropped.unnamed, 0, "{told}: withheld messages that no gap names");
}

/// Compares again what `TAPEWAY_PROOF_KEEP` left.
fn recheck(left: &Path) {
    let cluster = Cluster::reopen(&left.join("pg"));
    let facts = fs::read_to_string(left.join("facts")).unwrap_or_default();
    check(&left.join("journal"), &Truth::kept(&left.join("truth")), &cluster, "again", facts.trim());
    println!("start its database with: {}", cluster.leave());
}

/// The comparison is worth something only if it can fail: one row is taken away, one doubled, one changed.
fn planted_damage_is_found(journal: &Path, cluster: &Cluster) {
    // TimescaleDB limits what one statement may decompress; plain PostgreSQL takes the setting without meaning.
    let damage = |sql: String| {
        cluster.psql(DATABASE, &format!("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0; {sql}"))
    };
    let some = "WHERE (lane_id, frame_pos) IN (SELECT lane_id, frame_pos FROM market_data.trades GROUP BY 1, 2 HAVING count(*) = 1 \
                ORDER BY 1, 2 OFFSET 3 LIMIT 1)";
    let other = some.replace("OFFSET 3", "OFFSET 5");
    damage(format!("INSERT INTO market_data.trades SELECT * FROM market_data.trades {other}"));
    damage(format!("DELETE FROM market_data.trades {some}"));
    let third = some.replace("OFFSET 3", "OFFSET 7");
    damage(format!("UPDATE market_data.trades SET price = price + 1 {third}"));
    let found = rows::difference(journal, (cluster, DATABASE));
    assert_eq!((found.missing, found.surplus), (2, 2), "planted damage was not found: {found:#?}");
}

/// A folder that PostgreSQL's user may enter; in `keep` it stays.
fn folder(keep: Option<&Path>) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("tapeway-proof-").disable_cleanup(keep.is_some());
    let folder = match keep {
        Some(keep) => {
            fs::create_dir_all(keep).unwrap();
            builder.tempdir_in(keep.canonicalize().unwrap())
        }
        None => builder.tempdir(),
    };
    let folder = folder.unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn cuts(done: &Done) -> usize {
    (done.cuts_before + done.cuts_after) as usize
}

fn write_config(folder: &Path, database: &str, venues: &loopback::Server) -> PathBuf {
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

const GAPS: &str = "SELECT coalesce(channel, 'all'), cause, state, count(*), sum(healed_rows) FROM audit.gaps
                    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
const DATABASE: &str = "proof";
/// Instruments on each venue.
const SYMBOLS: usize = 4;
/// A run of this length has its database tuned for many crashes.
const LONG: Duration = Duration::from_secs(120);
/// Time without blows in the end.
const CALM: Duration = Duration::from_secs(2);
/// The shortest limit for what is left when the markets stand still; a long run has its own length for it.
const SETTLE_MIN: Duration = Duration::from_secs(180);
