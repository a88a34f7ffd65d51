//! Gaps of one instrument's book that are still open, until a new snapshot ends them all.
//!
//! ```text
//! ids show that something is missing, or the content does      ends `resynced`, with the last id missing
//! the numbering goes on over a lost connection                 ends `healed`: nothing was missing
//! a connection was lost, and nothing is numbered               ends `unprovable`
//! given up (no longer recorded, too many open)                 ends `unhealable`; `unprovable` if not numbered
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    adapter::Outbox,
    event::{Cause, Channel, Gap, GapClosed, GapEnd, GapId},
    ids::{FramePos, Micros, SymbolIx},
    sequence::Missing,
};

/// Open gaps of one instrument's book, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenGaps(Vec<OpenGap>);

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct OpenGap {
    id: GapId,
    cause: Cause,
    /// First id that may be missing, where the venue's numbering gives it.
    #[serde(default)]
    first: Option<i64>,
    /// Its last missing id is known already: the snapshot need not tell where it ends.
    is_bounded: bool,
    /// Nothing can tell whether something is missing at all.
    #[serde(default)]
    is_unprovable: bool,
}

/// What a snapshot says of where the missing stretch before it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resync {
    /// Id of the snapshot.
    pub(crate) id: Option<i64>,
    /// Last id before the updates that were received and lead up to the snapshot, where that is known.
    pub(crate) before_run: Option<i64>,
    /// Time of the first thing seen after the stretch.
    pub(crate) until: Option<Micros>,
}

impl OpenGaps {
    /// Emits a gap and remembers it. When [`OPEN_MAX`] are open already, the oldest is emitted as
    /// unhealable: what it missed will never come.
    pub(crate) fn open(&mut self, out: &mut Outbox, symbol: SymbolIx, cause: Cause, missing: Missing, span: Span) {
        if self.0.len() >= OPEN_MAX {
            let oldest = self.0.remove(0);
            push_closed(out, symbol, oldest, oldest.given_up(), None, None);
        }
        let id = out.push_gap(gap(Some(symbol), Some(Channel::Book), cause, missing, span));
        let is_unprovable = missing.first.is_none() && is_of_connection(cause);
        self.0.push(OpenGap { id, cause, first: missing.first, is_bounded: missing.last.is_some(), is_unprovable });
    }

    /// Emits the end of every open gap: the book is right again from a snapshot on.
    pub(crate) fn resynced(&mut self, out: &mut Outbox, symbol: SymbolIx, resync: Resync) {
        for gap in self.0.drain(..) {
            let (end, last) = gap.resynced(resync);
            let until = resync.until.filter(|_| !gap.is_bounded);
            push_closed(out, symbol, gap, end, last, until);
        }
    }

    /// Emits the end of every open gap: the book is no longer recorded.
    pub(crate) fn give_up(&mut self, out: &mut Outbox, symbol: SymbolIx) {
        for gap in self.0.drain(..) {
            push_closed(out, symbol, gap, gap.given_up(), None, None);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl OpenGap {
    /// How it ends at a snapshot, and its last id missing, where the snapshot tells.
    fn resynced(&self, resync: Resync) -> (GapEnd, Option<i64>) {
        let Resync { id, before_run, until: _ } = resync;
        let last = before_run.or(id);
        match (self.first, last, id) {
            _ if self.is_unprovable => (GapEnd::Unprovable, None),
            _ if self.is_bounded => (GapEnd::Resynced, None),
            (Some(first), Some(last), _) if first <= last => (GapEnd::Resynced, Some(last)),
            // The snapshot is not older than what was seen before: no other numbering, and nothing between.
            (Some(first), Some(_), Some(id)) if id >= first - 1 => (GapEnd::Healed, None),
            _ => (GapEnd::Resynced, None),
        }
    }

    const fn given_up(&self) -> GapEnd {
        if self.is_unprovable { GapEnd::Unprovable } else { GapEnd::Unhealable }
    }
}

/// Whether a gap of this cause says no more than that no connection was open: without ids, nobody can tell whether
/// something was missed meanwhile.
const fn is_of_connection(cause: Cause) -> bool {
    match cause {
        Cause::Reconnect | Cause::Downtime | Cause::Stall | Cause::VenueRestart => true,
        Cause::Sequence | Cause::Checksum | Cause::Undecodable | Cause::Snapshot => false,
    }
}

/// Time of the last thing before a gap and of the first after it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) since: Option<Micros>,
    pub(crate) until: Option<Micros>,
}

/// A gap event; frame and id are given by the outbox.
pub(crate) fn gap(
    symbol: Option<SymbolIx>,
    channel: Option<Channel>,
    cause: Cause,
    missing: Missing,
    span: Span,
) -> Gap {
    let Span { since, until } = span;
    let Missing { first: first_missing, last: last_missing } = missing;
    let id = GapId { pos: FramePos::FIRST, ordinal: 0 };
    Gap { frame: 0, id, symbol, channel, cause, first_missing, last_missing, since, until }
}

fn push_closed(
    out: &mut Outbox,
    symbol: SymbolIx,
    gap: OpenGap,
    end: GapEnd,
    last_missing: Option<i64>,
    until: Option<Micros>,
) {
    let OpenGap { id, cause, .. } = gap;
    let (symbol, channel) = (Some(symbol), Some(Channel::Book));
    out.push_gap_closed(GapClosed {
        frame: 0,
        id,
        symbol,
        channel,
        cause,
        end,
        rows: 0,
        last_missing,
        until,
        detail: None,
    });
}

/// Most gaps of one book that are open at once.
const OPEN_MAX: usize = 64;
