//! What a venue adapter is: journaled input in, events and actions out; no I/O, no clock.
//!
//! One adapter serves one lane. It is told of a connection opened or closed, of each frame and of each
//! answer to an HTTP request it asked for, always with position and receive time, and answers by
//! filling the [`Outbox`]. The same input from the same state gives the same events, which is what lets
//! a writer read the journal again instead of trusting a queue. A tick can act but cannot emit: it is
//! handed [`Actions`] and no outbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    conn::{Conn, Conns},
    error::FrameError,
    event::{
        Cause, Channel, Events, Flags, Gap, GapClosed, GapId, Level, Note, Quote, Reject, Session, TopBook, Trade,
    },
    ids::{FramePos, Nanos, SymbolIx},
    replica::{BookMessage, Role},
    subscription::Subscriptions,
    symbols::Symbols,
    top_book::OrderBooks,
};

/// Which journaled input is being handled, and when it arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct At {
    /// Position in the lane.
    pub pos: FramePos,
    /// Host clock when the last byte had arrived.
    pub received: Nanos,
    /// Which of the lane's connections it came from.
    pub conn: Conn,
}

/// One venue's protocol on one lane.
///
/// A lane has one connection, or two that carry the same: what both deliver is emitted once, what one misses and the
/// other has is no gap. Which connection an input came from is in [`At::conn`]; which are open, the adapter remembers
/// from `on_open` and `on_close`.
pub trait Adapter: Send {
    /// Connection `at.conn` to `plan.url` is open. Sends the subscriptions. If the adapter believed an earlier
    /// connection of that number to be open still, the process died with it, and with every other: that is a gap with
    /// cause `downtime`.
    fn on_open(&mut self, at: At, plan: &LanePlan, out: &mut Outbox);

    /// The lane's plan changed while a connection is open. Sends the difference on every open one.
    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox);

    /// A WebSocket message as received. `bytes` may be edited in place.
    ///
    /// # Errors
    ///
    /// The frame, or a part of it, could not be understood. What was emitted before stays; what the
    /// adapter's state needs to know about the loss, it has noted itself.
    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError>;

    /// The answer to a request of this adapter. `body` may be edited in place.
    ///
    /// # Errors
    ///
    /// The answer was not what was asked for; the adapter has already asked again, with a delay, if
    /// it still needs it.
    fn on_http(&mut self, at: At, tag: &str, status: u16, body: &mut [u8], out: &mut Outbox) -> Result<(), FrameError>;

    /// Connection `at.conn` is gone. When the other is open, that is a gap only where the other lacks something too.
    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox);

    /// Called about once a second while connected, never on replay. May act, cannot emit, and must not
    /// change anything that later events depend on.
    fn on_tick(&mut self, now: Nanos, actions: &mut Actions);

    /// Everything later events depend on, as JSON of the adapter's own versioned shape.
    fn state(&self) -> serde_json::Value;

    /// Takes over a state that [`state`](Self::state) returned, of this or an earlier version.
    ///
    /// # Errors
    ///
    /// The state is not one of this adapter's; the adapter is as new.
    fn restore(&mut self, state: serde_json::Value) -> Result<(), serde_json::Error>;

    /// What has been asked of the venue on a connection and how that stands.
    fn subscriptions(&self, conn: Conn) -> &Subscriptions;

    /// The connections that are open, as far as the adapter knows.
    fn open(&self) -> Conns;

    /// Whether the lane would miss nothing, as far as can be known at `now`, if `conn` were its only connection from now on:
    /// everything asked for is answered, and where a book has no numbers, the connection is known to stand where the
    /// emitted rows do.
    fn is_ready(&self, conn: Conn, _now: Nanos) -> bool {
        self.subscriptions(conn).is_answered()
    }
}

/// What one lane connects to and asks for. Journaled with every open, so that replay knows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LanePlan {
    /// Name of the lane, unique over all venues: `<venue>.<index>`.
    pub lane: String,
    /// WebSocket URL, path and query included.
    pub url: String,
    /// Base of REST URLs, without a trailing slash.
    pub http_url: String,
    /// Symbols as the venue spells them, in plan order.
    pub symbols: Vec<String>,
    /// What to subscribe for each symbol.
    pub channels: Vec<Channel>,
    /// Book levels a side, where the venue lets one choose; the venue's default otherwise.
    pub book_depth: Option<u32>,
    /// When whole books are written; `None` for never, and in plans of before that could be said.
    #[serde(default)]
    pub order_books: Option<OrderBooks>,
}

/// Why a connection ended, as journaled.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CloseReason {
    /// Fixed kind, for metrics and for the gaps that follow.
    pub kind: CloseKind,
    /// What exactly happened.
    pub detail: String,
}

