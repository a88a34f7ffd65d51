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

use serde::{Deserialize, Serialize};

use super::{Flavor, wire::DepthWire};
use crate::{
    adapter::{At, Outbox},
    error::FrameError,
    event::{Cause, Flags, Side},
    gaps::{OpenGaps, Resync, Span},
    ids::{Micros, SymbolIx},
    json::View,
    levels::LevelHead,
    replica::Role,
    sequence::{Missing, Step, link, range},
    time::epoch,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct BookState {
    /// Last update id of this connection; `None` before its first delta.
    last: Option<i64>,
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

/// What a book needs next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// A snapshot.
    Snapshot,
}

impl BookState {
    /// Takes in a delta. Emits its levels, unless it is stale, and the gap it reveals.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: a level that is no level. Nothing was emitted and the chain stands where it
    /// was, so that the next delta shows the gap.
    pub(super) fn on_delta(
        &mut self,
        at: At,
        flavor: Flavor,
        symbol: SymbolIx,
        delta: &DepthWire<'_, '_>,
        out: &mut Outbox,
    ) -> Result<Next, FrameError> {
        let DepthWire { first_id, last_id, .. } = *delta;
        let previous = flavor.previous_id(delta)?;
        let step = match flavor {
            Flavor::Spot => range(self.last, first_id, last_id),
            Flavor::Usdm | Flavor::Coinm => link(self.last, previous, last_id),
        };
        let step = match (step, self.live) {
            // The snapshot came before the connection's first delta: the delta must join it.
            (Step::First, Some(snapshot)) if previous > snapshot => {
                Step::Gap(Missing::between(snapshot.saturating_add(1), previous))
            }
            _ => step,
        };
        if step == Step::Stale {
            out.finish_book(out.level_mark(), symbol, Role::Stale, Some(last_id), None);
            return Ok(Next::Nothing);
        }
        let is_live = !matches!(step, Step::Gap(_)) && self.live.is_some_and(|id| last_id >= flavor.keeps_from(id));
        let flags = if is_live { Flags::NONE } else { Flags::AFTER_GAP };
        let venue_time = delta.fields.time();
        let head = LevelHead::new(at, symbol, Some(last_id), venue_time, flags);
        let mark = out.level_mark();
        let pushed = head.push_pairs(Side::Buy, "b", delta.fields.bid, out);
        if let Err(error) = pushed.and_then(|()| head.push_pairs(Side::Sell, "a", delta.fields.ask, out)) {
            out.drop_levels(mark);
            return Err(error);
        }
        let mut next = Next::Nothing;
        match step {
            Step::First => (self.run_from, self.run_since) = (Some(previous), venue_time),
            Step::Next | Step::Stale => {}
            Step::Gap(missing) => {
                let span = Span { since: self.time, until: venue_time };
                self.gaps.open(out, symbol, Cause::Sequence, missing, span);
                self.live = None;
                (self.run_from, self.run_since) = (Some(previous), venue_time);
                next = Next::Snapshot;
            }
        }
        self.last = Some(last_id);
        self.time = venue_time.or(self.time);
        out.finish_book(mark, symbol, Role::Delta, Some(last_id), None);
        Ok(next)
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
        let is_too_old = match (self.live, self.last) {
            (Some(_), Some(last)) if id < last => return Ok(Next::Nothing), // The book is newer already.
            (_, Some(_)) => self.run_from.is_some_and(|from| id < from),
            (_, None) => false,
        };
        if is_too_old {
            return Ok(Next::Snapshot);
        }
        let venue_time = body.get("T").or_else(|| body.get("E")).and_then(View::int).and_then(epoch);
        let head = LevelHead::new(at, symbol, Some(id), venue_time, Flags::SNAPSHOT);
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

    /// The connection ended: what comes until a new snapshot joins a new connection's deltas is missing.
    pub(super) fn on_close(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        if self.last.is_some() || self.live.is_some() {
            let first = self.last.or(self.live).map(|last| last.saturating_add(1));
            let span = Span { since: self.time, until: None };
            self.gaps.open(out, symbol, cause, Missing { first, last: None }, span);
        }
        self.last = None;
        (self.run_from, self.run_since) = (None, None);
        self.live = None;
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
