//! Catch-up over a damaged journal: every position has its place, and what is lost says so.

use std::{fs, sync::Arc};

use tapeway::{
    journal::{Journal, SegmentFile, disk::RealDisk},
    lane::{Lane, Rows},
    queue::Queue,
    replay::Replay,
};
use tapeway_exchanges::{
    event::{Events, Note, Reject},
    ids::FramePos,
    venue,
};

use super::*;

#[test]
fn a_lost_frame_becomes_a_reject_at_its_position_and_the_rest_is_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::on_disk(Arc::new(RealDisk), &config(dir.path())).unwrap();
    let spec = venue::find("binance-spot").unwrap();
    let (mut open, recovered) = journal.lane(spec.name, LANE).unwrap();
    open.begin(b"").unwrap();
    for value in 0..10 {
        open.append(Kind::Text, Nanos(1_000 + value), b"no frame of this venue").unwrap();
    }
    open.seal().unwrap();
    open.begin(b"").unwrap();

    let sealed = SegmentFile::list(&RealDisk, open.dir()).unwrap().remove(0);
    let mut bytes = fs::read(&sealed.path).unwrap();
    let middle = bytes.len() - 5 * 47 - 10; // In the fifth frame: each is 25 + 22 bytes.
    bytes[middle] ^= 1;
    fs::write(&sealed.path, bytes).unwrap();

    let lane = Lane {
        name: LANE.into(),
        venue: spec,
        journal_id: recovered.journal_id,
        disk: open.disk(),
        dir: open.dir().to_owned(),
        progress: open.progress(),
        rows: Rows::default(),
        queue: Queue::new(4),
        is_behind: false.into(),
        writer: Arc::default(),
    };
    let mut replay = Replay::open(&lane, FramePos::FIRST).unwrap();
    let chunk = replay.next_chunk(&lane, 1_000, Events::default()).unwrap().unwrap();
    assert_eq!((chunk.first, chunk.end()), (pos(0), pos(10)));
    let lost: Vec<(u32, i64)> = chunk
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Reject(Reject { frame, reason: "journal_damage", .. }) => Some((*frame, chunk.received(*frame).0)),
            Note::Reject(_) | Note::Gap(_) | Note::GapClosed(_) | Note::Session(_) => None,
        })
        .collect();
    assert_eq!(lost, [(4, 1_003)], "the lost frame is named, with the time of the one before it");
    assert_eq!(chunk.notes.len(), 10);
}
