//! A lane's folder after anything happened to its files.
//!
//! ```text
//! bytes = how u8 | rest
//! how & 3 = 0, 1   a journal is written, frames from `rest`; then bytes of its files are changed, cut, filled, added
//!           2      `rest` stands behind the head of the newest segment, as records
//!           3      `rest` is a whole segment, compressed if how & 4
//! ```
//!
//! Held: no panic, an end; a frame that reads is the frame that was written at that position (a checksum cannot be hit by
//! chance, and not learned: the journal's number is another every time); what is appended after recovery reads back.

use std::{path::Path, sync::Arc, time::Duration};

use tapeway::{
    config,
    journal::{
        Error, Journal, LaneJournal, Reader, SegmentFile,
        disk::{Disk, sim::SimDisk},
        repair, verify,
    },
};
use tapeway_exchanges::{
    ids::{FramePos, Nanos},
    input::Kind,
};

const ROOT: &str = "/journal";
const LANE: &str = "acme.0";

/// Runs one case.
///
/// # Panics
///
/// When something that is held is not so.
pub fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let disk = SimDisk::new(u64::from(*how));
    let dir = Path::new(ROOT).join(LANE);
    let written = match how & 3 {
        0 | 1 => {
            let at = rest.iter().position(|byte| *byte == 0xFF).unwrap_or(rest.len());
            let written = write(&disk, &rest[..at]);
            for change in rest[at..].chunks_exact(4).take(16) {
                damage(&disk, &dir, [change[0], change[1], change[2], change[3]]);
            }
            Some(written)
        }
        2 => {
            write(&disk, b"one");
            let newest = segments(&disk, &dir).pop().expect("one was written");
            disk.corrupt(&newest.path, |file| {
                file.truncate(file.len() - 28);
                file.extend_from_slice(rest);
            })
            .expect("it is there");
            None
        }
        _ => {
            write(&disk, b"one");
            let newest = segments(&disk, &dir).pop().expect("one was written");
            let is_compressed = how & 4 != 0;
            let path = if is_compressed { newest.path.with_extension("seg.zst") } else { newest.path.clone() };
            if is_compressed {
                disk.create(&path).expect("there is room");
                disk.remove(&newest.path).expect("it is there");
            }
            disk.corrupt(&path, |file| *file = rest.to_vec()).expect("it is there");
            None
        }
    };
    let frames_max = bytes.len() + 64;
    drop(verify(&disk, &dir));
    check(&disk, &dir, written.as_deref(), frames_max);
    let journal = open(&disk);
    let Ok((mut lane, recovered)) = journal.lane("acme", LANE) else { return };
    if lane.begin(b"{}").is_err() {
        return;
    }
    let end = recovered.end;
    assert_eq!(lane.next(), end, "recording goes on where recovery ended");
    lane.append(Kind::Text, Nanos(7), b"after").expect("there is room");
    lane.seal().expect("the disk is sound");
    let mut reader = Reader::open_on(Arc::new(disk.clone()), &dir, end).expect("the new segment is sound");
    let record = reader.next_before(end.next()).expect("it was just written").expect("it was just written");
    assert_eq!((record.pos, &*record.bytes), (end, &b"after"[..]));
    drop((lane, journal));
    check(&disk, &dir, None, frames_max);
    drop(repair(&disk, &dir));
    check(&disk, &dir, None, frames_max);
}

/// Writes a frame for each word of `text`, a segment for each five, and gives them back.
fn write(disk: &SimDisk, text: &[u8]) -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = text.split(|byte| *byte == b' ').take(40).map(<[u8]>::to_vec).collect();
    let journal = open(disk);
    let (mut lane, _): (LaneJournal, _) = journal.lane("acme", LANE).expect("a new folder");
    for (index, frame) in frames.iter().enumerate() {
        if index % 5 == 0 {
            lane.begin(b"{}").expect("there is room");
        }
        lane.append(Kind::Text, Nanos(5), frame).expect("there is room");
        lane.seal().expect("the disk is sound");
    }
    frames
}

fn damage(disk: &SimDisk, dir: &Path, [_, what, low, high]: [u8; 4]) {
    let segments = segments(disk, dir);
    let Some(segment) = segments.get(usize::from(what >> 4) % segments.len().max(1)) else { return };
    let at = |len: usize| usize::from(u16::from_le_bytes([low, high])) % len.max(1);
    disk.corrupt(&segment.path, |file| {
        let at = at(file.len());
        match what & 7 {
            0 => file.truncate(at),
            1 => file.extend(std::iter::repeat_n(low, usize::from(high))),
            2 => file.iter_mut().skip(at).take(64).for_each(|byte| *byte = 0),
            3 => drop(file.drain(at..(at + 3).min(file.len()))),
            bit => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit),
        }
    })
    .expect("it is there");
}

/// Reads everything; what reads is what was written.
fn check(disk: &SimDisk, dir: &Path, written: Option<&[Vec<u8>]>, frames_max: usize) {
    let Ok(mut reader) = Reader::open_on(Arc::new(disk.clone()), dir, FramePos::FIRST) else { return };
    let mut turns = 0;
    loop {
        turns += 1;
        assert!(turns <= 4 * frames_max, "reading does not end");
        match reader.next_before(FramePos::new(u64::MAX)) {
            Ok(Some(record)) => {
                if let Some(written) = written {
                    let index = usize::try_from(record.pos.get()).expect("a position that was written");
                    assert_eq!(Some(&*record.bytes), written.get(index).map(Vec::as_slice), "at {}", record.pos);
                }
            }
            Ok(None) => return,
            Err(Error::Hole(hole)) => assert!(hole.first < hole.next, "{hole}"),
            Err(_) => return,
        }
    }
}

fn segments(disk: &SimDisk, dir: &Path) -> Vec<SegmentFile> {
    SegmentFile::list(disk, dir).expect("the folder is there")
}

fn open(disk: &SimDisk) -> Journal {
    let config = config::Journal {
        dir: ROOT.into(),
        segment_bytes_max: 1 << 20,
        sync_interval: Duration::from_millis(2),
        keep_for: Duration::from_secs(100),
        bytes_max: u64::MAX,
        free_bytes_min: 0,
        is_compressed: false,
    };
    Journal::on_disk(Arc::new(disk.clone()), &config).expect("the disk takes it")
}
