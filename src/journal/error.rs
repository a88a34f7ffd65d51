//! What can go wrong with the journal, and what to do about each.

use std::{io, path::PathBuf, sync::Arc};

use tapeway_exchanges::ids::FramePos;
use thiserror::Error;

/// Why the journal could not do something.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// There is no room: `journal.bytes_max` or `journal.free_bytes_min` is reached, or the disk is full.
    /// Nothing was accepted by the call that says so; nothing accepted before is lost.
    #[error("{}: the journal is full: committed segments are given up first, uncommitted ones never", dir.display())]
    Full {
        /// The lane's folder.
        dir: PathBuf,
    },
    /// A write or sync failed earlier. What the file holds is unknown until recovery has read it, so every
    /// call says the same until then.
    #[error("{}: the journal is poisoned since {action} failed: {cause}", dir.display())]
    Poisoned {
        /// The lane's folder.
        dir: PathBuf,
        /// What failed.
        action: &'static str,
        /// What the disk said.
        cause: Arc<io::Error>,
    },
    /// More bytes than the format holds. Nothing was accepted.
    #[error("{what} of {len} bytes is longer than the {max} bytes a journal holds")]
    TooLong {
        /// A record or an adapter state.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most there may be.
        max: usize,
    },
    /// The journal no longer holds that position: retention removed it.
    #[error("the journal begins at position {first}, position {wanted} is gone")]
    Gone {
        /// The first position held.
        first: FramePos,
        /// The position asked for.
        wanted: FramePos,
    },
    /// Frames that were journaled cannot be read. The reader stands behind the hole already: read on to go on
    /// without them.
    #[error(transparent)]
    Hole(#[from] Hole),
    /// A file that is not what its name and place say.
    #[error("{}: {what}: found {found}, expected {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Another process has this journal.
    #[error("{}: the journal is in use by {}", dir.display(), pid.map_or("another process".into(), |pid| format!("process {pid}")))]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
        /// Who, if the lock file says so.
        pid: Option<u32>,
    },
}

impl Error {
    /// Names the action and the path of an I/O error.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// What to do next.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Full { .. } => Disposition::WaitForSpace,
            Self::Poisoned { .. } => Disposition::Recover,
            Self::TooLong { .. } => Disposition::Refuse,
            Self::Hole(_) => Disposition::ReadOn,
            Self::Io { .. } | Self::Gone { .. } | Self::Foreign { .. } | Self::Locked { .. } => Disposition::Stop,
        }
    }
}

/// What to do about an [`Error`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// Stop reading the socket; try again when the lane's journal is no longer full.
    WaitForSpace,
    /// Run recovery on the lane before anything else.
    Recover,
    /// Refuse this one input and go on.
    Refuse,
    /// Log what is missing and read on.
    ReadOn,
    /// A person must act.
    Stop,
}

/// Frames that were journaled and cannot be read: positions `first .. next`.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{}: byte {offset}: {damage}: positions {first} to {next} (exclusive) cannot be read", path.display())]
pub struct Hole {
    /// The segment.
    pub path: PathBuf,
    /// Where in it the damage begins, in bytes (after decompression).
    pub offset: u64,
    /// The first position lost.
    pub first: FramePos,
    /// The next position that can be read.
    pub next: FramePos,
    /// How it shows.
    pub damage: Damage,
}

impl Hole {
    /// Frames lost.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.next.frames_since(self.first).unwrap_or(0)
    }
}

/// How damage shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Damage {
    /// A segment's head is not a head, or fails its checksum.
    Head,
    /// The adapter state at a segment's head fails its checksum.
    State,
    /// A record's fields are impossible at this place.
    Fields,
    /// A record fails its checksum.
    Checksum,
    /// The file ends inside a record.
    Short,
    /// The file ends before the position at which the next segment begins.
    Missing,
    /// The compressed data cannot be decompressed.
    Compression,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "the segment's head is damaged",
            Self::State => "the adapter state is damaged",
            Self::Fields => "not a record",
            Self::Checksum => "a record fails its checksum",
            Self::Short => "the file ends inside a record",
            Self::Missing => "the file ends too early",
            Self::Compression => "the compressed data is damaged",
        })
    }
}
