//! The writing end of one lane's journal, owned by its session.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tapeway_exchanges::{
    ids::{FramePos, Nanos},
    input::Origin,
};

use super::{
    disk::{self, Disk, File},
    error::Error,
    identity::Identity,
    record::{self, RECORD_BYTES_MAX},
    recover::{self, Recovered},
    segment::{Head, SegmentFile},
    space::Space,
    status::LaneStatus,
};
use crate::lane::Progress;

/// The writing end of one lane's journal.
///
/// The life of one: recovery gives it, [`begin`](Self::begin) opens a segment, then
/// [`append`](Self::append)s and [`flush`](Self::flush)es, [`roll`](Self::roll) when
/// [`is_roll_due`](Self::is_roll_due), and at the end a last `roll`, so that the next start has nothing to
/// scan, or [`seal`](Self::seal).
///
/// `begin`, `roll`, `seal` and `recover` wait for the disk; an async caller wraps them in `block_in_place`.
/// `append` and `flush` are at most one `write(2)`.
#[derive(Debug)]
pub struct LaneJournal {
    disk: Arc<dyn Disk>,
    identity: Identity,
    dir: PathBuf,
    segment_bytes_max: u64,
    space: Arc<Space>,
    status: Arc<LaneStatus>,
    progress: Arc<Progress>,
    active: Option<Active>,
    /// Records not yet handed to the operating system.
    buf: Vec<u8>,
    /// Position of the next record.
    next: FramePos,
    /// The last flush found no room.
    is_stuck: bool,
}

#[derive(Debug)]
struct Active {
    file: Arc<dyn File>,
    seed: u32,
    first: FramePos,
    /// Bytes written.
    bytes: u64,
}

