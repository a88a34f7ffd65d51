//! One instrument's book on OKX's `books` channel, and on Bitget v1's, which took over its checksum.
//!
//! Proven by what the venue still sends, in this order:
//!
//! 1. `seqId`/`prevSeqId`, where present: a gap iff `prevSeqId` is not the last `seqId`. Two exceptions follow
//!    the chain all the same: a keep-alive repeats its id, and after a maintenance the id is lower than the
//!    one it names as previous.
//! 2. `checksum`, where present and not 0: CRC-32 over 25 levels a side, on snapshots and updates.
//!
//! The book itself is kept only while checksums come.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{At, Outbox},
    book::Book,
    checksum::Checksum,
    error::FrameError,
    event::{Cause, Flags, Side},
    ids::{Micros, SymbolIx},
    inband::Inband,
    json::View,
    levels::LevelHead,
    replica::Role,
    sequence::{Step, link_renumbering},
    time::epoch,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::venue) struct BookState {
    pub(in crate::venue) inband: Inband,
    /// Last `seqId` of this connection.
    last: Option<i64>,
    /// The book, while its checksums come.
    book: Option<Book>,
}

/// One element of a push's `data`.
#[derive(Debug)]
struct Message {
    is_snapshot: bool,
    time: Option<Micros>,
    /// Own id and the one before, where present.
    ids: Option<(i64, i64)>,
    /// `None` when there is none, or 0.
    checksum: Option<i32>,
}

impl BookState {
    /// Takes in one element of a push. Gives `false` when the book needs a new snapshot.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: what must be there is not; nothing was emitted.
    pub(in crate::venue) fn on_message(
        &mut self,
        at: At,
        symbol: SymbolIx,
        is_snapshot: bool,
        item: View<'_, '_>,
        (checksum, out): (&mut Checksum, &mut Outbox),
    ) -> Result<bool, FrameError> {
        let message = Message::read(is_snapshot, item)?;
        let step = match message.ids {
            Some((id, previous)) if !is_snapshot => link_renumbering(self.last, previous, id),
            Some(_) | None => Step::First,
        };
        let seq = message.ids.map(|(id, _)| id);
        if step == Step::Stale {
            out.finish_book(out.level_mark(), symbol, Role::Stale, seq, None);
            return Ok(true);
        }
        let is_whole = is_snapshot || (self.inband.is_live() && !matches!(step, Step::Gap(_)));
        let flags = match (is_snapshot, is_whole) {
            (true, _) => Flags::SNAPSHOT,
            (false, true) => Flags::NONE,
            (false, false) => Flags::AFTER_GAP,
        };
        let head = LevelHead::new(at.received, symbol, seq, message.time, flags);
        let mark = out.level_mark();
        let pushed = head.push_pairs(Side::Buy, "bids", item.get("bids"), out);
        if let Err(error) = pushed.and_then(|()| head.push_pairs(Side::Sell, "asks", item.get("asks"), out)) {
            out.drop_levels(mark);
            return Err(error);
        }
        self.last = seq.or(self.last);
        let matches = if is_whole { self.apply(&message, mark, checksum, out) } else { None };
        let is_right = matches != Some(false);
        if let Step::Gap(missing) = step {
            self.inband.on_gap(symbol, missing, message.time, out);
            self.book = None;
        } else if !is_right {
            out.events.levels[mark..].iter_mut().for_each(|level| level.flags = level.flags.with(Flags::AFTER_GAP));
            self.lose(symbol, Cause::Checksum, out);
        }
        if is_snapshot && is_right {
            self.inband.on_snapshot(symbol, seq, message.time, at.received.micros(), out);
        } else {
            self.inband.on_update(message.time);
        }
        let role = if is_snapshot { Role::Snapshot { keeps_from: None, depth: None } } else { Role::Delta };
        out.finish_book(mark, symbol, role, seq, matches);
        Ok(is_right && !matches!(step, Step::Gap(_)))
    }

    /// A frame that may have been this book's could not be decoded. A numbered book waits for its next
    /// update to tell; another is broken. Gives `false` when the book needs a new snapshot.
    pub(in crate::venue) fn on_undecodable(&mut self, symbol: SymbolIx, out: &mut Outbox) -> bool {
        if self.last.is_some() || !self.inband.has_delivered() {
            return true;
        }
        self.lose(symbol, Cause::Undecodable, out);
        false
    }

    /// The connection ended.
    pub(in crate::venue) fn on_close(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_close(symbol, self.last, cause, out);
        self.last = None;
        self.book = None;
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(in crate::venue) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.inband.on_end(symbol, out);
        self.last = None;
        self.book = None;
    }

    /// Applies the levels pushed since `mark` if the book is kept; whether its checksum matches.
    fn apply(&mut self, message: &Message, mark: usize, checksum: &mut Checksum, out: &Outbox) -> Option<bool> {
        if message.is_snapshot {
            self.book = message.checksum.map(|_| Book::default());
        } else if message.checksum.is_none() {
            self.book = None;
        }
        let book = self.book.as_mut()?;
        out.events.levels[mark..].iter().for_each(|level| book.set(level.side, level.price, level.qty));
        message.checksum.map(|expected| checksum.interleaved(book) == expected)
    }

    fn lose(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_loss(symbol, cause, out);
        self.book = None;
    }
}

impl Message {
    fn read(is_snapshot: bool, item: View<'_, '_>) -> Result<Self, FrameError> {
        let ids = match (item.get("seqId"), item.get("prevSeqId")) {
            (Some(_), Some(_)) => Some((item.need_int("seqId")?, item.need_int("prevSeqId")?)),
            _ => None,
        };
        let checksum = match item.get("checksum") {
            Some(_) => Some(item.need_int("checksum")?).filter(|checksum| *checksum != 0),
            None => None,
        };
        let checksum = checksum.map(|checksum| {
            i32::try_from(checksum)
                .map_err(|_| FrameError::field("checksum", "a signed 32-bit number", &checksum.to_string()))
        });
        let time = item.get("ts").and_then(View::int).and_then(epoch);
        Ok(Self { is_snapshot, time, ids, checksum: checksum.transpose()? })
    }
}