/// Kinds of connection ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseKind {
    /// The venue closed it, or the network did.
    Lost,
    /// Nothing, or nothing of some subscription, arrived for too long.
    Stall,
    /// The venue announced a restart or a maintenance.
    VenueRestart,
    /// The adapter asked for it (protocol violation, refused subscription).
    Protocol,
    /// Planned: end of the venue's connection lifetime, or configuration.
    Rotation,
    /// The daemon is stopping.
    Shutdown,
    /// The journal could not take more (disk full); reading stopped.
    JournalFull,
}

impl CloseKind {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stall => "stall",
            Self::VenueRestart => "venue_restart",
            Self::Protocol => "protocol",
            Self::Rotation => "rotation",
            Self::Shutdown => "shutdown",
            Self::JournalFull => "journal_full",
        }
    }

    /// The cause of the gaps that a connection's end opens.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::Lost | Self::Protocol | Self::Rotation => Cause::Reconnect,
            Self::Stall => Cause::Stall,
            Self::VenueRestart => Cause::VenueRestart,
            Self::Shutdown | Self::JournalFull => Cause::Downtime,
        }
    }
}

/// An HTTP GET the adapter needs answered. The session paces it by weight and retries a request that
/// got no answer at all; every answer that has a status comes back through `on_http`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpRequest {
    /// The adapter's name for it; comes back with the answer, is journaled, at most 255 bytes.
    pub tag: String,
    /// Path and query below the lane's `http_url`, beginning with `/`.
    pub path: String,
    /// Cost in the venue's request-weight unit.
    pub weight: u32,
    /// Wait at least this long before sending.
    pub delay: Duration,
}

/// What an adapter wants done. Drained by the session after every input and tick; dropped on replay.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// Text messages to send on a connection, in order, paced by the venue's limit.
    pub sends: Vec<(Conn, String)>,
    /// HTTP requests to make. They are the lane's: they end with its last connection.
    pub requests: Vec<HttpRequest>,
    /// Give up a connection, because.
    pub reconnects: Vec<(Conn, CloseReason)>,
    /// What is wanted is wanted of this connection.
    conn: Conn,
}

impl Actions {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sends.is_empty() && self.requests.is_empty() && self.reconnects.is_empty()
    }

    /// What is wanted from here on is wanted of this connection.
    pub(crate) fn of(&mut self, conn: Conn) -> &mut Self {
        self.conn = conn;
        self
    }

    /// Sends a message on the connection at hand.
    pub(crate) fn send(&mut self, text: String) {
        self.sends.push((self.conn, text));
    }

    /// Gives up the connection at hand.
    pub(crate) fn reconnect(&mut self, reason: CloseReason) {
        self.reconnects.push((self.conn, reason));
    }

    /// Empties all lists, keeping their memory.
    pub fn clear(&mut self) {
        self.sends.clear();
        self.requests.clear();
        self.reconnects.clear();
    }
}

/// A text from a venue may be as long as its frame, which the journal has anyway.
fn cut(mut text: String) -> String {
    if text.len() > DETAIL_BYTES_MAX {
        let at = (0..=DETAIL_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(at);
        text.shrink_to_fit();
        text.push('…');
    }
    text
}

/// Longest detail of a reject.
const DETAIL_BYTES_MAX: usize = 1_024;

/// Lengths of the lists of events before an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    trades: usize,
    levels: usize,
    quotes: usize,
    notes: usize,
    books: usize,
}

impl Mark {
    /// Notes before the input.
    pub(crate) const fn notes(self) -> usize {
        self.notes
    }
}

/// What came more than once, and what came by one connection alone. Counts only: no event depends on them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Repeats {
    /// Trades, quotes and book messages that had come before and were not emitted again.
    pub dropped: u64,
    /// Holes of one connection that the other filled before they became gaps.
    pub filled: u64,
}

/// Where adapters put what they have to say about the current input.
///
/// The `push_*` methods stamp the frame index; callers leave `frame` 0.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Events of this and earlier frames since the chunk was last taken.
    pub events: Events,
    /// The lane's symbols.
    pub symbols: Symbols,
    /// What to do.
    pub actions: Actions,
    /// Index of the current frame in `events`.
    frame: u32,
    /// Gaps emitted for the current frame.
    gaps: u32,
    /// What the lane's connections had in common since the last look.
    pub(crate) repeats: Repeats,
    /// Book messages of the frames in `events`, for offline readers; `None` while nobody reads them.
    pub(crate) book_log: Option<Vec<BookMessage>>,
    /// Book messages of the current input; `None` while nobody keeps books.
    pub(crate) frame_books: Option<Vec<BookMessage>>,
}

impl Outbox {
    /// Begins a new input: every event pushed from here on belongs to it.
    ///
    /// Panics if `at.pos` does not follow the chunk's last frame: positions are dense.
    pub(crate) fn begin(&mut self, at: At) {
        assert_eq!(at.pos, self.events.end(), "an input must follow the one before it");
        self.frame = u32::try_from(self.events.received.len()).expect("a chunk holds far fewer than 2^32 frames");
        self.events.received.push(at.received);
        self.gaps = 0;
        self.actions.of(at.conn);
        if let Some(messages) = &mut self.frame_books {
            messages.clear();
        }
    }

