//! The raw-frame journal: what a venue sent, on disk before anything interprets it.

use std::path::Path;

use tapeway_exchanges::{
    ids::{FramePos, Nanos},
    input::Kind,
};

use crate::lane::Progress;

/// Why the journal could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error("{path}: {source}")]
    Io { path: std::path::PathBuf, source: std::io::Error },
    /// The journal no longer holds that position.
    #[error("the journal begins at position {first}, position {wanted} is gone")]
    Gone { first: FramePos, wanted: FramePos },
}

/// One journaled input.
#[derive(Debug)]
pub struct Record<'a> {
    pub pos: FramePos,
    pub received: Nanos,
    pub kind: Kind,
    pub bytes: &'a mut [u8],
}

/// Reads one lane's frames in order, up to what has been appended.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Positions a reader at the head of the segment that holds `from` (or would hold it next).
    pub fn open(_dir: &Path, _from: FramePos) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Position of the next record.
    pub fn pos(&self) -> FramePos {
        unimplemented!()
    }

    /// Adapter state saved at the head of the segment the reader was opened in.
    pub fn state(&self) -> Option<&[u8]> {
        unimplemented!()
    }

    /// The next record; `None` at the appended end (call again later).
    pub fn next(&mut self, _progress: &Progress) -> Result<Option<Record<'_>>, Error> {
        unimplemented!()
    }
}
