//! One product's book on Coinbase: neither numbers nor checksums.
//!
//! With two connections, updates are told apart by what is in them ([`Aligned`]).

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{At, Outbox},
    aligned::{Aligned, Message, Verdict},
    conn::{Conn, Via},
    event::{Cause, Flags},
    ids::{Micros, Nanos, SymbolIx},
    inband::Inband,
    levels::LevelHead,
    replica::Role,
};

/// How one product's book stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BookState {
    #[serde(flatten)]
    inband: Inband,
    #[serde(default)]
    twins: Aligned,
    /// A connection has ended that may have been ahead of the one that is left.
    #[serde(default)]
    is_outrun: bool,
}

impl BookState {
    /// What an update's rows are flagged with.
    pub(super) fn flags(&self) -> Flags {
        if self.inband.is_live() { Flags::NONE } else { Flags::AFTER_GAP }
    }

    /// Takes in an update whose levels were pushed since `mark`. Gives the connection that is to be asked for a new
    /// snapshot, if the book needs one.
    pub(super) fn on_update(
        &mut self,
        at: At,
        via: Via,
        symbol: SymbolIx,
        time: Option<Micros>,
        mark: usize,
        out: &mut Outbox,
    ) -> Option<Conn> {
        if self.twins.is_alone(via) {
            self.twins.emitted(time, None, &out.events.levels[mark..]);
            self.take(symbol, time, mark, out);
            return None;
        }
        let levels = &out.events.levels[mark..];
        match self.twins.offer((via, at.received), time, (None, None), levels) {
            Verdict::Emit(before) if before.is_empty() => self.take(symbol, time, mark, out),
            Verdict::Emit(mut messages) => {
                out.repeats.filled += 1;
                messages.push(Message::new(time, None, levels));
                out.drop_levels(mark);
                self.take_all(messages, at.received, symbol, out);
            }
            Verdict::Drop(late) => {
                out.drop_levels(mark);
                out.repeats.dropped += 1;
                out.repeats.filled += u64::from(!late.is_empty());
                out.finish_book(mark, symbol, Role::Stale, None, None);
                self.take_all(late, at.received, symbol, out);
            }
            Verdict::Wait => out.drop_levels(mark),
            Verdict::Lost => {
                out.drop_levels(mark);
                self.inband.on_loss(symbol, Cause::Sequence, out);
                self.twins.restart(via.conn, None);
                return Some(via.conn);
            }
        }
        None
    }

    /// A connection was opened beside one that is.
    pub(super) fn on_twin(&mut self, conn: Conn) {
        self.twins.on_open(conn);
    }

    /// A connection has come to this time.
    pub(super) fn on_heartbeat(&mut self, via: Via, time: Micros) {
        self.twins.heard(via.conn, time);
    }

    /// Takes in a snapshot whose levels were pushed since `mark`. Gives the connection that is to be asked for another one, if
    /// this is of before what was emitted.
    pub(super) fn on_snapshot(
        &mut self,
        at: At,
        via: Via,
        symbol: SymbolIx,
        time: Option<Micros>,
        mark: usize,
        out: &mut Outbox,
    ) -> Option<Conn> {
        if self.inband.is_live() && via.others().iter().any(|other| self.twins.is_in_step(other)) {
            self.twins.on_snapshot(via.conn, at.received, time, (None, None));
            out.drop_levels(mark);
            return None;
        }
        if self.inband.is_past(time) && (self.is_outrun || !via.others().is_empty()) {
            out.drop_levels(mark);
            return Some(via.conn); // What came between would be emitted twice.
        }
        self.is_outrun = false;
        self.twins.restart(via.conn, time);
        self.inband.on_snapshot(symbol, None, time, at.received.micros(), out);
        out.finish_book(mark, symbol, Role::Snapshot { keeps_from: None, depth: None }, None, None);
        None
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
        self.inband.on_loss(symbol, Cause::Undecodable, out);
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
        out: &mut Outbox,
    ) -> Option<Conn> {
        let was_source = self.twins.is_in_step(via.conn);
        let gone_on = self.twins.on_close(via, received, None);
        let Some(other) = via.others().iter().next() else {
            self.inband.on_close(symbol, None, cause, out);
            self.twins = Aligned::default();
            self.is_outrun = false;
            return None;
        };
        self.is_outrun = true;
        match gone_on {
            Some(messages) => self.take_all(messages, received, symbol, out),
            None if was_source && self.inband.has_delivered() => {
                self.inband.on_close(symbol, None, cause, out);
                self.twins.restart(other, None);
                return Some(other);
            }
            None => {}
        }
        // The snapshot that a broken book waits for may have been asked for on the connection that ended.
        (self.inband.has_delivered() && !self.inband.is_live()).then_some(other)
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(super) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.inband.on_end(symbol, out);
        self.twins = Aligned::default();
    }

    /// Whether the book would go on if this connection were the only one.
    pub(super) fn can_go_on(&self, conn: Conn, now: Nanos) -> bool {
        !self.inband.has_delivered() || self.twins.can_go_on(conn, now, None)
    }

    fn take_all(&mut self, messages: Vec<Message>, received: Nanos, symbol: SymbolIx, out: &mut Outbox) {
        for Message { time, levels, .. } in messages {
            let rows = LevelHead::new(received, symbol, None, time, self.flags());
            let mark = out.level_mark();
            levels.into_iter().for_each(|(side, price, qty)| rows.push(side, price, qty, out));
            self.take(symbol, time, mark, out);
        }
    }

    fn take(&mut self, symbol: SymbolIx, time: Option<Micros>, mark: usize, out: &mut Outbox) {
        self.inband.on_update(time);
        out.finish_book(mark, symbol, Role::Delta, None, None);
    }
}
