//! The journal: what was synced survives anything, what is read is what was written, what is lost is named.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use tapeway::{
    config,
    journal::{Error, Hole, Journal, LaneJournal, Reader, Recovered, disk::Disk},
};
use tapeway_exchanges::{
    ids::{FramePos, Nanos},
    input::Kind,
};

mod command;
mod crash;
mod damage;
mod files;
mod full;
mod poison;
mod reading;
mod replaying;

/// A frame as a test remembers it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Frame {
    kind: Kind,
    received: Nanos,
    bytes: Vec<u8>,
}

const VENUE: &str = "acme";
const LANE: &str = "acme.0";
const ROOT: &str = "/journal";

/// The seed of a random test: `SEED=<n>` repeats one.
fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random)
}

fn config(dir: &Path) -> config::Journal {
    config::Journal {
        dir: dir.into(),
        segment_bytes_max: 2_000,
        sync_interval: Duration::from_millis(2),
        keep_for: Duration::from_secs(100),
        bytes_max: u64::MAX,
        free_bytes_min: 0,
        is_compressed: false,
    }
}

fn journal(disk: &(impl Disk + Clone + 'static)) -> Journal {
    Journal::on_disk(Arc::new(disk.clone()), &config(Path::new(ROOT))).unwrap()
}

fn lane(journal: &Journal) -> (LaneJournal, Recovered) {
    journal.lane(VENUE, LANE).unwrap()
}

/// The adapter state that a test saves at a position.
fn state(pos: FramePos) -> Vec<u8> {
    format!("{{\"state before\":{pos}}}").into_bytes()
}

fn begin(lane: &mut LaneJournal) {
    let state = state(lane.next());
    lane.begin(&state).unwrap();
}

fn frame(rng: &mut StdRng) -> Frame {
    let kinds = [Kind::Text, Kind::Binary, Kind::Open, Kind::Plan, Kind::Http, Kind::Close];
    let len = if rng.random_ratio(1, 40) { rng.random_range(0..9_000) } else { rng.random_range(0..120) };
    let bytes = (0..len).map(|_| if rng.random_ratio(1, 3) { 0 } else { rng.random() }).collect();
    Frame { kind: kinds[rng.random_range(0..kinds.len())], received: Nanos(rng.random()), bytes }
}

fn small_frame(rng: &mut StdRng) -> Frame {
    let mut frame = frame(rng);
    frame.bytes.truncate(20);
    frame
}

fn append(lane: &mut LaneJournal, frame: &Frame) -> Result<FramePos, Error> {
    lane.append(frame.kind, frame.received, &frame.bytes)
}

/// Everything from `from` to `end`: frames by position, and the holes between.
fn read(disk: Arc<dyn Disk>, dir: &Path, from: FramePos, end: FramePos) -> (Vec<(FramePos, Frame)>, Vec<Hole>) {
    let mut reader = Reader::open_on(disk, dir, from).unwrap();
    let head = reader.pos();
    if let Some(found) = reader.state() {
        assert_eq!(found, state(head), "the state is not the one saved at {head}");
    }
    let (mut frames, mut holes) = (Vec::new(), Vec::new());
    loop {
        match reader.next_before(end) {
            Ok(Some(record)) if record.pos < from => {}
            Ok(Some(record)) => {
                let (kind, received, bytes) = (record.kind, record.received, record.bytes.to_vec());
                frames.push((record.pos, Frame { kind, received, bytes }));
                record.bytes.fill(0xEE); // Readers may edit in place.
            }
            Ok(None) => return (frames, holes),
            Err(Error::Hole(hole)) => holes.push(hole),
            Err(error) => panic!("{error}"),
        }
    }
}

fn lane_dir() -> PathBuf {
    Path::new(ROOT).join(LANE)
}

fn pos(value: usize) -> FramePos {
    FramePos::new(value as u64)
}
