//! What goes wrong with the simulated database's connections.
//!
//! ```text
//! connection lost   before a step, in COMMIT before or after it took effect, or while the backend lives on and
//!                   finishes the COMMIT later, when the next claim ends it
//! no answer         until the client's limit
//! refused           rows it will not have (for their data), or anything (for its own troubles)
//! restored          its state is what it was when a backup was taken; all connections are gone
//! lock lost         the lane's lock is free although its connection lives: the watermark's old value is the fence
//! ```

use std::time::Duration;

use crate::rng::Rng;

/// How likely what goes wrong is, per thousand steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The connection is lost before a step.
    pub cut: u64,
    /// The connection is lost in COMMIT.
    pub cut_in_commit: u64,
    /// No answer comes.
    pub hang: u64,
    /// A step is refused for the server's own troubles.
    pub refuse: u64,
    /// A step takes long.
    pub slow: u64,
    /// The lane's lock is lost.
    pub lose_lock: u64,
}

/// How a step of a connection begins.
pub(super) enum Fate {
    Goes,
    Cut,
    Hangs,
    Refused,
}

impl Faults {
    /// How long a step takes, and how it begins.
    pub(super) fn fate(&self, rng: &mut Rng) -> (Duration, Fate) {
        let Self { cut, hang, refuse, slow, .. } = *self;
        let mut wait = Duration::from_millis(rng.below(3));
        if rng.chance(slow) {
            wait = Duration::from_millis(rng.between(20, 900));
        }
        let fate = match rng.below(1_000) {
            n if n < cut => Fate::Cut,
            n if n < cut + hang => Fate::Hangs,
            n if n < cut + hang + refuse => Fate::Refused,
            _ => Fate::Goes,
        };
        (wait, fate)
    }
}
