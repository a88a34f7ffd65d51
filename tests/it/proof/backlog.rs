//! How long it takes to be even again: a database is away while the journal grows and the daemon is killed; then the daemon
//! starts over what it finds, and the database comes back and takes the rest.
//!
//! `TAPEWAY_BACKLOG_MIB` says how far the journal grows, `TAPEWAY_BACKLOG_RATE` how many rows a second, `TAPEWAY_BINARY`
//! which daemon it is. Prints seconds per GiB; what is asserted is that everything gets there.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tapeway::loopback::{self, Options, Rate, Venue};

use super::{DATABASE, SYMBOLS, from_env, rows, write_config};
use crate::{
    cluster::{Cluster, Flavor},
    process::{self, Daemon, lanes, sum},
};

#[test]
fn a_backlog_is_recovered_and_drained() {
    let wanted = u64::from(from_env("TAPEWAY_BACKLOG_MIB").unwrap_or(BACKLOG_MIB)) << 20;
    let Some(cluster) = Cluster::start(Flavor::Timescale) else { return };
    let folder = tempfile::Builder::new().prefix("tapeway-backlog-").tempdir().unwrap();
    let rate = Rate::RowsPerSecond(from_env("TAPEWAY_BACKLOG_RATE").unwrap_or(ROWS_PER_SECOND).into());
    let options = Options { symbols: SYMBOLS, rate, is_lossless: true, ..Options::default() };
    let venues = loopback::start(options).unwrap();
    let database = cluster.database(DATABASE);
    let config = write_config(folder.path(), database.url.expose(), &venues);
    // One segment holds it all, as it came: what is read at the start, and per GiB of what the venues sent.
    let main = config.join("tapeway.yaml");
    let text = fs::read_to_string(&main).unwrap();
    let text = text.replace("segment_bytes_max: 4MiB", "segment_bytes_max: 4GiB\n  compress: false");
    fs::write(&main, text).unwrap();
    let journal = folder.path().join("journal");
    let mut daemon = Daemon::start(folder.path(), &config);
    daemon.until("it records", |status| sum(status, "rows_committed") > 10_000);

    cluster.stop();
    let (begun, before) = (Instant::now(), size(&journal));
    process::wait(Duration::from_secs(3_600), "the journal grows", || size(&journal) >= before + wanted);
    let status = daemon.until("it says how much", |_| true);
    let (grown_in, backlog_rows) = (begun.elapsed(), sum(&status, "rows_pending"));
    venues.pause();
    daemon.kill();
    let bytes = size(&journal);

    let begun = Instant::now();
    daemon.restart();
    let is_connected = |status: &serde_json::Value| {
        let lanes = lanes(status);
        lanes.len() == Venue::ALL.len() && lanes.iter().all(|lane| lane["connection"] == "open")
    };
    daemon.until("every lane records again", is_connected);
    let started = begun.elapsed();

    cluster.up();
    let begun = Instant::now();
    daemon.until_drained_within(Duration::from_secs(3_600));
    let drained = begun.elapsed();
    daemon.stop();
    drop(venues);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    println!(
        "backlog: {:.3} GiB of journal, {backlog_rows} rows, grown in {grown_in:.1?}; start over {:.3} GiB after kill -9: \
         {started:.2?}, {:.2} s/GiB; drained in {drained:.2?}, {:.1} s/GiB, {:.0} rows/s",
        gib(bytes - before),
        gib(bytes),
        started.as_secs_f64() / gib(bytes),
        drained.as_secs_f64() / gib(bytes - before),
        backlog_rows as f64 / drained.as_secs_f64()
    );
    assert!(rows::compare(&journal, (&cluster, DATABASE), "backlog") > 0);
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let size = |entry: fs::DirEntry| {
        // A file may be renamed meanwhile.
        let Ok(about) = entry.metadata() else { return 0 };
        if about.is_dir() { size(&entry.path()) } else { about.len() }
    };
    entries.map(size).sum()
}

/// How far the journal grows when nothing else is said.
const BACKLOG_MIB: u32 = 8;
/// Over all venues.
const ROWS_PER_SECOND: u32 = 20_000;
