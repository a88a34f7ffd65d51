//! Gaps that are found at a seam, on their way into the piece that shows them.

use tapeway_exchanges::{
    event::{Cause, Channel, Gap, GapClosed, GapEnd, GapId, Note},
    ids::{FramePos, Micros, SymbolIx},
};
use tracing::info;

/// Notes made here.
pub(super) struct Notes {
    pub(super) list: Vec<Note>,
    /// Position of the chunk's first frame.
    pub(super) first: FramePos,
}

impl Notes {
    pub(super) fn id(&self, frame: u32) -> GapId {
        let made = u32::try_from(self.list.len()).expect("a chunk has far fewer than 2^32 gaps");
        GapId { pos: self.first.plus(frame.into()), ordinal: SEAM_ORDINAL + made }
    }

    pub(super) fn open(
        &mut self,
        frame: u32,
        symbol: SymbolIx,
        channel: Channel,
        (first_missing, last_missing): (Option<i64>, Option<i64>),
        (since, until): (Option<Micros>, Option<Micros>),
    ) -> GapId {
        let id = self.id(frame);
        info!(pos = %id.pos, channel = channel.name(), first_missing, last_missing, "gap between a lane's owners");
        let (symbol, channel, cause) = (Some(symbol), Some(channel), Cause::Downtime);
        let gap = Gap { frame, id, symbol, channel, cause, first_missing, last_missing, since, until };
        self.list.push(Note::Gap(gap));
        id
    }

    pub(super) fn close(
        &mut self,
        frame: u32,
        (id, symbol, channel): (GapId, SymbolIx, Channel),
        end: GapEnd,
        until: Option<Micros>,
        why: Option<&str>,
    ) {
        let (symbol, channel, cause) = (Some(symbol), Some(channel), Cause::Downtime);
        let (rows, last_missing, detail) = (0, None, why.map(Into::into));
        let closed = GapClosed { frame, id, symbol, channel, cause, end, rows, last_missing, until, detail };
        self.list.push(Note::GapClosed(closed));
    }
}

/// Gaps made here are numbered from here on within their frame, adapters' from 0.
pub(super) const SEAM_ORDINAL: u32 = 1_000_000;
