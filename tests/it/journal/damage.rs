//! Bit rot: a changed frame is never read as if nothing were wrong, and as little as possible is lost with it.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tapeway::journal::{
    Error, Identity, Reader, Scan, SegmentFile,
    disk::{Disk, sim::SimDisk},
};
use tapeway_exchanges::ids::FramePos;

use super::*;

/// Three segments of five frames, synced frame by frame; two sealed.
fn written(seed: u64) -> (SimDisk, Vec<Frame>) {
    let disk = SimDisk::new(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let frames: Vec<Frame> = (0..15).map(|_| small_frame(&mut rng)).collect();
    let journal = journal(&disk);
    let (mut lane, _) = lane(&journal);
    for (index, frame) in frames.iter().enumerate() {
        if index % 5 == 0 {
            begin(&mut lane);
        }
        append(&mut lane, frame).unwrap();
        lane.seal().unwrap();
    }
    (disk, frames)
}

fn segments(disk: &SimDisk) -> Vec<SegmentFile> {
    SegmentFile::list(disk, &lane_dir()).unwrap()
}

fn flip(disk: &SimDisk, path: &Path, bit: usize) {
    disk.corrupt(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8)).unwrap();
}

#[test]
fn a_bit_flip_anywhere_is_detected_and_costs_at_most_one_frame() {
    let seed = seed();
    let (disk, frames) = written(seed);
    let id = Identity::read(&disk, &lane_dir()).unwrap().unwrap().journal_id;
    let mut rng = StdRng::seed_from_u64(seed);
    for (index, segment) in segments(&disk).iter().enumerate() {
        for byte in 0..usize::try_from(segment.bytes).unwrap() {
            let bit = byte * 8 + rng.random_range(0..8);
            let context = format!("SEED={seed} segment={index} bit={bit}");
            flip(&disk, &segment.path, bit);
            match Scan::of(&disk, segment, id, index < 2) {
                Ok(scan) => {
                    let is_seen = scan.head.is_some() || scan.tail.is_some() || !scan.holes.is_empty();
                    assert!(is_seen, "not detected: {context}");
                }
                Err(error) => assert!(matches!(error, Error::Foreign { .. }), "{error}: {context}"),
            }
            let (found, holes) = read(Arc::new(disk.clone()), &lane_dir(), FramePos::FIRST, pos(frames.len()));
            for (pos, frame) in &found {
                assert_eq!(*frame, frames[usize::try_from(pos.get()).unwrap()], "changed frame: {context}");
            }
            let lost: u64 = holes.iter().map(Hole::frames).sum();
            assert_eq!(found.len() as u64 + lost, frames.len() as u64, "{context}");
            assert!(lost <= 1, "{lost} frames lost: {context}");
            flip(&disk, &segment.path, bit);
        }
    }
}

#[test]
fn a_bit_flip_in_a_compressed_segment_never_changes_a_frame() {
    let seed = seed();
    let (disk, frames) = written(seed);
    let mut config = config(Path::new(ROOT));
    config.is_compressed = true;
    let journal = Journal::on_disk(Arc::new(disk.clone()), &config).unwrap();
    let (_lane, _) = lane(&journal);
    assert_eq!(journal.retain(disk.now()).unwrap().compressed, 1);
    let segment = segments(&disk).remove(0);
    assert!(segment.is_compressed);
    for bit in 0..usize::try_from(segment.bytes).unwrap() * 8 {
        let context = format!("SEED={seed} bit={bit}");
        flip(&disk, &segment.path, bit);
        let (found, holes) = read(Arc::new(disk.clone()), &lane_dir(), FramePos::FIRST, pos(frames.len()));
        for (pos, frame) in &found {
            assert_eq!(*frame, frames[usize::try_from(pos.get()).unwrap()], "changed frame: {context}");
        }
        let lost: u64 = holes.iter().map(Hole::frames).sum();
        assert_eq!(found.len() as u64 + lost, frames.len() as u64, "{context}");
        flip(&disk, &segment.path, bit);
    }
}

#[test]
fn a_durable_record_damaged_in_the_newest_segment_is_corruption_and_what_follows_is_kept() {
    let (disk, frames) = written(7);
    let newest = segments(&disk).pop().unwrap();
    let middle = usize::try_from(newest.bytes).unwrap() * 4 + 32;
    flip(&disk, &newest.path, middle);
    let journal = journal(&disk);
    let (mut lane, recovered) = lane(&journal);
    assert_eq!(recovered.end, pos(15), "frames behind the damage were dropped");
    assert_eq!(recovered.torn, None);
    assert_eq!(recovered.holes.len(), 1);
    assert_eq!(recovered.holes[0].frames(), 1);
    begin(&mut lane);
    let (found, holes) = read(Arc::new(disk), &lane_dir(), FramePos::FIRST, pos(15));
    assert_eq!((found.len(), &holes), (14, &recovered.holes));
    assert!(found.iter().all(|(pos, frame)| *frame == frames[usize::try_from(pos.get()).unwrap()]));
}

