//! Gaps that an adapter has opened and not ended, as the decoder sees them go by: what is left to say when the adapter
//! panics and takes its own memory with it.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{At, Outbox},
    event::{Cause, Channel, Gap, GapClosed, GapEnd, GapId, Note},
    ids::SymbolIx,
};

/// Open gaps of one lane, in the order they were opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OpenGaps {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    adapter: Vec<Open>,
    /// Opened by a panic; ends with the next connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    panic: Option<Open>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    id: GapId,
    symbol: Option<SymbolIx>,
    channel: Option<Channel>,
    cause: Cause,
}

impl OpenGaps {
    /// Takes note of gaps opened and ended by an input.
    #[inline]
    pub(crate) fn follow(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Gap(Gap { id, symbol, channel, cause, .. }) => {
                    if self.panic.as_ref().is_none_or(|panic| panic.id != *id) {
                        self.adapter.push(Open { id: *id, symbol: *symbol, channel: *channel, cause: *cause });
                    }
                }
                Note::GapClosed(closed) => {
                    // The newest gap is the likeliest to end.
                    if let Some(at) = self.adapter.iter().rposition(|open| open.id == closed.id) {
                        self.adapter.remove(at);
                    }
                }
                Note::Reject(_) | Note::Session(_) => {}
            }
        }
    }

    /// Ends the adapter's open gaps: it has forgotten them.
    pub(crate) fn abandon(&mut self, at: At, out: &mut Outbox) {
        for open in std::mem::take(&mut self.adapter) {
            close(open, at, "the adapter panicked and forgot what was missing", out);
        }
    }

    /// Begins the gap that a panic makes: everything of the lane, until it is connected anew.
    pub(crate) fn begin(&mut self, at: At, out: &mut Outbox) {
        if self.panic.is_some() {
            return; // It panics again on the same connection.
        }
        let gap = Gap {
            frame: 0,
            id: GapId { pos: at.pos, ordinal: 0 },
            symbol: None,
            channel: None,
            cause: Cause::Undecodable,
            first_missing: None,
            last_missing: None,
            since: Some(at.received.micros()),
            until: None,
        };
        let (symbol, channel, cause) = (gap.symbol, gap.channel, gap.cause);
        self.panic = Some(Open { id: out.push_gap(gap), symbol, channel, cause });
    }

    /// A connection opens: ends the gap that a panic made.
    pub(crate) fn end(&mut self, at: At, out: &mut Outbox) {
        if let Some(open) = self.panic.take() {
            close(open, at, "the adapter panicked; what was missed until here cannot be known", out);
        }
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.adapter.is_empty() && self.panic.is_none()
    }
}

fn close(open: Open, at: At, why: &str, out: &mut Outbox) {
    let Open { id, symbol, channel, cause } = open;
    out.push_gap_closed(GapClosed {
        frame: 0,
        id,
        symbol,
        channel,
        cause,
        end: GapEnd::Unhealable,
        rows: 0,
        last_missing: None,
        until: Some(at.received.micros()),
        detail: Some(why.into()),
    });
}
