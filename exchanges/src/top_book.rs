//! Whole books at moments of the venue's clock, derived from the levels of any venue.
//!
//! ```text
//! grid moment g = a whole multiple of `every` since 1970
//! first applied message of an instrument at or past the next g, the book whole     one row, `time` = the last g at or
//!                                                                                  before it, the book as it was before
//! a gap of the book                                                                no row until a snapshot after it
//! ```
//!
//! Books are kept here by the rule of [`replica`](crate::replica), with less beside them: of deltas that wait for a
//! snapshot by HTTP only the newest of each price is held. What is kept is part of the saved state, so that replay from
//! there gives the same rows.

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    adapter::{LanePlan, Outbox},
    book::Book,
    book_code,
    by_symbol::BySymbol,
    event::{Channel, Flags, Level, Note, Side, TopBook},
    ids::{Micros, SymbolIx},
    plan::has_book,
    replica::{BookMessage, Role},
    symbols::Symbols,
};

/// When whole books are written, and how deep. Part of a lane's plan, so journaled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct OrderBooks {
    /// Width of the grid in milliseconds; at least 1.
    pub every_ms: u64,
    /// Levels a side.
    pub depth: u32,
}

/// The books of a lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TopBooks {
    /// `None`: switched off, nothing is kept.
    plan: Option<OrderBooks>,
    /// Fewest levels a side that a snapshot by HTTP may be cut to: one with fewer is the whole side.
    cut_min: usize,
    books: BySymbol<Kept>,
}

/// One instrument's book.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    is_live: bool,
    #[serde(with = "book_code")]
    book: Book,
    /// Worst price up to which every level of a side is known, of bids and asks; `None`: the whole side is.
    edges: [Option<Decimal>; 2],
    /// Levels a side that the venue keeps; `None` for all.
    depth: Option<usize>,
    /// Deltas below this are older than the snapshot.
    keeps_from: Option<i64>,
    /// Id of the last message applied.
    seq: Option<i64>,
    /// Next moment to write, once the venue's clock is known.
    next: Option<Micros>,
    /// Of the deltas of the unbroken run before a snapshot, the newest of each price: quantity and id.
    #[serde(skip_serializing_if = "HashMap::is_empty", default, with = "held_code")]
    held: HashMap<(bool, Decimal), (Decimal, i64)>,
    /// More was held than is kept: the next snapshot cannot be joined.
    is_overfull: bool,
}

impl TopBooks {
    /// For a venue whose snapshots by HTTP are cut to no fewer than `cut_min` levels a side.
    pub(crate) fn new(cut_min: usize) -> Self {
        Self { cut_min, ..Self::default() }
    }

    /// Whether anything is to be done.
    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.plan.is_some()
    }

    /// The lane asks for this now. Books that are no longer recorded are forgotten.
    pub(crate) fn on_plan(&mut self, plan: &LanePlan, symbols: &Symbols) {
        self.plan = plan.order_books;
        if self.plan.is_none() {
            self.books = BySymbol::default();
        }
        for (symbol, kept) in self.books.iter_mut() {
            kept.next = None;
            if !has_book(Some(plan), symbols.name(symbol)) {
                *kept = Kept::default();
            }
        }
    }

    /// Nothing is known of any book any more.
    pub(crate) fn forget(&mut self) {
        self.books = BySymbol::default();
    }

    /// Takes in what an input emitted: its notes, and the book messages it was. A gap comes before the messages of
    /// its frame: the frame that reveals it is the first after it.
    pub(crate) fn take_in(&mut self, notes_from: usize, messages: &[BookMessage], out: &mut Outbox) {
        let Some(plan) = self.plan else { return };
        for note in &out.events.notes[notes_from..] {
            let Note::Gap(gap) = note else { continue };
            if gap.channel.is_some_and(|channel| channel != Channel::Book) {
                continue;
            }
            match gap.symbol {
                Some(symbol) => self.books.entry(symbol).on_gap(),
                None => self.books.iter_mut().for_each(|(_, kept)| kept.on_gap()),
            }
        }
        for message in messages {
            let levels = &out.events.levels[message.levels.clone()];
            let kept = self.books.entry(message.symbol);
            match message.role {
                Role::Snapshot { keeps_from, depth } => {
                    kept.on_snapshot(message, (keeps_from, depth), levels, self.cut_min);
                }
                Role::Delta => {
                    if let Some(row) = kept.on_delta(message, levels, plan) {
                        out.push_top_book(row);
                    }
                }
                Role::Stale => {}
            }
        }
    }
}

