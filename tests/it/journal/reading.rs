//! Reading: from any position, across segments however they lie on disk, while the tail is being written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tapeway::{
    journal::{Error, Journal, Reader, SegmentFile, disk::sim::SimDisk},
    lane::Progress,
};

use super::*;

fn written(disk: &SimDisk, count: usize) -> (Journal, LaneJournal, Vec<Frame>) {
    let journal = journal(disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let mut rng = StdRng::seed_from_u64(11);
    let frames: Vec<Frame> = (0..count).map(|_| small_frame(&mut rng)).collect();
    for frame in &frames {
        append(&mut lane, frame).unwrap();
        if lane.is_roll_due() {
            begin(&mut lane);
        }
    }
    lane.seal().unwrap();
    (journal, lane, frames)
}

#[test]
fn from_every_position_the_rest_is_read_with_the_state_of_the_segment_that_holds_it() {
    let disk = SimDisk::new(1);
    let (_journal, _lane, frames) = written(&disk, 300);
    let segments = SegmentFile::list(&disk, &lane_dir()).unwrap();
    assert!(segments.len() > 4);
    for from in 0..=300 {
        let reader = Reader::open_on(Arc::new(disk.clone()), &lane_dir(), pos(from)).unwrap();
        let holding = segments.iter().rev().find(|segment| segment.first <= pos(from)).unwrap();
        assert_eq!(reader.pos(), holding.first);
        assert_eq!(reader.state(), Some(state(holding.first).as_slice()));
        let (found, holes) = read(Arc::new(disk.clone()), &lane_dir(), pos(from), pos(300));
        assert_eq!(holes, []);
        assert!(found.into_iter().map(|(_, frame)| frame).eq(frames[from..].iter().cloned()), "from {from}");
    }
}

#[test]
fn a_position_that_retention_removed_is_gone_and_named() {
    let disk = SimDisk::new(2);
    let (_journal, _lane, _) = written(&disk, 300);
    let segments = SegmentFile::list(&disk, &lane_dir()).unwrap();
    disk.remove(&segments[0].path).unwrap();
    let error = Reader::open_on(Arc::new(disk), &lane_dir(), pos(3)).unwrap_err();
    assert!(
        matches!(error, Error::Gone { first, wanted } if first == segments[1].first && wanted == pos(3)),
        "{error}"
    );
}

#[test]
fn a_segment_missing_in_the_middle_is_a_hole() {
    let disk = SimDisk::new(3);
    let (_journal, _lane, frames) = written(&disk, 300);
    let segments = SegmentFile::list(&disk, &lane_dir()).unwrap();
    disk.remove(&segments[2].path).unwrap();
    let (found, holes) = read(Arc::new(disk), &lane_dir(), pos(0), pos(300));
    assert_eq!(holes.len(), 1);
    assert_eq!((holes[0].first, holes[0].next), (segments[2].first, segments[3].first));
    assert_eq!(found.len() as u64 + holes[0].frames(), frames.len() as u64);
}

#[test]
fn nothing_is_read_before_it_is_handed_to_the_operating_system() {
    let disk = SimDisk::new(4);
    let journal = journal(&disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let progress = lane.progress();
    let mut reader = Reader::open_on(Arc::new(disk), &lane_dir(), pos(0)).unwrap();
    append(&mut lane, &small_frame(&mut StdRng::seed_from_u64(1))).unwrap();
    assert!(reader.next(&progress).unwrap().is_none());
    lane.flush().unwrap();
    assert_eq!(reader.next(&progress).unwrap().unwrap().pos, pos(0));
    assert!(reader.next(&progress).unwrap().is_none());
}

#[test]
fn an_empty_segment_made_anew_at_a_restart_does_not_confuse_a_reader_in_it() {
    let disk = SimDisk::new(5);
    let (journal, mut lane, frames) = written(&disk, 20);
    begin(&mut lane);
    let mut reader = Reader::open_on(Arc::new(disk), &lane_dir(), pos(20)).unwrap();
    begin(&mut lane); // The same name, another file.
    append(&mut lane, &frames[3]).unwrap();
    lane.flush().unwrap();
    assert_eq!(reader.next(&lane.progress()).unwrap().unwrap().bytes, frames[3].bytes);
    drop(journal);
}

#[test]
fn begin_at_a_later_position_leaves_a_hole() {
    let disk = SimDisk::new(6);
    let (_journal, mut lane, frames) = written(&disk, 20);
    lane.begin_at(pos(50), &state(pos(50))).unwrap();
    assert_eq!(append(&mut lane, &frames[0]).unwrap(), pos(50));
    lane.seal().unwrap();
    let (found, holes) = read(Arc::new(disk), &lane_dir(), pos(0), pos(51));
    assert_eq!(found.len(), 21);
    assert_eq!((holes[0].first, holes[0].next), (pos(20), pos(50)));
}

#[test]
fn frames_up_to_the_longest_are_taken_and_longer_ones_refused() {
    let disk = SimDisk::new(7);
    let journal = journal(&disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let longest = vec![b'x'; tapeway::journal::RECORD_BYTES_MAX];
    lane.append(Kind::Text, Nanos(1), &longest).unwrap();
    lane.append(Kind::Text, Nanos(2), b"after").unwrap();
    let longer = vec![b'x'; tapeway::journal::RECORD_BYTES_MAX + 1];
    let error = lane.append(Kind::Text, Nanos(3), &longer).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    lane.seal().unwrap();
    let (found, holes) = read(Arc::new(disk), &lane_dir(), pos(0), pos(2));
    assert_eq!(holes, []);
    assert!(found[0].1.bytes == longest);
    assert_eq!(found[1].1.bytes, b"after");
}

/// On the real disk, with the syncer and the retainer at work: one thread writes and rolls, one reads along, one
/// compresses and removes behind them.
#[test]
fn a_reader_follows_a_writer_while_segments_are_compressed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.is_compressed = true;
    config.segment_bytes_max = 20_000;
    config.keep_for = Duration::ZERO;
    let journal = Journal::open(&config).unwrap();
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let (progress, lane_dir) = (lane.progress(), lane.dir().to_owned());
    let count = 6_000;
    let is_done = AtomicBool::new(false);
    let frames: Vec<Frame> = {
        let mut rng = StdRng::seed_from_u64(8);
        (0..count).map(|_| frame(&mut rng)).collect()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = StdRng::seed_from_u64(9);
            for frame in &frames {
                append(&mut lane, frame).unwrap();
                if rng.random_ratio(1, 20) {
                    lane.flush().unwrap();
                }
                if lane.is_roll_due() {
                    begin(&mut lane);
                }
            }
            lane.seal().unwrap();
        });
        scope.spawn(|| follow(&lane_dir, &progress, &frames, &is_done));
        while !is_done.load(Ordering::SeqCst) {
            journal.retain(SystemTime::now()).unwrap();
        }
    });
    assert_eq!(progress.durable(), pos(count));
}

