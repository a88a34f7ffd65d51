//! The one place where journaled input becomes events: the live path and the catch-up path both call
//! [`Decoder::apply`], so they cannot differ.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    adapter::{Actions, Adapter, At, CloseKind, CloseReason, LanePlan, Outbox, Repeats},
    conn::{Conn, Conns},
    error::{FrameError, head},
    event::Events,
    guard::guarded,
    ids::{FramePos, Nanos},
    input::{self, Kind},
    open_gaps::OpenGaps,
    replica::BookMessage,
    subscription::Subscriptions,
    symbols::Symbols,
    top_book::TopBooks,
    venue::VenueSpec,
};

/// One lane's adapter with its outbox and its count of rows.
pub struct Decoder {
    spec: &'static VenueSpec,
    adapter: Box<dyn Adapter>,
    out: Outbox,
    rows_total: u64,
    plan: Option<LanePlan>,
    books: TopBooks,
    gaps: OpenGaps,
}

impl Decoder {
    /// A decoder that knows nothing of what came before `next`: a lane's first, or one whose saved state
    /// could not be read.
    #[must_use]
    pub fn new(spec: &'static VenueSpec, next: FramePos) -> Self {
        let mut out = Outbox::default();
        out.events.clear(next);
        let books = TopBooks::new(spec.book_depths.iter().min().map_or(0, |depth| *depth as usize));
        Self { spec, adapter: (spec.build)(), out, rows_total: 0, plan: None, books, gaps: OpenGaps::default() }
    }

    /// A decoder as it was before the input at `next`, from the bytes [`state`](Self::state) gave then.
    ///
    /// # Errors
    ///
    /// [`StateError`]: the bytes are no state, or of another venue or format, or the adapter panics over them.
    pub fn restore(spec: &'static VenueSpec, state: &[u8], next: FramePos) -> Result<Self, StateError> {
        let State { format, venue, rows_total, plan, symbols, adapter, gaps, books } = serde_json::from_slice(state)?;
        if format != STATE_FORMAT {
            return Err(StateError::Format { found: format });
        }
        if venue != spec.name {
            return Err(StateError::Venue { found: venue, expected: spec.name });
        }
        let mut decoder = Self { rows_total, plan, gaps, ..Self::new(spec, next) };
        guarded(|| decoder.adapter.restore(adapter)).map_err(|message| StateError::Panic { message })??;
        decoder.out.events.symbols = symbols.names().into();
        decoder.out.symbols = symbols;
        decoder.out.events.rows_total = rows_total;
        decoder.books = books.unwrap_or(decoder.books);
        decoder.watch_books();
        Ok(decoder)
    }

    /// Handles one journaled input. What it could not decode becomes a reject note; nothing is skipped
    /// silently. `bytes` is the record as journaled and may be edited in place.
    ///
    /// An adapter that panics costs its frame and its connection: see [`panicked`](Self::panicked).
    pub fn apply(&mut self, at: At, kind: Kind, bytes: &mut [u8]) {
        let rows_before = self.out.events.rows();
        self.out.begin(at);
        let (mark, len) = (self.out.mark(), bytes.len());
        match guarded(|| self.dispatch(at, kind, bytes)) {
            Ok(Ok(())) => {
                if kind == Kind::Open {
                    self.gaps.end(at, &mut self.out);
                }
            }
            Ok(Err(error)) => self.out.push_reject(&error),
            Err(message) => {
                self.out.take_back(mark);
                self.panicked(at, format!("over {} of {len} bytes: {message}", kind.name()));
            }
        }
        self.gaps.follow(&self.out.events.notes[mark.notes()..]);
        self.keep_books(kind, mark.notes());
        self.rows_total += (self.out.events.rows() - rows_before) as u64;
        self.out.events.rows_total = self.rows_total;
        if self.out.symbols.len() != self.out.events.symbols.len() {
            self.out.events.symbols = self.out.symbols.names().into();
        }
    }