impl Kept {
    fn on_gap(&mut self) {
        self.is_live = false;
        self.held.clear();
        self.is_overfull = false;
        self.next = None;
    }

    fn on_snapshot(
        &mut self,
        message: &BookMessage,
        (keeps_from, depth): (Option<i64>, Option<usize>),
        levels: &[Level],
        cut_min: usize,
    ) {
        self.book.clear();
        self.book.extend_both(levels);
        // In place among the updates it is the whole of what the venue keeps; by HTTP it may have been cut.
        self.edges = SIDES.map(|side| {
            let levels = self.book.levels(side);
            levels
                .last()
                .filter(|_| keeps_from.is_some() && levels_of(&self.book, side) >= cut_min)
                .map(|worst| worst.0)
        });
        (self.keeps_from, self.depth, self.seq) = (keeps_from, depth, message.last_id);
        self.is_live = message.checksum != Some(false) && !(self.is_overfull && keeps_from.is_some());
        for ((is_bid, price), (qty, id)) in self.held.drain() {
            if keeps_from.is_some_and(|from| id >= from) {
                self.book.set(if is_bid { Side::Buy } else { Side::Sell }, price, qty);
                self.seq = self.seq.max(Some(id));
            }
        }
        self.is_overfull = false;
        self.cut();
        self.next = None;
    }

    /// The row that is due before this delta, if any.
    fn on_delta(&mut self, message: &BookMessage, levels: &[Level], plan: OrderBooks) -> Option<TopBook> {
        if !self.is_live {
            self.hold(message.last_id, levels);
            return None;
        }
        if matches!((self.keeps_from, message.last_id), (Some(from), Some(id)) if id < from) {
            return None;
        }
        if levels.first().is_some_and(|level| level.flags.has(Flags::AFTER_GAP)) {
            self.on_gap(); // The adapter does not vouch for the book.
            return None;
        }
        let time = levels.first().filter(|level| !level.flags.has(Flags::VENUE_TIME_BAD)).map(|level| level.time);
        let row = time.and_then(|time| self.tick(time, plan)).map(|time| self.row(message.symbol, time, plan.depth));
        self.book.apply(levels);
        self.seq = message.last_id.or(self.seq);
        self.cut();
        row
    }

    /// The grid moment to write before a message of this time, if one is due.
    fn tick(&mut self, time: Micros, plan: OrderBooks) -> Option<Micros> {
        let every = i64::try_from(plan.every_ms.saturating_mul(1_000)).unwrap_or(i64::MAX).max(1);
        let grid = time.0.div_euclid(every).saturating_mul(every);
        match self.next {
            Some(next) if time >= next => {
                self.next = Some(Micros(grid.saturating_add(every)));
                Some(Micros(grid))
            }
            // In step, or a little late: messages are not always in the order of their times.
            Some(next) if next.0.saturating_sub(time.0) <= every.saturating_add(LATE_MICROS) => None,
            // The first since the book is whole; or the clock went back, and the moments of before come again.
            Some(_) | None => {
                self.next = Some(Micros(grid.saturating_add(every)));
                None
            }
        }
    }

