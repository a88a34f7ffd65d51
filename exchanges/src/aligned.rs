//! Two copies of one stream without numbers: which message of which connection is news.
//!
//! Each connection delivers the venue's messages in order, and may lack some. A message is known by a hash of what is
//! in it (its time among that), so a message that both deliver is found again. For each connection is kept:
//!
//! ```text
//! due      what was emitted and it has not delivered yet: it is behind
//! queue    what it has delivered and was not emitted yet: it is ahead, or the other lacks something
//! in step  one of its messages has been found again, or its snapshot is the book that the emitted rows make: from there
//!          on it goes on where they do
//! ```
//!
//! ```text
//! message is due                        dropped; the connection is in step. What it had queued, the other lacks: late
//! in step, nothing due, nothing queued  emitted: the first to deliver wins
//! otherwise                             queued, until the other delivers it too: what was queued before it, the other
//!                                       lacks, and it is emitted first
//! both wait                             they go on from the first message that both have queued; when there is none for
//!                                       long, nobody knows what lies between: a gap
//! a connection ends                     the other, when it is in step, goes on with what it has queued; when it is not,
//!                                       nobody knows what lies between: a gap
//! ```
//!
//! A snapshot beside another connection is the book when that other delivers the first message of a later time, or has
//! delivered anything else of a second later, and no message that is not in it. When the other ends it also is when both have the same checksum or, where there are none, if a
//! second has brought no such message.
//!
//! Venues may batch differently for each connection. Then nothing is found again, the connection is never in step, and
//! the stream is as if it were alone. All of this changes by journaled input only, and all of it is saved.

use std::collections::VecDeque;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    conn::{Conn, PerConn, Via},
    event::{Level, Side},
    ids::{Micros, Nanos},
};

/// Both connections' messages of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Aligned {
    copies: PerConn<Copy>,
    /// The last messages emitted, oldest first: a connection opened later may still deliver them, from a server of the
    /// venue's that is behind.
    recent: VecDeque<(u64, Option<Micros>)>,
    /// Time of the snapshot that the rows go on from.
    #[serde(default)]
    base: Option<Micros>,
}

/// One connection's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Copy {
    is_in_step: bool,
    due: VecDeque<Due>,
    queue: VecDeque<Message>,
    /// Its snapshot, which was not emitted because the other was in step.
    snapshot: Option<Snapshot>,
    /// The last message it delivered while there was another.
    #[serde(default)]
    last: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Due {
    key: u64,
    time: Option<Micros>,
    /// What it changed.
    prices: Vec<(Side, Decimal)>,
    /// It was emitted before the connection was opened, or is in its snapshot, and need not come.
    is_old: bool,
}

/// A snapshot that was not emitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Snapshot {
    /// When it came, or the last message by the other connection that is from before it.
    received: Nanos,
    #[serde(default)]
    time: Option<Micros>,
    /// Of the whole book.
    checksum: Option<u32>,
}

impl Snapshot {
    /// Whether a message of this time, after which the book emitted has this checksum, is in it, with all before.
    fn has(&self, time: Option<Micros>, checksum: Option<u32>) -> bool {
        match (self.time, time) {
            (Some(own), Some(time)) => time <= own,
            (None, _) | (_, None) => self.checksum.is_some() && self.checksum == checksum,
        }
    }
}

/// A book message that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    key: u64,
    pub(crate) time: Option<Micros>,
    pub(crate) checksum: Option<u32>,
    pub(crate) levels: Vec<(Side, Decimal, Decimal)>,
}

impl Message {
    /// A message of these levels.
    pub(crate) fn new(time: Option<Micros>, checksum: Option<u32>, levels: &[Level]) -> Self {
        let key = key(time, checksum, levels);
        let levels = levels.iter().map(|level| (level.side, level.price, level.qty)).collect();
        Self { key, time, checksum, levels }
    }
}

/// What is to be done with a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Emit it, after these, which the connection lacks.
    Emit(Vec<Message>),
    /// It is no news. Of these, which the other connection lacks, emit what nothing newer has replaced.
    Drop(Vec<Message>),
    /// It is kept until more is known.
    Wait,
    /// Neither connection goes on where the emitted rows do, and they have long had nothing in common: the stream must
    /// begin anew.
    Lost,
}

impl Aligned {
    /// Rows go on from here, by this connection; from a snapshot of this time, if it was emitted.
    pub(crate) fn restart(&mut self, conn: Conn, base: Option<Micros>) {
        self.base = base;
        self.copies = PerConn::default();
        self.recent.clear();
        self.copies[conn].is_in_step = true;
    }