    /// Emits a trade.
    pub fn push_trade(&mut self, trade: Trade) {
        self.events.trades.push(Trade { frame: self.frame, ..trade });
    }

    /// Emits one book level.
    pub fn push_level(&mut self, level: Level) {
        self.events.levels.push(Level { frame: self.frame, ..level });
    }

    /// Emits a quote.
    pub fn push_quote(&mut self, quote: Quote) {
        self.events.quotes.push(Quote { frame: self.frame, ..quote });
    }

    /// Emits a whole book.
    pub(crate) fn push_top_book(&mut self, book: TopBook) {
        self.events.top_books.push(TopBook { frame: self.frame, ..book });
    }

    /// Emits a gap; its id is given here and returned, so that the adapter can close it later.
    pub fn push_gap(&mut self, gap: Gap) -> GapId {
        let id = GapId { pos: self.events.pos(self.frame), ordinal: self.gaps };
        self.gaps += 1;
        self.events.notes.push(Note::Gap(Gap { frame: self.frame, id, ..gap }));
        id
    }

    /// Emits the end of an earlier gap.
    pub fn push_gap_closed(&mut self, closed: GapClosed) {
        self.events.notes.push(Note::GapClosed(GapClosed { frame: self.frame, ..closed }));
    }

    /// Emits a reject: this input, or part of it, could not be decoded.
    pub fn push_reject(&mut self, error: &FrameError) {
        let (frame, reason, detail) = (self.frame, error.reason(), cut(error.to_string()));
        self.events.notes.push(Note::Reject(Reject { frame, reason, detail }));
    }

    /// Where events of the current input will begin.
    pub(crate) fn mark(&self) -> Mark {
        let Events { trades, levels, quotes, notes, .. } = &self.events;
        let books = self.book_log.as_ref().map_or(0, Vec::len);
        Mark { trades: trades.len(), levels: levels.len(), quotes: quotes.len(), notes: notes.len(), books }
    }

    /// Takes back everything emitted since `mark`, in the same input.
    pub(crate) fn take_back(&mut self, mark: Mark) {
        self.events.trades.truncate(mark.trades);
        self.events.levels.truncate(mark.levels);
        self.events.quotes.truncate(mark.quotes);
        self.events.notes.truncate(mark.notes);
        if let Some(log) = &mut self.book_log {
            log.truncate(mark.books);
        }
        if let Some(messages) = &mut self.frame_books {
            messages.clear();
        }
        self.gaps = 0;
    }

    /// Emits what an input leaves over which the adapter panicked.
    pub(crate) fn push_panic(&mut self, detail: String) {
        let (frame, reason) = (self.frame, "adapter_panic");
        self.events.notes.push(Note::Reject(Reject { frame, reason, detail }));
    }

    /// Emits what a frame that is gone from the journal leaves: a reject that says so.
    pub(crate) fn push_lost(&mut self, detail: String) {
        let (frame, reason) = (self.frame, "journal_damage");
        self.events.notes.push(Note::Reject(Reject { frame, reason, detail }));
    }

    /// Emits a connection opened or closed.
    pub(crate) fn push_session(&mut self, is_open: bool, detail: String) {
        self.events.notes.push(Note::Session(Session { frame: self.frame, is_open, detail }));
    }

    /// Levels pushed so far in this chunk: a mark for [`finish_levels`](Self::finish_levels).
    #[must_use]
    pub fn level_mark(&self) -> usize {
        self.events.levels.len()
    }

    /// Puts `LAST_IN_FRAME` on the last level pushed since `mark`, if any.
    pub fn finish_levels(&mut self, mark: usize) {
        if let [.., last] = &mut self.events.levels[mark..] {
            last.flags = last.flags.with(Flags::LAST_IN_FRAME);
        }
    }

    /// Ends a book message whose levels were pushed since `mark`: marks its last row, and logs it where
    /// somebody reads the log.
    pub fn finish_book(
        &mut self,
        mark: usize,
        symbol: SymbolIx,
        role: Role,
        last_id: Option<i64>,
        checksum: Option<bool>,
    ) {
        self.finish_levels(mark);
        if self.book_log.is_none() && self.frame_books.is_none() {
            return;
        }
        let levels = mark..self.events.levels.len();
        let message = BookMessage { frame: self.frame, symbol, role, levels, last_id, checksum };
        if let Some(messages) = &mut self.frame_books {
            messages.push(message.clone());
        }
        if let Some(log) = &mut self.book_log {
            log.push(message);
        }
    }

    /// Takes back every level pushed since `mark`: the message they came from could not be decoded whole.
    pub fn drop_levels(&mut self, mark: usize) {
        self.events.levels.truncate(mark);
    }

    /// Position of the current input.
    pub(crate) fn pos(&self) -> FramePos {
        self.events.pos(self.frame)
    }

    /// The name behind a symbol of this lane.
    #[must_use]
    pub fn name(&self, symbol: SymbolIx) -> &str {
        self.symbols.name(symbol)
    }
}
