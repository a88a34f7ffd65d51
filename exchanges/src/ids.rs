//! Newtypes that cross rooms: positions, clocks, interned symbols.

use serde::{Deserialize, Serialize};

/// Position of a frame in one lane's journal: how many frames came before it.
///
/// Positions are dense and never reused, so a difference of two is a number of frames.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct FramePos(u64);

impl FramePos {
    /// The first frame a lane ever received.
    pub const FIRST: Self = Self(0);

    /// The position `value` frames after the first.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Frames that came before this one.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one. Panics after 2^64 frames, which no lane can receive.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The position `frames` later. Panics after 2^64 frames, which no lane can receive.
    #[must_use]
    pub const fn plus(self, frames: u64) -> Self {
        Self(self.0.checked_add(frames).expect("frame positions exhausted"))
    }

    /// Frames from `earlier` up to but not including `self`; `None` if `earlier` is later.
    #[must_use]
    pub const fn frames_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl std::fmt::Display for FramePos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since the Unix epoch on the host clock; may step backwards.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Nanos(pub i64);

impl Nanos {
    /// The same moment in microseconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn micros(self) -> Micros {
        Micros(self.0.div_euclid(1_000))
    }

    /// Nanoseconds from `earlier` to `self`; zero when the clock stepped back.
    #[must_use]
    pub const fn since(self, earlier: Self) -> std::time::Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        std::time::Duration::from_nanos(if nanos > 0 { nanos.unsigned_abs() } else { 0 })
    }
}

/// Microseconds since the Unix epoch: a venue's clock, or a receive time for a row.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Micros(pub i64);

/// A symbol interned in one lane: an index into that lane's [`Symbols`](crate::symbols::Symbols).
///
/// The index depends only on the lane's journaled input, so the live path and the catch-up path
/// give one symbol the same index.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct SymbolIx(pub u32);
