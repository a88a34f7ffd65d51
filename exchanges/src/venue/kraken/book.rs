//! One instrument's book on Kraken: kept whole, cut to the subscribed depth, proven by its checksum.
//!
//! 1. Levels of a message are applied, zero quantities remove.
//! 2. Each side is cut to the subscribed depth: the venue sends no removal for levels that fall out.
//! 3. The checksum over the ten best levels a side must equal the message's.
//!
//! A mismatch breaks the book until a new snapshot, which is asked for by unsubscribing and subscribing.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{At, Outbox},
    book::Book,
    checksum::Checksum,
    event::{Cause, Flags, Level},
    ids::{Micros, SymbolIx},
    inband::Inband,
    replica::Role,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BookState {
    pub(super) inband: Inband,
    book: Book,
    /// Subscribed levels a side, from the acknowledgement.
    depth: Option<u32>,
}

/// What is known of a book message besides its levels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) at: At,
    pub(super) symbol: SymbolIx,
    pub(super) time: Option<Micros>,
    pub(super) is_snapshot: bool,
    /// The venue's checksum; `None` when the message carries none.
    pub(super) checksum: Option<u32>,
}

impl BookState {
    /// The venue acknowledged a subscription of this depth.
    pub(super) fn on_depth(&mut self, depth: u32) {
        self.depth = Some(depth);
    }

    /// Takes in a message whose levels were pushed since `mark`. Gives `false` when the book needs a new
    /// snapshot.
    pub(super) fn on_message(
        &mut self,
        head: Head,
        mark: usize,
        planned_depth: Option<u32>,
        checksum: &mut Checksum,
        out: &mut Outbox,
    ) -> bool {
        let Head { at, symbol, time, is_snapshot, checksum: expected } = head;
        if is_snapshot {
            self.book.clear();
        } else if !self.inband.is_live() {
            self.inband.on_update(time);
            mark_levels(&mut out.events.levels[mark..], Flags::AFTER_GAP);
            out.finish_book(mark, symbol, Role::Delta, None, None);
            return true; // A snapshot has been asked for already.
        }
        let levels = &out.events.levels[mark..];
        for level in levels {
            self.book.set(level.side, level.price, level.qty);
        }
        let depth = *self.depth.get_or_insert_with(|| planned_depth.unwrap_or_else(|| depth_of(levels.len())));
        self.book.truncate(depth as usize);
        let matches = expected.map(|expected| checksum.kraken(&self.book) == expected);
        let is_right = matches != Some(false);
        if is_snapshot && is_right {
            self.inband.on_snapshot(symbol, None, time, at.received.micros(), out);
        } else {
            self.inband.on_update(time);
        }
        if !is_right {
            mark_levels(&mut out.events.levels[mark..], Flags::AFTER_GAP);
            self.on_loss(symbol, Cause::Checksum, out);
        }
        let role =
            if is_snapshot { Role::Snapshot { keeps_from: None, depth: Some(depth as usize) } } else { Role::Delta };
        out.finish_book(mark, symbol, role, None, matches);
        is_right
    }

    /// Something of this book is missing or wrong.
    pub(super) fn on_loss(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_loss(symbol, cause, out);
        self.book.clear();
    }

    /// The connection ended.
    pub(super) fn on_close(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_close(symbol, None, cause, out);
        self.book.clear();
        self.depth = None;
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(super) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.inband.on_end(symbol, out);
        self.book.clear();
        self.depth = None;
    }
}

fn mark_levels(levels: &mut [Level], flags: Flags) {
    levels.iter_mut().for_each(|level| level.flags = level.flags.with(flags));
}

/// The subscribed depth, guessed from a first snapshot's levels when neither plan nor acknowledgement
/// tells: the smallest that both sides could have been cut to.
fn depth_of(levels: usize) -> u32 {
    let a_side = levels.div_ceil(2);
    DEPTHS.into_iter().find(|depth| a_side <= *depth as usize).unwrap_or(DEPTHS[DEPTHS.len() - 1])
}

/// Depths the venue offers, levels a side.
pub(super) const DEPTHS: [u32; 5] = [10, 25, 100, 500, 1_000];
