//! A standby keeps what the lane's owner may not have written, and lets go of the rest; when it takes over, what it let go of
//! is not called lost.

use std::{fs, path::Path, thread, time::Duration};

use tapeway::{
    config,
    journal::{Journal, SegmentFile},
    lane::Lane,
    store, writer,
};
use tapeway_exchanges::{
    event::Flags,
    ids::{FramePos, SymbolIx},
};
use tokio::time::Instant;

use crate::{
    catch_up::{Session, assert_complete},
    cluster::{Cluster, Flavor, block_on, on_each},
    feeding::{self, assert_same, chunk, expected, feed, lane, settings, stored, until, until_committed},
};

fn journal(dir: &Path, keep_for: Duration) -> Journal {
    Journal::open(&config::Journal {
        dir: dir.into(),
        segment_bytes_max: 40_000,
        sync_interval: Duration::from_millis(2),
        keep_for,
        bytes_max: 1 << 30,
        free_bytes_min: 0,
        is_compressed: false,
    })
    .unwrap()
}

fn segments(lane: &Lane) -> Vec<SegmentFile> {
    SegmentFile::list(lane.disk.as_ref(), &lane.dir).unwrap()
}

fn first_kept(lane: &Lane) -> FramePos {
    segments(lane)[0].first
}

/// Says of the owner of the only lane that it has committed what it received until then, and when it did.
fn owner_at(cluster: &Cluster, database: &str, received: &str, updated: &str) {
    let sql = format!("UPDATE audit.watermarks SET last_received = {received}, updated_at = {updated}");
    cluster.psql(database, &sql);
}

#[test]
fn a_standby_lets_go_of_what_the_owner_is_past_and_of_nothing_else() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = cluster.database("letting_go");
    block_on(store::prepare(&database)).unwrap();
    let active = lane("acme.0", 1, 64);
    let first = writer::start(&settings(1, 500), &database, vec![active.clone()]).unwrap();
    feed(&active, chunk(0, 0, 100));
    until_committed(&active);

    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), Duration::ZERO);
    let mut session = Session::start(&journal, 4);
    let lane = session.lane.clone();
    let second = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
    until(|| lane.progress.is_standby(), || "it does not stand by".into());
    session.take(6_000);
    let told = || format!("committed {}, kept from {}", lane.progress.committed(), first_kept(&lane));
    let keeps_all = |what: &str| {
        let before = first_kept(&lane);
        thread::sleep(PASSES);
        assert_eq!(lane.progress.committed(), FramePos::FIRST, "{what}");
        assert_eq!(first_kept(&lane), before, "{what}");
    };
    assert!(segments(&lane).len() > 3);
    keeps_all("the owner's last frame is from long ago");

    owner_at(&cluster, "letting_go", "now() + interval '1 h'", "now() - interval '1 h'");
    thread::sleep(ASKED);
    keeps_all("the owner's clock is ahead, its last commit is from long ago");

    owner_at(&cluster, "letting_go", "now() + interval '1 h'", "now() + interval '1 h'");
    until(|| lane.progress.committed() == FramePos::new(6_000), told);
    until(|| segments(&lane).len() == 1, told);
    let (received, committed, rejected) = lane.rows.counts();
    assert_eq!((committed, rejected), (0, received), "nothing is pending that the owner has written");

    // A database from an older backup takes the place of that one.
    session.take(6_000);
    owner_at(&cluster, "letting_go", "now() - interval '1 h'", "now()");
    until(|| lane.progress.committed() == FramePos::FIRST, told);
    keeps_all("the owner has yet to write it again");
    assert!(segments(&lane).len() > 3);

    owner_at(&cluster, "letting_go", "now() + interval '1 h'", "now() + interval '1 h'");
    until(|| lane.progress.committed() == FramePos::new(12_000), told);
    session.take(6_000);
    cluster.stop();
    until(|| !lane.progress.is_standby(), told);
    keeps_all("nobody knows what became of the database");
    drop((first, second));
}

#[test]
fn frames_that_were_let_go_of_on_standby_are_not_lost_when_it_takes_over() {
    on_each(|cluster, _| {
        let end = take_over(cluster, "let_go", 6_000, "2 min");
        let said =
            cluster.psql("let_go", "SELECT frame_pos, detail FROM audit.rejects WHERE detail LIKE '%let them go'");
        let rows = expected("acme.0", &[chunk(0, 0, end)]).len();
        assert_eq!(
            said,
            format!(
                "1|{rows} rows of the frames from 1 to before {end}, which another daemon had committed when this journal \
                 let them go\n"
            )
        );
        let gaps = cluster.psql("let_go", "SELECT frame_pos, cause, state FROM audit.gaps");
        assert_eq!(
            gaps, "0|sequence|unhealable\n",
            "the gap that may have ended in them is over, and there is no other"
        );
    });
}

#[test]
fn frames_are_lost_if_the_database_does_not_show_that_the_owner_was_past_them() {
    on_each(|cluster, _| {
        let end = take_over(cluster, "not_past", 6_000, "0 min");
        let gaps = cluster.psql("not_past", "SELECT detail FROM audit.gaps WHERE cause = 'journal_lost'");
        assert!(gaps.contains(&format!("from 1 to before {end}")), "{gaps}");
    });
}

