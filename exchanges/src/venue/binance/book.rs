//! One instrument's book on Binance: the chain of its updates, and the snapshot that makes it whole.
//!
//! The book itself is not kept: the update ids alone prove continuity, and every level is a row.
//!
//! ```text
//!            first delta               snapshot that joins
//! (nothing) -------------> syncing ----------------------> live
//!                             ^                              |
//!                             +------- gap, close -----------+
//! ```
//!
//! The chain of deltas is followed in every state, so that a stretch missing while the book is not live is
//! named too. The frame that reveals a gap is the new baseline.
//!
//! With two connections there is still one chain ([`Chain`]). A delta that reaches over the last id is applied whole when
//! nobody can bring the exact continuation any more: quantities are absolute.

use serde::{Deserialize, Serialize};

use super::{Flavor, wire::DepthWire};
use crate::{
    adapter::{At, Outbox},
    chain::{Chain, Due, Held, levels_of},
    conn::{Conn, Conns, Via},
    error::FrameError,
    event::{Cause, Flags, Side},
    gaps::{OpenGaps, Resync, Span},
    ids::{Micros, Nanos, SymbolIx},
    json::View,
    levels::LevelHead,
    replica::Role,
    sequence::{Missing, Step, link, range},
    time::epoch,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct BookState {
    #[serde(flatten)]
    chain: Chain,
    /// Id that the unbroken run of deltas up to `last` begins behind: a snapshot at or after it joins.
    run_from: Option<i64>,
    /// Time of the run's first delta.
    #[serde(default)]
    run_since: Option<Micros>,
    /// Id of the snapshot that made the book live; `None` while it is not.
    live: Option<i64>,
    /// Time of the last delta or snapshot.
    time: Option<Micros>,
    gaps: OpenGaps,
}

/// What all of a delta but its levels says.
#[derive(Clone, Copy, Debug)]
struct Head {
    previous: i64,
    last_id: i64,
    time: Option<Micros>,
    received: Nanos,
}

/// What a book needs next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// A snapshot.
    Snapshot,
}

impl BookState {
    /// Takes in a delta. Emits its levels, unless it is stale or waits, and the gap it reveals.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: a level that is no level. Nothing was emitted and the chain stands where it
    /// was, so that the next delta shows the gap.
    pub(super) fn on_delta(
        &mut self,
        at: At,
        via: Via,
        flavor: Flavor,
        symbol: SymbolIx,
        delta: &DepthWire<'_, '_>,
        out: &mut Outbox,
    ) -> Result<Next, FrameError> {
        let DepthWire { first_id, last_id, .. } = *delta;
        let previous = flavor.previous_id(delta)?;
        if let (None, Some(snapshot), false) = (self.chain.last(), self.live, via.others().is_empty())
            && previous > snapshot
        {
            // What joins the snapshot may come by the other connection.
            self.chain.advance(snapshot);
            (self.run_from, self.run_since) = (Some(snapshot), self.time);
        }
        let step = self.step(via.conn, flavor, (previous, first_id, last_id));
        if step == Step::Stale {
            out.repeats.dropped += 1;
            self.chain.reached(via.conn, last_id);
            out.finish_book(out.level_mark(), symbol, Role::Stale, Some(last_id), None);
            return Ok(if self.chain.is_waiting() {
                self.resolve(at.received, via.open, flavor, symbol, out)
            } else {
                Next::Nothing
            });
        }
        let head = Head { previous, last_id, time: delta.time, received: at.received };
        if self.chain.must_wait(previous, via.others()) {
            self.hold(head, symbol, delta, out)?;
            self.chain.reached(via.conn, last_id);
            return Ok(self.resolve(at.received, via.open, flavor, symbol, out));
        }
        let mark = out.level_mark();
        push_levels(self.head(flavor, symbol, head, step), delta, mark, out)?;
        let mut next = self.take(symbol, head, step, mark, out);
        self.chain.reached(via.conn, last_id);
        if self.chain.is_waiting() && self.resolve(at.received, via.open, flavor, symbol, out) == Next::Snapshot {
            next = Next::Snapshot;
        }
        Ok(next)
    }

    /// How a delta follows the chain.
    fn step(&self, conn: Conn, flavor: Flavor, (previous, first_id, last_id): (i64, i64, i64)) -> Step {
        let step = match flavor {
            Flavor::Spot => range(self.chain.last(), first_id, last_id),
            Flavor::Usdm | Flavor::Coinm => link(self.chain.last(), previous, last_id),
        };
        let is_own = self.chain.reach(conn) == self.chain.last();
        match (step, self.live) {
            // The snapshot came before the connection's first delta: the delta must join it.
            (Step::First, Some(snapshot)) if previous > snapshot => {
                Step::Gap(Missing::between(snapshot.saturating_add(1), previous))
            }
            // It names an id before the last one, which came by the other connection: it reaches over that.
            (Step::Gap(_), _) if !is_own && self.chain.last().is_some_and(|last| previous < last) => Step::Next,
            _ => step,
        }
    }

    fn hold(
        &mut self,
        head: Head,
        symbol: SymbolIx,
        delta: &DepthWire<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let Head { previous, last_id, time, received: _ } = head;
        let mark = out.level_mark();
        push_levels(level_head(symbol, head, Flags::NONE), delta, mark, out)?;
        let levels = levels_of(&out.events.levels[mark..]);
        out.drop_levels(mark);
        self.chain.hold(Held { previous, last_id, time, levels, shift: 0, checksum: None });
        Ok(())
    }

