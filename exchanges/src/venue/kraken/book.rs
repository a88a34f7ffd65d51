//! One instrument's book on Kraken: kept whole, cut to the subscribed depth, proven by its checksum.
//!
//! 1. Levels of a message are applied, zero quantities remove.
//! 2. Each side is cut to the subscribed depth: the venue sends no removal for levels that fall out.
//! 3. The checksum over the ten best levels a side must equal the message's.
//!
//! A mismatch breaks the book until a new snapshot, which is asked for by unsubscribing and subscribing. With two
//! connections ([`Aligned`]) it does so only when the other cannot go on: the message is taken back, and the book goes
//! on with the other's from where the rows end; the checksum proves it.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{At, Outbox},
    aligned::{Aligned, Message, Verdict},
    checksum::{Checksum, Spelled},
    conn::{Conn, Via},
    event::{Cause, Flags, Level},
    ids::{Micros, Nanos, SymbolIx},
    inband::Inband,
    levels::LevelHead,
    replica::Role,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BookState {
    pub(super) inband: Inband,
    book: Spelled,
    /// Subscribed levels a side, from the acknowledgement.
    depth: Option<u32>,
    #[serde(default)]
    twins: Aligned,
    /// Checksum of the last message emitted.
    #[serde(default)]
    emitted: Option<u32>,
    /// A connection has ended that may have been ahead of the one that is left.
    #[serde(default)]
    is_outrun: bool,
    /// The book before a message that may have to be taken back.
    #[serde(skip)]
    before: Spelled,
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

    /// Takes in a message whose levels were pushed since `mark`. Gives the connection that is to be asked for a new
    /// snapshot, if the book needs one.
    pub(super) fn on_message(
        &mut self,
        head: Head,
        via: Via,
        mark: usize,
        planned_depth: Option<u32>,
        checksum: &mut Checksum,
        out: &mut Outbox,
    ) -> Option<Conn> {
        if head.is_snapshot {
            return self.on_snapshot(head, via, mark, planned_depth, checksum, out);
        }
        if self.twins.is_alone(via) {
            self.twins.emitted(head.time, head.checksum, &out.events.levels[mark..]);
            let is_right = self.take(head, mark, checksum, out);
            return self.broken(is_right, head.symbol, via.conn, out);
        }
        let levels = &out.events.levels[mark..];
        match self.twins.offer((via, head.at.received), head.time, (self.emitted, head.checksum), levels) {
            Verdict::Emit(before) if before.is_empty() && via.others().is_empty() => {
                let is_right = self.take(head, mark, checksum, out);
                self.broken(is_right, head.symbol, via.conn, out)
            }
            Verdict::Emit(mut messages) => {
                messages.push(Message::new(head.time, head.checksum, levels));
                out.drop_levels(mark);
                self.take_all(messages, head, via, checksum, out)
            }
            Verdict::Drop(late) => {
                out.drop_levels(mark);
                out.repeats.dropped += 1;
                out.finish_book(mark, head.symbol, Role::Stale, None, None);
                self.take_all(late, head, via, checksum, out)
            }
            Verdict::Wait => {
                out.drop_levels(mark);
                None
            }
            Verdict::Lost => {
                out.drop_levels(mark);
                self.on_loss(head.symbol, Cause::Sequence, out);
                self.twins.restart(via.conn, None);
                Some(via.conn)
            }
        }
    }

    /// A connection was opened beside one that is.
    pub(super) fn on_twin(&mut self, conn: Conn) {
        self.twins.on_open(conn);
    }

    /// Something of this book's may have been lost on a connection. Gives the connection that is to be asked for a new
    /// snapshot, if the book needs one.
    pub(super) fn on_undecodable(&mut self, symbol: SymbolIx, via: Via, out: &mut Outbox) -> Option<Conn> {
        if !self.inband.has_delivered() {
            return None;
        }
        if via.others().iter().any(|other| self.twins.is_in_step(other)) {
            self.twins.lose_step(via.conn);
            return None;
        }
        self.on_loss(symbol, Cause::Undecodable, out);
        self.twins.restart(via.conn, None);
        Some(via.conn)
    }

    /// A connection ended. Gives the connection that is to be asked for a new snapshot, if the book needs one.
    pub(super) fn on_close(
        &mut self,
        symbol: SymbolIx,
        via: Via,
        cause: Cause,
        received: Nanos,
        (checksum, out): (&mut Checksum, &mut Outbox),
    ) -> Option<Conn> {
        let was_source = self.twins.is_in_step(via.conn);
        let gone_on = self.twins.on_close(via, received, self.emitted);
        let Some(other) = via.others().iter().next() else {
            self.on_change(symbol, cause, out);
            return None;
        };
        self.is_outrun = true;
        let asked = match gone_on {
            Some(messages) => {
                let via = Via { conn: other, ..via };
                let at = At { pos: out.pos(), received, conn: other };
                let head = Head { at, symbol, time: None, is_snapshot: false, checksum: None };
                self.take_all(messages, head, via, checksum, out)
            }
            None if was_source && self.inband.has_delivered() => {
                self.inband.on_close(symbol, None, cause, out);
                self.book.clear();
                self.twins.restart(other, None);
                Some(other)
            }
            None => None,
        };
        // The snapshot that a broken book waits for may have been asked for on the connection that ended.
        asked.or_else(|| (self.inband.has_delivered() && !self.inband.is_live()).then_some(other))
    }

    /// Whether the book would go on if this connection were the only one.
    pub(super) fn can_go_on(&self, conn: Conn, now: Nanos) -> bool {
        !self.inband.has_delivered() || self.twins.can_go_on(conn, now, self.emitted)
    }

    fn on_snapshot(
        &mut self,
        head: Head,
        via: Via,
        mark: usize,
        planned_depth: Option<u32>,
        checksum: &mut Checksum,
        out: &mut Outbox,
    ) -> Option<Conn> {
        let Head { at, symbol, time, checksum: expected, .. } = head;
        if self.inband.is_live() && via.others().iter().any(|other| self.twins.is_in_step(other)) {
            self.twins.on_snapshot(via.conn, at.received, head.time, (self.emitted, expected));
            out.drop_levels(mark);
            return None;
        }
        if self.inband.is_past(head.time) && (self.is_outrun || !via.others().is_empty()) {
            out.drop_levels(mark);
            return Some(via.conn); // What came between would be emitted twice.
        }
        self.is_outrun = false;
        self.twins.restart(via.conn, head.time);
        self.book.clear();
        let levels = &out.events.levels[mark..];
        let depth = *self.depth.get_or_insert_with(|| planned_depth.unwrap_or_else(|| depth_of(levels.len())));
        let matches = self.apply(&head, mark, checksum, out);
        let is_right = matches != Some(false);
        if is_right {
            self.inband.on_snapshot(symbol, None, time, at.received.micros(), out);
        } else {
            self.inband.on_update(time);
            mark_levels(&mut out.events.levels[mark..], Flags::AFTER_GAP);
        }
        let needs = self.broken(is_right, symbol, via.conn, out);
        let role = Role::Snapshot { keeps_from: None, depth: Some(depth as usize) };
        out.finish_book(mark, symbol, role, None, matches);
        needs
    }

    /// Emits messages that came by `via.conn`, or go before one that did, and proves each.
    fn take_all(
        &mut self,
        messages: Vec<Message>,
        head: Head,
        via: Via,
        checksum: &mut Checksum,
        out: &mut Outbox,
    ) -> Option<Conn> {
        let mut via = via;
        let mut messages = messages.into_iter();
        while let Some(message) = messages.next() {
            let head = Head { time: message.time, checksum: message.checksum, ..head };
            let rows = LevelHead::new(head.at.received, head.symbol, None, message.time, Flags::NONE);
            let mark = out.level_mark();
            message.levels.iter().for_each(|(side, price, qty)| rows.push(*side, *price, *qty, out));
            if !self.inband.is_live() || via.others().is_empty() {
                let is_right = self.take(head, mark, checksum, out);
                if let Some(conn) = self.broken(is_right, head.symbol, via.conn, out) {
                    return Some(conn);
                }
                continue;
            }
            self.before.clone_from(&self.book);
            if self.apply(&head, mark, checksum, out) != Some(false) {
                self.inband.on_update(head.time);
                out.finish_book(mark, head.symbol, Role::Delta, None, message.checksum.map(|_| true));
                continue;
            }
            let Some(instead) = self.twins.distrust(via, head.at.received, message) else {
                let is_right = self.emit_wrong(head, mark, out);
                return self.broken(is_right, head.symbol, via.conn, out);
            };
            std::mem::swap(&mut self.book, &mut self.before);
            out.drop_levels(mark);
            out.repeats.filled += 1;
            via.conn = via.conn.other();
            messages = instead.into_iter();
        }
        None
    }

    /// Emits a delta whose levels were pushed since `mark`. Gives `false` when it proves the book wrong.
    fn take(&mut self, head: Head, mark: usize, checksum: &mut Checksum, out: &mut Outbox) -> bool {
        let Head { symbol, time, .. } = head;
        if !self.inband.is_live() {
            self.inband.on_update(time);
            mark_levels(&mut out.events.levels[mark..], Flags::AFTER_GAP);
            out.finish_book(mark, symbol, Role::Delta, None, None);
            return true; // A snapshot has been asked for already.
        }
        let matches = self.apply(&head, mark, checksum, out);
        if matches == Some(false) {
            return self.emit_wrong(head, mark, out);
        }
        self.inband.on_update(time);
        out.finish_book(mark, symbol, Role::Delta, None, matches);
        true
    }

    /// Emits a delta that has proven the book wrong.
    fn emit_wrong(&mut self, head: Head, mark: usize, out: &mut Outbox) -> bool {
        self.inband.on_update(head.time);
        mark_levels(&mut out.events.levels[mark..], Flags::AFTER_GAP);
        out.finish_book(mark, head.symbol, Role::Delta, None, Some(false));
        false
    }

    /// Applies the levels pushed since `mark`; whether the book is what the venue says.
    fn apply(&mut self, head: &Head, mark: usize, checksum: &mut Checksum, out: &Outbox) -> Option<bool> {
        let levels = &out.events.levels[mark..];
        if head.is_snapshot {
            self.book.extend_both(levels);
        } else {
            self.book.apply(levels);
        }
        if let Some(depth) = self.depth {
            self.book.truncate(depth as usize);
        }
        let expected = head.checksum?;
        self.emitted = Some(expected);
        Some(checksum.kraken(&mut self.book) == expected)
    }

    /// Breaks the book unless it `is_right`; then gives the connection to ask for a snapshot.
    fn broken(&mut self, is_right: bool, symbol: SymbolIx, conn: Conn, out: &mut Outbox) -> Option<Conn> {
        if is_right {
            return None;
        }
        self.on_loss(symbol, Cause::Checksum, out);
        self.twins.restart(conn, None);
        Some(conn)
    }

    /// Something of this book is missing or wrong.
    fn on_loss(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_loss(symbol, cause, out);
        self.book.clear();
    }

    /// The book begins anew: the last connection ended, or another depth is asked for.
    pub(super) fn on_change(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_close(symbol, None, cause, out);
        self.reset();
    }

    fn reset(&mut self) {
        self.book.clear();
        self.depth = None;
        self.emitted = None;
        self.is_outrun = false;
        self.twins = Aligned::default();
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(super) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.inband.on_end(symbol, out);
        self.reset();
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
