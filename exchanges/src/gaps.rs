//! Gaps of one instrument's book that are still open, until a new snapshot ends them all.

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
    /// Its last missing id is known already: the snapshot need not tell where it ends.
    is_bounded: bool,
}

impl OpenGaps {
    /// Emits a gap and remembers it. When [`OPEN_MAX`] are open already, the oldest is emitted as
    /// unhealable: what it missed will never come.
    pub(crate) fn open(&mut self, out: &mut Outbox, symbol: SymbolIx, cause: Cause, missing: Missing, span: Span) {
        if self.0.len() >= OPEN_MAX {
            let oldest = self.0.remove(0);
            push_closed(out, symbol, oldest, GapEnd::Unhealable, None, None);
        }
        let id = out.push_gap(gap(Some(symbol), Some(Channel::Book), cause, missing, span));
        self.0.push(OpenGap { id, cause, is_bounded: missing.last.is_some() });
    }

    /// Emits the end of every open gap: the book is right again from a snapshot ending at id `last`, taken
    /// at `until`.
    pub(crate) fn resynced(&mut self, out: &mut Outbox, symbol: SymbolIx, last: Option<i64>, until: Option<Micros>) {
        for gap in self.0.drain(..) {
            let (last, until) = if gap.is_bounded { (None, None) } else { (last, until) };
            push_closed(out, symbol, gap, GapEnd::Resynced, last, until);
        }
    }

    /// Emits the end of every open gap as unhealable: the book is no longer recorded.
    pub(crate) fn give_up(&mut self, out: &mut Outbox, symbol: SymbolIx) {
        for gap in self.0.drain(..) {
            push_closed(out, symbol, gap, GapEnd::Unhealable, None, None);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    let OpenGap { id, cause, is_bounded: _ } = gap;
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
