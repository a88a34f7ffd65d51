//! What runs out or is taken away: the database's disk, the right to write the journal, the time of day; and whether a
//! thousand connections leave anything behind.

use std::{fs, sync::Arc};

use tapeway::loopback::Venue;

use super::{
    mounted::Disk,
    world::{Setup, World},
};
use crate::{
    cluster::{Cluster, Flavor},
    process::{Daemon, PATIENCE, lanes, sum, wait},
};

const SPOT: Venue = Venue::BinanceSpot;

#[test]
fn a_database_whose_disk_is_full_is_tried_again_while_the_journal_takes_it_up() {
    let Some(cluster) = Cluster::start(Flavor::Plain).map(Arc::new) else { return };
    let setup = Setup { venues: vec![SPOT], rate: 6_000.0, ..Setup::default() };
    let world = World::on(cluster.clone(), setup);
    let place = world.folder.path().join("space");
    let Some(disk) = Disk::mount(place.clone(), "256m") else { return };
    let space = place.join("postgres");
    fs::create_dir(&space).unwrap();
    cluster.own(&space);
    world.cluster.psql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", space.display()));
    world.cluster.psql("postgres", &format!("ALTER DATABASE {} SET TABLESPACE small", world.database));
    let mut daemon = world.start_recording();
    for _ in 0..2 {
        let ballast = disk.fill();
        daemon.until("the server has no room", |status| {
            let writer = &status["writers"][0];
            writer["is_database_up"] == false && writer["last_error"].to_string().contains("[53100]")
        });
        assert!(daemon.metrics().sum("tapeway_database_reconnects_total", &["reason=\"resources\""]) > 0.0);
        let before = sum(&daemon.until("it answers", |_| true), "appended");
        daemon.until("it records on", |status| sum(status, "appended") > before + 500);
        fs::remove_file(ballast).unwrap();
        daemon.until_ready();
    }
    assert_eq!(world.psql("SELECT count(*) FROM audit.rejects"), "0", "no row is at fault");
    world.finish(daemon);
    drop(cluster);
    drop(disk);
}

#[test]
fn a_journal_that_may_not_be_written_stops_the_start_and_says_where() {
    let journal = "  segment_bytes_max: 1MiB\n  free_bytes_min: 0B\n";
    let Some(world) = World::new(Setup { venues: vec![SPOT], journal, ..Setup::default() }) else { return };
    let Some(disk) = Disk::mount(world.journal(), "128m") else { return };
    let mut daemon = world.start_recording();
    daemon.kill();
    disk.set_read_only(true);
    daemon.restart();
    let status = daemon.wait_for_end();
    assert_eq!(status.code(), Some(1), "{}", daemon.tail());
    let line = daemon.logged(&["tapeway: ", "Read-only file system"]);
    assert!(line.is_some_and(|line| line.contains(&world.journal().display().to_string())), "{}", daemon.tail());
    disk.set_read_only(false);
    daemon.restart();
    daemon.until_ready();
    world.until_more(SPOT, "trades");
    world.finish(daemon);
    drop(disk);
}

/// Positions do not depend on the time of day, and rows that came in an hour that is there twice are rows like others.
#[test]
fn a_clock_that_is_set_back_an_hour_begins_connections_anew_and_changes_no_row() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    if !std::path::Path::new(library).exists() {
        println!("SKIPPED: {library} is not there (Debian package libfaketime)");
        return;
    }
    let Some(world) = World::new(Setup { venues: vec![SPOT, Venue::Kraken], ..Setup::default() }) else { return };
    let clock = world.folder.path().join("clock");
    let set = |offset: &str| {
        let next = world.folder.path().join("clock.next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, &clock).unwrap();
    };
    set("+0s\n");
    let mut daemon = world.start_with(&[
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    daemon.until_ready();
    for (offset, words) in [("-3600s\n", "set back by"), ("+3600s\n", "set forward by")] {
        for venue in [SPOT, Venue::Kraken] {
            world.until_more(venue, "trades");
        }
        set(offset);
        for lane in ["binance-spot.0", "kraken.0"] {
            daemon.until_logged(&[lane, "the host's clock was", words]);
        }
        daemon.until_ready();
    }
    for venue in [SPOT, Venue::Kraken] {
        world.until_more(venue, "trades");
    }
    let back = "SELECT count(*) FROM audit.sessions a JOIN audit.sessions b USING (lane_id)
                WHERE a.frame_pos < b.frame_pos AND a.at > b.at + interval '50 minutes'";
    assert!(world.count(back) > 0, "no time went back");
    // Recovery meets a journal whose times go back and forth.
    daemon.kill();
    daemon.restart();
    daemon.until_ready();
    assert_eq!(daemon.metrics().sum("tapeway_reconnects_total", &["reason=\"stall\""]), 0.0);
    world.finish(daemon);
}

#[test]
fn a_thousand_reconnects_leave_nothing_behind() {
    const LANES: usize = 50;
    const ROUNDS: usize = 10;
    let venue = "lanes: 50\nlimits:\n  connects: 100_000\n";
    let venues = vec![SPOT, Venue::BinanceUsdm];
    let setup = Setup { venues: venues.clone(), symbols: LANES, venue, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    let mut after_first = None;
    for round in 0..=ROUNDS {
        daemon.until("every lane is back", |status| {
            let lanes = lanes(status);
            lanes.len() == LANES * venues.len()
                && lanes.iter().all(|lane| lane["reconnects"] == round && lane["connection"] == "open")
        });
        let open: u64 = venues.iter().map(|venue| world.stats(*venue).connections_open).sum();
        assert_eq!(open, (LANES * venues.len()) as u64, "in round {round}");
        if round == 1 {
            after_first = Some(Held::of(&daemon));
        }
        if round < ROUNDS {
            world.fault("kind=close");
        }
    }
    let cut = LANES * venues.len() * ROUNDS;
    assert_eq!(
        daemon.metrics().sum("tapeway_reconnects_total", &["reason=\"lost\""]),
        f64::from(u16::try_from(cut).unwrap())
    );
    let (first, last) = (after_first.unwrap(), Held::of(&daemon));
    println!("after {} reconnects {first:?}, after {cut} {last:?}", cut / ROUNDS);
    wait(PATIENCE, "sockets and files are given back", || Held::of(&daemon).files <= first.files + 8);
    assert!(last.threads <= first.threads + 2, "{first:?} {last:?}");
    assert!(last.memory < first.memory + (128 << 20), "{first:?} {last:?}");
    world.finish_unproven(daemon);
}

/// What a process holds of the system.
#[derive(Clone, Copy, Debug)]
struct Held {
    files: usize,
    threads: usize,
    /// Resident bytes.
    memory: usize,
}

impl Held {
    fn of(daemon: &Daemon) -> Self {
        let process = format!("/proc/{}", daemon.pid());
        let count = |folder: &str| fs::read_dir(format!("{process}/{folder}")).unwrap().count();
        Self { files: count("fd"), threads: count("task"), memory: super::resident(daemon.pid()) }
    }
}
