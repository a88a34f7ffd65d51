//! Keeps the journal within its room: removes old segments, compresses sealed ones, and says when it is full.
//!
//! What may be removed, in this order, oldest first and always from the beginning of a lane:
//! 1. sealed, wholly committed segments older than `journal.keep_for`;
//! 2. only while less than a segment's room is left before a byte limit: sealed, wholly committed segments however young,
//!    so that what arrives until the next pass has room;
//! 3. nothing else. What is not committed stays, and the journal is full until the writers have come on.
//!
//! While another daemon holds a lane, what that one is known to have written counts as committed (`writer::standby`).
//!
//! A journal that was full has room again when a whole segment fits in, or when waiting frees nothing more because all is
//! committed: compression frees a little again and again, and lanes that connect for a second each time are of no use.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tracing::{debug, error, info, warn};

use super::{compress, disk::Disk, error::Error, segment::SegmentFile, space::Space, status::LaneStatus};
use crate::{config, metrics};

/// The lanes whose journals are open.
pub(crate) type Lanes = Arc<Mutex<Vec<Arc<LaneStatus>>>>;

/// Keeps the journal within its room.
#[derive(Debug)]
pub(crate) struct Retainer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keep_for: Duration,
    free_bytes_min: u64,
    segment_bytes_max: u64,
    is_compressed: bool,
    space: Arc<Space>,
    lanes: Lanes,
    /// One pass at a time.
    pass: Mutex<()>,
}

/// What one pass of the retainer did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pass {
    /// Segments removed because they were committed and old enough.
    pub expired: u64,
    /// Segments removed before their time because room was needed.
    pub given_up: u64,
    /// Segments compressed.
    pub compressed: u64,
    /// Bytes of all lanes on disk afterwards.
    pub bytes: u64,
    /// Whether the journal is full now.
    pub is_full: bool,
}

/// One lane's segments during a pass.
struct Held {
    status: Arc<LaneStatus>,
    segments: Vec<SegmentFile>,
}

impl Retainer {
    pub(crate) fn new(disk: Arc<dyn Disk>, config: &config::Journal, space: Arc<Space>, lanes: Lanes) -> Self {
        Self {
            disk,
            dir: config.dir.clone(),
            keep_for: config.keep_for,
            free_bytes_min: config.free_bytes_min,
            segment_bytes_max: config.segment_bytes_max,
            is_compressed: config.is_compressed,
            space,
            lanes,
            pass: Mutex::default(),
        }
    }

