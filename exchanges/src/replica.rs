//! Books rebuilt from events, by the rule that `SEMANTICS.md` gives every reader of the rows.
//!
//! ```text
//! snapshot     the book is emptied and filled; deltas of the unbroken run before it whose id is at or above
//!              `keeps_from` are applied on top (a snapshot by HTTP arrives later than it was taken)
//! delta        applied when the book is live and its id is at or above `keeps_from`; held back otherwise
//! stale        a repetition; nothing
//! gap          the book is not to be trusted until the next snapshot
//! ```
//!
//! Rows alone do not show a message without levels, so an adapter also notes its book messages in a log
//! that only offline readers switch on ([`Decoder::log_books`](crate::decoder::Decoder::log_books)).

use std::ops::Range;

use crate::{
    book::Book,
    by_symbol::BySymbol,
    event::{Channel, Events, Gap, Level, Note, Side},
    ids::SymbolIx,
};

/// One book message, as an adapter understood it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BookMessage {
    /// Index of the frame in the chunk.
    pub frame: u32,
    /// The instrument.
    pub symbol: SymbolIx,
    /// What the message is to the book.
    pub role: Role,
    /// Its rows in the chunk's levels.
    pub levels: Range<usize>,
    /// The message's last update id, when it has one.
    pub last_id: Option<i64>,
    /// Whether the checksum that came with it matched; `None` when none came or none could be computed.
    pub checksum: Option<bool>,
}

/// What a book message is to the book.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The whole book; live after it.
    Snapshot {
        /// Deltas of the run with this id or a later one are newer than the snapshot; `None` when the
        /// snapshot came in its place among the deltas.
        keeps_from: Option<i64>,
        /// Levels a side that the venue keeps; `None` for all.
        depth: Option<usize>,
    },
    /// Changed levels.
    Delta,
    /// A repetition or a late frame: counted, not emitted.
    Stale,
}

/// How far a book can be trusted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    /// No snapshot yet.
    #[default]
    Syncing,
    /// Whole and proven as far as the venue allows.
    Live,
    /// Was live, until a gap; no snapshot since.
    Broken,
}

impl State {
    /// The name in `tapeway book`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::Live => "live",
            Self::Broken => "broken",
        }
    }
}

/// One instrument's book and what was counted on the way to it. `K` names a frame to the caller.
#[derive(Clone, Debug)]
pub struct Replica<K> {
    /// How far the book can be trusted.
    pub state: State,
    /// The book; not to be trusted unless `state` is live.
    pub book: Book,
    /// Snapshots taken over.
    pub snapshots: u64,
    /// Deltas applied, those held back before a snapshot included.
    pub deltas_applied: u64,
    /// Deltas older than the snapshot they met.
    pub deltas_ignored_old: u64,
    /// Deltas that came while there was no live book.
    pub deltas_before_snapshot: u64,
    /// Repetitions and late frames.
    pub deltas_stale: u64,
    /// The last frame that was about this book.
    pub last_book_frame: Option<K>,
    /// Gaps of this book.
    pub gaps: Vec<(K, Gap)>,
    /// Checksums that came and could be computed.
    pub checked: u64,
    /// Frames whose checksum did not match.
    pub mismatched: Vec<K>,
    held: Vec<Held>,
    held_levels: usize,
    keeps_from: Option<i64>,
    depth: Option<usize>,
}

/// A delta held back until a snapshot says whether it is newer.
#[derive(Clone, Debug)]
struct Held {
    last_id: Option<i64>,
    levels: Vec<(Side, rust_decimal::Decimal, rust_decimal::Decimal)>,
}

impl<K> Default for Replica<K> {
    fn default() -> Self {
        Self {
            state: State::default(),
            book: Book::default(),
            snapshots: 0,
            deltas_applied: 0,
            deltas_ignored_old: 0,
            deltas_before_snapshot: 0,
            deltas_stale: 0,
            last_book_frame: None,
            gaps: Vec::new(),
            checked: 0,
            mismatched: Vec::new(),
            held: Vec::new(),
            held_levels: 0,
            keeps_from: None,
            depth: None,
        }
    }
}

impl<K: Clone> Replica<K> {
    /// Takes in one book message of this instrument; `levels` are its rows.
    pub fn on_message(&mut self, frame: K, message: &BookMessage, levels: &[Level]) {
        match message.checksum {
            Some(true) => self.checked += 1,
            Some(false) => {
                self.checked += 1;
                self.mismatched.push(frame.clone());
            }
            None => {}
        }
        self.last_book_frame = Some(frame);
        match message.role {
            Role::Snapshot { keeps_from, depth } => self.on_snapshot(keeps_from, depth, levels, message.checksum),
            Role::Delta => self.on_delta(message.last_id, levels),
            Role::Stale => self.deltas_stale += 1,
        }
    }

