//! How much room the journal takes, over all lanes, and whether there is any left.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How much room the journal takes, over all lanes. Counted up by every flush and counted anew by every pass of
/// the retainer.
#[derive(Debug)]
pub struct Space {
    bytes: AtomicU64,
    bytes_max: u64,
    is_full: AtomicBool,
}

impl Space {
    pub(crate) const fn new(bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max, is_full: AtomicBool::new(false) }
    }

    /// Bytes of all lanes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Most bytes of all lanes on disk (`journal.bytes_max`).
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Whether lanes must stop taking frames: a limit is reached and nothing committed is left to give up.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// So many bytes were written. Reaching the limit between two passes of the retainer stops the lanes until
    /// the next pass has looked.
    pub(crate) fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.bytes_max {
            self.set_full(true);
        }
    }

    pub(crate) fn recount(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_full(&self, is_full: bool) -> bool {
        self.is_full.swap(is_full, Ordering::Relaxed)
    }
}
