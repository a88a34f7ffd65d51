//! Normalized events: one event is one row of one table.
//!
//! What each field means for every venue is owned by `exchanges/SEMANTICS.md`. Rows are kept by kind
//! in an [`Events`] chunk; each row names its frame by index, so position and receive time are
//! stored once a frame.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{FramePos, Micros, Nanos, SymbolIx},
    symbols::Symbol,
};

/// Quality marks that travel with a row; the bits of the `flags` column.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Flags(pub u16);

impl Flags {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// The last row of its frame and instrument in this table: the book is consistent after it.
    pub const LAST_IN_FRAME: Self = Self(1);
    /// Level of a snapshot: the book was emptied before the first row that carries this.
    pub const SNAPSHOT: Self = Self(1 << 1);
    /// Fetched again by REST to heal a gap.
    pub const BACKFILL: Self = Self(1 << 2);
    /// The book these levels belong to is not whole: no snapshot yet, or a gap not yet resynced.
    pub const AFTER_GAP: Self = Self(1 << 3);
    /// The venue gave no usable time; `time` is the receive time.
    pub const VENUE_TIME_BAD: Self = Self(1 << 4);
    /// Printed outside the order book (insurance fund, ADL, block); no market trade.
    pub const OFF_BOOK: Self = Self(1 << 5);

    /// Every flag with its name, in bit order.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::LAST_IN_FRAME, "LAST_IN_FRAME"),
        (Self::SNAPSHOT, "SNAPSHOT"),
        (Self::BACKFILL, "BACKFILL"),
        (Self::AFTER_GAP, "AFTER_GAP"),
        (Self::VENUE_TIME_BAD, "VENUE_TIME_BAD"),
        (Self::OFF_BOOK, "OFF_BOOK"),
    ];

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set here.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Names of the set flags, in bit order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

/// Which side took the initiative in a trade, or which side of the book a level is on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Buyer was the aggressor; bid side of the book. `1` in SQL.
    Buy,
    /// Seller was the aggressor; ask side of the book. `-1` in SQL.
    Sell,
    /// The venue does not say. `0` in SQL. Never the side of a book level.
    Unknown,
}

impl Side {
    /// The `side` column: 1, -1 or 0.
    #[must_use]
    pub const fn sql(self) -> i16 {
        match self {
            Self::Buy => 1,
            Self::Sell => -1,
            Self::Unknown => 0,
        }
    }
}

/// What a subscription or a gap is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Every trade.
    Trades,
    /// Order-book changes and snapshots.
    Book,
    /// Best bid and ask.
    Quotes,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 3] = [Self::Trades, Self::Book, Self::Quotes];

    /// The name in YAML, SQL, metrics and `normalize` output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::Book => "book",
            Self::Quotes => "quotes",
        }
    }
}

/// One trade.
#[derive(Clone, Debug, PartialEq)]
pub struct Trade {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// The instrument.
    pub symbol: SymbolIx,
    /// Aggressor side.
    pub side: Side,
    /// Quality marks.
    pub flags: Flags,
    /// When it happened, by the venue's clock (receive time if `VENUE_TIME_BAD`).
    pub time: Micros,
    /// Price as the venue wrote it, trailing zeros kept.
    pub price: Decimal,
    /// Quantity as the venue wrote it, in the venue's unit (base units, or contracts).
    pub qty: Decimal,
    /// The venue's integer trade id, when it has one.
    pub trade_id: Option<i64>,
    /// The venue's trade id when it is not an integer.
    pub trade_ref: Option<Box<str>>,
}

/// One changed (or snapshot) level of an order book.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// The instrument.
    pub symbol: SymbolIx,
    /// `Buy` for a bid, `Sell` for an ask.
    pub side: Side,
    /// Quality marks.
    pub flags: Flags,
    /// When the book changed, by the venue's clock (receive time if `VENUE_TIME_BAD`).
    pub time: Micros,
    /// Price of the level as the venue wrote it.
    pub price: Decimal,
    /// New total quantity at the level; zero removes it.
    pub qty: Decimal,
    /// The venue's last update id of the message, when it has one.
    pub seq: Option<i64>,
}