    /// Follows the books of this input and emits those that are due.
    fn keep_books(&mut self, kind: Kind, notes_from: usize) {
        if let (Kind::Open | Kind::Plan, Some(plan)) = (kind, &self.plan) {
            self.books.on_plan(plan, &self.out.symbols);
            self.watch_books();
        }
        let Some(messages) = self.out.frame_books.take() else { return };
        let rows = self.out.events.top_books.len();
        if guarded(|| self.books.take_in(notes_from, &messages, &mut self.out)).is_err() {
            self.out.events.top_books.truncate(rows);
            self.books.forget();
        }
        self.out.frame_books = Some(messages);
    }

    fn watch_books(&mut self) {
        self.out.frame_books = self.books.is_on().then(Vec::new);
    }

    /// Stands in for a journaled input that can no longer be read: positions stay dense, and a reject names the
    /// frame. What was in it is for the venue's numbering to miss.
    pub fn lose(&mut self, at: At, detail: String) {
        self.out.begin(at);
        self.out.push_lost(detail);
    }

    /// Goes on at a later position, whose lane has given `rows_total` rows by then: the frames between are lost to this
    /// journal. What was in them is for the venue's numbering to miss. Events not taken yet are dropped.
    pub fn go_on_at(&mut self, next: FramePos, rows_total: u64) {
        self.rows_total = rows_total;
        self.out.events.clear(next);
        self.out.events.rows_total = rows_total;
    }

    /// Lets the adapter act on the passing of time. Never called on replay. An adapter that panics here keeps its
    /// state, which a tick does not change, and asks for a new connection.
    pub fn tick(&mut self, now: Nanos) {
        if let Err(message) = guarded(|| self.adapter.on_tick(now, &mut self.out.actions)) {
            self.out.actions.clear();
            self.reconnect(self.adapter.open(), &format!("over a tick: {message}"));
        }
    }

    /// Takes the chunk filled so far and leaves `fresh` (emptied, its memory reused) in its place.
    pub fn swap_events(&mut self, mut fresh: Events) -> Events {
        fresh.clear(self.out.events.end());
        fresh.symbols = self.out.events.symbols.clone();
        fresh.rows_total = self.rows_total;
        std::mem::replace(&mut self.out.events, fresh)
    }

    /// Begins to log book messages, for readers that rebuild books. The log grows until
    /// [`take_book_log`](Self::take_book_log).
    pub fn log_books(&mut self) {
        self.out.book_log.get_or_insert_default();
    }