#[test]
fn what_the_owner_missed_and_the_standby_let_go_of_is_named() {
    on_each(|cluster, _| {
        let end = take_over(cluster, "missed", 1_000, "2 min");
        assert!(end > 1_100, "{end}");
        let gaps = cluster.psql(
            "missed",
            "SELECT channel, state, count(*), min(first_missing) < 10000, max(last_missing) > 11000 FROM audit.gaps
             WHERE ordinal >= 1000000 GROUP BY 1, 2 ORDER BY 1, 2",
        );
        assert_eq!(gaps, "book|open|4|t|t\ntrades|unhealable|4|t|t\n", "each of the four instruments has a hole");
    });
}

#[test]
fn a_numbered_book_that_was_never_whole_on_standby_is_named_when_it_takes_over() {
    on_each(|cluster, _| {
        let database = cluster.database("never_whole");
        block_on(store::prepare(&database)).unwrap();
        let owner = lane("acme.0", 1, 64);
        let first = writer::start(&settings(1, 500), &database, vec![owner.clone()]).unwrap();
        feed(&owner, chunk(0, 0, 100));
        until_committed(&owner);
        assert_eq!(block_on(first.stop(Instant::now() + feeding::PATIENCE)), []);

        let standby = lane("acme.0", 2, 64);
        let second = writer::start(&settings(1, 500), &database, vec![standby.clone()]).unwrap();
        let mut events = chunk(0, 0, 400);
        for level in &mut events.levels {
            let is_of_first = level.symbol == SymbolIx(0);
            level.flags = match level.frame {
                // One book is whole when it takes over.
                ..150 if !is_of_first => Flags::AFTER_GAP,
                200..250 => Flags::SNAPSHOT,
                ..50 | 150..200 => Flags::AFTER_GAP,
                _ => Flags::NONE,
            };
        }
        feed(&standby, events);
        until_committed(&standby);
        assert_eq!(block_on(second.stop(Instant::now() + feeding::PATIENCE)), []);
        let gaps = cluster.psql(
            "never_whole",
            "SELECT symbol, channel, cause, state, first_missing IS NULL, since < '2025-06-01 00:00:00.1+00',
                 until BETWEEN '2025-06-01 00:00:00.2+00' AND '2025-06-01 00:00:00.25+00'
             FROM audit.gaps JOIN market_data.instruments USING (instrument_id) ORDER BY 1",
        );
        let named = |nr| format!("SYM{nr}|book|downtime|resynced|t|t|t\n");
        assert_eq!(gaps, [1, 2, 3].map(named).concat());
    });
}

/// An owner writes so many frames, and is said to be so far past the last of them when it ends. A standby heard 8,000, and
/// has no longer the first ones; it takes over. Every row of the frames that one of them had is there once then, and
/// accounted for. Gives the first frame that the standby had.
fn take_over(cluster: &Cluster, name: &str, written: u64, past: &str) -> u64 {
    let database = cluster.database(name);
    block_on(store::prepare(&database)).unwrap();
    let active = lane("acme.0", 1, 64);
    let first = writer::start(&settings(1, 500), &database, vec![active.clone()]).unwrap();
    for at in 0..written / 100 {
        feed(&active, chunk(0, 100 * at, 100));
    }
    until_committed(&active);
    assert_eq!(block_on(first.stop(Instant::now() + feeding::PATIENCE)), []);
    owner_at(cluster, name, &format!("last_received + interval '{past}'"), "now()");

    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), Duration::from_secs(86_400));
    let mut session = Session::start(&journal, 4);
    let lane = session.lane.clone();
    session.take(8_000);
    while lane.queue.pop().is_some() {}
    for gone in &segments(&lane)[..2] {
        fs::remove_file(&gone.path).unwrap();
    }
    let end = first_kept(&lane).get();
    assert!(end < 6_000, "{end}");
    // It has held the lane before, for a frame without rows, and had a gap then.
    let journal_id = lane.journal_id;
    cluster.psql(
        name,
        &format!(
            "WITH made AS (INSERT INTO audit.lanes (venue, name, journal_id)
                 VALUES ('acme', 'acme.0', '{journal_id:032x}') RETURNING lane_id),
             marked AS (INSERT INTO audit.watermarks (lane_id, next_pos) SELECT lane_id, 1 FROM made)
             INSERT INTO audit.gaps (lane_id, frame_pos, ordinal, venue, channel, cause, detected_at)
             SELECT lane_id, 0, 0, 'acme', 'book', 'sequence', now() FROM made"
        ),
    );
    let second = writer::start(&settings(1, 700), &database, vec![lane.clone()]).unwrap();
    until_committed(&lane);
    assert_eq!(block_on(second.stop(Instant::now() + feeding::PATIENCE)), []);
    let from = end.min(written);
    let missed = end.saturating_sub(written);
    let rows = [chunk(0, 0, from), chunk(0, from + missed, 8_000 - from - missed)];
    assert_same(&stored(cluster, name), &expected("acme.0", &rows));
    assert_complete(&session);
    end
}

/// Several passes of the retainer.
const PASSES: Duration = Duration::from_secs(3);
/// Longer than it takes until a standby asks again how far the owner is.
const ASKED: Duration = Duration::from_secs(12);
