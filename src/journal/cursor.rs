//! Reads one segment file record by record, plain or compressed, in big bites.
//!
//! The buffer may hold bytes read while they were being written; they are only looked at by a caller who knows
//! that the record is whole, and [`Cursor::reload`] drops them.

use std::{
    fmt, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use tapeway_exchanges::ids::FramePos;

use super::{
    Record,
    disk::{Disk, File},
    error::{Damage, Error},
    record::{self, HEADER_BYTES, Header},
    segment::{Head, SegmentFile},
};

/// A place in one segment file.
#[derive(Debug)]
pub(crate) struct Cursor {
    path: PathBuf,
    source: Source,
    seed: u32,
    buf: Vec<u8>,
    /// Bytes read at once: grows to [`READ_BYTES_MAX`] while there is more.
    bite: usize,
    /// Unread bytes are `buf[start..end]`.
    start: usize,
    end: usize,
    /// Offset in the (decompressed) file of `buf[start]`.
    offset: u64,
    pos: FramePos,
    first: FramePos,
}

/// What lies at the cursor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peek {
    /// A whole, intact record.
    Record(Header),
    /// Nothing: the file ends here.
    End,
    /// Something that is no intact record.
    Damaged(Damage),
}

impl Cursor {
    /// Opens a segment and reads its head. A damaged head costs the state only: the records are looked for.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Foreign`] when the segment is of another journal or version.
    pub(crate) fn open(
        disk: &dyn Disk,
        segment: &SegmentFile,
        journal_id: u128,
    ) -> Result<(Self, Result<Head, Damage>), Error> {
        let (mut cursor, head) = Self::open_any(disk, segment)?;
        let path = &segment.path;
        match &head {
            Ok(found) if found.identity.journal_id != journal_id => {
                let (found, expected) = (format!("{:032x}", found.identity.journal_id), format!("{journal_id:032x}"));
                return Err(foreign(path, "journal id", &found, &expected));
            }
            Ok(found) if found.first != segment.first => {
                let (found, expected) = (found.first.to_string(), segment.first.to_string());
                return Err(foreign(path, "first position", &found, &expected));
            }
            Ok(_) => {}
            Err(_) => cursor.rewind(disk, segment)?,
        }
        cursor.seed = record::seed(journal_id, segment.first);
        Ok((cursor, head))
    }

    /// The head of a segment of whatever journal.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Foreign`] when the segment is of another version.
    pub(crate) fn head(disk: &dyn Disk, segment: &SegmentFile) -> Result<Result<Head, Damage>, Error> {
        Ok(Self::open_any(disk, segment)?.1)
    }

    /// Looks at the next record without taking it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn peek(&mut self) -> Result<Peek, Error> {
        match self.try_peek() {
            Ok(found) => Ok(found),
            Err(error) if self.source.is_compressed() && is_bad_data(&error) => Ok(Peek::Damaged(Damage::Compression)),
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }

    /// Takes the record that [`peek`](Self::peek) found.
    pub(crate) fn take(&mut self, header: Header) -> Record<'_> {
        let (from, to) = (self.start + HEADER_BYTES, self.start + HEADER_BYTES + header.len);
        let pos = self.pos;
        self.start = to;
        self.offset += (to - from + HEADER_BYTES) as u64;
        self.pos = pos.next();
        Record {
            pos,
            received: header.received,
            kind: header.origin.kind,
            conn: header.origin.conn,
            bytes: &mut self.buf[from..to],
        }
    }

    /// Goes behind the damage at the cursor: to the next intact record whose position is not before the
    /// cursor's. `false` when there is none; the cursor stays then.
    ///
    /// Reads the rest of the segment into memory, which `segment_bytes_max` bounds.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn resync(&mut self) -> Result<bool, Error> {
        loop {
            let held = self.end - self.start;
            match self.fill(held + self.bite) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if self.source.is_compressed() && is_bad_data(&error) => break,
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
        let Some((skipped, pos)) = record::find(&self.buf[self.start..self.end], self.seed, self.pos) else {
            return Ok(false);
        };
        self.start += skipped;
        self.offset += skipped as u64;
        self.pos = pos;
        Ok(true)
    }

    /// Forgets what was read ahead, so that it is read again. Does nothing on a compressed segment, which
    /// never changes.
    pub(crate) fn reload(&mut self) {
        if let Source::Plain { offset, .. } = &mut self.source {
            (self.start, self.end) = (0, 0);
            *offset = self.offset;
        }
    }

    /// Expects `pos` next, because the frames before it are known to be lost.
    pub(crate) fn expect(&mut self, pos: FramePos) {
        self.pos = pos;
    }

    /// Position of the next record.
    pub(crate) fn pos(&self) -> FramePos {
        self.pos
    }

    /// Position of the segment's first record.
    pub(crate) fn first(&self) -> FramePos {
        self.first
    }

    /// Offset of the next record in the (decompressed) file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The segment file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn open_any(disk: &dyn Disk, segment: &SegmentFile) -> Result<(Self, Result<Head, Damage>), Error> {
        let path = &segment.path;
        let file = disk.open(path).map_err(Error::io("open", path))?;
        let mut cursor = Self {
            path: path.clone(),
            source: Source::new(file, segment.is_compressed).map_err(Error::io("open", path))?,
            seed: 0,
            buf: Vec::new(),
            bite: usize::try_from(segment.bytes).unwrap_or(READ_BYTES_MAX).clamp(READ_BYTES_MIN, READ_BYTES_MAX),
            start: 0,
            end: 0,
            offset: 0,
            pos: segment.first,
            first: segment.first,
        };
        match Head::read(|len| cursor.take_bytes(len)) {
            Ok(head) => Ok((cursor, head)),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(foreign(path, "version", &error.to_string(), "a segment this version reads"))
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    fn try_peek(&mut self) -> io::Result<Peek> {
        if !self.fill(HEADER_BYTES)? {
            return Ok(if self.start == self.end { Peek::End } else { Peek::Damaged(Damage::Short) });
        }
        let bytes = &self.buf[self.start..self.end];
        let header = match record::header(bytes.first_chunk().expect("just filled"), self.pos) {
            Ok(header) => header,
            Err(damage) => return Ok(Peek::Damaged(damage)),
        };
        let len = HEADER_BYTES + header.len;
        if !self.fill(len)? {
            return Ok(Peek::Damaged(Damage::Short));
        }
        if !record::is_intact(self.seed, &self.buf[self.start..self.start + len]) {
            return Ok(Peek::Damaged(Damage::Checksum));
        }
        Ok(Peek::Record(header))
    }

    fn take_bytes(&mut self, len: usize) -> io::Result<Option<Vec<u8>>> {
        match self.fill(len) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if self.source.is_compressed() && is_bad_data(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let bytes = self.buf[self.start..self.start + len].to_vec();
        self.start += len;
        self.offset += len as u64;
        Ok(Some(bytes))
    }

    fn rewind(&mut self, disk: &dyn Disk, segment: &SegmentFile) -> Result<(), Error> {
        let file = disk.open(&self.path).map_err(Error::io("open", &self.path))?;
        self.source = Source::new(file, segment.is_compressed).map_err(Error::io("open", &self.path))?;
        (self.start, self.end, self.offset) = (0, 0, 0);
        Ok(())
    }

    /// Makes at least `len` unread bytes available; `false` if the file ends before.
    fn fill(&mut self, len: usize) -> io::Result<bool> {
        if self.end - self.start >= len {
            return Ok(true);
        }
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buf.len() > KEPT_BYTES_MAX && len <= self.bite && self.end <= self.bite {
            self.buf.truncate(self.bite);
            self.buf.shrink_to_fit();
        }
        let wanted = len.max(self.bite);
        if self.buf.len() < wanted {
            self.buf.resize(wanted.next_multiple_of(READ_BYTES_MIN), 0);
        }
        while self.end < len {
            match self.source.read(&mut self.buf[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.end += read;
                    if self.end == self.buf.len() {
                        self.bite = (self.bite * 2).min(READ_BYTES_MAX);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

enum Source {
    Plain { file: Arc<dyn File>, offset: u64 },
    Zstd(Box<zstd::Decoder<'static, io::BufReader<FileRead>>>),
}

impl Source {
    fn new(file: Arc<dyn File>, is_compressed: bool) -> io::Result<Self> {
        if !is_compressed {
            return Ok(Self::Plain { file, offset: 0 });
        }
        let reader = io::BufReader::with_capacity(COMPRESSED_READ_BYTES, FileRead { file, offset: 0 });
        Ok(Self::Zstd(Box::new(zstd::Decoder::with_buffer(reader)?)))
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain { file, offset } => {
                let read = file.read_at(buf, *offset)?;
                *offset += read as u64;
                Ok(read)
            }
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }

    const fn is_compressed(&self) -> bool {
        matches!(self, Self::Zstd(_))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { offset, .. } => f.debug_struct("Plain").field("offset", offset).finish_non_exhaustive(),
            Self::Zstd(_) => f.write_str("Zstd"),
        }
    }
}

/// A file read from its beginning on.
#[derive(Debug)]
pub(crate) struct FileRead {
    pub(crate) file: Arc<dyn File>,
    pub(crate) offset: u64,
}

impl Read for FileRead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Errors that zstd makes for data it cannot decompress carry no operating system's number.
fn is_bad_data(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn foreign(path: &Path, what: &'static str, found: &str, expected: &str) -> Error {
    Error::Foreign { path: path.into(), what, found: found.into(), expected: expected.into() }
}

/// Bytes read from a segment at once, at least.
const READ_BYTES_MIN: usize = 4 << 10;
/// Bytes read from a segment at once, at most (a longer record is read whole).
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes read from a compressed segment at once.
const COMPRESSED_READ_BYTES: usize = 256 << 10;
/// A buffer that one long record made longer than this is made small again.
const KEPT_BYTES_MAX: usize = 8 << 20;