fn follow(dir: &Path, progress: &Progress, frames: &[Frame], is_done: &AtomicBool) {
    let mut reader = Reader::open(dir, pos(0)).unwrap();
    for (index, frame) in frames.iter().enumerate() {
        let record = loop {
            match reader.next(progress) {
                Ok(Some(record)) => break (record.pos, record.kind, record.received, record.bytes.to_vec()),
                Ok(None) => std::thread::yield_now(),
                Err(error) => {
                    is_done.store(true, Ordering::SeqCst);
                    panic!("{error}");
                }
            }
        };
        assert_eq!(record, (pos(index), frame.kind, frame.received, frame.bytes.clone()));
        // Commit behind the reader, as far as it is durable, so that retention removes what was read.
        if index % 500 == 0 {
            let end = pos(index).min(progress.durable());
            if end > progress.committed() {
                progress.on_commit(end);
            }
        }
    }
    is_done.store(true, Ordering::SeqCst);
}

#[test]
fn bytes_read_ahead_while_they_were_being_written_are_read_again() {
    let disk = SimDisk::new(9);
    let journal = journal(&disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let mut reader = Reader::open_on(Arc::new(disk.clone()), &lane_dir(), pos(0)).unwrap();
    lane.append(Kind::Text, Nanos(0), b"first").unwrap();
    lane.flush().unwrap();
    let path = SegmentFile::list(&disk, &lane_dir()).unwrap().pop().unwrap().path;
    let mut len = 0;
    disk.corrupt(&path, |bytes| {
        len = bytes.len();
        bytes.extend([0; 40]); // Another write under way: its length shows, its bytes not yet.
    })
    .unwrap();
    assert_eq!(reader.next(&lane.progress()).unwrap().unwrap().bytes, b"first");
    disk.corrupt(&path, |bytes| bytes.truncate(len)).unwrap();
    lane.append(Kind::Text, Nanos(0), b"second").unwrap();
    lane.flush().unwrap();
    assert_eq!(reader.next(&lane.progress()).unwrap().unwrap().bytes, b"second");
}
