//! Catch-up: what the queue could not hold, a restart found, or an older database lacks, comes from the journal,
//! every row once.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use tapeway::{
    config,
    journal::Journal,
    journal::LaneJournal,
    lane::{Lane, Rows},
    metrics::SessionMetrics,
    queue::Queue,
    replay::Replay,
    store, writer,
};
use tapeway_exchanges::conn::Conn;
use tapeway_exchanges::{adapter::At, decoder::Decoder, ids::FramePos, input::Kind};
use tokio::{sync::Notify, time::Instant};

use crate::{
    cluster::{block_on, on_each},
    feeding::{self, ACME, assert_same, chunk, expected, received, settings, stored, until, until_committed},
};

/// A lane with its journal and decoder: a session without a socket.
pub(crate) struct Session {
    pub(crate) lane: Arc<Lane>,
    journal: LaneJournal,
    decoder: Decoder,
    metrics: SessionMetrics,
}

impl Session {
    /// Recovers the lane and stands at its end.
    pub(crate) fn start(journal: &Journal, chunks_max: usize) -> Self {
        let (mut lane_journal, recovered) = journal.lane("acme", "acme.0").unwrap();
        let lane = Arc::new(Lane {
            name: "acme.0".into(),
            venue: &ACME,
            journal_id: lane_journal.identity().journal_id,
            disk: lane_journal.disk(),
            dir: lane_journal.dir().into(),
            progress: lane_journal.progress(),
            rows: Rows::default(),
            queue: Queue::new(chunks_max),
            is_behind: AtomicBool::new(false),
            writer: Arc::new(Notify::new()),
        });
        let decoder = if recovered.end == FramePos::FIRST {
            Decoder::new(&ACME, FramePos::FIRST)
        } else {
            Replay::open(&lane, recovered.end).unwrap().into_decoder()
        };
        lane_journal.begin(&decoder.state()).unwrap();
        lane.rows.on_receive(decoder.rows_total());
        Self { lane, journal: lane_journal, decoder, metrics: SessionMetrics::new("acme", "acme.0") }
    }

    /// Takes this many frames, in chunks of 50.
    pub(crate) fn take(&mut self, frames: u64) {
        for _ in 0..frames / 50 {
            for _ in 0..50 {
                let pos = self.journal.next();
                let at = At { pos, received: received(pos.get()), conn: Conn::FIRST };
                self.journal.append(Kind::Text, at.received, b"0").unwrap();
                self.decoder.apply(at, Kind::Text, &mut b"0".to_vec());
            }
            self.journal.flush().unwrap();
            let chunk = self.decoder.swap_events(self.lane.queue.spare());
            self.lane.rows.on_receive(chunk.rows_total);
            self.lane.offer(chunk, &self.metrics);
            if self.journal.is_roll_due() {
                self.journal.roll(&self.decoder.state()).unwrap();
            }
        }
    }
}

fn journal(dir: &Path) -> Journal {
    Journal::open(&config::Journal {
        dir: dir.into(),
        segment_bytes_max: 40_000,
        sync_interval: Duration::from_millis(2),
        keep_for: Duration::from_secs(86_400),
        bytes_max: 1 << 30,
        free_bytes_min: 0,
        is_compressed: false,
    })
    .unwrap()
}

pub(crate) fn assert_complete(session: &Session) {
    let (received, committed, rejected) = session.lane.rows.counts();
    assert_eq!(received, committed + rejected, "received = committed + rejected + pending");
}