    /// Takes in a gap of this instrument, or of all.
    pub fn on_gap(&mut self, frame: K, gap: &Gap) {
        if gap.channel.is_some_and(|channel| channel != Channel::Book) {
            return;
        }
        self.gaps.push((frame, gap.clone()));
        if self.state == State::Live {
            self.state = State::Broken;
        }
        self.held.clear();
        self.held_levels = 0;
    }

    fn on_snapshot(&mut self, keeps_from: Option<i64>, depth: Option<usize>, levels: &[Level], checksum: Option<bool>) {
        self.snapshots += 1;
        self.keeps_from = keeps_from;
        self.depth = depth;
        self.book.clear();
        self.book.extend_both(levels);
        self.cut();
        let is_held_whole = self.held_levels <= HELD_LEVELS_MAX || keeps_from.is_none();
        self.state = if checksum == Some(false) || !is_held_whole { State::Broken } else { State::Live };
        for held in std::mem::take(&mut self.held) {
            if keeps_from.is_none_or(|from| held.last_id.is_none_or(|id| id < from)) {
                self.deltas_ignored_old += u64::from(keeps_from.is_some());
                continue;
            }
            held.levels.iter().for_each(|(side, price, qty)| self.book.set(*side, *price, *qty));
            self.deltas_applied += 1;
            self.cut();
        }
        self.held_levels = 0;
    }

    fn on_delta(&mut self, last_id: Option<i64>, levels: &[Level]) {
        match self.state {
            State::Live if matches!((self.keeps_from, last_id), (Some(from), Some(id)) if id < from) => {
                self.deltas_ignored_old += 1;
            }
            State::Live => {
                self.book.apply(levels);
                self.deltas_applied += 1;
                self.cut();
            }
            State::Syncing | State::Broken => {
                self.deltas_before_snapshot += 1;
                self.held_levels += levels.len();
                if self.held_levels <= HELD_LEVELS_MAX {
                    let levels = levels.iter().map(|level| (level.side, level.price, level.qty)).collect();
                    self.held.push(Held { last_id, levels });
                } else {
                    self.held.clear();
                }
            }
        }
    }

    fn cut(&mut self) {
        if let Some(depth) = self.depth {
            self.book.truncate(depth);
        }
    }
}

/// Replicas of all instruments of one decoder, in the order of their symbol indices.
#[derive(Clone, Debug)]
pub struct Replicas<K> {
    list: BySymbol<Replica<K>>,
    /// Gaps that concern every instrument.
    pub connection_gaps: Vec<(K, Gap)>,
}

impl<K> Default for Replicas<K> {
    fn default() -> Self {
        Self { list: BySymbol::default(), connection_gaps: Vec::new() }
    }
}

impl<K: Clone> Replicas<K> {
    /// Takes in a chunk and the book messages of its frames; `name` names a frame by its index in the chunk.
    ///
    /// A gap is taken in before the messages of its frame: the frame that reveals it is the first after it.
    pub fn on_chunk(&mut self, events: &Events, log: &[BookMessage], name: impl Fn(u32) -> K) {
        let mut gaps = events.notes.iter().filter_map(|note| match note {
            Note::Gap(gap) => Some(gap),
            Note::GapClosed(_) | Note::Reject(_) | Note::Session(_) => None,
        });
        let mut gap = gaps.next();
        for message in log {
            while let Some(due) = gap.filter(|gap| gap.frame <= message.frame) {
                self.on_gap(due, &name);
                gap = gaps.next();
            }
            let levels = &events.levels[message.levels.clone()];
            self.list.entry(message.symbol).on_message(name(message.frame), message, levels);
        }
        while let Some(due) = gap {
            self.on_gap(due, &name);
            gap = gaps.next();
        }
    }

    /// Every instrument that had a book message or a gap.
    pub fn iter(&self) -> impl Iterator<Item = (SymbolIx, &Replica<K>)> {
        self.list.iter().filter(|(_, replica)| replica.last_book_frame.is_some() || !replica.gaps.is_empty())
    }

    fn on_gap(&mut self, gap: &Gap, name: &impl Fn(u32) -> K) {
        match gap.symbol {
            Some(symbol) => self.list.entry(symbol).on_gap(name(gap.frame), gap),
            None => {
                self.connection_gaps.push((name(gap.frame), gap.clone()));
                self.list.iter_mut().for_each(|(_, replica)| replica.on_gap(name(gap.frame), gap));
            }
        }
    }
}

/// Levels held back for one snapshot; a recording without any snapshot must not fill the memory. Beyond it
/// a later snapshot by HTTP leaves the book broken.
const HELD_LEVELS_MAX: usize = 20_000_000;
