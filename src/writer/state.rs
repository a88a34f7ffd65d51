//! What the rest of the daemon sees of a writer thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tapeway_exchanges::ids::FramePos;

use crate::store::Capabilities;

/// A writer thread as it stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShardState {
    /// Number of the thread, from 0.
    pub shard: usize,
    /// Whether it has a working connection.
    pub is_database_up: bool,
    /// What the database was found to be at the last connect.
    pub capabilities: Option<Capabilities>,
    /// Whether rows are compressed as they arrive.
    pub is_direct_compress_on: bool,
    /// The last error, and when (seconds since 1970); stays after it is over.
    pub last_error: Option<(u64, String)>,
    /// Connections lost since the start.
    pub reconnects: u64,
    /// Rows committed since the start.
    pub rows_committed: u64,
    /// The thread's lanes.
    pub lanes: Vec<LaneState>,
}

/// A lane as its writer sees it.
#[derive(Clone, Debug, Serialize)]
pub struct LaneState {
    /// Name of the lane.
    pub lane: String,
    /// `claimed`, `standby` or `waiting` (for the database, or for a journal that is behind it).
    pub state: &'static str,
    /// What is wrong with its journal.
    pub why: Option<String>,
    /// Frames by which it is behind while its journal is read; 0 on the live path.
    pub behind_frames: u64,
}

/// A lane that a stop left with uncommitted frames; the next start reads them from the journal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Undone {
    /// Number of the writer thread.
    pub shard: usize,
    /// The lane.
    pub lane: String,
    /// First position not committed.
    pub committed: FramePos,
    /// End of the journal.
    pub appended: FramePos,
}

/// Shared state of one thread. The lock is held for moments, a few times a second.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<ShardState>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
