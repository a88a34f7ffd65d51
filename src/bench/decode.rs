//! Frames to events on one core, beside a typed serde_json decode of the same frames.

use std::{collections::BTreeMap, hint::black_box};

use tapeway_exchanges::{adapter::At, decoder::Decoder, event::Events, ids::FramePos};

use super::{Options, Report, Stage, float, frames::Frames, process::thread_cpu_seconds, progress, typed};

/// Measures each recording by itself.
pub(super) fn run(options: &Options, recordings: &[Frames], report: &mut Report) {
    for frames in recordings {
        let mut memory = Memory::default();
        let rows = float(decode(frames, &mut memory));
        let count = float(frames.inputs.len() as u64);
        if rows == 0.0 {
            progress!("{}: no rows in it", frames.name);
            continue;
        }
        let rounds = rounds(|| decode(frames, &mut memory));
        let has_typed =
            frames.inputs.iter().any(|input| typed::rows(frames.spec.name, input.kind, &input.bytes).is_some());
        let typed_rows = float(typed_decode(frames));
        let (mut own, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..options.runs {
            let seconds = timed(rounds, || decode(frames, &mut memory));
            own.push(seconds);
            if has_typed && typed_rows > 0.0 {
                let typed_seconds = timed(rounds, || typed_decode(frames));
                // By frames: both read the same ones, and the rows are a matter of how they are counted.
                ratios.push(typed_seconds / seconds);
            }
        }
        let each = |scale: f64| own.iter().map(|seconds| scale / seconds).collect::<Vec<_>>();
        report.add(Stage::Decode, &frames.name, "rows_per_s", "rows/s", &each(rows));
        report.add(Stage::Decode, &frames.name, "frames_per_s", "frames/s", &each(count));
        report.add(Stage::Decode, &frames.name, "mb_per_s", "MB/s", &each(float(frames.bytes()) / 1e6));
        report.add(Stage::Decode, &frames.name, "ratio_to_serde_json", "ratio", &ratios);
    }
}

/// What a session that has run for a while has at hand.
#[derive(Default)]
struct Memory {
    buffer: Vec<u8>,
    chunks: Vec<Events>,
}

/// As a session does it: a copy of the frame into the buffer the parser edits, events into a chunk that is handed on
/// when it is full. Returns the rows.
fn decode(frames: &Frames, memory: &mut Memory) -> u64 {
    let mut decoders: BTreeMap<u64, Decoder> = BTreeMap::new();
    let Memory { buffer, chunks } = memory;
    let mut rows = 0;
    for input in &frames.inputs {
        let decoder = decoders.entry(input.decoder).or_insert_with(|| {
            let mut decoder = Decoder::new(frames.spec, FramePos::FIRST);
            drop(decoder.swap_events(chunks.pop().unwrap_or_default()));
            decoder
        });
        buffer.clear();
        buffer.extend_from_slice(&input.bytes);
        decoder.apply(At { pos: decoder.next(), received: input.received, conn: input.conn }, input.kind, buffer);
        decoder.actions().clear();
        if decoder.events().rows() > CHUNK_ROWS {
            let full = black_box(decoder.swap_events(chunks.pop().unwrap_or_default()));
            rows += full.rows() as u64;
            chunks.push(full);
        }
    }
    for decoder in decoders.values_mut() {
        let last = decoder.swap_events(Events::default());
        rows += last.rows() as u64;
        chunks.push(last);
    }
    rows
}

fn typed_decode(frames: &Frames) -> u64 {
    let rows = frames.inputs.iter().filter_map(|input| typed::rows(frames.spec.name, input.kind, &input.bytes));
    rows.sum::<usize>() as u64
}

/// Seconds on the core that one round takes.
fn timed(rounds: u32, mut round: impl FnMut() -> u64) -> f64 {
    let begin = thread_cpu_seconds();
    for _ in 0..rounds {
        black_box(round());
    }
    (thread_cpu_seconds() - begin) / f64::from(rounds)
}

/// Rounds that take long enough to be measured.
fn rounds(mut round: impl FnMut() -> u64) -> u32 {
    let begin = thread_cpu_seconds();
    let mut rounds = 0;
    while thread_cpu_seconds() - begin < RUN_SECONDS_MIN && rounds < ROUNDS_MAX {
        black_box(round());
        rounds += 1;
    }
    rounds
}

/// Rows of a chunk, as in the daemon.
const CHUNK_ROWS: usize = 1_024;
/// A run takes about this long at least.
const RUN_SECONDS_MIN: f64 = 0.1;
/// And has at most this many rounds.
const ROUNDS_MAX: u32 = 10_000;
