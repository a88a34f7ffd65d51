//! Seeds that found something once.

use crate::scenario::Mix;

/// A seed that found something.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    /// Short name.
    pub name: &'static str,
    /// The seed.
    pub seed: u64,
    /// Its steps.
    pub steps: u64,
    /// Its mix of faults.
    pub mix: Mix,
    /// What it found, in one sentence.
    pub found: &'static str,
}

/// All of them, oldest first.
pub const ALL: &[Regression] = &[];
