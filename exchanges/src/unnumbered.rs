//! A channel of one instrument that the venue does not number, across connections.
//!
//! ```text
//! connection ends after it delivered     a gap opens, by the cause of the end
//! first message after that               the gap ends `unprovable`: whether something was missed cannot be told
//! ```
//!
//! Quotes, and trades without ids. Books without numbers have the same from [`inband`](crate::inband).

use serde::{Deserialize, Serialize};

use crate::{
    adapter::Outbox,
    event::{Cause, Channel, GapClosed, GapEnd, GapId},
    gaps::{Span, gap},
    ids::{Micros, SymbolIx},
    sequence::Missing,
};

/// How the channel stands.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unnumbered {
    /// Something came on this connection.
    has_delivered: bool,
    /// Time of the last message.
    time: Option<Micros>,
    /// The stretch without a connection, until the next message.
    open: Option<(GapId, Cause)>,
}

impl Unnumbered {
    /// A message of this time. Emits the end of the stretch before it.
    #[inline]
    pub(crate) fn on_message(&mut self, out: &mut Outbox, symbol: SymbolIx, channel: Channel, time: Micros) {
        if self.open.is_some() {
            self.close(out, symbol, channel, Some(time));
        }
        self.has_delivered = true;
        self.time = Some(time);
    }

    /// The connection ended. Emits the gap if anything had come on it.
    pub(crate) fn on_close(&mut self, out: &mut Outbox, symbol: SymbolIx, channel: Channel, cause: Cause) {
        if std::mem::take(&mut self.has_delivered) && self.open.is_none() {
            let span = Span { since: self.time, until: None };
            let id = out.push_gap(gap(Some(symbol), Some(channel), cause, Missing::UNKNOWN, span));
            self.open = Some((id, cause));
        }
    }

    /// The channel is no longer recorded: nothing of it is missed from here on.
    pub(crate) fn on_end(&mut self, out: &mut Outbox, symbol: SymbolIx, channel: Channel) {
        self.close(out, symbol, channel, None);
        *self = Self::default();
    }

    #[cold]
    fn close(&mut self, out: &mut Outbox, symbol: SymbolIx, channel: Channel, until: Option<Micros>) {
        let Some((id, cause)) = self.open.take() else { return };
        let (symbol, channel, end) = (Some(symbol), Some(channel), GapEnd::Unprovable);
        let (frame, rows, last_missing, detail) = (0, 0, None, None);
        out.push_gap_closed(GapClosed { frame, id, symbol, channel, cause, end, rows, last_missing, until, detail });
    }
}
