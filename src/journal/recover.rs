//! Makes a lane's folder usable after a crash: finds the end of what can be proven, and says what was lost.
//!
//! Only the newest segment is read; the ones before it were synced before it was made. In it, a record that
//! fails is
//!
//! 1. **corruption**, if a later intact record proves that it had been synced. Everything intact is kept, the
//!    damaged stretch is a [`Hole`], and its positions are never used again.
//! 2. **a torn tail** otherwise: frames after the last sync that a crash took. The file is cut there, after the
//!    bytes were copied to a `.torn-<offset>` file beside it. The positions were never durable, so nothing
//!    outside can know them, and they are used again.

use std::{
    io,
    path::{Path, PathBuf},
};

use tapeway_exchanges::ids::FramePos;
use tracing::{error, info, warn};

use super::{
    cursor::{Cursor, Peek},
    disk::{self, Disk, TEMPORARY_SUFFIX},
    error::{Damage, Error, Hole},
    identity::Identity,
    segment::SegmentFile,
};

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// First position that is not in the journal: everything before it is durable (or in a hole).
    pub end: FramePos,
    /// Identity of the lane's folder.
    pub journal_id: u128,
    /// Segments found.
    pub segments: usize,
    /// The torn tail that was cut, if there was one.
    pub torn: Option<Cut>,
    /// Durable frames that cannot be read any more.
    pub holes: Vec<Hole>,
}

impl Recovered {
    /// Bytes of the torn tail.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn.as_ref().map_or(0, |cut| cut.bytes)
    }

    /// Durable frames that cannot be read any more.
    #[must_use]
    pub fn frames_lost(&self) -> u64 {
        self.holes.iter().map(Hole::frames).sum()
    }
}

/// Bytes cut from the end of a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// Where the bytes are kept; `None` when the disk had no room for the copy, and they were left in place.
    pub saved: Option<PathBuf>,
    /// Where they began.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// What was wrong with the first record among them.
    pub damage: Damage,
}

/// One segment, read from end to end.
#[derive(Debug)]
pub struct Scan {
    /// Position after the last record that counts.
    pub end: FramePos,
    /// Offset after it, in the (decompressed) file.
    pub offset: u64,
    /// Intact records.
    pub records: u64,
    /// What is wrong with the bytes at `offset`, when there are any.
    pub tail: Option<Damage>,
    /// Frames in between that cannot be read.
    pub holes: Vec<Hole>,
    /// What is wrong with the head, if anything: the state is lost then.
    pub head: Option<Damage>,
}

impl Scan {
    /// Reads a segment from end to end. `is_sealed`: everything in it was synced, so whatever is damaged is
    /// corruption and intact records behind it count.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Foreign`].
    pub fn of(disk: &dyn Disk, segment: &SegmentFile, journal_id: u128, is_sealed: bool) -> Result<Self, Error> {
        let (mut cursor, head) = Cursor::open(disk, segment, journal_id)?;
        let head = match head {
            Ok(head) => head.is_state_damaged.then_some(Damage::State),
            Err(damage) => Some(damage),
        };
        let mut durable = if is_sealed { FramePos::new(u64::MAX) } else { FramePos::FIRST };
        let (mut holes, mut records, mut tail): (Vec<Hole>, u64, Option<Damage>) = (Vec::new(), 0, None);
        loop {
            let (first, offset) = (cursor.pos(), cursor.offset());
            match cursor.peek()? {
                Peek::Record(header) => {
                    // `header` refuses a `behind` beyond the position.
                    durable = durable.max(FramePos::new(first.get() - u64::from(header.behind)));
                    cursor.take(header);
                    records += 1;
                }
                Peek::End => break,
                Peek::Damaged(damage) if cursor.resync()? => {
                    let (path, next) = (segment.path.clone(), cursor.pos());
                    if first < next {
                        holes.push(Hole { path, offset, first, next, damage });
                    }
                }
                Peek::Damaged(damage) => {
                    tail = Some(damage);
                    break;
                }
            }
        }
        let (mut end, mut offset) = (cursor.pos(), cursor.offset());
        if let Some(unproven) = holes.iter().position(|hole| hole.first >= durable) {
            let hole = holes.swap_remove(unproven);
            holes.truncate(unproven);
            (end, offset, tail) = (hole.first, hole.offset, Some(hole.damage));
        }
        Ok(Self { end, offset, records, tail, holes, head })
    }
}

