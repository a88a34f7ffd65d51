//! A row is committed once: after its frame is on disk, whatever becomes of the database or the connection, and whoever else
//! writes the lane.

use std::{thread, time::Duration};

use tapeway::writer;
use tapeway_exchanges::{event::Events, ids::FramePos};

use super::{chunks, lane_states, prepared, states, stop, watermarks};
use crate::{
    cluster::{Cluster, Flavor, on_each},
    feeding::{self, assert_same, chunk, expected, feed, lane, settings, stored, until, until_committed},
    proxy::{Cut, Proxy},
};

#[test]
fn nothing_is_committed_before_it_is_on_disk() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "durable");
        let lane = lane("acme.0", 1, 8);
        let handle = writer::start(&settings(1, 100), &database, vec![lane.clone()]).unwrap();
        feed(&lane, chunk(0, 0, 10));
        until_committed(&lane);
        // Appended and queued, but not synced.
        lane.progress.on_append(FramePos::new(20));
        lane.queue.push(chunk(0, 10, 10)).unwrap();
        lane.writer.notify_one();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        until(|| cluster.psql("durable", waiting).trim() == "1", || "no transaction waits".into());
        assert_eq!(lane.progress.committed(), FramePos::new(10));
        assert_eq!(watermarks(cluster, "durable").split('|').nth(1), Some("10"));
        lane.progress.on_sync(FramePos::new(20));
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "durable"), &expected("acme.0", &[chunk(0, 0, 10), chunk(0, 10, 10)]));
    });
}

#[test]
fn a_database_stopped_like_a_crash_gets_every_row_once() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "crash");
        let lanes = [lane("acme.0", 1, 4), lane("acme.1", 2, 4)];
        let handle = writer::start(&settings(1, 2_000), &database, lanes.to_vec()).unwrap();
        let input = [chunks(0, 300, 100), chunks(1, 300, 100)];
        thread::scope(|scope| {
            for (lane, chunks) in lanes.iter().zip(&input) {
                scope.spawn(move || {
                    for chunk in chunks {
                        feed(lane, chunk.clone());
                        thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            for nr in 1..=3u64 {
                // In mid-COPY or just about: the feeders never pause.
                let mark = FramePos::new(nr * 6_000);
                until(|| lanes[0].progress.committed() >= mark, || lanes[0].progress.committed().to_string());
                cluster.stop();
                cluster.up();
            }
        });
        let reconnects = states(&handle)[0].reconnects;
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert!(reconnects >= 3, "{reconnects}");
        let mut rows = expected("acme.0", &input[0]);
        rows.extend(expected("acme.1", &input[1]));
        rows.sort();
        assert_same(&stored(cluster, "crash"), &rows);
        assert_eq!(lanes[0].rows.counts().0, lanes[0].rows.counts().1);
    });
}

#[test]
fn a_commit_whose_answer_never_came_is_decided_by_the_watermark() {
    on_each(|cluster, _| {
        prepared(cluster, "cut");
        let proxy = Proxy::start(cluster.port);
        let database = cluster.database_at("cut", proxy.port);
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
        let input = chunks(0, 60, 20);
        let mut cuts = 0;
        for (nr, chunk) in input.iter().enumerate() {
            if nr % 10 == 5 {
                let kind = if nr % 20 == 5 { Cut::BeforeServer } else { Cut::AfterServer };
                proxy.cut_next(kind);
                cuts += 1;
            }
            feed(&lane, chunk.clone());
            if nr % 10 == 7 {
                until(|| proxy.cuts() == cuts, || "no cut".into());
                until_committed(&lane);
            }
        }
        until_committed(&lane);
        assert_eq!(states(&handle)[0].reconnects, 6);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "cut"), &expected("acme.0", &input));
        let rows = input.iter().map(Events::rows).sum::<usize>() as u64;
        assert_eq!(lane.rows.counts(), (rows, rows, 0));
    });
}

#[test]
fn a_watermark_moved_by_someone_else_fences_the_writer() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "fence");
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
        feed(&lane, chunk(0, 0, 100));
        until_committed(&lane);
        // As if frames 100 to 149 had been written by another: the next batch, of frames 100 to 199, must not be.
        cluster.psql("fence", "UPDATE audit.watermarks SET next_pos = 150");
        feed(&lane, chunk(0, 100, 100));
        until_committed(&lane);
        let state = &states(&handle)[0];
        assert!(state.last_error.as_ref().is_some_and(|(_, text)| text.contains("another writer")), "{state:?}");
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "fence"), &expected("acme.0", &[chunk(0, 0, 100), chunk(0, 150, 50)]));
    });
}

#[test]
fn a_journal_older_than_its_watermark_is_not_written_before_it_goes_on_from_there() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "older");
    let before = lane("acme.0", 1, 8);
    let handle = writer::start(&settings(1, 500), &database, vec![before.clone()]).unwrap();
    feed(&before, chunk(0, 0, 100));
    until_committed(&before);
    assert_eq!(stop(handle, feeding::PATIENCE), []);
    let cut = lane("acme.0", 1, 8);
    cut.progress.recovered(FramePos::new(40));
    let handle = writer::start(&settings(1, 500), &database, vec![cut.clone()]).unwrap();
    let said = || states(&handle)[0].lanes.first().and_then(|lane| lane.why.clone());
    until(|| said().is_some(), || format!("{:?}", states(&handle)));
    assert_eq!(lane_states(&handle), ["acme.0 waiting"]);
    let why = said().unwrap();
    assert!(why.contains("100") && why.contains("40"), "{why}");
    feed(&cut, chunk(1, 40, 20));
    assert_eq!(stop(handle, Duration::from_secs(3)).len(), 1, "what cannot be written is named");
    assert_same(&stored(&cluster, "older"), &expected("acme.0", &[chunk(0, 0, 100)]));
}

#[test]
fn a_second_daemon_stands_by_and_goes_on_where_the_first_ended() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "standby");
        let (active, spare) = (lane("acme.0", 1, 64), lane("acme.0", 2, 64));
        let first = writer::start(&settings(1, 500), &database, vec![active.clone()]).unwrap();
        feed(&active, chunk(0, 0, 100));
        until_committed(&active);
        let second = writer::start(&settings(1, 500), &database, vec![spare.clone()]).unwrap();
        // Both hear the venue; only one writes.
        feed(&spare, chunk(0, 0, 120));
        until(|| lane_states(&second) == ["acme.0 standby"], || format!("{:?}", states(&second)));
        assert_eq!(spare.progress.committed(), FramePos::FIRST);
        assert_eq!(stop(first, feeding::PATIENCE), []);
        until_committed(&spare);
        assert_eq!(lane_states(&second), ["acme.0 claimed"]);
        assert_eq!(stop(second, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "standby"), &expected("acme.0", &[chunk(0, 0, 120)]));
        let (received, committed, rejected) = spare.rows.counts();
        assert_eq!(received, committed + rejected, "rows that the first daemon wrote are accounted for");
        let said = cluster.psql("standby", "SELECT reason, detail FROM audit.rejects");
        assert!(
            said.starts_with(&format!("written_elsewhere|{rejected} rows of the frames from 1 to before 100")),
            "{said}"
        );
    });
}
