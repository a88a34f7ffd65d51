//! One lane's journal as the syncer, the retainer, the status page and its owner share it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tapeway_exchanges::ids::FramePos;
use tracing::error;

use super::{
    disk::{Disk, File},
    error::Error,
    recover,
};
use crate::{lane::Progress, metrics};

/// One lane's journal as everyone but its owner sees it.
#[derive(Debug)]
pub struct LaneStatus {
    disk: Arc<dyn Disk>,
    lane: String,
    dir: PathBuf,
    progress: Arc<Progress>,
    is_poisoned: AtomicBool,
    segments: AtomicU64,
    bytes: AtomicU64,
    inner: Mutex<Inner>,
    /// One sync of this lane at a time: the system tells a write error to one of two concurrent syncs only.
    syncing: Mutex<()>,
    pub(crate) metrics: metrics::JournalLane,
}

#[derive(Debug, Default)]
struct Inner {
    /// The file being written, and the end of what was written to it.
    active: Option<(Arc<dyn File>, FramePos)>,
    poison: Option<(&'static str, Arc<io::Error>)>,
}

impl LaneStatus {
    pub(crate) fn new(disk: Arc<dyn Disk>, lane: &str, dir: &Path, progress: Arc<Progress>) -> Self {
        Self {
            disk,
            lane: lane.into(),
            dir: dir.into(),
            progress,
            is_poisoned: AtomicBool::new(false),
            segments: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            inner: Mutex::default(),
            syncing: Mutex::default(),
            metrics: metrics::JournalLane::new(lane),
        }
    }

    /// The lane's name.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// The lane's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How far the lane has come.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Segments on disk, as of the retainer's last pass.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Bytes on disk, as of the retainer's last pass.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why the journal takes nothing more until recovery, if that is so.
    #[must_use]
    pub fn poisoned(&self) -> Option<Error> {
        if !self.is_poisoned.load(Ordering::Acquire) {
            return None;
        }
        let inner = self.inner();
        let (action, cause) = inner.poison.as_ref()?;
        Some(Error::Poisoned { dir: self.dir.clone(), action, cause: Arc::clone(cause) })
    }

    /// Makes everything written so far durable. Called by the syncer for every lane in turn, and by the lane's
    /// owner before it leaves a segment.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`]: this sync or something before it failed.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = self.poisoned() {
            return Err(error);
        }
        let Some((file, end)) = self.inner().active.clone() else { return Ok(()) };
        if end <= self.progress.durable() {
            return Ok(());
        }
        let began = Instant::now();
        let result = file.sync();
        self.metrics.fsync_seconds.record(began.elapsed());
        match result {
            Ok(()) => {
                self.progress.on_sync(end);
                Ok(())
            }
            Err(cause) => Err(self.poison("fdatasync", cause)),
        }
    }

    /// From here on every call fails the same way, until recovery.
    pub(crate) fn poison(&self, action: &'static str, cause: io::Error) -> Error {
        let cause = {
            let mut inner = self.inner();
            let (_, cause) = inner.poison.get_or_insert((action, Arc::new(cause)));
            Arc::clone(cause)
        };
        self.is_poisoned.store(true, Ordering::Release);
        self.metrics.poisoned.set(1.0);
        recover::mark_suspect(self.disk.as_ref(), &self.dir);
        error!(lane = self.lane, action, %cause, "the journal is poisoned until recovery");
        Error::Poisoned { dir: self.dir.clone(), action, cause }
    }

    /// Recovery has read what is there.
    pub(crate) fn clear_poison(&self) {
        let mut inner = self.inner();
        *inner = Inner::default();
        self.is_poisoned.store(false, Ordering::Release);
        self.metrics.poisoned.set(0.0);
    }

    /// The syncer's work from here on is this file, written up to `end`.
    pub(crate) fn set_active(&self, file: &Arc<dyn File>, end: FramePos) {
        self.inner().active = Some((Arc::clone(file), end));
    }

    pub(crate) fn set_usage(&self, segments: u64, bytes: u64) {
        self.segments.store(segments, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.metrics.set_usage(segments, bytes);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