    /// A connection was opened beside one that is.
    pub(crate) fn on_open(&mut self, conn: Conn) {
        let old =
            self.recent.iter().map(|(key, time)| Due { key: *key, time: *time, prices: Vec::new(), is_old: true });
        self.copies[conn] = Copy { due: old.collect(), ..Copy::default() };
    }

    /// A message was emitted that had nothing to wait for, and whose levels these are.
    #[inline]
    pub(crate) fn emitted(&mut self, time: Option<Micros>, checksum: Option<u32>, levels: &[Level]) {
        self.remember(key(time, checksum, levels), time);
    }

    fn remember_all(&mut self, messages: &[Message]) {
        messages.iter().for_each(|message| self.remember(message.key, message.time));
    }

    fn remember(&mut self, key: u64, time: Option<Micros>) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((key, time));
    }

    /// Whether a connection goes on where the emitted rows do.
    pub(crate) fn is_in_step(&self, conn: Conn) -> bool {
        self.copies[conn].is_in_step
    }

    /// A snapshot came that is not emitted: the other connection is in step. The rows emitted so far make a book of this
    /// checksum `before` it.
    pub(crate) fn on_snapshot(
        &mut self,
        conn: Conn,
        received: Nanos,
        time: Option<Micros>,
        (before, checksum): (Option<u32>, Option<u32>),
    ) {
        let snapshot = Snapshot { received, time, checksum };
        let mut due = std::mem::take(&mut self.copies[conn].due);
        for due in &mut due {
            // Its server may be behind, and bring what was emitted before it was opened.
            due.is_old = (due.is_old && time.is_none()) || snapshot.has(due.time, before);
        }
        // One that is older than that of the other connection is of a server that is behind.
        let is_behind = time.is_some() && time < self.base;
        self.copies[conn] = Copy { due, snapshot: (!is_behind).then_some(snapshot), ..Copy::default() };
    }

    /// Whether this message has nothing to wait for: there is no other connection, and never was.
    #[inline]
    pub(crate) fn is_alone(&self, via: Via) -> bool {
        via.others().is_empty() && self.copies[via.conn].due.is_empty() && self.copies[via.conn].queue.is_empty()
    }

    /// Judges a message, whose levels these are. The rows emitted so far make a book of this checksum `before` it.
    pub(crate) fn offer(
        &mut self,
        (via, received): (Via, Nanos),
        time: Option<Micros>,
        (before, checksum): (Option<u32>, Option<u32>),
        levels: &[Level],
    ) -> Verdict {
        self.copies[via.conn.other()].settle(time, before);
        let key = key(time, checksum, levels);
        let own = &mut self.copies[via.conn];
        if own.last.replace(key) == Some(key) {
            return Verdict::Drop(Vec::new());
        }
        if let Some(at) = own.due.iter().position(|due| due.key == key) {
            let late = self.late(via.conn);
            let own = &mut self.copies[via.conn];
            own.is_in_step = true;
            own.due.drain(..=at);
            return Verdict::Drop(late);
        }
        let is_alone = via.others().is_empty();
        if is_alone && own.due.front().is_some_and(|due| time < due.time) {
            // The connection that ended lacked this one: it is from before what that one delivered.
            own.queue.push_back(Message::new(time, checksum, levels));
            return Verdict::Drop(self.late(via.conn));
        }
        let is_next = own.is_in_step && own.due.is_empty() && own.queue.is_empty();
        if !is_alone && !is_next {
            if let Some(before) = self.meet(via.conn, key) {
                self.remember_all(&before);
                self.remember(key, time);
                return Verdict::Emit(before);
            }
            self.copies[via.conn].queue.push_back(Message::new(time, checksum, levels));
            return if self.is_lost(via.conn) { Verdict::Lost } else { Verdict::Wait };
        }
        own.due.clear();
        let mut before = Vec::new();
        for other in via.others().iter() {
            let prices = || levels.iter().map(|level| (level.side, level.price)).collect();
            before = self.copies[other].on_emitted(key, (time, checksum), received, prices);
        }
        self.remember_all(&before);
        self.remember(key, time);
        Verdict::Emit(before)
    }

    /// Finds a message that nobody emitted among what the other connection has queued. Both have delivered it, each in
    /// order: so what either has queued before it the other lacks, and what is due of either it lacks too. Both are in
    /// step. Gives what goes before it; `None` when it is not there, or neither was in step.
    fn meet(&mut self, conn: Conn, key: u64) -> Option<Vec<Message>> {
        let at = self.copies[conn.other()].queue.iter().position(|message| message.key == key)?;
        if !Conn::ALL.into_iter().any(|conn| self.copies[conn].is_in_step) {
            return None;
        }
        let mut before = Vec::new();
        for (conn, len) in [(conn.other(), at), (conn, usize::MAX)] {
            let copy = &mut self.copies[conn];
            let queued = copy.queue.drain(..len.min(copy.queue.len()));
            // Of one that was not in step nobody knows whether it is from before what was emitted.
            before.extend(queued.filter(|_| copy.is_in_step));
            copy.due.clear();
        }
        self.copies[conn.other()].queue.pop_front();
        for conn in Conn::ALL {
            self.copies[conn].is_in_step = true;
        }
        if !before.is_sorted_by_key(|message| message.time) {
            // Of both. A checksum is of the book as one connection had it.
            before.sort_by_key(|message| message.time);
            before.iter_mut().for_each(|message| message.checksum = None);
        }
        Some(before)
    }

    /// A message of this connection was queued. Whether there is no way left to go on.
    fn is_lost(&mut self, conn: Conn) -> bool {
        let other = &self.copies[conn.other()];
        let (is_other_in_step, other_queued) = (other.is_in_step, other.queue.len());
        let own = &mut self.copies[conn];
        if own.queue.len() > QUEUE_MAX {
            own.queue.clear();
            own.is_in_step = false;
            return !is_other_in_step;
        }
        let is_nobody_in_step = !own.is_in_step && !is_other_in_step;
        own.queue.len() > APART_MAX && (other_queued > APART_MAX || is_nobody_in_step)
    }

    /// What a connection just delivered does not follow from what was emitted: it lacks something. When the other is in
    /// step and has not delivered it yet, that one goes on: gives what it has queued; `None` when nobody can.
    pub(crate) fn distrust(&mut self, via: Via, received: Nanos, wrong: Message) -> Option<Vec<Message>> {
        let other = via.others().iter().find(|other| self.copies[*other].is_in_step)?;
        let due = &mut self.copies[other].due;
        // It was noted as emitted, and is not.
        let at = due.iter().position(|due| due.key == wrong.key)?;
        due.remove(at);
        self.copies[via.conn] = Copy::default();
        self.copies[via.conn].queue.push_back(wrong);
        let gone_on = self.go_on(other);
        for message in &gone_on {
            let prices = || message.levels.iter().map(|(side, price, _)| (*side, *price)).collect();
            self.copies[via.conn].on_emitted(message.key, (message.time, message.checksum), received, prices);
        }
        Some(gone_on)
    }

    /// A connection has delivered something of this time: everything of before it has come. The other is in step when its
    /// snapshot is older by more than messages are apart, and nothing has come that is not in it.
    pub(crate) fn heard(&mut self, conn: Conn, time: Micros) {
        let copy = &mut self.copies[conn.other()];
        if let (false, Some(Snapshot { time: Some(own), checksum: None, .. })) = (copy.is_in_step, copy.snapshot) {
            copy.is_in_step = time.0.saturating_sub(own.0) >= SILENCE_MIN_US && copy.is_silent();
        }
    }

    /// A connection ended, with rows emitted that make a book of this checksum. Gives what the other goes on with; `None`
    /// when it is not in step, or there is none.
    pub(crate) fn on_close(&mut self, via: Via, received: Nanos, checksum: Option<u32>) -> Option<Vec<Message>> {
        self.copies[via.conn] = Copy::default();
        let other = via.others().iter().next()?;
        let copy = &mut self.copies[other];
        copy.is_in_step = copy.can_go_on(received, checksum);
        copy.is_in_step.then(|| self.go_on(other))
    }

    /// Whether a connection could go on alone at `now`; the book emitted has this checksum.
    pub(crate) fn can_go_on(&self, conn: Conn, now: Nanos, checksum: Option<u32>) -> bool {
        self.copies[conn].can_go_on(now, checksum)
    }

    /// A frame of this connection is lost: it is out of step until something that it delivers from now on is found again.
    pub(crate) fn lose_step(&mut self, conn: Conn) {
        self.copies[conn].is_in_step = false;
        self.copies[conn].snapshot = None;
        self.copies[conn].queue.clear();
    }

    /// Takes what a connection has queued, to be emitted next. What is older than what was emitted comes first, without
    /// the levels that have been replaced since.
    fn go_on(&mut self, conn: Conn) -> Vec<Message> {
        let copy = &mut self.copies[conn];
        let newest = copy.due.back().and_then(|due| due.time);
        let is_newer = |message: &Message| newest.is_none() || message.time > newest;
        let at = copy.queue.iter().position(is_newer).unwrap_or(copy.queue.len());
        let newer = Vec::from(copy.queue.split_off(at));
        let mut messages = self.late(conn);
        self.remember_all(&newer);
        if !newer.is_empty() {
            self.copies[conn].due.clear();
        }
        messages.extend(newer);
        messages
    }

    /// Takes what a connection has queued before something that was emitted already, without the levels that have been
    /// replaced since. Of one that was not in step nobody knows whether it is news.
    fn late(&mut self, conn: Conn) -> Vec<Message> {
        let Copy { due, queue, is_in_step, .. } = &mut self.copies[conn];
        let mut late: Vec<_> = queue.drain(..).filter(|_| *is_in_step).collect();
        for message in &mut late {
            message.levels.retain(|(side, price, _)| !due.iter().any(|due| due.prices.contains(&(*side, *price))));
            message.checksum = None; // It was of the book as it was then.
        }
        late.retain(|message| !message.levels.is_empty());
        self.remember_all(&late);
        late
    }
}