/// Reads or makes the identity of a lane's folder.
///
/// # Errors
///
/// [`Error::Foreign`] when the folder is of another lane, or its identity is damaged and no segment tells it.
pub(crate) fn identity(disk: &dyn Disk, dir: &Path, venue: &str, lane: &str) -> Result<Identity, Error> {
    disk.create_dir(dir).map_err(Error::io("make the folder", dir))?;
    let found = match told(disk, dir)? {
        Some((identity, is_written)) => {
            if !is_written {
                warn!(lane, "lane.id is missing or damaged: written anew from a segment's head");
                identity.write(disk, dir)?;
            }
            identity
        }
        None => {
            let identity = Identity::new(disk, venue, lane);
            identity.write(disk, dir)?;
            identity
        }
    };
    if (found.venue.as_str(), found.lane.as_str()) != (venue, lane) {
        return Err(Error::Foreign {
            path: Identity::path(dir),
            what: "lane",
            found: format!("{} of {}", found.lane, found.venue),
            expected: format!("{lane} of {venue}"),
        });
    }
    Ok(found)
}

/// The identity of a lane's folder, and whether its own file tells it; else the head of a segment does. `None` for
/// a folder without either.
///
/// # Errors
///
/// [`Error::Foreign`] when the file is damaged and no segment helps; [`Error::Io`].
pub(crate) fn told(disk: &dyn Disk, dir: &Path) -> Result<Option<(Identity, bool)>, Error> {
    let missing = match Identity::read(disk, dir) {
        Ok(Some(identity)) => return Ok(Some((identity, true))),
        Ok(None) => None,
        Err(error @ Error::Foreign { .. }) => Some(error),
        Err(error) => return Err(error),
    };
    for segment in SegmentFile::list(disk, dir)?.iter().rev() {
        if let Ok(head) = Cursor::head(disk, segment)? {
            return Ok(Some((head.identity, false)));
        }
    }
    missing.map_or(Ok(None), Err)
}

/// Recovers a lane's folder. `is_suspect`: a write or sync failed on it in this process, so what can be read is
/// not what is on the disk, and the newest segment is written anew. A marker says the same of another process.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Foreign`].
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, identity: &Identity, is_suspect: bool) -> Result<Recovered, Error> {
    let entries = disk.list(dir).map_err(Error::io("list", dir))?;
    for entry in entries.iter().filter(|entry| !entry.is_dir && entry.name.ends_with(TEMPORARY_SUFFIX)) {
        let path = dir.join(&entry.name);
        disk.remove(&path).map_err(Error::io("remove", &path))?;
    }
    let is_suspect = is_suspect || entries.iter().any(|entry| entry.name == SUSPECT);
    let segments = SegmentFile::list(disk, dir)?;
    let mut recovered = Recovered {
        end: FramePos::FIRST,
        journal_id: identity.journal_id,
        segments: segments.len(),
        torn: None,
        holes: Vec::new(),
    };
    if let Some(newest) = segments.last() {
        let scan = Scan::of(disk, newest, identity.journal_id, false)?;
        recovered.end = scan.end;
        recovered.torn = settle(disk, newest, &scan, is_suspect)?;
        recovered.holes = scan.holes;
    }
    disk.sync_dir(dir).map_err(Error::io("sync the folder", dir))?;
    if is_suspect {
        clear_suspect(disk, dir)?;
    }
    log(identity, &recovered);
    Ok(recovered)
}

/// Leaves a mark that what can be read here may not be what is on the disk. Best effort: the disk is failing.
pub(crate) fn mark_suspect(disk: &dyn Disk, dir: &Path) {
    let path = dir.join(SUSPECT);
    if let Err(error) = disk::write_whole(disk, &path, b"") {
        warn!(path = %path.display(), %error, "the journal's failure could not be marked for the next start");
    }
}