/// Best bid and ask as the venue streams it. A side the book does not have is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// The instrument.
    pub symbol: SymbolIx,
    /// Quality marks.
    pub flags: Flags,
    /// When, by the venue's clock (receive time if `VENUE_TIME_BAD`).
    pub time: Micros,
    /// Best bid: price and quantity.
    pub bid: Option<(Decimal, Decimal)>,
    /// Best ask: price and quantity.
    pub ask: Option<(Decimal, Decimal)>,
    /// The venue's update id, when it has one.
    pub seq: Option<i64>,
}

/// The best levels of a whole book at a moment of the venue's clock, before everything that came at or after it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopBook {
    /// Index of the frame in the chunk: the first whose changes are not in it.
    pub frame: u32,
    /// The instrument.
    pub symbol: SymbolIx,
    /// Quality marks.
    pub flags: Flags,
    /// The moment.
    pub time: Micros,
    /// The venue's id of the last change in it, when it has one.
    pub seq: Option<i64>,
    /// Price and quantity, best first.
    pub bids: Box<[(Decimal, Decimal)]>,
    /// Price and quantity, best first.
    pub asks: Box<[(Decimal, Decimal)]>,
    /// How many bids, from the best, have no other between them that is not known; `None`: these are all there are.
    pub bids_exact: Option<u32>,
    /// The same of asks.
    pub asks_exact: Option<u32>,
}

/// Identity of a gap within its lane: the frame that revealed it and which gap of that frame.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct GapId {
    /// The frame that revealed the gap.
    pub pos: FramePos,
    /// 0 for the first gap that this frame revealed.
    pub ordinal: u32,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The venue's own numbering skipped; or, where it has none, each of two connections lacks what the other had.
    Sequence,
    /// The book's checksum did not match.
    Checksum,
    /// The connection was lost and opened again.
    Reconnect,
    /// The daemon was not running.
    Downtime,
    /// The subscription went silent and the connection was given up for it.
    Stall,
    /// The venue said that it restarted or would.
    VenueRestart,
    /// A frame of a channel without numbering could not be decoded.
    Undecodable,
    /// The venue's snapshot could not be joined to the updates.
    Snapshot,
}

impl Cause {
    /// The name in SQL, metrics and `normalize` output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Checksum => "checksum",
            Self::Reconnect => "reconnect",
            Self::Downtime => "downtime",
            Self::Stall => "stall",
            Self::VenueRestart => "venue_restart",
            Self::Undecodable => "undecodable",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A stretch that the venue did not send or we did not see. A row of `audit.gaps`, state `open`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// Which gap of the lane this is.
    pub id: GapId,
    /// The instrument; `None` when it concerns every instrument of the lane.
    pub symbol: Option<SymbolIx>,
    /// The channel; `None` when it concerns every channel of the lane.
    pub channel: Option<Channel>,
    /// Why.
    pub cause: Cause,
    /// First id missing, where the venue's numbering gives it.
    pub first_missing: Option<i64>,
    /// Last id missing, where the venue's numbering gives it.
    pub last_missing: Option<i64>,
    /// Time of the last thing seen before the gap, by the venue's clock.
    pub since: Option<Micros>,
    /// Time of the first thing seen after the gap, by the venue's clock; `None` while still open-ended.
    pub until: Option<Micros>,
}

/// How a gap ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapEnd {
    /// Every missing row has been fetched.
    Healed,
    /// The book is right again from a new snapshot; the changes in between are gone for good.
    Resynced,
    /// The venue can no longer serve what is missing.
    Unhealable,
    /// The stretch is over, and nothing the venue sends can tell whether something was missed in it.
    Unprovable,
}

