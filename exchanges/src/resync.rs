//! When to ask a venue for a new in-band snapshot: at once the first time, later and later while it does not
//! help.
//!
//! Nothing here changes any event: it only decides what is sent. So it is not part of the saved state.

use std::time::Duration;

use crate::{
    adapter::{Actions, Outbox},
    by_symbol::BySymbol,
    conn::{Conn, PerConn},
    event::Channel,
    ids::{Nanos, SymbolIx},
    lane::LaneConns,
    symbols::Symbols,
};

/// Resyncs of a lane's books, by the connection that is to bring the snapshot.
#[derive(Debug, Default)]
pub(crate) struct LaneResyncs {
    of: PerConn<Resyncs>,
    /// The lane's symbols as of the last input, for those that wait for a tick.
    names: Symbols,
}

impl LaneResyncs {
    /// Forgets everything of a connection: it ends, or another one of its number begins.
    pub(crate) fn reset(&mut self, conn: Conn) {
        self.of[conn].reset();
    }

    /// A book needs a new snapshot on a connection. Nothing happens while it waits for its turn already.
    pub(crate) fn want(&mut self, conn: Conn, symbol: SymbolIx, now: Nanos) {
        self.of[conn].want(symbol, now);
    }

    /// Asks with `ask` for those whose turn has come, after an input.
    #[inline]
    pub(crate) fn send(
        &mut self,
        now: Nanos,
        conns: &LaneConns,
        Outbox { symbols, actions, .. }: &mut Outbox,
        ask: impl FnMut(Conn, SymbolIx, &Symbols, &mut Actions),
    ) {
        if self.is_waiting() {
            self.send_due(now, conns, (symbols, actions), ask);
            if self.is_waiting() && self.names.len() != symbols.len() {
                self.names = symbols.clone();
            }
        }
    }

    /// Asks with `ask` for those whose turn has come, at a tick.
    pub(crate) fn on_tick(
        &mut self,
        now: Nanos,
        conns: &LaneConns,
        actions: &mut Actions,
        ask: impl FnMut(Conn, SymbolIx, &Symbols, &mut Actions),
    ) {
        if self.is_waiting() {
            let names = std::mem::take(&mut self.names);
            self.send_due(now, conns, (&names, actions), ask);
            self.names = names;
        }
    }

    #[inline]
    fn is_waiting(&self) -> bool {
        Conn::ALL.into_iter().any(|conn| !self.of[conn].waiting.is_empty())
    }

    #[cold]
    fn send_due(
        &mut self,
        now: Nanos,
        conns: &LaneConns,
        (symbols, actions): (&Symbols, &mut Actions),
        mut ask: impl FnMut(Conn, SymbolIx, &Symbols, &mut Actions),
    ) {
        for (conn, resyncs) in self.of.iter_mut() {
            for symbol in resyncs.due(now) {
                // It may have been taken out meanwhile.
                if conns.records(Channel::Book, symbols.name(symbol)) {
                    ask(conn, symbol, symbols, actions.of(conn));
                }
            }
        }
    }
}

/// Resyncs of one connection's books.
#[derive(Debug, Default)]
struct Resyncs {
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
    fn reset(&mut self) {
        *self = Self::default();
    }

    /// A book needs a new snapshot. Nothing happens while it waits for its turn already.
    fn want(&mut self, symbol: SymbolIx, now: Nanos) {
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

    /// Takes out the books whose turn has come.
    fn due(&mut self, now: Nanos) -> Vec<SymbolIx> {
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