#[test]
fn a_queue_that_overflows_while_the_database_is_down_loses_nothing() {
    on_each(|cluster, _| {
        let database = cluster.database("overflow");
        block_on(store::prepare(&database)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        let mut session = Session::start(&journal, 4);
        let lane = session.lane.clone();
        let handle = writer::start(&settings(1, 2_000), &database, vec![lane.clone()]).unwrap();
        session.take(500);
        until_committed(&lane);
        cluster.stop();
        session.take(20_000);
        assert!(lane.is_behind.load(Ordering::SeqCst), "a queue of 4 chunks does not hold 400");
        cluster.up();
        session.take(5_000);
        until_committed(&lane);
        until(|| !lane.is_behind.load(Ordering::SeqCst), || "still behind".into());
        // Live again: what comes now comes through the queue.
        session.take(1_000);
        until_committed(&lane);
        assert_eq!(block_on(handle.stop(Instant::now() + feeding::PATIENCE)), []);
        assert_same(&stored(cluster, "overflow"), &expected("acme.0", &[chunk(0, 0, 26_500)]));
        assert_complete(&session);
    });
}

#[test]
fn a_restart_and_a_database_from_an_older_backup_are_refilled_from_the_journal() {
    on_each(|cluster, _| {
        let database = cluster.database("restart");
        block_on(store::prepare(&database)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for nr in 1..=3u64 {
            let journal = journal(folder.path());
            let mut session = Session::start(&journal, 4);
            let handle = writer::start(&settings(1, 700), &database, vec![session.lane.clone()]).unwrap();
            if nr == 2 {
                // Nothing new comes: what the last run left is read all the same.
                until_committed(&session.lane);
            }
            session.take(4_000);
            // The handle is dropped in the middle of it, as a process dies.
            until(|| session.lane.progress.committed() > FramePos::new(nr * 1_000), || "no progress".into());
            drop(handle);
        }
        let journal = journal(folder.path());
        let session = Session::start(&journal, 4);
        let handle = writer::start(&settings(1, 700), &database, vec![session.lane.clone()]).unwrap();
        until_committed(&session.lane);
        assert_eq!(block_on(handle.stop(Instant::now() + feeding::PATIENCE)), []);
        let rows = expected("acme.0", &[chunk(0, 0, 12_000)]);
        assert_same(&stored(cluster, "restart"), &rows);
        assert_complete(&session);

        let restored = expected("acme.0", &[chunk(0, 0, 3_000)]).len();
        for table in ["trades", "book_deltas", "quotes"] {
            cluster.psql("restart", &format!("DELETE FROM market_data.{table} WHERE frame_pos >= 3000"));
        }
        cluster.psql("restart", &format!("UPDATE audit.watermarks SET next_pos = 3000, rows_total = {restored}"));
        let handle = writer::start(&settings(1, 700), &database, vec![session.lane.clone()]).unwrap();
        until(
            || session.lane.progress.committed() == FramePos::new(3_000),
            || "the older watermark is not seen".into(),
        );
        until_committed(&session.lane);
        assert_eq!(block_on(handle.stop(Instant::now() + feeding::PATIENCE)), []);
        assert_same(&stored(cluster, "restart"), &rows);
        assert_complete(&session);
    });
}

#[test]
fn frames_that_the_journal_no_longer_has_are_a_gap_and_the_rest_is_written() {
    on_each(|cluster, _| {
        let database = cluster.database("gone");
        block_on(store::prepare(&database)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        let mut session = Session::start(&journal, 4);
        session.take(6_000);
        let mut segments: Vec<_> = fs::read_dir(&session.lane.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        segments.sort();
        assert!(segments.len() > 3, "{segments:?}");
        for lost in &segments[..2] {
            fs::remove_file(lost).unwrap();
        }
        // The queue has none of it either.
        while session.lane.queue.pop().is_some() {}
        let handle = writer::start(&settings(1, 700), &database, vec![session.lane.clone()]).unwrap();
        until_committed(&session.lane);
        assert_eq!(block_on(handle.stop(Instant::now() + feeding::PATIENCE)), []);
        let first: u64 = cluster.psql("gone", "SELECT min(frame_pos) FROM market_data.trades").trim().parse().unwrap();
        let begin = Replay::open(&session.lane, FramePos::FIRST).unwrap_err().to_string();
        let gap = cluster.psql("gone", "SELECT frame_pos, ordinal, cause, state, detail FROM audit.gaps");
        assert!(gap.starts_with("0|-1|journal_lost|unhealable|"), "{gap}");
        let end: u64 = gap.split("to before ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        assert!(begin.contains(&end.to_string()) && first >= end, "{begin}, {gap}");
        assert_same(&stored(cluster, "gone"), &expected("acme.0", &[chunk(0, end, 6_000 - end)]));
        assert_complete(&session);
        let lost = expected("acme.0", &[chunk(0, 0, end)]).len() as u64;
        assert_eq!(session.lane.rows.counts().2, lost, "what was lost is counted");
    });
}
