//! A lane as its session, its writer and the status page share it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tapeway_exchanges::{event::Events, ids::FramePos, venue::VenueSpec};
use tokio::sync::Notify;

use crate::{journal::disk::Disk, metrics::SessionMetrics, queue::Queue};

/// One lane: what its session (producer) and its writer (consumer) share.
#[derive(Debug)]
pub struct Lane {
    /// Name, unique over all venues: `<venue>.<index>`.
    pub name: String,
    /// The lane's venue.
    pub venue: &'static VenueSpec,
    /// Identity of the lane's journal folder, made when the folder was made. A new folder starts positions
    /// anew, so the database keys its watermark by this too.
    pub journal_id: u128,
    /// The disk that has the lane's journal.
    pub disk: Arc<dyn Disk>,
    /// The lane's journal folder.
    pub dir: PathBuf,
    /// How far it has come. Made by the lane's journal.
    pub progress: Arc<Progress>,
    /// How many rows it has given and where they are.
    pub rows: Rows,
    /// Decoded chunks on their way to the writer.
    pub queue: Queue,
    /// The session stopped offering chunks because the queue was full; the writer reads the journal until
    /// it has caught up, then clears this.
    pub is_behind: AtomicBool,
    /// Wakes the writer of this lane's shard.
    pub writer: Arc<Notify>,
}

impl Lane {
    /// Offers a decoded chunk to the writer and wakes it. Never blocks: when the queue is full, or the writer is
    /// reading this lane from the journal already, the chunk's memory is kept and its frames are read from there.
    pub fn offer(&self, chunk: Events, metrics: &SessionMetrics) {
        let rows = chunk.rows() as u64;
        metrics.queue_rows_in.increment(rows);
        let refused = if self.is_behind.load(Ordering::SeqCst) { Err(chunk) } else { self.queue.push(chunk) };
        if let Err(chunk) = refused {
            self.is_behind.store(true, Ordering::SeqCst);
            metrics.queue_rows_dropped.increment(rows);
            self.queue.recycle(chunk);
        }
        self.writer.notify_one();
    }
}

/// Rows of one lane since its first frame: *received = committed + rejected + pending* at any moment.
///
/// All three are functions of the journal and the database, not of this process, so they hold across restarts.
#[derive(Debug, Default)]
pub struct Rows {
    received: AtomicU64,
    committed: AtomicU64,
    rejected: AtomicU64,
}

impl Rows {
    /// The lane's frames have given `total` rows so far.
    pub fn on_receive(&self, total: u64) {
        self.received.store(total, Ordering::SeqCst);
    }

    /// The database holds `committed` rows of the lane; `rejected` it has refused, or were left to another daemon to write.
    pub fn on_commit(&self, committed: u64, rejected: u64) {
        self.committed.store(committed, Ordering::SeqCst);
        self.rejected.store(rejected, Ordering::SeqCst);
    }

    /// Rows received, committed and rejected.
    pub fn counts(&self) -> (u64, u64, u64) {
        // What was received is read last: it can only have grown, so pending never comes out negative.
        let [rejected, committed, received] =
            [&self.rejected, &self.committed, &self.received].map(|count| count.load(Ordering::SeqCst));
        (received, committed, rejected)
    }
}

/// How far one lane has come. Each number is the first position *not* yet past that gate, and
/// `committed <= durable <= appended` holds at any moment.
///
/// While another daemon holds the lane, frames that it is known to have written count as committed.
///
/// `committed <= durable` is what makes a position safe as row identity: the database never knows a
/// position that a machine crash could hand to a different frame.
#[derive(Debug, Default)]
pub struct Progress {
    appended: AtomicU64,
    durable: AtomicU64,
    committed: AtomicU64,
    /// Another daemon holds the lane.
    is_standby: AtomicBool,
    /// Signalled whenever `durable` moves.
    durable_moved: Notify,
    /// What the database has committed beyond the journal's end.
    ahead: Mutex<Option<Ahead>>,
}

/// Where a lane goes on whose journal ends before what is committed: it was cut off, or is a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ahead {
    /// First position not yet committed.
    pub next: FramePos,
    /// Rows that the committed frames gave.
    pub rows_total: u64,
}

impl Progress {
    /// Sets all three after recovery: everything found on disk is durable.
    pub fn recovered(&self, end: FramePos) {
        self.appended.store(end.get(), Ordering::SeqCst);
        self.durable.store(end.get(), Ordering::SeqCst);
    }

    /// Frames before `end` are in the operating system's hands: they survive `kill -9` and can be read.
    pub fn on_append(&self, end: FramePos) {
        let before = self.appended.swap(end.get(), Ordering::SeqCst);
        assert!(before <= end.get(), "the journal moved backwards");
    }

    /// Frames before `end` are on the disk: they survive a power cut.
    pub fn on_sync(&self, end: FramePos) {
        assert!(end.get() <= self.appended.load(Ordering::SeqCst), "frames were synced before they were appended");
        self.durable.fetch_max(end.get(), Ordering::SeqCst);
        self.durable_moved.notify_waiters();
    }

    /// Rows of all frames before `end` are committed in the database.
    pub fn on_commit(&self, end: FramePos) {
        assert!(
            end.get() <= self.durable.load(Ordering::SeqCst),
            "rows were committed before their frames were synced"
        );
        let before = self.committed.swap(end.get(), Ordering::SeqCst);
        assert!(before <= end.get(), "the committed watermark moved backwards");
    }

    /// Takes over what the database says is committed, after a (re)connect and now and then on standby. May move backwards:
    /// a database restored from an older backup is refilled from there.
    pub fn set_committed(&self, end: FramePos) {
        self.committed.store(end.get(), Ordering::SeqCst);
    }

    /// Another daemon holds the lane, or no longer.
    pub fn set_standby(&self, is_standby: bool) {
        self.is_standby.store(is_standby, Ordering::SeqCst);
    }

    /// Whether another daemon holds the lane, as far as is known: nothing of it is written here.
    pub fn is_standby(&self) -> bool {
        self.is_standby.load(Ordering::SeqCst)
    }

    /// The database has frames before `next` committed, which gave `rows_total` rows. When the journal ends before, its
    /// session is asked to go on from there; returns the positions that are lost to it.
    pub fn is_behind(&self, next: FramePos, rows_total: u64) -> Option<(FramePos, FramePos)> {
        let appended = self.appended();
        let is_behind = appended < next;
        if is_behind {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ahead { next, rows_total });
        }
        is_behind.then_some((appended, next))
    }

    /// Where the journal is to go on, if it ends before what is committed.
    pub fn ahead(&self) -> Option<Ahead> {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.filter(|ahead| ahead.next > self.appended())
    }

    /// First position not yet appended.
    pub fn appended(&self) -> FramePos {
        FramePos::new(self.appended.load(Ordering::SeqCst))
    }

    /// First position not yet durable.
    pub fn durable(&self) -> FramePos {
        FramePos::new(self.durable.load(Ordering::SeqCst))
    }

    /// First position not yet committed.
    pub fn committed(&self) -> FramePos {
        FramePos::new(self.committed.load(Ordering::SeqCst))
    }

    /// Returns once all frames before `end` are durable. Never returns if the journal is poisoned; race it
    /// against shutdown.
    pub async fn until_durable(&self, end: FramePos) {
        loop {
            let moved = self.durable_moved.notified();
            if self.durable() >= end {
                return;
            }
            moved.await;
        }
    }
}