impl Copy {
    /// The other connection delivers a message of this time, with a book of this checksum before it. When that is the first
    /// that is not in the snapshot, this connection goes on from the same place.
    fn settle(&mut self, time: Option<Micros>, before: Option<u32>) {
        if let (false, Some(snapshot)) = (self.is_in_step, self.snapshot) {
            let is_later = snapshot.time.is_some() && time > snapshot.time;
            let is_book = snapshot.checksum.zip(before).is_none_or(|(own, emitted)| own == emitted);
            self.is_in_step = is_later && is_book && self.due.iter().all(|due| due.is_old);
        }
    }

    /// Whether its snapshot has the checksum of the book emitted, and all of that is in it: what is queued is news.
    fn has_met(&self, checksum: Option<u32>) -> bool {
        let own = self.snapshot.and_then(|snapshot| snapshot.checksum);
        own.is_some() && own == checksum && self.due.iter().all(|due| due.is_old)
    }

    /// Whether it is in step, or its snapshot is the book emitted: by their checksums, or, where there are none, because
    /// nothing has come for long that is not in it.
    fn can_go_on(&self, now: Nanos, checksum: Option<u32>) -> bool {
        let has_long_been = |snapshot: Snapshot| {
            let is_known = snapshot.checksum.is_some() && checksum.is_some();
            !is_known && now.since(snapshot.received) >= SILENCE_MIN
        };
        self.is_in_step || self.has_met(checksum) || (self.snapshot.is_some_and(has_long_been) && self.is_silent())
    }

