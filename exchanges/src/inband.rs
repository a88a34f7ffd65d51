//! A book whose snapshots come among its updates, on venues that do not number them.
//!
//! ```text
//!                 snapshot
//! syncing/broken ----------> live        a snapshot on a live book replaces it
//!        ^                     |
//!        +--- loss, close -----+
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    adapter::Outbox,
    event::Cause,
    gaps::{OpenGaps, Resync, Span},
    ids::{Micros, SymbolIx},
    sequence::Missing,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inband {
    /// A snapshot has come and nothing is known to be missing since.
    is_live: bool,
    /// Something of this book came on this connection.
    has_delivered: bool,
    /// Time of the last message.
    time: Option<Micros>,
    /// Time of the last one that belongs to a whole book.
    #[serde(default)]
    whole: Option<Micros>,
    gaps: OpenGaps,
}

impl Inband {
    /// A snapshot with this id, where there are ids: whatever was missing is behind it.
    pub(crate) fn on_snapshot(
        &mut self,
        symbol: SymbolIx,
        id: Option<i64>,
        time: Option<Micros>,
        received: Micros,
        out: &mut Outbox,
    ) {
        self.is_live = true;
        self.on_update(time);
        self.gaps.resynced(out, symbol, Resync { id, before_run: None, until: time.or(Some(received)) });
    }

    /// An update, whatever the book's state.
    pub(crate) fn on_update(&mut self, time: Option<Micros>) {
        self.has_delivered = true;
        self.time = time.or(self.time);
        if self.is_live {
            self.whole = time.or(self.whole);
        }
    }

    /// Something of this book is missing or wrong from here on. Emits the gap of a live book; one that is
    /// broken already has its gap.
    pub(crate) fn on_loss(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        if std::mem::take(&mut self.is_live) || self.gaps.is_empty() {
            let span = Span { since: self.time, until: None };
            self.gaps.open(out, symbol, cause, Missing::UNKNOWN, span);
        }
    }

    /// A numbered update shows that others are missing. Emits a gap whatever the book's state: every stretch is
    /// named.
    pub(crate) fn on_gap(&mut self, symbol: SymbolIx, missing: Missing, until: Option<Micros>, out: &mut Outbox) {
        let span = Span { since: self.time, until };
        self.gaps.open(out, symbol, Cause::Sequence, missing, span);
        self.is_live = false;
    }

    /// The connection ended behind the update with this id, where there are ids.
    pub(crate) fn on_close(&mut self, symbol: SymbolIx, last: Option<i64>, cause: Cause, out: &mut Outbox) {
        if std::mem::take(&mut self.has_delivered) {
            let span = Span { since: self.time, until: None };
            let missing = Missing { first: last.map(|last| last.saturating_add(1)), last: None };
            self.gaps.open(out, symbol, cause, missing, span);
        }
        self.is_live = false;
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(crate) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.gaps.give_up(out, symbol);
        self.is_live = false;
        self.has_delivered = false;
    }

    /// Whether a snapshot of this time is of before the last message of a whole book, which another connection brought.
    pub(crate) fn is_past(&self, time: Option<Micros>) -> bool {
        time.is_some() && time < self.whole
    }

    /// Time of the last message.
    pub(crate) fn time(&self) -> Option<Micros> {
        self.time
    }

    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    pub(crate) fn has_delivered(&self) -> bool {
        self.has_delivered
    }
}

/// What a frame that could not be parsed says about itself: the text behind `key`, e.g. `"symbol":"`.
pub(crate) fn text_behind<'a>(bytes: &'a [u8], key: &str) -> Option<&'a str> {
    let at = memchr::memmem::find(bytes, key.as_bytes())? + key.len();
    let len = memchr::memchr(b'"', &bytes[at..])?;
    std::str::from_utf8(&bytes[at..at + len]).ok()
}
