//! How fast the journal writes, syncs, recovers and reads on this machine's disk.
//!
//! `cargo run --release --example journal_speed [-- <folder> [MiB]]`; prints one line a measurement.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use tapeway::{
    config,
    journal::{Journal, LaneJournal, Reader},
};
use tapeway_exchanges::{
    ids::{FramePos, Nanos},
    input::Kind,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir: PathBuf = args.next().unwrap_or_else(|| "target/journal-speed".into()).into();
    let mebibytes: usize = args.next().map_or(Ok(1_024), |text| text.parse())?;
    if dir.exists() {
        return Err(format!("{}: is there already; give another folder", dir.display()).into());
    }
    let result = measure(&dir, mebibytes << 20);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &std::path::Path, bytes: usize) -> Result<(), Box<dyn Error>> {
    let frame = frame();
    let count = bytes / frame.len();

    let journal = Journal::open(&config(dir, 128 << 20))?;
    let (mut lane, _) = journal.lane("acme", "acme.0")?;
    lane.begin(b"{}")?;
    let began = Instant::now();
    for index in 0..count {
        append(&mut lane, index, &frame)?;
        // A session flushes when its socket has nothing more to give: here every 32 frames.
        if index % 32 == 31 {
            lane.flush()?;
        }
    }
    lane.seal()?;
    report("append, flush every 32, roll at 128 MiB, sync every 10 ms", began, bytes, count);
    let end = lane.next();
    let lane_dir = lane.dir().to_owned();
    drop((lane, journal));

    read("read, plain, cached", &lane_dir, end, bytes, count)?;

    let mut compressed = config(dir, 128 << 20);
    compressed.is_compressed = true;
    let journal = Journal::on_disk(std::sync::Arc::new(tapeway::journal::disk::RealDisk), &compressed)?;
    let began = Instant::now();
    let (mut lane, recovered) = journal.lane("acme", "acme.0")?;
    println!("recover: {:?}, end {}", began.elapsed(), recovered.end);
    lane.begin(b"{}")?;
    let sealed = bytes_in(&lane_dir)?;
    let began = Instant::now();
    while journal.retain(SystemTime::now())?.compressed > 0 {}
    let after = bytes_in(&lane_dir)?;
    println!("compress and verify: {:?}, {sealed} to {after} bytes", began.elapsed());
    read("read, compressed, cached", &lane_dir, end, bytes, count)?;
    drop((lane, journal));

    many_segments(dir)
}

/// A thousand sealed segments, then a start.
fn many_segments(dir: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let dir = dir.join("many");
    let journal = Journal::open(&config(&dir, 128 << 20))?;
    let (mut lane, _) = journal.lane("acme", "acme.0")?;
    let began = Instant::now();
    for index in 0..SEGMENTS {
        lane.roll(b"{}")?;
        append(&mut lane, index, b"frame")?;
    }
    lane.seal()?;
    println!("roll: {:?} each", began.elapsed() / u32::try_from(SEGMENTS)?);
    drop((lane, journal));
    let began = Instant::now();
    let journal = Journal::open(&config(&dir, 128 << 20))?;
    let (_lane, recovered) = journal.lane("acme", "acme.0")?;
    println!("start with {} sealed segments: {:?}, end {}", recovered.segments, began.elapsed(), recovered.end);
    Ok(())
}

fn append(lane: &mut LaneJournal, index: usize, frame: &[u8]) -> Result<(), Box<dyn Error>> {
    lane.append(Kind::Text, Nanos(i64::try_from(index)?), frame)?;
    if lane.is_roll_due() {
        lane.roll(b"{}")?;
    }
    Ok(())
}

fn read(what: &str, dir: &std::path::Path, end: FramePos, bytes: usize, count: usize) -> Result<(), Box<dyn Error>> {
    let mut reader = Reader::open(dir, FramePos::FIRST)?;
    let began = Instant::now();
    let mut sum = 0usize;
    while let Some(record) = reader.next_before(end)? {
        sum += record.bytes.len();
    }
    assert!(sum <= bytes, "read more than was written");
    report(what, began, bytes, count);
    Ok(())
}

fn bytes_in(dir: &std::path::Path) -> std::io::Result<u64> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

fn report(what: &str, began: Instant, bytes: usize, count: usize) {
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let (megabytes, frames) = (bytes as f64 / 1e6 / seconds, count as f64 / 1e6 / seconds);
    println!("{what}: {megabytes:.0} MB/s, {frames:.2} M frames/s, {seconds:.2} s");
}

/// A frame like a Binance depth update: about 300 bytes of JSON.
fn frame() -> Vec<u8> {
    let mut text = String::from(r#"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256322,"b":["#);
    while text.len() < 290 {
        text.push_str(r#"["58710.20","0.014"],"#);
    }
    text.push_str("]}}");
    text.into_bytes()
}

fn config(dir: &std::path::Path, segment_bytes_max: u64) -> config::Journal {
    config::Journal {
        dir: dir.into(),
        segment_bytes_max,
        sync_interval: Duration::from_millis(10),
        keep_for: Duration::from_secs(86_400),
        bytes_max: u64::MAX,
        free_bytes_min: 0,
        is_compressed: false,
    }
}

const SEGMENTS: usize = 1_000;