    /// Nothing has come by it or by the other since it was opened, but its snapshot.
    fn is_silent(&self) -> bool {
        self.due.iter().all(|due| due.is_old) && self.queue.is_empty()
    }

    /// A message that the other connection delivered was emitted. Gives what this one delivered before it, and the other
    /// lacks.
    fn on_emitted(
        &mut self,
        key: u64,
        (time, checksum): (Option<Micros>, Option<u32>),
        received: Nanos,
        prices: impl FnOnce() -> Vec<(Side, Decimal)>,
    ) -> Vec<Message> {
        if let Some(at) = self.queue.iter().position(|message| message.key == key) {
            let mut before: Vec<_> = self.queue.drain(..=at).collect();
            before.pop();
            if !std::mem::replace(&mut self.is_in_step, true) {
                before.clear(); // It may be from before what was emitted.
            }
            self.due.clear();
            return before;
        }
        if self.due.len() >= DUE_MAX {
            self.due.pop_front();
        }
        self.due.push_back(Due { key, time, prices: prices(), is_old: false });
        if let Some(snapshot) = self.snapshot.as_mut().filter(|snapshot| snapshot.has(time, checksum)) {
            // The other connection was behind it, and so is everything that it brought before.
            snapshot.received = received;
            self.due.iter_mut().for_each(|due| due.is_old = true);
        }
        Vec::new()
    }
}

/// A hash of a message that is the same in every process, over time, checksum and levels.
fn key(time: Option<Micros>, checksum: Option<u32>, levels: &[Level]) -> u64 {
    let mut hash = 0_u64;
    let mut mix = |word: u64| hash = (hash.rotate_left(23) ^ word).wrapping_mul(HASH_FACTOR);
    mix(time.map_or(0, |time| time.0.cast_unsigned()));
    mix(checksum.map_or(u64::MAX, u64::from));
    for level in levels {
        mix(u64::from(level.side == Side::Sell));
        for number in [level.price, level.qty] {
            let bytes = number.serialize();
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
            mix(word(0));
            mix(word(8));
        }
    }
    hash
}