impl GapEnd {
    /// The `state` in `audit.gaps`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healed => "healed",
            Self::Resynced => "resynced",
            Self::Unhealable => "unhealable",
            Self::Unprovable => "unprovable",
        }
    }
}

/// The end of an earlier gap: changes the gap's row.
#[derive(Clone, Debug, PartialEq)]
pub struct GapClosed {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// The gap that ended.
    pub id: GapId,
    /// The gap's instrument, for metrics and logs.
    pub symbol: Option<SymbolIx>,
    /// The gap's channel, for metrics and logs.
    pub channel: Option<Channel>,
    /// The gap's cause, for metrics and logs.
    pub cause: Cause,
    /// How.
    pub end: GapEnd,
    /// Missing rows that were emitted after all, late or fetched again.
    pub rows: u64,
    /// Last id missing, when only the end tells (a book's new snapshot).
    pub last_missing: Option<i64>,
    /// End of the missing stretch by the venue's clock, when only the end tells.
    pub until: Option<Micros>,
    /// Why it ended so, where that needs saying: what of it cannot be had, and why.
    pub detail: Option<Box<str>>,
}

/// A journaled input that could not be decoded, in whole or in part. A row of `audit.rejects`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reject {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// Fixed name of the kind of error.
    pub reason: &'static str,
    /// The whole message: field, what was found, what was expected.
    pub detail: String,
}

/// A connection opened or closed. A row of `audit.sessions`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// `true` for opened, `false` for closed.
    pub is_open: bool,
    /// The URL for opened, the reason for closed.
    pub detail: String,
}

/// Rare events, in the order they were emitted.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A row of `audit.gaps`.
    Gap(Gap),
    /// A change of a row of `audit.gaps`.
    GapClosed(GapClosed),
    /// A row of `audit.rejects`.
    Reject(Reject),
    /// A row of `audit.sessions`.
    Session(Session),
}

/// Events of consecutive frames of one lane: what adapters fill and writers drain.
///
/// Covers exactly the positions `first .. first + received.len()`, frames without events included.
/// Rows are in frame order within each kind. Reused: [`clear`](Self::clear) keeps the capacity.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Position of the first frame.
    pub first: FramePos,
    /// Receive time of each frame; the index is what rows call `frame`.
    pub received: Vec<Nanos>,
    /// Trades.
    pub trades: Vec<Trade>,
    /// Book levels.
    pub levels: Vec<Level>,
    /// Quotes.
    pub quotes: Vec<Quote>,
    /// Whole books at moments.
    pub top_books: Vec<TopBook>,
    /// Gaps, rejects, sessions.
    pub notes: Vec<Note>,
    /// Names behind every [`SymbolIx`] in this chunk. Shared until the lane meets a new symbol.
    pub symbols: Arc<[Symbol]>,
    /// Rows the lane emitted from its first frame up to the end of this chunk, by the count of
    /// [`rows`](Self::rows): the left side of *received = committed + rejected + pending*.
    pub rows_total: u64,
}

impl Events {
    /// Empties the chunk for reuse, keeping its memory; the next frame is `first`.
    pub fn clear(&mut self, first: FramePos) {
        self.first = first;
        self.received.clear();
        self.trades.clear();
        self.levels.clear();
        self.quotes.clear();
        self.top_books.clear();
        self.notes.clear();
    }

    /// Rows in the chunk: trades, levels, quotes and whole books. Notes are not counted.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.trades.len() + self.levels.len() + self.quotes.len() + self.top_books.len()
    }

    /// Position after the last frame.
    #[must_use]
    pub fn end(&self) -> FramePos {
        self.first.plus(self.received.len() as u64)
    }

    /// Whether no frame is in the chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Position of the frame with this index.
    #[must_use]
    pub fn pos(&self, frame: u32) -> FramePos {
        self.first.plus(u64::from(frame))
    }

    /// Receive time of the frame with this index.
    #[must_use]
    pub fn received(&self, frame: u32) -> Nanos {
        self.received[frame as usize]
    }
}