impl LaneJournal {
    /// Recovers a lane's folder, or makes it.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] when the folder is another lane's or damaged beyond recovery; [`Error::Io`].
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        (venue, lane): (&str, &str),
        segment_bytes_max: u64,
        space: Arc<Space>,
    ) -> Result<(Self, Recovered), Error> {
        let identity = recover::identity(disk.as_ref(), &dir, venue, lane)?;
        let recovered = recover::recover(disk.as_ref(), &dir, &identity, false)?;
        let progress = Arc::new(Progress::default());
        progress.recovered(recovered.end);
        let status = Arc::new(LaneStatus::new(Arc::clone(&disk), lane, &dir, Arc::clone(&progress)));
        status.metrics.count_recovery(recovered.torn_bytes(), recovered.frames_lost());
        let next = recovered.end;
        let (active, buf, is_stuck) = (None, Vec::new(), false);
        let journal =
            Self { disk, identity, dir, segment_bytes_max, space, status, progress, active, buf, next, is_stuck };
        Ok((journal, recovered))
    }

    /// Appends one frame and returns its position. `bytes` is the input as received, at most
    /// [`RECORD_BYTES_MAX`] long; `received` is the host clock, which may step backwards.
    ///
    /// On return the frame is in memory. It survives the death of the process once [`flush`](Self::flush) has
    /// returned (which happens here by itself when much is waiting), and that of the machine once
    /// [`Progress::durable`] has passed it.
    ///
    /// # Errors
    ///
    /// - [`Error::Full`]: nothing was accepted. Stop reading, flush from time to time; when that succeeds and
    ///   [`is_full`](Self::is_full) is false, append it again.
    /// - [`Error::TooLong`]: nothing was accepted.
    /// - [`Error::Poisoned`]: nothing was accepted, nor will be before [`recover`](Self::recover).
    ///
    /// # Panics
    ///
    /// If no segment was begun.
    pub fn append(&mut self, origin: impl Into<Origin>, received: Nanos, bytes: &[u8]) -> Result<FramePos, Error> {
        self.check()?;
        if self.is_full() {
            return Err(Error::Full { dir: self.dir.clone() });
        }
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLong { what: "a frame", len: bytes.len(), max: RECORD_BYTES_MAX });
        }
        let active = self.active.as_ref().expect("a segment is begun before anything is appended");
        let pos = self.next;
        let behind = pos.frames_since(self.progress.durable()).expect("durable <= appended");
        let behind = u32::try_from(behind).unwrap_or(u32::MAX);
        record::put(&mut self.buf, active.seed, (pos, behind), (origin.into(), received), bytes);
        self.next = pos.next();
        if self.buf.len() >= BUFFER_BYTES_MAX {
            match self.flush() {
                // The frame is accepted and waits in memory; the next one will not be.
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pos)
    }

    /// Hands everything appended to the operating system.
    ///
    /// # Errors
    ///
    /// - [`Error::Full`]: the disk has no room. Everything accepted stays in memory (at most
    ///   [`BUFFER_BYTES_MAX`] and a frame) and is tried again by the next call.
    /// - [`Error::Poisoned`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.check()?;
        if self.buf.is_empty() {
            return Ok(());
        }
        let active = self.active.as_mut().expect("nothing is buffered without a segment");
        if let Err(error) = disk::write_all_at(active.file.as_ref(), &self.buf, active.bytes) {
            if !disk::is_no_room(&error) {
                return Err(self.status.poison("write", error));
            }
            // Cut the part of a record that found room. If that fails too it is overwritten by the next try,
            // and after a crash it is a torn tail.
            drop(active.file.set_len(active.bytes));
            self.is_stuck = true;
            self.space.set_full(true);
            return Err(Error::Full { dir: self.dir.clone() });
        }
        let bytes = self.buf.len() as u64;
        active.bytes += bytes;
        self.progress.on_append(self.next);
        self.status.set_active(&active.file, self.next);
        self.space.add(bytes);
        self.status.metrics.bytes.increment(bytes);
        self.is_stuck = false;
        self.buf.clear();
        if self.buf.capacity() > 4 * BUFFER_BYTES_MAX {
            self.buf.shrink_to(BUFFER_BYTES_MAX);
        }
        Ok(())
    }

    /// Begins a segment with the adapter's state before the next position, first sealing the one before.
    /// After it returns, a lane restarts from this state.
    ///
    /// # Errors
    ///
    /// - [`Error::Full`], [`Error::TooLong`]: the segment before goes on (or there is still none).
    /// - [`Error::Poisoned`].
    pub fn roll(&mut self, state: &[u8]) -> Result<(), Error> {
        self.seal()?;
        self.begin_segment(state)
    }

    /// Begins the first segment since recovery, with the adapter's state at the end of what was recovered.
    ///
    /// # Errors
    ///
    /// As [`roll`](Self::roll).
    pub fn begin(&mut self, state: &[u8]) -> Result<(), Error> {
        self.roll(state)
    }

    /// Begins a segment at a later position, because the positions before it were used and lost: the database
    /// has committed frames that this journal does not hold (a disk that lied about a sync, a folder restored
    /// from a copy). They are a hole to readers.
    ///
    /// # Errors
    ///
    /// As [`roll`](Self::roll).
    ///
    /// # Panics
    ///
    /// If `pos` was already given to a frame.
    pub fn begin_at(&mut self, pos: FramePos, state: &[u8]) -> Result<(), Error> {
        self.seal()?;
        assert!(pos >= self.next, "a position is never used twice");
        let before = std::mem::replace(&mut self.next, pos);
        self.begin_segment(state).inspect_err(|_| self.next = before)
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when the last frames could not be written; [`Error::Poisoned`].
    pub fn seal(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.status.sync()
    }

    /// Reads what is there after the journal was poisoned, writes it anew, and makes the journal usable again
    /// after a [`begin`](Self::begin). Positions given out before are not used again: those whose frames did not
    /// make it are a hole.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Foreign`]: the journal stays poisoned.
    pub fn recover(&mut self) -> Result<Recovered, Error> {
        let recovered = recover::recover(self.disk.as_ref(), &self.dir, &self.identity, true)?;
        self.active = None;
        self.buf.clear();
        self.is_stuck = false;
        self.status.clear_poison();
        self.status.metrics.count_recovery(recovered.torn_bytes(), recovered.frames_lost());
        self.progress.on_append(self.next.max(recovered.end));
        self.next = self.next.max(recovered.end);
        Ok(recovered)
    }

    /// Whether the segment is long enough to be followed by another; also when the journal is full and a new
    /// segment would let retention give up this one.
    #[must_use]
    pub fn is_roll_due(&self) -> bool {
        let Some(active) = &self.active else { return false };
        let bytes = active.bytes + self.buf.len() as u64;
        let has_records = active.first < self.next;
        let is_committed = self.progress.committed() >= self.next;
        has_records && (bytes >= self.segment_bytes_max || (self.space.is_full() && is_committed))
    }

    /// Whether [`append`](Self::append) refuses frames for want of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_stuck || self.space.is_full()
    }

    /// Position the next frame gets.
    #[must_use]
    pub fn next(&self) -> FramePos {
        self.next
    }

    /// Identity of the lane's folder.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The disk it is on.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// The lane's folder.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// How far the lane has come; shared with the lane.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// This journal as everyone else sees it.
    #[must_use]
    pub fn status(&self) -> Arc<LaneStatus> {
        Arc::clone(&self.status)
    }

    fn begin_segment(&mut self, state: &[u8]) -> Result<(), Error> {
        self.check()?;
        let mut head = Vec::new();
        Head::put(&mut head, &self.identity, self.next, now(self.disk.as_ref()), state)?;
        let path = SegmentFile::path(&self.dir, self.next);
        let began = Instant::now();
        let file = match self.create(&path, &head) {
            Ok(file) => file,
            Err(error) if disk::is_no_room(&error) => {
                drop(self.disk.remove(&disk::temporary(&path)));
                self.space.set_full(true);
                return Err(Error::Full { dir: self.dir.clone() });
            }
            Err(error) => return Err(self.status.poison("begin a segment", error)),
        };
        self.status.metrics.fsync_seconds.record(began.elapsed());
        self.space.add(head.len() as u64);
        self.status.metrics.bytes.increment(head.len() as u64);
        self.progress.on_append(self.next);
        self.progress.on_sync(self.next);
        self.status.set_active(&file, self.next);
        let seed = record::seed(self.identity.journal_id, self.next);
        self.active = Some(Active { file, seed, first: self.next, bytes: head.len() as u64 });
        Ok(())
    }

    fn create(&self, path: &std::path::Path, head: &[u8]) -> io::Result<Arc<dyn File>> {
        let temporary = disk::temporary(path);
        let file = self.disk.create(&temporary)?;
        disk::write_all_at(file.as_ref(), head, 0)?;
        file.sync()?;
        self.disk.rename(&temporary, path)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    fn check(&self) -> Result<(), Error> {
        self.status.poisoned().map_or(Ok(()), Err)
    }
}

/// The disk's clock.
fn now(disk: &dyn Disk) -> Nanos {
    let since = disk.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Appended bytes are handed to the operating system at the latest when there are so many.
pub const BUFFER_BYTES_MAX: usize = 1 << 20;