    /// Does what is due at `now`. One segment at most is compressed, so that a pass does not take long.
    ///
    /// # Errors
    ///
    /// The first error; what could be done in spite of it was done. Whether there is room is known only if
    /// the folders could be listed: if not, it stays as it was.
    pub(crate) fn pass(&self, now: SystemTime) -> Result<Pass, Error> {
        let _one = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pass = Pass::default();
        let mut first_error = None;
        let mut held = Vec::new();
        for status in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let segments = SegmentFile::list(self.disk.as_ref(), status.dir())?;
            held.push(Held { status: Arc::clone(status), segments });
        }
        for lane in &mut held {
            while lane.is_first_committed() && is_older(&lane.segments[0], now, self.keep_for) {
                if !note(&mut first_error, lane.remove_first(self.disk.as_ref(), true)) {
                    break;
                }
                pass.expired += 1;
            }
            note(&mut first_error, self.remove_torn(lane.status.dir(), now));
        }
        if self.is_compressed {
            pass.compressed = u64::from(note(&mut first_error, self.compress_one(&mut held)));
        }
        let mut bytes = self.usage()?;
        let mut free = self.disk.free_bytes(&self.dir).map_err(Error::io("look for room on", &self.dir))?;
        while self.is_tight(bytes, free) {
            let oldest = held.iter_mut().filter(|lane| lane.is_first_committed());
            let Some(lane) = oldest.min_by_key(|lane| lane.segments[0].modified) else { break };
            let len = lane.segments[0].bytes;
            let path = lane.segments[0].path.clone();
            if !note(&mut first_error, lane.remove_first(self.disk.as_ref(), false)) {
                break;
            }
            warn!(path = %path.display(), "gave up a committed segment before journal.keep_for: room is needed");
            pass.given_up += 1;
            bytes = bytes.saturating_sub(len);
            free = free.saturating_add(len);
        }
        let is_still_full = self.space.is_full() && self.is_tight(bytes, free) && held.iter().any(Held::is_behind);
        (pass.bytes, pass.is_full) = (bytes, self.is_short(bytes, free) || is_still_full);
        self.report(&held, pass, free);
        first_error.map_or(Ok(pass), Err)
    }

    fn is_short(&self, bytes: u64, free: u64) -> bool {
        // Less than lanes hand over at once is none.
        bytes > self.space.bytes_max() || free < self.free_bytes_min.max(FREE_BYTES_MIN)
    }

    /// Whether less than a segment's room is left.
    fn is_tight(&self, bytes: u64, free: u64) -> bool {
        self.is_short(bytes.saturating_add(self.segment_bytes_max), free.saturating_sub(self.segment_bytes_max))
    }

    fn report(&self, held: &[Held], pass: Pass, free: u64) {
        for lane in held {
            let bytes = lane.segments.iter().map(|segment| segment.bytes).sum();
            lane.status.set_usage(lane.segments.len() as u64, bytes);
        }
        self.space.recount(pass.bytes);
        let was_full = self.space.set_full(pass.is_full);
        metrics::set_journal_room(pass.bytes, self.space.bytes_max(), free, pass.is_full);
        let (bytes, bytes_max, free_bytes_min) = (pass.bytes, self.space.bytes_max(), self.free_bytes_min);
        if pass.is_full && !was_full {
            error!(
                bytes,
                bytes_max, free, free_bytes_min, "the journal is full: sessions stop reading until writers commit"
            );
        } else if was_full && !pass.is_full {
            info!(bytes, bytes_max, free, free_bytes_min, "the journal has room again");
        }
    }

    /// Compresses the oldest plain sealed segment; `Ok(false)` when there is none.
    fn compress_one(&self, held: &mut [Held]) -> Result<bool, Error> {
        let plain = |segments: &[SegmentFile]| {
            let sealed = segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
            sealed.iter().position(|segment| !segment.is_compressed)
        };
        let candidates = held.iter().filter_map(|lane| plain(&lane.segments).map(|at| &lane.segments[at]));
        let Some(segment) = candidates.min_by_key(|segment| segment.modified) else { return Ok(false) };
        let bytes = compress::compress(self.disk.as_ref(), segment)?;
        debug!(path = %segment.path.display(), before = segment.bytes, after = bytes, "compressed a segment");
        let path = segment.path.clone();
        for segment in held.iter_mut().flat_map(|lane| &mut lane.segments).filter(|segment| segment.path == path) {
            segment.path.as_mut_os_string().push(".zst");
            segment.is_compressed = true;
            segment.bytes = bytes;
        }
        Ok(true)
    }

    /// Removes what recovery cut off long ago. What `tapeway journal repair` cut off is a person's to remove.
    fn remove_torn(&self, dir: &Path, now: SystemTime) -> Result<bool, Error> {
        for entry in self.disk.list(dir).map_err(Error::io("list", dir))? {
            let age = now.duration_since(entry.modified).unwrap_or_default();
            if entry.name.contains(".torn-") && age >= self.keep_for {
                let path = dir.join(&entry.name);
                self.disk.remove(&path).map_err(Error::io("remove", path))?;
            }
        }
        Ok(true)
    }

    /// Bytes in all lane folders, those of lanes that are not open included.
    fn usage(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for entry in self.disk.list(&self.dir).map_err(Error::io("list", &self.dir))? {
            if entry.is_dir {
                let dir = self.dir.join(&entry.name);
                let files = self.disk.list(&dir).map_err(Error::io("list", dir))?;
                bytes += files.iter().map(|file| file.bytes).sum::<u64>();
            }
        }
        Ok(bytes)
    }
}

impl Held {
    /// Whether the first segment is sealed and all its rows are committed.
    fn is_first_committed(&self) -> bool {
        self.segments.get(1).is_some_and(|second| second.first <= self.status.progress().committed())
    }

    /// Whether writers have not come as far as the lane's end.
    fn is_behind(&self) -> bool {
        let progress = self.status.progress();
        progress.committed() < progress.appended()
    }

    fn remove_first(&mut self, disk: &dyn Disk, is_expired: bool) -> Result<bool, Error> {
        let segment = &self.segments[0];
        disk.remove(&segment.path).map_err(Error::io("remove", &segment.path))?;
        // A plain segment hides a compressed one that a crash left beside it; the next pass removes that.
        debug!(path = %segment.path.display(), is_expired, "removed a committed segment");
        self.status.metrics.count_removed(is_expired);
        self.segments.remove(0);
        Ok(true)
    }
}

/// Keeps the first error; whether something was done.
fn note(first: &mut Option<Error>, result: Result<bool, Error>) -> bool {
    result.unwrap_or_else(|error| {
        first.get_or_insert(error);
        false
    })
}

fn is_older(segment: &SegmentFile, now: SystemTime, age: Duration) -> bool {
    now.duration_since(segment.modified).is_ok_and(|found| found >= age)
}

/// Free bytes below which the journal counts as full whatever the configuration says: two lanes' buffers.
const FREE_BYTES_MIN: u64 = 2 * super::BUFFER_BYTES_MAX as u64;
