//! A journal without room: recording stops, loudly, before anything uncommitted is given up; and goes on by itself.

use tapeway::{demo::truth, loopback::Venue};

use super::{
    mounted::Disk,
    world::{Setup, World},
};
use crate::{
    cluster::block_on,
    process::{Daemon, PATIENCE, lane, wait},
    proof::gaps,
};

const SPOT: Venue = Venue::BinanceSpot;

#[test]
fn a_journal_at_its_free_bytes_stops_the_sockets_and_goes_on_when_the_database_is_back() {
    fill_and_recover("  segment_bytes_max: 1MiB\n  free_bytes_min: 2MiB\n", "5m");
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_is_survived_as_well() {
    fill_and_recover("  segment_bytes_max: 1MiB\n  free_bytes_min: 0B\n  compress: false\n", "5m");
}

fn fill_and_recover(journal: &'static str, size: &str) {
    let setup = Setup { venues: vec![SPOT], rate: 12_000.0, journal, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let Some(disk) = Disk::mount(world.journal(), size) else { return };
    let mut daemon = world.start_recording();
    world.proxy.down();
    until_full(&world, &mut daemon);
    let line = daemon.until_logged(&["ERROR", "the journal cannot take more", "the socket is closed"]);
    assert!(line.contains("binance-spot.0"), "{line}");
    let committed = world.count("SELECT next_pos FROM audit.watermarks");

    // A start finds the disk as full as it was; that must not keep it from draining later.
    daemon.kill();
    daemon.restart();
    until_full(&world, &mut daemon);
    assert_eq!(world.count("SELECT next_pos FROM audit.watermarks"), committed, "nothing can have been committed");

    world.proxy.up();
    daemon.until_ready();
    wait(PATIENCE, "the alert ends", || daemon.metrics().sum("tapeway_journal_full", &[]) == 0.0);
    let before = world.rows(SPOT, "trades");
    wait(PATIENCE, "recording goes on", || world.rows(SPOT, "trades") > before + 1_000);
    world.until_count(0, "SELECT count(*) FROM audit.gaps WHERE cause = 'downtime' AND channel = 'trades'");

    world.venues.pause();
    daemon.until_drained();
    daemon.stop();
    let World { folder, cluster, database, venues, .. } = world;
    venues.stop().unwrap();
    let path = folder.path().join("truth.ndjson");
    gaps::check(&path, (&cluster, &database), &database);
    // Segments were given up once committed, so the rows are held against the venues. What they sent last before a socket
    // closed is missing, and named.
    let url = cluster.database_at(&database, cluster.port).url;
    let comparison = block_on(truth::compare(&path, url.expose())).unwrap();
    assert_eq!((comparison.doubled, comparison.invented), (0, 0), "{comparison:?}");
    assert!(comparison.equal > 2_000, "{comparison:?}");
    let lost =
        cluster.psql(&database, "SELECT count(*) FROM audit.rejects WHERE detail LIKE '%no longer in the journal%'");
    assert_eq!(lost.trim(), "0", "something uncommitted was given up");
    drop(disk);
}

fn until_full(world: &World, daemon: &mut Daemon) {
    daemon.until("the lane says that the journal is full", |status| {
        lane(status, "binance-spot.0")["connection"] == "journal_full"
    });
    wait(PATIENCE, "the socket is closed", || world.stats(SPOT).connections_open == 0);
    wait(PATIENCE, "the alert's metric is up", || daemon.metrics().sum("tapeway_journal_full", &[]) == 1.0);
    let (code, text) = daemon.readyz();
    assert!(code == 503 && text.contains("lane binance-spot.0: the journal is full"), "{text}");
    let table = daemon.table();
    assert!(table.lines().any(|line| line.starts_with("binance-spot.0") && line.contains("JOURNAL FULL")), "{table}");
}