    fn row(&self, symbol: SymbolIx, time: Micros, depth: u32) -> TopBook {
        let depth = depth as usize;
        let side = |side| self.book.levels(side).take(depth).collect::<Box<[_]>>();
        let exact = |at: usize, side, levels: &[(Decimal, Decimal)]| {
            let is_known = |price: Decimal| match (self.edges[at], side) {
                (None, _) => true,
                (Some(edge), Side::Buy | Side::Unknown) => price >= edge,
                (Some(edge), Side::Sell) => price <= edge,
            };
            let is_all = self.edges[at].is_none()
                && levels.len() == levels_of(&self.book, side)
                && self.depth.is_none_or(|depth| levels.len() < depth);
            let known = levels.iter().take_while(|(price, _)| is_known(*price)).count();
            (!is_all).then(|| u32::try_from(known).unwrap_or(u32::MAX))
        };
        let (bids, asks) = (side(Side::Buy), side(Side::Sell));
        let (bids_exact, asks_exact) = (exact(0, Side::Buy, &bids), exact(1, Side::Sell, &asks));
        TopBook { frame: 0, symbol, flags: Flags::NONE, time, seq: self.seq, bids, asks, bids_exact, asks_exact }
    }

    fn hold(&mut self, id: Option<i64>, levels: &[Level]) {
        // Without ids a snapshot comes in its place among the deltas: those before it are of no use.
        let Some(id) = id else { return };
        for level in levels {
            if self.held.len() >= HELD_MAX {
                self.held.clear();
                self.is_overfull = true;
            }
            if self.is_overfull {
                return;
            }
            let key = (level.side == Side::Buy, level.price);
            self.held.remove(&key); // The newest text counts, of the price too.
            self.held.insert(key, (level.qty, id));
        }
    }

    /// Keeps what the venue keeps, and no more than memory is given for.
    fn cut(&mut self) {
        if let Some(depth) = self.depth {
            self.book.truncate(depth);
        }
        for (at, side) in SIDES.into_iter().enumerate() {
            if levels_of(&self.book, side) > LEVELS_MAX + LEVELS_SLACK {
                self.book.truncate_side(side, LEVELS_MAX);
                let worst = self.book.levels(side).last().map(|worst| worst.0);
                self.edges[at] = match (self.edges[at], worst, side) {
                    (Some(edge), Some(worst), Side::Buy | Side::Unknown) => Some(edge.max(worst)),
                    (Some(edge), Some(worst), Side::Sell) => Some(edge.min(worst)),
                    (None, worst, _) => worst,
                    (edge, None, _) => edge,
                };
            }
        }
    }
}

fn levels_of(book: &Book, side: Side) -> usize {
    book.levels(side).len()
}

/// Held levels as a list in order: a state is the same text for the same books.
mod held_code {
    use std::collections::HashMap;

    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Held = HashMap<(bool, Decimal), (Decimal, i64)>;

    pub(super) fn serialize<S: Serializer>(held: &Held, to: S) -> Result<S::Ok, S::Error> {
        let mut list: Vec<_> = held.iter().map(|((is_bid, price), (qty, id))| (*is_bid, *price, *qty, *id)).collect();
        list.sort_unstable();
        list.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Held, D::Error> {
        let list = Vec::<(bool, Decimal, Decimal, i64)>::deserialize(from)?;
        Ok(list.into_iter().map(|(is_bid, price, qty, id)| ((is_bid, price), (qty, id))).collect())
    }
}

const SIDES: [Side; 2] = [Side::Buy, Side::Sell];
/// Levels kept a side; those further out are forgotten ...
const LEVELS_MAX: usize = 10_000;
/// ... this many at a time at least.
const LEVELS_SLACK: usize = 2_000;
/// Prices held for one snapshot; beyond it the snapshot leaves the book unknown until the next.
const HELD_MAX: usize = 100_000;
/// How far a message may be behind the moment it should have come before, beside one step of the grid.
const LATE_MICROS: i64 = 60_000_000;
