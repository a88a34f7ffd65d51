//! A journal that is full takes nothing more, loses nothing it took, gives up what is committed before its time,
//! never what is not, and goes on when there is room.

use std::{fs, process::Command, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tapeway::journal::{Error, Journal, SegmentFile, disk::sim::SimDisk};
use tapeway_exchanges::ids::FramePos;

use super::*;

fn fill(lane: &mut LaneJournal, rng: &mut StdRng, frames: &mut Vec<Frame>) {
    loop {
        let frame = frame(rng);
        match append(lane, &frame) {
            Ok(_) => frames.push(frame),
            Err(Error::Full { .. }) => return,
            Err(error) => panic!("{error}"),
        }
        match lane.flush() {
            Ok(()) | Err(Error::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if lane.is_roll_due() {
            match lane.roll(&state(lane.next())) {
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(frames.len() < 100_000, "never full");
    }
}

fn all(disk: Arc<dyn Disk>, dir: &Path, end: usize) -> Vec<Frame> {
    let first = SegmentFile::list(disk.as_ref(), dir).unwrap()[0].first;
    let (found, holes) = read(disk, dir, first, pos(end));
    assert_eq!(holes, []);
    found.into_iter().map(|(_, frame)| frame).collect()
}

/// What finds no room is what was appended last, which then waits in memory, or the head of a new segment, when
/// nothing waits.
#[test]
fn a_disk_without_room_stops_the_lane_and_loses_nothing() {
    let mut found_by = [0, 0];
    for seed in (0..200).chain([seed()]) {
        let told = format!("SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        let journal = journal(&disk);
        let (mut lane, _) = lane(&journal);
        begin(&mut lane);
        let mut frames = Vec::new();
        disk.set_bytes_max(30_000);
        fill(&mut lane, &mut rng, &mut frames);
        assert!(lane.is_full(), "{told}");
        let is_waiting = lane.progress().appended() < pos(frames.len());
        assert_eq!(matches!(lane.flush(), Err(Error::Full { .. })), is_waiting, "{told}");
        if !is_waiting {
            lane.flush().unwrap();
            assert!(matches!(lane.roll(&state(lane.next())), Err(Error::Full { .. })), "{told}");
        }
        found_by[usize::from(is_waiting)] += 1;

        disk.set_bytes_max(u64::MAX);
        lane.flush().unwrap();
        assert!(!journal.retain(disk.now()).unwrap().is_full, "{told}");
        assert!(!lane.is_full(), "{told}");
        frames.push(small_frame(&mut rng));
        append(&mut lane, frames.last().unwrap()).unwrap();
        lane.seal().unwrap();
        assert_eq!(all(Arc::new(disk), &lane_dir(), frames.len()), frames, "{told}");
    }
    assert!(found_by.iter().all(|&count| count > 0), "by a new segment and by a flush: {found_by:?}");
}

#[test]
fn over_the_byte_limit_committed_segments_are_given_up_and_uncommitted_ones_never() {
    let disk = SimDisk::new(1);
    let mut config = config(Path::new(ROOT));
    config.bytes_max = 20_000;
    let journal = Journal::on_disk(Arc::new(disk.clone()), &config).unwrap();
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let (mut rng, mut frames) = (StdRng::seed_from_u64(1), Vec::new());
    fill(&mut lane, &mut rng, &mut frames);

    let pass = journal.retain(disk.now()).unwrap();
    assert!(pass.is_full, "nothing is committed: {pass:?}");
    assert_eq!((pass.expired, pass.given_up), (0, 0));
    lane.seal().unwrap();

    let segments = SegmentFile::list(&disk, &lane_dir()).unwrap();
    lane.progress().on_commit(segments[2].first.plus(1));
    let pass = journal.retain(disk.now()).unwrap();
    assert!(pass.given_up >= 1, "{pass:?}");
    assert!(pass.given_up <= 2, "the segment that holds the watermark was removed: {pass:?}");
    assert!(!pass.is_full, "{pass:?}");
    assert!(!lane.is_full());
}

#[test]
fn a_full_journal_whose_only_segment_is_committed_rolls_to_make_room() {
    let disk = SimDisk::new(2);
    let mut config = config(Path::new(ROOT));
    (config.bytes_max, config.segment_bytes_max) = (10_000, 1 << 30);
    let journal = Journal::on_disk(Arc::new(disk.clone()), &config).unwrap();
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    fill(&mut lane, &mut StdRng::seed_from_u64(2), &mut Vec::new());
    lane.seal().unwrap();
    assert!(journal.retain(disk.now()).unwrap().is_full);
    assert!(!lane.is_roll_due(), "an uncommitted segment cannot make room");
    lane.progress().on_commit(lane.next());
    assert!(lane.is_roll_due());
    begin(&mut lane);
    assert_eq!(journal.retain(disk.now()).unwrap().given_up, 1);
    assert!(!lane.is_full());
}

#[test]
fn committed_segments_are_kept_for_keep_for() {
    let disk = SimDisk::new(3);
    let journal = journal(&disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    for _ in 0..4 {
        append(&mut lane, &small_frame(&mut StdRng::seed_from_u64(3))).unwrap();
        begin(&mut lane);
    }
    lane.progress().on_commit(pos(3));
    disk.advance(Duration::from_secs(99));
    assert_eq!(journal.retain(disk.now()).unwrap().expired, 0);
    disk.advance(Duration::from_secs(1));
    assert_eq!(journal.retain(disk.now()).unwrap().expired, 3);
    let left = SegmentFile::list(&disk, &lane_dir()).unwrap();
    assert_eq!(left[0].first, pos(3), "the uncommitted ones are left");
}

/// A real file system of two megabytes, if this machine lets us mount one.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tapeway-test"]).arg(dir.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            result => {
                println!("SKIPPED: no small file system to fill (needs root): {result:?}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let result = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(result.is_ok_and(|status| status.success()), "the test's file system stays mounted");
    }
}

#[test]
fn a_real_full_disk_stops_the_lane_and_loses_nothing() {
    let Some(mounted) = Mounted::new() else { return };
    let mut config = config(&mounted.0.path().join("journal"));
    config.segment_bytes_max = 100_000;
    let ballast = mounted.0.path().join("ballast");
    fs::write(&ballast, vec![1; 500_000]).unwrap();
    {
        let journal = Journal::open(&config).unwrap();
        let (mut lane, _) = lane(&journal);
        begin(&mut lane);
        let (mut rng, mut frames) = (StdRng::seed_from_u64(9), Vec::new());
        fill(&mut lane, &mut rng, &mut frames);
        // The retainer may have found room for a little more in between.
        while lane.flush().is_ok() {
            frames.push(frame(&mut rng));
            match append(&mut lane, frames.last().unwrap()) {
                Ok(_) => {}
                Err(Error::Full { .. }) => {
                    frames.pop();
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        fs::remove_file(&ballast).unwrap();
        lane.flush().unwrap();
        journal.retain(std::time::SystemTime::now()).unwrap();
        lane.seal().unwrap();
        let dir = lane.dir().to_owned();
        drop((lane, journal));
        let found = all(Arc::new(tapeway::journal::disk::RealDisk), &dir, frames.len());
        assert_eq!(found.len(), frames.len());
        assert_eq!(found, frames);
        let journal = Journal::open(&config).unwrap();
        let (_, recovered) = super::lane(&journal);
        assert_eq!(recovered.end, FramePos::new(frames.len() as u64));
    }
}

/// Compression frees a little of a journal that is full of what is not committed. Were lanes let in for that, they would
/// connect, fill it in a moment and disconnect, again and again.
#[test]
fn a_full_journal_has_room_again_when_a_segment_fits_in_and_not_before() {
    let disk = SimDisk::new(4);
    let mut config = config(Path::new(ROOT));
    (config.bytes_max, config.is_compressed) = (20_000, true);
    let journal = Journal::on_disk(Arc::new(disk.clone()), &config).unwrap();
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let compressible = Frame { kind: Kind::Text, received: Nanos(1), bytes: vec![b' '; 150] };
    let mut count = 0;
    while append(&mut lane, &compressible).and_then(|_| lane.flush()).is_ok() {
        count += 1;
        if lane.is_roll_due() {
            begin(&mut lane);
        }
        assert!(count < 1_000, "the limit was not kept");
    }
    let mut full_passes = 0;
    let room = loop {
        let pass = journal.retain(disk.now()).unwrap();
        assert_eq!(pass.given_up, 0, "nothing is committed: {pass:?}");
        if !pass.is_full {
            break pass.bytes;
        }
        full_passes += usize::from(pass.bytes <= config.bytes_max);
        assert!(pass.compressed == 1, "nothing is left to compress, and it is still full: {pass:?}");
    };
    assert!(full_passes > 0, "it was let in as soon as a byte was free");
    assert!(room + config.segment_bytes_max <= config.bytes_max, "{room}");
}

#[test]
fn committed_segments_make_room_before_the_limit_is_reached() {
    let disk = SimDisk::new(5);
    let mut config = config(Path::new(ROOT));
    config.bytes_max = 20_000;
    let journal = Journal::on_disk(Arc::new(disk.clone()), &config).unwrap();
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..4_000 {
        append(&mut lane, &small_frame(&mut rng)).unwrap();
        lane.flush().unwrap();
        if lane.is_roll_due() {
            begin(&mut lane);
            lane.seal().unwrap();
            lane.progress().on_commit(lane.next());
            let pass = journal.retain(disk.now()).unwrap();
            assert!(!pass.is_full && pass.bytes <= config.bytes_max - config.segment_bytes_max, "{pass:?}");
        }
        assert!(!lane.is_full(), "sockets were closed although everything is committed");
    }
}