/// An odd number whose bits are mixed.
const HASH_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
/// Messages emitted before a connection was opened that it may deliver all the same.
const RECENT_MAX: usize = 16;
/// Emitted messages of one book that a connection may be behind; of more the oldest are forgotten.
const DUE_MAX: usize = 2_048;
/// Messages of one book that a connection may be ahead; more mean that it delivers them in other pieces.
const QUEUE_MAX: usize = 1_024;
/// Messages of one book that both connections may have queued without one in common.
const APART_MAX: usize = 64;
/// A book without checksums of which neither connection brought anything for this long after a snapshot is that snapshot.
/// Book messages come in batches, and so later than other messages of their time: batches are shorter.
const SILENCE_MIN: std::time::Duration = std::time::Duration::from_micros(SILENCE_MIN_US.cast_unsigned());
const SILENCE_MIN_US: i64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conn::Conns, event::Flags, ids::SymbolIx};

    const OLD: Conn = Conn::FIRST;
    const NEW: Conn = Conn::SECOND;

    fn at(ms: i64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// A book that one connection brings, and another that has begun with a snapshot of this time and checksum.
    fn aligned(time: Option<i64>, checksum: Option<u32>) -> Aligned {
        let mut aligned = Aligned::default();
        aligned.restart(OLD, None);
        aligned.on_open(NEW);
        aligned.on_snapshot(NEW, at(0), time.map(Micros), (None, checksum));
        aligned
    }

    fn offer(aligned: &mut Aligned, conn: Conn, ms: i64, time: i64, checksum: Option<u32>) -> Verdict {
        let mut open = Conns::NONE;
        Conn::ALL.into_iter().for_each(|conn| open.insert(conn));
        let (time, price, qty) = (Micros(time), Decimal::ONE, Decimal::from(time));
        let (frame, symbol, side, flags, seq) = (0, SymbolIx(0), Side::Buy, Flags::NONE, None);
        let level = Level { frame, symbol, side, flags, time, price, qty, seq };
        aligned.offer((Via { conn, open }, at(ms)), Some(time), (None, checksum), &[level])
    }

    #[test]
    fn a_connection_is_in_step_when_the_other_has_come_to_a_second_after_its_snapshot() {
        let mut early = aligned(Some(5), None);
        early.heard(OLD, Micros(1_000_004));
        assert_eq!(offer(&mut early, NEW, 9_000, 7, None), Verdict::Wait, "the other may be behind");
        let mut late = aligned(Some(5), None);
        late.heard(OLD, Micros(1_000_005));
        assert_eq!(offer(&mut late, NEW, 10, 7, None), Verdict::Emit(vec![]));
        assert_eq!(offer(&mut late, OLD, 11, 7, None), Verdict::Drop(vec![]));
    }

    #[test]
    fn what_a_connection_that_is_behind_brings_of_a_snapshot_is_no_news_to_the_other() {
        let mut aligned = aligned(Some(5), None);
        assert_eq!(offer(&mut aligned, OLD, 400, 4, None), Verdict::Emit(vec![]));
        assert_eq!(offer(&mut aligned, OLD, 500, 5, None), Verdict::Emit(vec![]));
        assert!(!aligned.can_go_on(NEW, at(1_499), None));
        assert!(aligned.can_go_on(NEW, at(1_500), None));
        assert_eq!(offer(&mut aligned, OLD, 501, 6, None), Verdict::Emit(vec![]));
        assert!(aligned.can_go_on(NEW, at(501), None), "the first that is not in the snapshot is the first of both");
        assert_eq!(offer(&mut aligned, NEW, 502, 6, None), Verdict::Drop(vec![]));
        assert_eq!(offer(&mut aligned, NEW, 503, 7, None), Verdict::Emit(vec![]));
    }

    #[test]
    fn a_connection_is_in_step_when_the_other_has_come_to_its_snapshots_checksum() {
        let mut aligned = aligned(None, Some(77));
        assert_eq!(offer(&mut aligned, OLD, 1, 1, Some(70)), Verdict::Emit(vec![]));
        assert!(!aligned.can_go_on(NEW, at(9_000), Some(70)));
        assert_eq!(offer(&mut aligned, OLD, 2, 2, Some(77)), Verdict::Emit(vec![]));
        assert!(aligned.can_go_on(NEW, at(2), Some(77)));
        assert!(!aligned.can_go_on(NEW, at(2), Some(78)), "the book has gone on since");
    }
}
