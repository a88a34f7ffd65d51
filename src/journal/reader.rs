//! Reads one lane's frames in order, from any position, across segments, while the newest is being written.
//!
//! What is lost is never passed over in silence: a stretch that cannot be read comes back once as
//! [`Error::Hole`], and the next call goes on behind it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tapeway_exchanges::ids::{FramePos, Nanos};

use super::{
    Record,
    cursor::{Cursor, Peek},
    disk::{Disk, RealDisk},
    error::{Damage, Error, Hole},
    identity::Identity,
    record,
    segment::SegmentFile,
};
use crate::lane::Progress;

/// Reads one lane's frames in order, up to what has been appended.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    journal_id: u128,
    cursor: Option<Cursor>,
    pos: FramePos,
    state: Option<Vec<u8>>,
    created: Nanos,
    /// Records before this are known to be appended.
    limit: FramePos,
}

impl Reader {
    /// Positions a reader at the head of the segment that holds `from` (or would hold it next). When that
    /// segment's adapter state is damaged, at the head of the last one before it whose state is whole, because
    /// the frames in between give the same state again.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] when retention removed `from`; [`Error::Foreign`]; [`Error::Io`].
    pub fn open(dir: &Path, from: FramePos) -> Result<Self, Error> {
        Self::open_on(Arc::new(RealDisk), dir, from)
    }

