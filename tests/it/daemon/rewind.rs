//! A database that comes back from an older backup is refilled from the journal, to the row: events, gaps, sessions and
//! rejects.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::{
    cluster::{Cluster, Flavor},
    process::{PATIENCE, sum, wait},
    proof::gaps,
};

#[test]
fn plain_postgresql_from_an_older_base_backup_is_refilled_to_the_row() {
    rewind(Flavor::Plain);
}

#[test]
fn timescaledb_from_an_older_base_backup_is_refilled_to_the_row() {
    rewind(Flavor::Timescale);
}

fn rewind(flavor: Flavor) {
    let Some(cluster) = Cluster::start(flavor) else { return };
    let setup = Setup { rate: 4_000.0, ..Setup::default() };
    let world = World::on(Arc::new(cluster), setup);
    let mut daemon = world.start_recording();
    let disturb = || {
        for venue in [Venue::BinanceSpot, Venue::Kraken] {
            for kind in ["corrupt", "drop"] {
                world.fault(&format!("kind={kind}&venue={}&channel=trades&count=2", venue.name()));
            }
        }
        world.fault("kind=close&venue=coinbase");
    };
    disturb();
    let rejects = "SELECT count(*) FROM audit.rejects";
    world.until_count(1, rejects);
    let count = "SELECT sum(rows_total) FROM audit.watermarks";
    world.cluster.back_up();
    let at_backup = world.count(count);
    let rejects_then = world.count(rejects);

    // What comes now is not in the backup: rows, sessions, gaps that end, frames that cannot be decoded; and a restart.
    disturb();
    world.until_count(rejects_then + 1, rejects);
    world.until_count(at_backup + 20_000, count);
    daemon.kill();
    daemon.restart();
    daemon.until_ready();
    world.until_count(at_backup + 30_000, count);
    let before = world.count(count);

    world.cluster.restore();
    let restored = Instant::now();
    let lost = before - world.count(count).min(before);
    wait(PATIENCE, "what was lost is there again", || world.count(count) >= before);
    println!("{flavor:?}: about {lost} rows refilled in {:.1?}", restored.elapsed());
    assert!(lost > 10_000, "the backup was not older: {before} rows, then {lost} fewer");

    std::thread::sleep(Duration::from_secs(1));
    world.venues.pause();
    daemon.until_drained();
    gaps::until_settled(&world.cluster, &world.database);
    let status = daemon.until("its rows are accounted for", |status| sum(status, "rows_pending") == 0);
    assert_eq!(sum(&status, "rows_received"), sum(&status, "rows_committed") + sum(&status, "rows_rejected"));
    let finished = world.finish(daemon);
    // The journal said so; and the disturbances are among it.
    for (table, least) in [("audit.rejects", 4), ("audit.sessions", 10), ("audit.gaps WHERE state = 'healed'", 4)] {
        let found: u64 = finished.psql(&format!("SELECT count(*) FROM {table}")).parse().unwrap();
        assert!(found >= least, "{found} rows in {table}");
    }
}
