//! The journal by itself: append and sync, recover, read, start over many segments.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tapeway_exchanges::ids::FramePos;

use super::{BenchError, Options, Report, Stage, failed, float, frames::Frames, material::journal_config, progress};
use crate::journal::{Journal, Reader};

/// Measures.
///
/// # Errors
///
/// As the disk has them.
pub(super) fn run(options: &Options, dir: &Path, frames: &[Frames], report: &mut Report) -> Result<(), BenchError> {
    let dir = dir.join("journal");
    let count: u64 = frames.iter().map(|frames| frames.inputs.len() as u64).sum();
    let bytes: u64 = frames.iter().map(Frames::bytes).sum();
    let mut runs = [const { Vec::new() }; 4];
    for nr in 1..=options.runs {
        progress!("journal run {nr} of {}", options.runs);
        let result = once(&dir, frames);
        std::fs::remove_dir_all(&dir).map_err(failed(&dir))?;
        let [append, recover, read] = result?;
        let start = start_over_segments(&dir, frames);
        std::fs::remove_dir_all(&dir).map_err(failed(&dir))?;
        for (all, took) in runs.iter_mut().zip([append, recover, read, start?]) {
            all.push(took.as_secs_f64());
        }
    }
    let [append, recover, read, start] = runs;
    let rate = |runs: &[f64], of: f64| runs.iter().map(|seconds| of / seconds).collect::<Vec<_>>();
    let (count, megabytes) = (float(count), float(bytes) / 1e6);
    report.add(Stage::Journal, "", "append_frames_per_s", "frames/s", &rate(&append, count));
    report.add(Stage::Journal, "", "append_mb_per_s", "MB/s", &rate(&append, megabytes));
    let millis = |runs: &[f64]| runs.iter().map(|seconds| seconds * 1e3).collect::<Vec<_>>();
    report.add(Stage::Journal, "", "recover_ms", "ms", &millis(&recover));
    report.add(Stage::Journal, "", "start_1000_segments_ms", "ms", &millis(&start));
    report.add(Stage::Journal, "", "read_frames_per_s", "frames/s", &rate(&read, count));
    report.add(Stage::Journal, "", "read_mb_per_s", "MB/s", &rate(&read, megabytes));
    Ok(())
}

/// Appends every frame to one lane, recovers it as after a crash, and reads it.
fn once(dir: &Path, frames: &[Frames]) -> Result<[Duration; 3], BenchError> {
    let journal = Journal::open(&journal_config(dir.into()))?;
    let (mut lane, _) = journal.lane(VENUE, LANE)?;
    lane.begin(b"{}")?;
    let began = Instant::now();
    for (nr, input) in frames.iter().flat_map(|frames| &frames.inputs).enumerate() {
        lane.append(input.kind, input.received, &input.bytes)?;
        // A session flushes when its socket has nothing more to give.
        if nr % FLUSH_FRAMES == FLUSH_FRAMES - 1 {
            lane.flush()?;
        }
        if lane.is_roll_due() {
            lane.roll(b"{}")?;
        }
    }
    lane.seal()?;
    let append = began.elapsed();
    let lane_dir = lane.dir().to_owned();
    drop((lane, journal));

    let began = Instant::now();
    let journal = Journal::open(&journal_config(dir.into()))?;
    let (lane, _) = journal.lane(VENUE, LANE)?;
    let recover = began.elapsed();

    let began = Instant::now();
    let mut reader = Reader::open(&lane_dir, FramePos::FIRST)?;
    while let Some(record) = reader.next(&lane.progress())? {
        std::hint::black_box(record.bytes);
    }
    Ok([append, recover, began.elapsed()])
}

/// How long a lane takes to be ready over a thousand sealed segments.
fn start_over_segments(dir: &Path, frames: &[Frames]) -> Result<Duration, BenchError> {
    let journal = Journal::open(&journal_config(dir.into()))?;
    let (mut lane, _) = journal.lane(VENUE, LANE)?;
    lane.begin(b"{}")?;
    let inputs: Vec<_> = frames.iter().flat_map(|frames| &frames.inputs).take(SEGMENT_FRAMES).collect();
    for _ in 0..SEGMENTS {
        for input in &inputs {
            lane.append(input.kind, input.received, &input.bytes)?;
        }
        lane.flush()?;
        lane.roll(b"{}")?;
    }
    drop((lane, journal));
    let began = Instant::now();
    let journal = Journal::open(&journal_config(dir.into()))?;
    let (lane, _) = journal.lane(VENUE, LANE)?;
    let took = began.elapsed();
    drop((lane, journal));
    Ok(took)
}

const VENUE: &str = "bench";
const LANE: &str = "bench.0";
/// Frames between two flushes.
const FLUSH_FRAMES: usize = 32;
/// Sealed segments that a start meets ...
const SEGMENTS: usize = 1_000;
/// ... with so many frames each: what is in them is not read.
const SEGMENT_FRAMES: usize = 100;
