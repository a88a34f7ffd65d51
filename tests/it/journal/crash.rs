//! Whatever happens to process, power and disk: recovery returns a prefix of what was appended that holds
//! everything that was reported durable, every frame as it was, and positions are never given twice to frames
//! that anyone can have seen.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tapeway::journal::{Error, Journal, LaneJournal, SegmentFile, disk::sim::SimDisk};
use tapeway_exchanges::ids::FramePos;

use super::*;

/// Replay a failure with the seed it prints: `SEED=<n> cargo test whatever_happens`.
#[test]
fn whatever_happens_a_prefix_with_everything_synced_comes_back() {
    let first = seed();
    for seed in first..first + 150 {
        let result = std::panic::catch_unwind(|| World::new(seed).run());
        assert!(result.is_ok(), "SEED={seed}");
    }
}

struct World {
    seed: u64,
    rng: StdRng,
    disk: SimDisk,
    journal: Journal,
    lane: LaneJournal,
    /// What each position holds; `None` where an in-process recovery lost it.
    model: Vec<Option<Frame>>,
    /// Oldest position still held.
    first: FramePos,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let (journal, lane) = start(&disk, seed);
        let rng = StdRng::seed_from_u64(seed ^ 0xF00D);
        Self { seed, rng, disk, journal, lane, model: Vec::new(), first: FramePos::FIRST }
    }

    fn run(mut self) {
        begin(&mut self.lane);
        for _ in 0..400 {
            self.step();
        }
        self.crash(true);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..50 => self.append(),
            50..70 => drop(self.lane.flush()),
            70..80 => self.journal.sync(),
            80..86 => self.roll(),
            86..89 => self.retain(),
            89..92 => self.disk.fail_syncs(1),
            92..93 => self.disk.fail_writes(1),
            93..95 => {
                let room = self.disk.used() + self.rng.random_range(0..4_000);
                self.disk.set_bytes_max(if self.rng.random() { room } else { u64::MAX });
            }
            95..97 => self.crash(false),
            _ => self.crash(true),
        }
        if self.lane.status().poisoned().is_some() {
            match self.rng.random_range(0..4) {
                0 | 1 => self.recover(),
                2 => self.crash(false),
                _ => self.crash(true),
            }
        }
    }

    fn append(&mut self) {
        let frame = frame(&mut self.rng);
        match append(&mut self.lane, &frame) {
            Ok(pos) => {
                assert_eq!(pos.get(), self.model.len() as u64, "positions are dense");
                self.model.push(Some(frame));
            }
            Err(Error::Full { .. } | Error::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn roll(&mut self) {
        let state = state(self.lane.next());
        match self.lane.roll(&state) {
            Ok(()) | Err(Error::Full { .. } | Error::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn retain(&mut self) {
        let progress = self.lane.progress();
        let (low, high) = (progress.committed().get(), progress.durable().get());
        if low < high {
            progress.on_commit(FramePos::new(self.rng.random_range(low..=high)));
        }
        self.disk.advance(Duration::from_secs(self.rng.random_range(0..90)));
        drop(self.journal.retain(self.disk.now()));
        self.find_first();
    }

    fn find_first(&mut self) {
        let segments = SegmentFile::list(&self.disk, &lane_dir()).unwrap();
        self.first = segments.first().map_or(FramePos::FIRST, |segment| segment.first);
        assert!(self.first <= self.lane.progress().committed(), "something uncommitted was removed");
    }

    /// In the same process, after poison.
    fn recover(&mut self) {
        self.disk.set_bytes_max(u64::MAX);
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        let durable = self.lane.progress().durable();
        let recovered = self.lane.recover().unwrap();
        assert!(durable <= recovered.end, "durable to {durable}, recovered to {}", recovered.end);
        assert_eq!(recovered.holes, [], "nothing durable is damaged");
        self.model[usize::try_from(recovered.end.get()).unwrap()..].fill(None);
        begin(&mut self.lane);
        self.check();
    }

    fn crash(&mut self, is_power_cut: bool) {
        let progress = self.lane.progress();
        let (committed, durable, appended) = (progress.committed(), progress.durable(), progress.appended());
        if is_power_cut {
            self.disk.power_cut()
        } else {
            self.disk.kill()
        }
        self.disk.set_bytes_max(u64::MAX);
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        let had_poison = self.lane.status().poisoned().is_some();
        (self.journal, self.lane) = start(&self.disk, self.seed);
        let end = self.lane.progress().durable();
        assert!(durable <= end, "durable to {durable}, recovered to {end}");
        assert!(is_power_cut || had_poison || appended <= end, "appended to {appended}, recovered to {end}");
        assert!(end.get() <= self.model.len() as u64, "invented frames");
        self.model.truncate(usize::try_from(end.get()).unwrap());
        self.lane.progress().set_committed(committed);
        // Recovery's word holds even if the power fails right after it.
        if self.rng.random() {
            self.disk.power_cut();
            (self.journal, self.lane) = start(&self.disk, self.seed);
            assert_eq!(self.lane.progress().durable(), end, "recovered frames were lost again");
            self.lane.progress().set_committed(committed);
        }
        begin(&mut self.lane);
        self.find_first();
        self.check();
    }

    /// What is read is the model.
    fn check(&mut self) {
        let end = pos(self.model.len());
        let from = FramePos::new(self.rng.random_range(self.first.get()..=end.get()));
        let (frames, holes) = read(Arc::new(self.disk.clone()), &lane_dir(), from, end);
        let mut found: Vec<Option<Frame>> = vec![None; self.model.len()];
        for (pos, frame) in frames {
            found[usize::try_from(pos.get()).unwrap()] = Some(frame);
        }
        let from = usize::try_from(from.get()).unwrap();
        assert_eq!(found[from..], self.model[from..], "what is read is not what was written");
        let missing = self.model[from..].iter().filter(|frame| frame.is_none()).count() as u64;
        let named: u64 = holes.iter().map(|hole| hole.next.get() - hole.first.get().max(from as u64)).sum();
        assert_eq!(missing, named, "every lost position is named: {holes:?}");
    }
}

fn start(disk: &SimDisk, seed: u64) -> (Journal, LaneJournal) {
    let mut config = config(Path::new(ROOT));
    config.is_compressed = seed.is_multiple_of(2);
    let journal = Journal::on_disk(Arc::new(disk.clone()), &config).unwrap();
    let (lane, recovered) = lane(&journal);
    assert_eq!(recovered.holes, [], "nothing durable is damaged");
    (journal, lane)
}

/// Power loss may cut the newest segment at any byte and leave garbage after the cut. Recovery must return a
/// prefix of what was written: never a changed frame, never an invented one.
/// Replay a failure with the seed it prints: `SEED=<n> cargo test a_cut_anywhere`.
#[test]
fn a_cut_anywhere_leaves_a_prefix() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let frames: Vec<Frame> = (0..40).map(|_| small_frame(&mut rng)).collect();
    let (whole, ends) = segment_of(&frames, seed);
    for cut in ends[0]..=whole.len() {
        let mut torn = whole[..cut].to_vec();
        torn.extend((0..64).map(|_| rng.random::<u8>()));
        let disk = SimDisk::new(seed);
        drop(begin_only(&disk, seed));
        replace_newest(&disk, torn.clone());
        let (_journal, lane) = start(&disk, seed);
        let whole_frames = ends.iter().filter(|end| **end <= cut).count() - 1;
        let end = lane.progress().durable();
        let kept = usize::try_from(end.get()).unwrap();
        // One more only if the garbage happens to be the very bytes that were cut off.
        assert!(kept == whole_frames || torn.starts_with(&whole[..ends[kept]]), "SEED={seed} cut={cut} kept={kept}");
        assert!(kept >= whole_frames, "SEED={seed} cut={cut} kept={kept}");
        let (found, holes) = read(Arc::new(disk), &lane_dir(), FramePos::FIRST, end);
        let found: Vec<Frame> = found.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!((found.as_slice(), holes.as_slice()), (&frames[..kept], &[][..]), "SEED={seed} cut={cut}");
    }
}

/// The bytes of a segment that holds `frames`, and the offsets after its head and after each frame.
fn segment_of(frames: &[Frame], seed: u64) -> (Vec<u8>, Vec<usize>) {
    let disk = SimDisk::new(seed);
    let (_journal, mut lane) = begin_only(&disk, seed);
    let mut ends = vec![newest(&disk).bytes];
    for frame in frames {
        append(&mut lane, frame).unwrap();
        lane.flush().unwrap();
        ends.push(newest(&disk).bytes);
    }
    let mut bytes = Vec::new();
    disk.corrupt(&newest(&disk).path, |found| bytes.clone_from(found)).unwrap();
    (bytes, ends.into_iter().map(|end| usize::try_from(end).unwrap()).collect())
}

fn begin_only(disk: &SimDisk, seed: u64) -> (Journal, LaneJournal) {
    let (journal, mut lane) = start(disk, seed);
    begin(&mut lane);
    (journal, lane)
}

fn newest(disk: &SimDisk) -> SegmentFile {
    SegmentFile::list(disk, &lane_dir()).unwrap().pop().unwrap()
}

/// Puts the bytes of another journal's segment in place of this one's, and makes the journal's id fit.
fn replace_newest(disk: &SimDisk, bytes: Vec<u8>) {
    let id = lane_dir().join("lane.id");
    disk.corrupt(&newest(disk).path, |found| *found = bytes).unwrap();
    // The identity is told by the segment's head when the file is damaged.
    disk.corrupt(&id, |found| found[0] ^= 1).unwrap();
}