    /// Applies what is held as far as it continues the chain, or nothing can come any more that does.
    fn resolve(&mut self, received: Nanos, open: Conns, flavor: Flavor, symbol: SymbolIx, out: &mut Outbox) -> Next {
        let mut next = Next::Nothing;
        let mut is_filled = false;
        while let Some((last, due)) = self.chain.last().zip(self.chain.due(open, &mut out.repeats.dropped)) {
            let Due { message: Held { previous, last_id, time, levels, .. }, is_exact } = due;
            let step = match previous > last {
                true => Step::Gap(Missing::between(last.saturating_add(1), previous)),
                false => Step::Next,
            };
            let head = Head { previous, last_id, time, received };
            let rows = self.head(flavor, symbol, head, step);
            let mark = out.level_mark();
            levels.into_iter().for_each(|(side, price, qty)| rows.push(side, price, qty, out));
            is_filled |= is_exact;
            if self.take(symbol, head, step, mark, out) == Next::Snapshot {
                next = Next::Snapshot;
            }
        }
        out.repeats.filled += u64::from(is_filled && next == Next::Nothing);
        next
    }

    /// What the rows of a delta have in common.
    fn head(&self, flavor: Flavor, symbol: SymbolIx, head: Head, step: Step) -> LevelHead {
        let is_live =
            !matches!(step, Step::Gap(_)) && self.live.is_some_and(|id| head.last_id >= flavor.keeps_from(id));
        level_head(symbol, head, if is_live { Flags::NONE } else { Flags::AFTER_GAP })
    }

    /// Takes over a delta whose levels were pushed since `mark`.
    fn take(&mut self, symbol: SymbolIx, head: Head, step: Step, mark: usize, out: &mut Outbox) -> Next {
        let Head { previous, last_id, time, received: _ } = head;
        let mut next = Next::Nothing;
        match step {
            Step::First => (self.run_from, self.run_since) = (Some(previous), time),
            Step::Next | Step::Stale => {}
            Step::Gap(missing) => {
                let span = Span { since: self.time, until: time };
                self.gaps.open(out, symbol, Cause::Sequence, missing, span);
                self.live = None;
                (self.run_from, self.run_since) = (Some(previous), time);
                next = Next::Snapshot;
            }
        }
        self.chain.advance(last_id);
        self.time = time.or(self.time);
        out.finish_book(mark, symbol, Role::Delta, Some(last_id), None);
        next
    }

    /// Takes in a snapshot. Emits its levels and the end of all open gaps if it joins the deltas seen.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the body is no snapshot. Nothing was emitted.
    pub(super) fn on_snapshot(
        &mut self,
        at: At,
        flavor: Flavor,
        symbol: SymbolIx,
        body: View<'_, '_>,
        out: &mut Outbox,
    ) -> Result<Next, FrameError> {
        let id = body.need_int("lastUpdateId")?;
        let is_too_old = match (self.live, self.chain.last()) {
            (Some(_), Some(last)) if id < last => return Ok(Next::Nothing), // The book is newer already.
            (_, Some(_)) => self.run_from.is_some_and(|from| id < from),
            (_, None) => false,
        };
        if is_too_old {
            return Ok(Next::Snapshot);
        }
        let venue_time = body.get("T").or_else(|| body.get("E")).and_then(View::int).and_then(epoch);
        let head = LevelHead::new(at.received, symbol, Some(id), venue_time, Flags::SNAPSHOT);
        let mark = out.level_mark();
        let pushed = head.push_pairs(Side::Buy, "bids", body.get("bids"), out);
        if let Err(error) = pushed.and_then(|()| head.push_pairs(Side::Sell, "asks", body.get("asks"), out)) {
            out.drop_levels(mark);
            return Err(error);
        }
        self.live = Some(id);
        self.time = venue_time.or(self.time);
        // What was received before the snapshot is not missing: the stretch ends where the run begins.
        let until = self.run_since.filter(|_| self.run_from.is_some()).or(venue_time).or(Some(at.received.micros()));
        self.gaps.resynced(out, symbol, Resync { id: Some(id), before_run: self.run_from, until });
        let role = Role::Snapshot { keeps_from: Some(flavor.keeps_from(id)), depth: None };
        out.finish_book(mark, symbol, role, Some(id), None);
        Ok(Next::Nothing)
    }

    /// A connection ended. What it alone would have brought is missing; when it was the last, so is what comes until a
    /// new snapshot joins a new connection's deltas.
    pub(super) fn on_close(
        &mut self,
        flavor: Flavor,
        symbol: SymbolIx,
        via: Via,
        cause: Cause,
        received: Nanos,
        out: &mut Outbox,
    ) -> Next {
        self.chain.forget(via.conn);
        let left = via.others();
        let next = self.resolve(received, left, flavor, symbol, out);
        if !left.is_empty() {
            return next;
        }
        if self.chain.last().is_some() || self.live.is_some() {
            let first = self.chain.last().or(self.live).map(|last| last.saturating_add(1));
            let span = Span { since: self.time, until: None };
            self.gaps.open(out, symbol, cause, Missing { first, last: None }, span);
        }
        self.chain.end();
        (self.run_from, self.run_since) = (None, None);
        self.live = None;
        Next::Nothing
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(super) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.gaps.give_up(out, symbol);
        *self = Self::default();
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }
}

fn level_head(symbol: SymbolIx, head: Head, flags: Flags) -> LevelHead {
    LevelHead::new(head.received, symbol, Some(head.last_id), head.time, flags)
}

fn push_levels(head: LevelHead, delta: &DepthWire<'_, '_>, mark: usize, out: &mut Outbox) -> Result<(), FrameError> {
    delta.push(&head, out).inspect_err(|_| out.drop_levels(mark))
}
