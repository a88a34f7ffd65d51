//! The bounded lock-free queue between a lane's session and its writer: a cache of the journal's tail.
//!
//! Carries whole chunks ([`Events`]), not single events, and hands their memory back for reuse. A full queue
//! never blocks: the chunk is refused, its memory goes back to the session, and the writer reads those frames
//! from the journal instead (positions tell it that it has to).

use crossbeam::queue::ArrayQueue;
use tapeway_exchanges::event::Events;

/// One lane's queue. One producer (the session) and one consumer (the writer).
#[derive(Debug)]
pub struct Queue {
    full: ArrayQueue<Events>,
    spare: ArrayQueue<Events>,
}

impl Queue {
    /// A queue of at most `chunks_max` chunks. Panics if that is zero.
    pub fn new(chunks_max: usize) -> Self {
        Self { full: ArrayQueue::new(chunks_max), spare: ArrayQueue::new(chunks_max + 2) }
    }

    /// Offers a chunk to the writer.
    ///
    /// # Errors
    ///
    /// The queue is full; the chunk comes back. Its frames are in the journal.
    pub fn push(&self, chunk: Events) -> Result<(), Events> {
        self.full.push(chunk)
    }

    /// The oldest chunk, if there is one.
    pub fn pop(&self) -> Option<Events> {
        self.full.pop()
    }

    /// Gives a chunk's memory back. Dropped when there are enough spares already, or when it has grown past
    /// what a usual chunk needs.
    pub fn recycle(&self, chunk: Events) {
        if chunk.levels.capacity() <= SPARE_ROWS_MAX {
            drop(self.spare.push(chunk));
        }
    }

    /// Memory for a new chunk: a recycled one or a new one.
    pub fn spare(&self) -> Events {
        self.spare.pop().unwrap_or_default()
    }

    /// Chunks waiting.
    pub fn len(&self) -> usize {
        self.full.len()
    }

    /// Whether no chunk waits.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}

/// Largest row capacity a recycled chunk may keep: one big snapshot must not stay in memory for months.
const SPARE_ROWS_MAX: usize = 16_384;