    /// As [`open`](Self::open), on a given disk.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, from: FramePos) -> Result<Self, Error> {
        let expected = || "a lane's folder with its lane.id".to_owned();
        let identity = Identity::read(disk.as_ref(), dir)?.ok_or_else(|| Error::Foreign {
            path: dir.into(),
            what: "journal folder",
            found: "no lane.id".into(),
            expected: expected(),
        })?;
        let mut reader = Self {
            disk,
            dir: dir.into(),
            journal_id: identity.journal_id,
            cursor: None,
            pos: from,
            state: None,
            created: Nanos(0),
            limit: FramePos::FIRST,
        };
        for _ in 0..LISTINGS_MAX {
            match reader.open_at_state(from) {
                // Retention or compression was faster; look again.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => return result.map(|()| reader),
            }
        }
        Err(Error::io("open", dir)(io::ErrorKind::NotFound.into()))
    }

    /// The next record; `None` at the appended end (call again later).
    ///
    /// # Errors
    ///
    /// - [`Error::Hole`]: frames that cannot be read; the reader stands behind them and can be used on.
    /// - [`Error::Gone`]: retention removed the position in the meantime.
    /// - [`Error::Io`], [`Error::Foreign`]: the reader stays where it was.
    pub fn next(&mut self, progress: &Progress) -> Result<Option<Record<'_>>, Error> {
        if self.pos >= self.limit {
            self.limit = progress.appended();
        }
        self.next_before(self.limit)
    }

    /// The next record if its position is before `limit`, all of which must have been appended.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn next_before(&mut self, limit: FramePos) -> Result<Option<Record<'_>>, Error> {
        if self.pos >= limit {
            return Ok(None);
        }
        let header = self.advance(limit)?;
        self.pos = self.pos.next();
        let cursor = self.cursor.as_mut().expect("advance leaves a cursor at the record it found");
        Ok(Some(cursor.take(header)))
    }

    /// Position of the next record.
    #[must_use]
    pub fn pos(&self) -> FramePos {
        self.pos
    }

    /// Adapter state saved at the head of the segment the reader was opened in.
    #[must_use]
    pub fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }

    /// When the segment the reader was opened in was made, by the host clock; zero when its head is damaged.
    #[must_use]
    pub fn created(&self) -> Nanos {
        self.created
    }

    fn open_at_state(&mut self, from: FramePos) -> Result<(), Error> {
        let segments = self.segments()?;
        let Some(oldest) = segments.first() else { return Ok(()) };
        let Some(holding) = SegmentFile::holding(&segments, from) else {
            return Err(Error::Gone { first: oldest.first, wanted: from });
        };
        let mut fallback = None;
        for segment in segments[..=holding].iter().rev() {
            let (cursor, head) = Cursor::open(self.disk.as_ref(), segment, self.journal_id)?;
            if let Ok(head) = head
                && !head.is_state_damaged
            {
                fallback = None;
                self.created = head.created;
                self.stand(cursor, head.state);
                break;
            }
            fallback.get_or_insert(cursor);
        }
        // No state left at all: begin without one, as near as can be.
        if let Some(cursor) = fallback {
            self.stand(cursor, None);
        }
        Ok(())
    }

    fn stand(&mut self, cursor: Cursor, state: Option<Vec<u8>>) {
        self.pos = cursor.pos();
        self.cursor = Some(cursor);
        self.state = state;
    }

    /// Brings the cursor to the record at `self.pos`, which is known to be appended.
    fn advance(&mut self, limit: FramePos) -> Result<record::Header, Error> {
        let mut has_reloaded = false;
        let mut listings = 0;
        loop {
            let Some(cursor) = &mut self.cursor else {
                listings += 1;
                self.enter(limit, listings < LISTINGS_MAX)?;
                continue;
            };
            let damage = match cursor.peek()? {
                Peek::Record(header) => return Ok(header),
                Peek::End => Damage::Missing,
                Peek::Damaged(damage) => damage,
            };
            // Perhaps it was read ahead while it was being written.
            if !has_reloaded {
                has_reloaded = true;
                cursor.reload();
                continue;
            }
            has_reloaded = false;
            self.step_over(limit, damage)?;
        }
    }

    /// There is no record at the cursor: goes on in the next segment if this one ends here, else makes a hole.
    fn step_over(&mut self, limit: FramePos, damage: Damage) -> Result<(), Error> {
        let segments = self.segments()?;
        let cursor = self.cursor.as_mut().expect("the caller has one");
        let after = segments.partition_point(|segment| segment.first <= cursor.first());
        let successor = segments.get(after).map(|segment| segment.first);
        if successor.is_some_and(|first| first <= self.pos) {
            self.cursor = None;
            return Ok(());
        }
        let offset = cursor.offset();
        let path = cursor.path().to_owned();
        if damage != Damage::Missing && cursor.resync()? {
            let next = cursor.pos();
            return self.hole(path, offset, next, damage);
        }
        if let Some(first) = successor {
            self.cursor = None;
            return self.hole(path, offset, first, damage);
        }
        // The newest segment. It may have been made anew under the same name while it was empty.
        let replaced = segments.last().filter(|segment| segment.first == self.pos && segment.first == cursor.first());
        if let Some(segment) = replaced {
            let (mut fresh, _) = Cursor::open(self.disk.as_ref(), segment, self.journal_id)?;
            if matches!(fresh.peek()?, Peek::Record(_)) {
                self.cursor = Some(fresh);
                return Ok(());
            }
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.expect(limit);
        }
        self.hole(path, offset, limit, damage)
    }

    /// Opens the segment that holds `self.pos` and goes to it. Does nothing if that segment was removed or
    /// compressed in this very moment and `may_retry`.
    fn enter(&mut self, limit: FramePos, may_retry: bool) -> Result<(), Error> {
        let segments = self.segments()?;
        let gone = |first| Error::Gone { first, wanted: self.pos };
        let Some(holding) = SegmentFile::holding(&segments, self.pos) else {
            return Err(gone(segments.first().map_or(limit, |segment| segment.first)));
        };
        let opened = Cursor::open(self.disk.as_ref(), &segments[holding], self.journal_id);
        let (mut cursor, _) = match opened {
            Err(Error::Io { source, .. }) if may_retry && source.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        while cursor.pos() < self.pos {
            match cursor.peek()? {
                Peek::Record(header) => drop(cursor.take(header)),
                Peek::Damaged(_) if cursor.resync()? => {}
                Peek::End | Peek::Damaged(_) => cursor.expect(self.pos),
            }
        }
        let (path, offset, next) = (cursor.path().to_owned(), cursor.offset(), cursor.pos());
        self.cursor = Some(cursor);
        self.hole(path, offset, next, Damage::Missing)
    }

    /// Moves to `next`; an error if that leaves frames behind.
    fn hole(&mut self, path: PathBuf, offset: u64, next: FramePos, damage: Damage) -> Result<(), Error> {
        let first = std::mem::replace(&mut self.pos, next);
        if first < next { Err(Hole { path, offset, first, next, damage }.into()) } else { Ok(()) }
    }

    fn segments(&self) -> Result<Vec<SegmentFile>, Error> {
        SegmentFile::list(self.disk.as_ref(), &self.dir)
    }
}

/// Times the folder is listed anew because a file went away in between.
const LISTINGS_MAX: usize = 5;
