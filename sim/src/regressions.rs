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
pub const ALL: &[Regression] = &[
    Regression {
        name: "poisoned while full",
        seed: 228,
        steps: 200,
        mix: Mix::Any,
        found: "a session that waited for room in a full journal waited for ever when a write failed meanwhile: it took \
                the poisoned journal for a full one, and the process never ended to be recovered",
    },
    Regression {
        name: "poisoned while full, another way",
        seed: 511,
        steps: 200,
        mix: Mix::Any,
        found: "the same, with the poison from a failed sync",
    },
    Regression {
        name: "the first lane eats the batch",
        seed: 706,
        steps: 200,
        mix: Mix::Any,
        found: "while one lane caught up on its journal, the lanes behind it in the same writer got no turn: every batch \
                was filled beginning with the first",
    },
    Regression {
        name: "an end that is lost",
        seed: 1891,
        steps: 200,
        mix: Mix::Any,
        found: "after a restore from a backup older than the journal reaches, gaps whose end was in the lost frames stayed \
                open for ever",
    },
    Regression {
        name: "an end that is lost, after a power cut",
        seed: 2584,
        steps: 200,
        mix: Mix::Any,
        found: "the same with a restart in between",
    },
    Regression {
        name: "a sync that fails in recovery",
        seed: 3537,
        steps: 200,
        mix: Mix::Any,
        found: "when the sync of recovery itself failed, the next recovery believed what it could read, and a later power \
                cut took durable frames",
    },
];