/// Copies a segment's bytes from `offset` on to a file beside it, then cuts them off.
///
/// # Errors
///
/// [`Error::Io`]; nothing is cut unless the copy is durable.
pub(crate) fn cut(disk: &dyn Disk, path: &Path, offset: u64, damage: Damage, suffix: &str) -> Result<Cut, Error> {
    let file = disk.open_write(path).map_err(Error::io("open", path))?;
    let len = file.bytes().map_err(Error::io("read", path))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}-{offset}"));
    let saved = PathBuf::from(name);
    let bytes = len.saturating_sub(offset);
    match copy(disk, path, offset..len, &saved) {
        Ok(()) => {}
        Err(error) if disk::is_no_room(&error) => {
            drop(disk.remove(&disk::temporary(&saved)));
            return Ok(Cut { path: path.into(), saved: None, offset, bytes, damage });
        }
        Err(error) => return Err(Error::io("copy", saved)(error)),
    }
    file.set_len(offset).map_err(Error::io("cut", path))?;
    sync(disk, file.as_ref(), path)?;
    Ok(Cut { path: path.into(), saved: Some(saved), offset, bytes, damage })
}

/// Makes the newest segment's file hold exactly what counts, durably.
fn settle(disk: &dyn Disk, newest: &SegmentFile, scan: &Scan, is_suspect: bool) -> Result<Option<Cut>, Error> {
    let path = &newest.path;
    if newest.is_compressed {
        return Ok(None); // Synced when it was compressed, and no place for a cut.
    }
    if scan.records == 0 && scan.head == Some(Damage::Head) {
        // Not a segment at all. Its name is needed for the next one.
        let mut name = path.as_os_str().to_owned();
        name.push(".torn-0");
        let saved = PathBuf::from(name);
        disk.rename(path, &saved).map_err(Error::io("rename", path))?;
        let (path, saved, bytes) = (path.clone(), Some(saved), newest.bytes);
        return Ok(Some(Cut { path, saved, offset: 0, bytes, damage: Damage::Head }));
    }
    let torn = match scan.tail {
        Some(damage) => Some(cut(disk, path, scan.offset, damage, "torn")?),
        None => None,
    };
    if is_suspect {
        copy(disk, path, 0..scan.offset, path).map_err(Error::io("write anew", path))?;
    } else {
        let file = disk.open_write(path).map_err(Error::io("open", path))?;
        sync(disk, file.as_ref(), path)?;
    }
    Ok(torn)
}

/// Makes a segment's bytes durable. If that fails, the next recovery must not believe what it can read: the system may
/// have forgotten what it did not write.
fn sync(disk: &dyn Disk, file: &dyn disk::File, path: &Path) -> Result<(), Error> {
    file.sync().map_err(|error| {
        mark_suspect(disk, path.parent().unwrap_or(Path::new(".")));
        Error::io("sync", path)(error)
    })
}

/// Copies a range of a file into a file that is either whole or not there.
fn copy(disk: &dyn Disk, from: &Path, range: std::ops::Range<u64>, to: &Path) -> io::Result<()> {
    let source = disk.open(from)?;
    let temporary = disk::temporary(to);
    let target = disk.create(&temporary)?;
    let mut buf = vec![0; COPY_BYTES];
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let read = source.read_at(&mut buf[..wanted], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        disk::write_all_at(target.as_ref(), &buf[..read], at - range.start)?;
        at += read as u64;
    }
    target.sync()?;
    disk.rename(&temporary, to)?;
    disk.sync_dir(to.parent().unwrap_or(Path::new(".")))
}

fn clear_suspect(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let path = dir.join(SUSPECT);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        Ok(()) | Err(_) => disk.sync_dir(dir).map_err(Error::io("sync the folder", dir)),
    }
}

fn log(identity: &Identity, recovered: &Recovered) {
    let lane = &identity.lane;
    for hole in &recovered.holes {
        error!(lane, path = %hole.path.display(), offset = hole.offset, first = %hole.first, next = %hole.next,
            damage = %hole.damage, "durable frames are lost");
    }
    if let Some(torn) = &recovered.torn {
        warn!(lane, path = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, damage = %torn.damage,
            "cut a torn tail: frames after the last sync that a crash took");
    }
    info!(lane, end = %recovered.end, segments = recovered.segments, "journal recovered");
}

/// Marks a folder in which a write or sync has failed.
const SUSPECT: &str = "SUSPECT";
const COPY_BYTES: usize = 1 << 20;