#[test]
fn damage_that_no_later_record_proves_durable_is_a_torn_tail() {
    let disk = SimDisk::new(1);
    let journal = journal(&disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..10 {
        append(&mut lane, &frame(&mut rng)).unwrap(); // Never synced.
    }
    lane.flush().unwrap();
    let newest = segments(&disk).pop().unwrap();
    flip(&disk, &newest.path, usize::try_from(newest.bytes).unwrap() * 4);
    let (_, recovered) = super::lane(&super::journal(&disk));
    let torn = recovered.torn.unwrap();
    assert!(recovered.end < pos(10));
    assert_eq!(recovered.holes, []);
    assert_eq!(torn.offset + torn.bytes, newest.bytes);
    let saved = torn.saved.unwrap();
    assert_eq!(disk.open(&saved).unwrap().bytes().unwrap(), torn.bytes, "the bytes cut are kept beside the segment");
}

#[test]
fn a_damaged_state_sends_the_reader_back_to_the_last_whole_one() {
    let (disk, _) = written(3);
    let second = segments(&disk).remove(1);
    disk.corrupt(&second.path, |bytes| {
        let at = bytes.windows(12).position(|window| window == b"state before").unwrap();
        bytes[at] ^= 1;
    })
    .unwrap();
    let reader = Reader::open_on(Arc::new(disk), &lane_dir(), pos(7)).unwrap();
    assert_eq!(reader.pos(), FramePos::FIRST);
    assert_eq!(reader.state(), Some(state(FramePos::FIRST).as_slice()));
}

#[test]
fn a_damaged_identity_is_told_by_the_segments() {
    let (disk, _) = written(4);
    let before = Identity::read(&disk, &lane_dir()).unwrap().unwrap();
    flip(&disk, &Identity::path(&lane_dir()), 100);
    assert!(matches!(Identity::read(&disk, &lane_dir()), Err(Error::Foreign { .. })));
    let journal = journal(&disk);
    let (lane, recovered) = lane(&journal);
    assert_eq!((lane.identity(), recovered.end), (&before, pos(15)));
}

#[test]
fn a_segment_that_is_none_is_put_aside_and_its_place_taken() {
    let (disk, _) = written(5);
    let newest = segments(&disk).pop().unwrap();
    disk.corrupt(&newest.path, |bytes| bytes.fill(0)).unwrap();
    let journal = journal(&disk);
    let (mut lane, recovered) = lane(&journal);
    assert_eq!(recovered.end, pos(10));
    assert!(recovered.torn.is_some());
    begin(&mut lane);
    let names: Vec<String> = disk.list(&lane_dir()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.iter().any(|name| name.ends_with(".seg.torn-0")), "{names:?}");
    assert_eq!(read(Arc::new(disk), &lane_dir(), FramePos::FIRST, pos(10)).0.len(), 10);
}

#[test]
fn a_segment_of_another_lane_is_refused() {
    let (disk, _) = written(6);
    let journal = journal(&disk);
    let (mut other, _) = journal.lane(VENUE, "acme.1").unwrap();
    begin(&mut other);
    let stray = SegmentFile::list(&disk, other.dir()).unwrap().remove(0);
    disk.rename(&stray.path, &lane_dir().join("00000000000000000015.seg")).unwrap();
    let error = journal.lane(VENUE, LANE).unwrap_err();
    assert!(matches!(error, Error::Foreign { what: "journal id", .. }), "{error}");
}

#[test]
fn random_garbage_is_never_taken_for_frames() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..50 {
        let (disk, frames) = written(seed);
        for segment in segments(&disk) {
            disk.corrupt(&segment.path, |bytes| {
                let (from, to) = (rng.random_range(0..bytes.len()), rng.random_range(0..bytes.len()));
                bytes[from.min(to)..from.max(to)].fill_with(|| rng.random());
            })
            .unwrap();
        }
        let (found, holes) = read(Arc::new(disk), &lane_dir(), FramePos::FIRST, pos(frames.len()));
        let lost: u64 = holes.iter().map(Hole::frames).sum();
        assert_eq!(found.len() as u64 + lost, frames.len() as u64, "SEED={seed}");
        for (pos, frame) in found {
            assert_eq!(frame, frames[usize::try_from(pos.get()).unwrap()], "SEED={seed}");
        }
    }
}
