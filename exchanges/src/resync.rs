//! When to ask a venue for a new in-band snapshot: at once the first time, later and later while it does not
//! help.
//!
//! Nothing here changes any event: it only decides what is sent. So it is not part of the saved state.

use std::time::Duration;

use crate::{
    by_symbol::BySymbol,
    ids::{Nanos, SymbolIx},
};

/// Resyncs of one connection's books.
#[derive(Debug, Default)]
pub(crate) struct Resyncs {
    histories: BySymbol<History>,
    /// Asked for and not yet sent.
    waiting: Vec<(SymbolIx, Nanos)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct History {
    attempts: u32,
    last: Nanos,
}

impl Resyncs {
    /// Forgets everything: a new connection begins.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// A book needs a new snapshot. Nothing happens while it waits for its turn already.
    pub(crate) fn want(&mut self, symbol: SymbolIx, now: Nanos) {
        if self.waiting.iter().any(|(waiting, _)| *waiting == symbol) {
            return;
        }
        let history = self.histories.entry(symbol);
        if now.since(history.last) > FORGIVEN_AFTER {
            history.attempts = 0;
        }
        let delay = match history.attempts {
            0 => Duration::ZERO,
            attempts => DELAY_MIN.saturating_mul(1 << attempts.min(10)).min(DELAY_MAX),
        };
        let due = Nanos(now.0.saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX)));
        *history = History { attempts: history.attempts.saturating_add(1), last: due };
        self.waiting.push((symbol, due));
    }

    /// Whether a book waits for its turn.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes out the books whose turn has come.
    pub(crate) fn due(&mut self, now: Nanos) -> Vec<SymbolIx> {
        let due = self.waiting.iter().filter(|(_, due)| *due <= now).map(|(symbol, _)| *symbol).collect();
        self.waiting.retain(|(_, due)| *due > now);
        due
    }
}

/// Doubled with every attempt after the first ...
const DELAY_MIN: Duration = Duration::from_millis(500);
/// ... up to this.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// A book that held this long since its last resync begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOL: SymbolIx = SymbolIx(3);

    fn seconds(seconds: i64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_first_is_due_at_once_and_further_ones_wait_longer_and_longer() {
        let mut resyncs = Resyncs::default();
        resyncs.want(SYMBOL, seconds(1_000));
        assert_eq!(resyncs.due(seconds(1_000)), [SYMBOL]);
        resyncs.want(SYMBOL, seconds(1_000));
        resyncs.want(SYMBOL, seconds(1_000));
        assert_eq!(resyncs.due(seconds(1_000)), []);
        assert_eq!(resyncs.due(seconds(1_001)), [SYMBOL]);
        resyncs.want(SYMBOL, seconds(1_001));
        assert_eq!(resyncs.due(seconds(1_002)), []);
        assert_eq!(resyncs.due(seconds(1_003)), [SYMBOL]);
    }

    #[test]
    fn the_wait_is_bounded_and_forgiven_after_a_quiet_time() {
        let mut resyncs = Resyncs::default();
        for attempt in 0..30 {
            resyncs.want(SYMBOL, seconds(1_000 + attempt));
            resyncs.due(Nanos(i64::MAX));
        }
        resyncs.want(SYMBOL, seconds(1_100));
        assert_eq!(resyncs.due(seconds(1_160)), [SYMBOL]);
        resyncs.want(SYMBOL, seconds(2_000));
        assert_eq!(resyncs.due(seconds(2_000)), [SYMBOL]);
    }
}
