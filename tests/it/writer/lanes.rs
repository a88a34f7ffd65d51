//! Lanes are served from when they join to their last frame, and what keeps one from it is said.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use tapeway::{
    lane::Lane,
    store,
    writer::{self, Undone},
};
use tapeway_exchanges::{event::Events, ids::FramePos};

use super::{chunks, lane_states, prepared, states, stop};
use crate::{
    cluster::{Cluster, Flavor, block_on, on_each},
    feeding::{self, assert_same, chunk, expected, feed, lane, settings, stored, until, until_committed},
};

#[test]
fn many_lanes_on_two_threads_are_written_once_each() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "lanes");
        let lanes: Vec<Arc<Lane>> = (0..5).map(|nr| lane(&format!("acme.{nr}"), nr, 4)).collect();
        let handle = writer::start(&settings(2, 300), &database, lanes.clone()).unwrap();
        let input: Vec<Vec<Events>> = (0..5).map(|nr| chunks(nr, 40, 17 + nr)).collect();
        thread::scope(|scope| {
            for (lane, chunks) in lanes.iter().zip(&input) {
                scope.spawn(move || chunks.iter().for_each(|chunk| feed(lane, chunk.clone())));
            }
        });
        assert_eq!(stop(handle, feeding::PATIENCE), [], "a stop writes what is left");
        let mut rows: Vec<String> =
            lanes.iter().zip(&input).flat_map(|(lane, chunks)| expected(&lane.name, chunks)).collect();
        rows.sort();
        assert_same(&stored(cluster, "lanes"), &rows);
        for lane in &lanes {
            let (received, committed, rejected) = lane.rows.counts();
            assert_eq!((received, 0), (committed, rejected), "received = committed + rejected + pending");
        }
    });
}

#[test]
fn a_new_lane_joins_and_a_removed_one_is_written_to_its_end() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "reload");
        let (first, second) = (lane("acme.0", 1, 64), lane("acme.1", 2, 64));
        let mut handle = writer::start(&settings(1, 100), &database, vec![first.clone()]).unwrap();
        let input = [chunks(0, 20, 10), chunks(1, 20, 10)];
        input[0].iter().for_each(|chunk| feed(&first, chunk.clone()));
        handle.add(second.clone());
        input[1].iter().for_each(|chunk| feed(&second, chunk.clone()));
        handle.remove("acme.0");
        until(|| lane_states(&handle) == ["acme.1 claimed"], || format!("{:?}", states(&handle)));
        assert_eq!(first.progress.committed(), first.progress.appended());
        until_committed(&second);
        assert!(states(&handle)[0].is_database_up);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        let mut rows = expected("acme.0", &input[0]);
        rows.extend(expected("acme.1", &input[1]));
        rows.sort();
        assert_same(&stored(cluster, "reload"), &rows);
    });
}

#[test]
fn a_stop_names_the_lanes_it_left() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "leaving");
    let lane = lane("acme.0", 1, 8);
    let handle = writer::start(&settings(1, 100), &database, vec![lane.clone()]).unwrap();
    feed(&lane, chunk(0, 0, 10));
    until_committed(&lane);
    cluster.stop();
    feed(&lane, chunk(0, 10, 10));
    let left = Undone { shard: 0, lane: "acme.0".into(), committed: FramePos::new(10), appended: FramePos::new(20) };
    assert_eq!(stop(handle, Duration::from_millis(300)), [left]);
    cluster.up();
}

#[test]
fn a_database_that_goes_away_is_noticed_with_nothing_to_write() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "quiet");
    let lane = lane("acme.0", 1, 8);
    let handle = writer::start(&settings(1, 100), &database, vec![lane]).unwrap();
    until(|| states(&handle)[0].is_database_up, || format!("{:?}", states(&handle)));
    cluster.stop();
    until(|| !states(&handle)[0].is_database_up, || format!("{:?}", states(&handle)));
    cluster.up();
    until(|| states(&handle)[0].is_database_up, || format!("{:?}", states(&handle)));
    assert_eq!(stop(handle, feeding::PATIENCE), []);
}

#[test]
fn a_writer_that_starts_before_the_schema_waits_for_it() {
    on_each(|cluster, _| {
        let database = cluster.database("early");
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
        feed(&lane, chunk(0, 0, 100));
        until(|| states(&handle)[0].last_error.is_some(), || "no error".into());
        let (_, error) = states(&handle)[0].last_error.clone().unwrap();
        assert!(error.contains("tapeway migrate"), "{error}");
        block_on(store::prepare(&database)).unwrap();
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "early"), &expected("acme.0", &[chunk(0, 0, 100)]));
    });
}

#[test]
fn a_lane_marked_behind_with_nothing_to_read_is_live_again() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "behind");
    let lane = lane("acme.0", 1, 64);
    let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
    feed(&lane, chunk(0, 0, 100));
    until_committed(&lane);
    lane.is_behind.store(true, Ordering::SeqCst);
    until(|| !lane.is_behind.load(Ordering::SeqCst), || "still behind".into());
    assert_eq!(stop(handle, feeding::PATIENCE), []);
}
