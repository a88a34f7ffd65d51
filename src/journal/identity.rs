//! Who a lane's folder belongs to: `lane.id`, made with the folder and never changed.
//!
//! ```text
//! magic "TAPEWAYL" | version u16 | journal_id u128 | venue_len u8 | lane_len u8 | venue | lane | crc32c u32
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    disk::{self, Disk},
    error::Error,
};

/// Who a lane's folder belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Unique, made with the folder: a new folder starts positions anew, and must not be taken for the old one.
    pub journal_id: u128,
    /// The lane's venue.
    pub venue: String,
    /// The lane's name.
    pub lane: String,
}

impl Identity {
    /// A new identity. Panics on names longer than 255 bytes, which the configuration refuses.
    #[must_use]
    pub fn new(disk: &dyn Disk, venue: &str, lane: &str) -> Self {
        assert!(venue.len() <= NAME_BYTES_MAX, "a venue's name is short");
        assert!(lane.len() <= NAME_BYTES_MAX, "a lane's name is short");
        Self { journal_id: disk.unique(), venue: venue.into(), lane: lane.into() }
    }

    /// Reads the identity of a lane's folder; `None` when the file is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] when the file is damaged or of another version; [`Error::Io`].
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(dir);
        match disk::read_all(disk, &path, FILE_BYTES_MAX) {
            Ok(bytes) => Self::parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Writes the identity into a lane's folder, durably.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.journal_id.to_le_bytes());
        self.put_names(&mut bytes);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let path = Self::path(dir);
        disk::write_whole(disk, &path, &bytes).map_err(Error::io("write", path))
    }

    /// Appends the names: two lengths, two strings.
    pub(crate) fn put_names(&self, bytes: &mut Vec<u8>) {
        for name in [&self.venue, &self.lane] {
            bytes.push(u8::try_from(name.len()).expect("checked when the identity was made"));
        }
        bytes.extend_from_slice(self.venue.as_bytes());
        bytes.extend_from_slice(self.lane.as_bytes());
    }

    /// Reads what [`put_names`](Self::put_names) wrote; also gives the bytes after it.
    pub(crate) fn split_names(bytes: &[u8]) -> Option<(String, String, &[u8])> {
        let (&[venue_len, lane_len], rest) = bytes.split_first_chunk::<2>()?;
        let (venue, rest) = rest.split_at_checked(venue_len.into())?;
        let (lane, rest) = rest.split_at_checked(lane_len.into())?;
        Some((String::from_utf8(venue.into()).ok()?, String::from_utf8(lane.into()).ok()?, rest))
    }

    /// Where the identity of a lane's folder lies.
    #[must_use]
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("lane.id")
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let foreign =
            |what, found: String, expected: String| Error::Foreign { path: path.into(), what, found, expected };
        let damaged = || foreign("lane identity", format!("{} damaged bytes", bytes.len()), "a whole one".into());
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if !body.starts_with(MAGIC) || crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(damaged());
        }
        let (version, rest) = body[MAGIC.len()..].split_first_chunk::<2>().ok_or_else(damaged)?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(foreign("version", version.to_string(), VERSION.to_string()));
        }
        let (journal_id, names) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
        let (venue, lane, _) = Self::split_names(names).ok_or_else(damaged)?;
        Ok(Self { journal_id: u128::from_le_bytes(*journal_id), venue, lane })
    }
}

const MAGIC: &[u8; 8] = b"TAPEWAYL";
const VERSION: u16 = 1;
const NAME_BYTES_MAX: usize = 255;
const FILE_BYTES_MAX: usize = 4_096;