    /// Book messages logged since the last call; their frames and levels index [`events`](Self::events), so
    /// take the log before the events.
    pub fn take_book_log(&mut self) -> Vec<BookMessage> {
        self.out.book_log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What the adapter wants done; the caller drains it.
    pub fn actions(&mut self) -> &mut Actions {
        &mut self.out.actions
    }

    /// Everything later events depend on, for the head of a journal segment.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let state = State {
            format: STATE_FORMAT,
            venue: self.spec.name.into(),
            rows_total: self.rows_total,
            plan: self.plan.clone(),
            symbols: self.out.symbols.clone(),
            adapter: self.adapter.state(),
            gaps: self.gaps.clone(),
            books: self.books.is_on().then(|| self.books.clone()),
        };
        serde_json::to_vec(&state).expect("a state has only string keys and finite numbers")
    }

    /// Events since the chunk was last taken.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.out.events
    }

    /// Position of the next input.
    #[must_use]
    pub fn next(&self) -> FramePos {
        self.out.events.end()
    }

    /// Rows this lane has emitted from its first frame on.
    #[must_use]
    pub fn rows_total(&self) -> u64 {
        self.rows_total
    }

    /// What the lane last asked for: survives restarts, so that symbols keep their lane.
    #[must_use]
    pub fn plan(&self) -> Option<&LanePlan> {
        self.plan.as_ref()
    }

    /// What has been asked of the venue on a connection and how that stands.
    #[must_use]
    pub fn subscriptions(&self, conn: Conn) -> &Subscriptions {
        self.adapter.subscriptions(conn)
    }

    /// The connections that are open, as far as the journal tells.
    #[must_use]
    pub fn open(&self) -> Conns {
        self.adapter.open()
    }

    /// Whether the lane would miss nothing, as far as can be known, if `conn` were its only connection from now on.
    #[must_use]
    pub fn is_ready(&self, conn: Conn, now: Nanos) -> bool {
        self.adapter.is_ready(conn, now)
    }

    /// What the connections had in common since the last call.
    pub fn take_repeats(&mut self) -> Repeats {
        std::mem::take(&mut self.out.repeats)
    }

    /// The lane's symbols.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        &self.out.symbols
    }

    /// The adapter panicked: what it knows cannot be trusted any more, and a process that ended here would meet the
    /// same frame again after its restart. So, live and on replay alike:
    ///
    /// 1. what it emitted for this input is taken back, and a reject says why;
    /// 2. gaps that it still had open end as unhealable: nobody remembers what they were waiting for;
    /// 3. a gap over everything begins, because nothing can be proven until there is a new connection;
    /// 4. a new adapter goes on, and asks for that connection.
    fn panicked(&mut self, at: At, what: String) {
        self.out.push_panic(format!("the adapter panicked {what}"));
        self.gaps.abandon(at, &mut self.out);
        self.gaps.begin(at, &mut self.out);
        let mut open = self.adapter.open();
        open.insert(at.conn);
        self.adapter = (self.spec.build)();
        self.out.actions.clear();
        self.reconnect(open, &what);
    }

    /// Asks for new connections in place of these.
    fn reconnect(&mut self, open: Conns, what: &str) {
        for conn in open.iter() {
            self.out.actions.of(conn).reconnect(reconnect(what));
        }
    }

    fn dispatch(&mut self, at: At, kind: Kind, bytes: &mut [u8]) -> Result<(), FrameError> {
        match kind {
            Kind::Text | Kind::Binary => self.adapter.on_frame(at, bytes, &mut self.out),
            Kind::Http => {
                let (tag, status, body) =
                    input::split_http(bytes).map_err(|error| FrameError::Unknown { head: error.to_string() })?;
                self.adapter.on_http(at, &tag, status, body, &mut self.out)
            }
            Kind::Open => {
                let plan: LanePlan = parse(bytes)?;
                self.out.push_session(true, on(at.conn, plan.url.clone()));
                self.adapter.on_open(at, &plan, &mut self.out);
                self.plan = Some(plan);
                Ok(())
            }
            Kind::Plan => {
                let plan: LanePlan = parse(bytes)?;
                self.adapter.on_plan(at, &plan, &mut self.out);
                self.plan = Some(plan);
                Ok(())
            }
            Kind::Close => {
                let reason: CloseReason = parse(bytes)?;
                self.out.push_session(false, on(at.conn, format!("{}: {}", reason.kind.name(), reason.detail)));
                self.adapter.on_close(at, &reason, &mut self.out);
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("venue", &self.spec.name).field("next", &self.next()).finish_non_exhaustive()
    }
}

/// Why a saved state could not be taken over.
#[derive(Debug, Error)]
pub enum StateError {
    /// Not the JSON that `state` writes.
    #[error("the saved adapter state does not parse: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a version with another format.
    #[error("the saved adapter state has format {found}, this version reads {STATE_FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
    /// Written for another venue.
    #[error("the saved adapter state is of venue {found}, expected {expected}")]
    Venue {
        /// The venue found.
        found: String,
        /// The lane's venue.
        expected: &'static str,
    },
    /// The adapter panicked over it.
    #[error("the adapter panicked over its saved state: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    venue: String,
    rows_total: u64,
    plan: Option<LanePlan>,
    symbols: Symbols,
    adapter: serde_json::Value,
    /// Absent while there is none.
    #[serde(default, skip_serializing_if = "OpenGaps::is_empty")]
    gaps: OpenGaps,
    /// Absent while no books are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    books: Option<TopBooks>,
}

/// Why a connection is given up after a panic.
fn reconnect(what: &str) -> CloseReason {
    CloseReason { kind: CloseKind::Protocol, detail: format!("the adapter panicked {what}") }
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|error| FrameError::Syntax {
        at: error.column(),
        what: error.to_string(),
        head: head(bytes),
    })
}

/// What is said of a connection: the second of a lane is named, the first goes without saying.
fn on(conn: Conn, detail: String) -> String {
    if conn == Conn::FIRST { detail } else { format!("connection {conn}: {detail}") }
}

/// Raised when the shape of the saved state changes.
const STATE_FORMAT: u32 = 1;
