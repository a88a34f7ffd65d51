//! The bounded lock-free queue between a lane's session and its writer: a cache of the journal's tail.
//!
//! Carries whole chunks ([`Events`]), not single events, and hands their memory back for reuse. A full queue
//! never blocks: the chunk is refused, its memory goes back to the session, and the writer reads those frames
//! from the journal instead (positions tell it that it has to).

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use tapeway_exchanges::event::Events;

/// One lane's queue. One producer (the session) and one consumer (the writer).
#[derive(Debug)]
pub struct Queue {
    full: ArrayQueue<Events>,
    spare: ArrayQueue<Events>,
    /// Rows that the spares have room for.
    spare_rows: AtomicUsize,
}

impl Queue {
    /// A queue of at most `chunks_max` chunks. Panics if that is zero.
    pub fn new(chunks_max: usize) -> Self {
        Self {
            full: ArrayQueue::new(chunks_max),
            spare: ArrayQueue::new(chunks_max + 2),
            spare_rows: AtomicUsize::new(0),
        }
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

    /// Gives a chunk's memory back. Dropped when the spares have enough already, or when it has grown past what a
    /// usual chunk needs.
    pub fn recycle(&self, chunk: Events) {
        let rows = room(&chunk);
        let is_kept =
            rows <= SPARE_ROWS_MAX && self.spare_rows.fetch_add(rows, Ordering::Relaxed) + rows <= SPARE_ROWS_TOTAL_MAX;
        if rows <= SPARE_ROWS_MAX && (!is_kept || self.spare.push(chunk).is_err()) {
            self.spare_rows.fetch_sub(rows, Ordering::Relaxed);
        }
    }

    /// Memory for a new chunk: a recycled one or a new one.
    pub fn spare(&self) -> Events {
        let chunk = self.spare.pop().unwrap_or_default();
        self.spare_rows.fetch_sub(room(&chunk), Ordering::Relaxed);
        chunk
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

/// Rows that a chunk has room for without asking for memory.
fn room(chunk: &Events) -> usize {
    chunk.trades.capacity() + chunk.levels.capacity() + chunk.quotes.capacity() + chunk.top_books.capacity()
}

/// Largest row capacity a recycled chunk may keep: one big snapshot must not stay in memory for months.
const SPARE_ROWS_MAX: usize = 16_384;
/// The same of all spares: those of small chunks all fit, those that catch-up has filled do not, a hundred bytes a row.
const SPARE_ROWS_TOTAL_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rows: usize) -> Events {
        Events { quotes: Vec::with_capacity(rows), ..Events::default() }
    }

    fn spares(queue: &Queue) -> Vec<usize> {
        std::iter::from_fn(|| Some(room(&queue.spare())).filter(|rows| *rows > 0)).collect()
    }

    #[test]
    fn memory_comes_back_and_no_more_of_it_is_kept_than_small_chunks_need() {
        let queue = Queue::new(256);
        (0..300).for_each(|_| queue.recycle(chunk(64)));
        assert_eq!(spares(&queue).len(), 258, "all that there is a place for");
        (0..300).for_each(|_| queue.recycle(chunk(2_048)));
        let kept = spares(&queue);
        assert!(kept.iter().sum::<usize>() <= SPARE_ROWS_TOTAL_MAX && kept.len() >= 16, "{kept:?}");
        queue.recycle(chunk(SPARE_ROWS_MAX + 1));
        assert!(spares(&queue).is_empty(), "one big snapshot is not kept");
        assert_eq!(queue.spare_rows.load(Ordering::Relaxed), 0, "the count comes out even");
    }
}
