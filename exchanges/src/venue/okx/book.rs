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
//!
//! With two connections there is still one chain ([`Chain`]), of those that are in step with it ([`Places`]). The others
//! are passed over, and so is the other one while the book is broken: the connection that is asked for a snapshot then
//! goes on alone, so that no row is newer than its snapshot. Books without ids have one connection in step, the first to
//! deliver, until it ends.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::places::{Fit, Places, Spot, Strange};
use crate::{
    adapter::Outbox,
    chain::{Chain, Due, Held, levels_of},
    checksum::{Checksum, Spelled},
    conn::{Conn, Conns, Via},
    error::FrameError,
    event::{Cause, Flags, Side},
    ids::{Micros, Nanos, SymbolIx},
    inband::Inband,
    json::View,
    levels::LevelHead,
    replica::Role,
    scan,
    sequence::{Missing, Step},
    time::epoch,
};

/// How one instrument's book stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::venue) struct BookState {
    inband: Inband,
    #[serde(flatten)]
    chain: Chain,
    #[serde(default)]
    places: Places,
    /// Where the chain ended with a connection, while the one that is left may be behind that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
    /// The book, while its checksums come.
    book: Option<Spelled>,
}

/// The last message of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Ended {
    seq: i64,
    time: Micros,
}

/// What an input of one instrument's book is taken in with.
pub(in crate::venue) struct Intake<'a> {
    pub(in crate::venue) symbol: SymbolIx,
    pub(in crate::venue) received: Nanos,
    pub(in crate::venue) via: Via,
    pub(in crate::venue) checksum: &'a mut Checksum,
    pub(in crate::venue) out: &'a mut Outbox,
}

/// One message.
pub(in crate::venue) struct Update<'t, 'i> {
    pub(super) is_snapshot: bool,
    /// Own id and the one before, where present.
    pub(super) ids: Option<(i64, i64)>,
    pub(super) head: Head,
    levels: Levels<'t, 'i>,
}

/// What all of a message but its ids and levels says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) time: Option<Micros>,
    /// `None` when there is none, or 0.
    pub(super) checksum: Option<i32>,
}

/// The levels of a message: as they come, as they were scanned, or as they were kept.
enum Levels<'t, 'i> {
    Wire(View<'t, 'i>),
    Scanned(&'t scan::Levels),
    Kept(Vec<(Side, Decimal, Decimal)>),
}

impl BookState {
    /// Takes in one message. Gives the connection that is to be asked for a new snapshot, if the book needs one.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: what must be there is not; nothing of it was emitted.
    pub(in crate::venue) fn on_message(
        &mut self,
        update: Update<'_, '_>,
        intake: &mut Intake<'_>,
    ) -> Result<Option<Conn>, FrameError> {
        let Update { is_snapshot, ids, head, levels } = update;
        intake.via.open.insert(intake.via.conn); // Also in a recording that does not say so.
        if is_snapshot {
            return self.on_snapshot(ids.map(|(id, _)| id), head, levels, intake);
        }
        let Via { conn, .. } = intake.via;
        if !self.places.is_in_step(conn) {
            if self.others_in_step(conn, intake).is_empty() {
                self.places.lead(conn, &mut self.chain);
            } else if let Some(ids) = ids {
                self.keep(conn, ids, head, levels, intake)?;
                return self.join(intake);
            } else {
                return Ok(None);
            }
        }
        if self.is_before_the_end(ids, head) {
            intake.out.repeats.dropped += 1;
            return Ok(None);
        }
        let Some(ids) = ids else {
            self.places.lead(conn, &mut self.chain);
            let mark = levels.push(self.rows(None, head, Step::First, intake), intake.out)?;
            let is_right = self.take(None, head, Step::First, mark, intake);
            return Ok(if is_right { None } else { self.broken(intake.via.open) });
        };
        let asked = self.offer(conn, ids, head, levels, intake)?;
        Ok(self.join(intake)?.or(asked))
    }

    /// A frame that may have been this book's could not be decoded. A numbered book waits for its next
    /// update to tell; another is broken. Gives the connection that is to be asked for a new snapshot, if the book needs
    /// one.
    pub(in crate::venue) fn on_undecodable(&mut self, symbol: SymbolIx, via: Via, out: &mut Outbox) -> Option<Conn> {
        let leads = self.places.is_in_step(via.conn) || self.places.in_step(via.others()).is_empty();
        if self.chain.last().is_some() || !self.inband.has_delivered() || !leads {
            return None;
        }
        self.lose(symbol, Cause::Undecodable, out);
        Some(via.conn)
    }

    /// A connection ended. Gives the connection that is to be asked for a new snapshot, if the book needs one.
    pub(in crate::venue) fn on_close(&mut self, cause: Cause, intake: &mut Intake<'_>) -> Option<Conn> {
        let Via { conn, .. } = intake.via;
        let left = intake.via.others();
        let was_in_step = self.places.is_in_step(conn);
        self.places.begin(conn, None);
        self.chain.forget(conn);
        let asked = self.resolve(left, intake);
        if !self.places.in_step(left).is_empty() || (!left.is_empty() && !was_in_step) {
            // The snapshot that a broken book waits for may have been asked for on the connection that ended.
            let is_waiting = self.inband.has_delivered() && !self.inband.is_live();
            return asked.or_else(|| left.iter().next().filter(|_| is_waiting));
        }
        let last = self.chain.last().map(|last| self.places.seq(last));
        let ended = last.zip(self.inband.time()).map(|(seq, time)| Ended { seq, time });
        self.inband.on_close(intake.symbol, last, cause, intake.out);
        self.begin();
        let other = left.iter().next()?;
        self.ended = ended;
        self.places.lead(other, &mut self.chain);
        Some(other)
    }

    /// The book is no longer recorded: nothing of it is missed from here on.
    pub(in crate::venue) fn on_end(&mut self, symbol: SymbolIx, out: &mut Outbox) {
        self.inband.on_end(symbol, out);
        self.begin();
    }

    /// Takes over from a state of before connections could be in step: the one whose messages were taken.
    pub(super) fn adopt(&mut self, leader: Conn) {
        self.places.lead(leader, &mut self.chain);
        if let Some(last) = self.chain.last() {
            self.chain.reached(leader, last);
        }
    }

    /// Whether the book would go on if this connection were the only one; of a book without ids nothing better can come.
    pub(super) fn can_go_on(&self, conn: Conn) -> bool {
        !self.inband.has_delivered() || self.chain.last().is_none() || self.places.is_in_step(conn)
    }

    fn on_snapshot(
        &mut self,
        seq: Option<i64>,
        head: Head,
        levels: Levels<'_, '_>,
        intake: &mut Intake<'_>,
    ) -> Result<Option<Conn>, FrameError> {
        let Via { conn, .. } = intake.via;
        if !self.others_in_step(conn, intake).is_empty() && (self.inband.is_live() || self.is_behind(seq)) {
            self.places.begin(conn, seq);
            self.chain.forget(conn);
            return self.join(intake);
        }
        if self.is_outrun(seq, head) {
            intake.out.repeats.dropped += 1;
            return Ok(if self.inband.is_live() { None } else { Some(conn) });
        }
        let rows = LevelHead::new(intake.received, intake.symbol, seq, head.time, Flags::SNAPSHOT);
        let mark = levels.push(rows, intake.out)?;
        self.ended = None;
        let skipped = self.skipped(seq);
        match seq {
            Some(seq) => self.places.restart(conn, seq, &mut self.chain),
            None => self.places.lead(conn, &mut self.chain),
        }
        self.book = head.checksum.map(|_| {
            let mut book = Spelled::default();
            book.extend_both(&intake.out.events.levels[mark..]);
            book
        });
        let matches = self.proof(head, intake);
        let is_right = matches != Some(false);
        if let Some(missing) = skipped {
            self.inband.on_gap(intake.symbol, missing, head.time, intake.out);
        }
        if is_right {
            self.inband.on_snapshot(intake.symbol, seq, head.time, intake.received.micros(), intake.out);
        } else {
            mark_levels(mark, intake.out);
            self.lose(intake.symbol, Cause::Checksum, intake.out);
            self.inband.on_update(head.time);
        }
        let role = Role::Snapshot { keeps_from: None, depth: None };
        intake.out.finish_book(mark, intake.symbol, role, seq, matches);
        if is_right { self.join(intake) } else { Ok(Some(conn)) }
    }

    /// Whether a snapshot is not known to be newer than what was emitted.
    fn is_behind(&self, seq: Option<i64>) -> bool {
        match (self.chain.last(), seq) {
            (Some(last), Some(seq)) => seq < self.places.seq(last),
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }

    /// Whether a snapshot is of before the last message emitted, by id and by time: the other connection, which has ended,
    /// was ahead. What came between would be emitted twice.
    fn is_outrun(&self, seq: Option<i64>, head: Head) -> bool {
        let last = self.chain.last().map(|last| self.places.seq(last)).zip(self.inband.time());
        let last = last.or(self.ended.map(|ended| (ended.seq, ended.time)));
        last.zip(seq.zip(head.time)).is_some_and(|((last, then), (seq, time))| seq < last && time <= then)
    }

    /// The ids between the chain's end and a snapshot that goes on in its numbering: nobody sent what they were, while
    /// the book was asked for anew.
    fn skipped(&self, seq: Option<i64>) -> Option<Missing> {
        let (last, seq) = (self.places.seq(self.chain.last()?), seq?);
        (seq > last).then(|| Missing::between(last.saturating_add(1), seq))
    }

    /// Takes in a numbered update of a connection in step.
    fn offer(
        &mut self,
        conn: Conn,
        ids: (i64, i64),
        head: Head,
        levels: Levels<'_, '_>,
        intake: &mut Intake<'_>,
    ) -> Result<Option<Conn>, FrameError> {
        let others = self.others_in_step(conn, intake);
        let open = intake.via.open;
        let (fit, spot) = self.places.judge(conn, ids, &self.chain, others.is_empty());
        let step = match fit {
            Fit::Next(step) => step,
            Fit::Beyond(_) if self.chain.must_wait(spot.previous, others) => {
                self.hold(ids.0, spot, head, levels, intake)?;
                self.follow(conn, spot);
                return Ok(self.resolve(open, intake));
            }
            Fit::Beyond(missing) => Step::Gap(missing),
            Fit::Stale => {
                self.follow(conn, spot);
                intake.out.repeats.dropped += 1;
                intake.out.finish_book(intake.out.level_mark(), intake.symbol, Role::Stale, Some(ids.0), None);
                return Ok(self.resolve(open, intake));
            }
            Fit::Astray => {
                let levels = levels.keep(self.rows(Some(ids.0), head, Step::Stale, intake), intake.out)?;
                self.places.lose(conn, &mut self.chain);
                let Head { time, checksum } = head;
                self.places.keep(conn, Strange { ids, time, checksum, levels });
                return Ok(self.resolve(open, intake));
            }
        };
        let mark = levels.push(self.rows(Some(ids.0), head, step, intake), intake.out)?;
        let is_right = self.take(Some(ids.0), head, step, mark, intake);
        self.follow(conn, spot);
        self.chain.advance(spot.place);
        self.places.link(spot.place, spot.shift);
        let asked = if is_right { None } else { self.broken(open) };
        Ok(self.resolve(open, intake).or(asked))
    }

    fn follow(&mut self, conn: Conn, spot: Spot) {
        self.places.follow(conn, spot);
        self.chain.reached(conn, spot.place);
    }

    fn hold(
        &mut self,
        seq: i64,
        spot: Spot,
        head: Head,
        levels: Levels<'_, '_>,
        intake: &mut Intake<'_>,
    ) -> Result<(), FrameError> {
        let levels = levels.keep(self.rows(Some(seq), head, Step::Stale, intake), intake.out)?;
        let Head { time, checksum } = head;
        let Spot { previous, place, shift } = spot;
        self.chain.hold(Held { previous, last_id: place, time, levels, shift, checksum });
        Ok(())
    }

    /// Keeps a message of a connection that is not in step.
    fn keep(
        &mut self,
        conn: Conn,
        ids: (i64, i64),
        head: Head,
        levels: Levels<'_, '_>,
        intake: &mut Intake<'_>,
    ) -> Result<(), FrameError> {
        let levels = levels.keep(self.rows(Some(ids.0), head, Step::Stale, intake), intake.out)?;
        let Head { time, checksum } = head;
        self.places.keep(conn, Strange { ids, time, checksum, levels });
        Ok(())
    }

    /// Finds whether connections that are not in step are so now, and takes what they have delivered behind the chain.
    fn join(&mut self, intake: &mut Intake<'_>) -> Result<Option<Conn>, FrameError> {
        let mut asked = None;
        for conn in intake.via.open.iter() {
            if self.places.is_in_step(conn) || !self.inband.is_live() {
                continue;
            }
            for message in self.places.join(conn, &mut self.chain).into_iter().flatten() {
                if !self.places.is_in_step(conn) {
                    self.places.keep(conn, message);
                    continue;
                }
                let Strange { ids, time, checksum, levels } = message;
                let head = Head { time, checksum };
                asked = self.offer(conn, ids, head, Levels::Kept(levels), intake)?.or(asked);
            }
        }
        Ok(asked)
    }

    /// Applies what is held as far as it continues the chain, or nothing can come any more that does. Gives the
    /// connection that is to be asked for a new snapshot, if the book needs one.
    fn resolve(&mut self, open: Conns, intake: &mut Intake<'_>) -> Option<Conn> {
        if !self.chain.is_waiting() {
            return None;
        }
        let (mut asked, mut is_filled) = (None, false);
        loop {
            let able = self.places.in_step(open);
            let due = self.chain.due(able, &mut intake.out.repeats.dropped);
            let Some((last, Due { message, is_exact })) = self.chain.last().zip(due) else { break };
            let step = match message.previous > last {
                true => Step::Gap(self.places.missing_before(last, &message)),
                false => Step::Next,
            };
            let Held { last_id, time, levels, shift, checksum, .. } = message;
            let (seq, head) = (Some(last_id.saturating_sub(shift)), Head { time, checksum });
            let rows = self.rows(seq, head, step, intake);
            let mark = intake.out.level_mark();
            levels.into_iter().for_each(|(side, price, qty)| rows.push(side, price, qty, intake.out));
            let is_right = self.take(seq, head, step, mark, intake);
            self.chain.advance(last_id);
            self.places.link(last_id, shift);
            is_filled |= is_exact;
            if !is_right {
                asked = self.broken(open).or(asked);
            }
        }
        intake.out.repeats.filled += u64::from(is_filled && asked.is_none());
        asked
    }

    /// What the rows of an update have in common.
    fn rows(&self, seq: Option<i64>, head: Head, step: Step, intake: &Intake<'_>) -> LevelHead {
        let is_whole = self.inband.is_live() && !matches!(step, Step::Gap(_));
        let flags = if is_whole { Flags::NONE } else { Flags::AFTER_GAP };
        LevelHead::new(intake.received, intake.symbol, seq, head.time, flags)
    }

    /// Takes over an update whose levels were pushed since `mark`. Gives `false` when it shows the book broken.
    fn take(&mut self, seq: Option<i64>, head: Head, step: Step, mark: usize, intake: &mut Intake<'_>) -> bool {
        let is_whole = self.inband.is_live() && !matches!(step, Step::Gap(_));
        if head.checksum.is_none() && is_whole {
            self.book = None;
        }
        let matches = if is_whole { self.apply(head, mark, intake) } else { None };
        let is_right = match step {
            Step::Gap(missing) => {
                self.inband.on_gap(intake.symbol, missing, head.time, intake.out);
                self.book = None;
                false
            }
            Step::First | Step::Next | Step::Stale if matches == Some(false) => {
                mark_levels(mark, intake.out);
                self.lose(intake.symbol, Cause::Checksum, intake.out);
                false
            }
            Step::First | Step::Next | Step::Stale => true,
        };
        self.inband.on_update(head.time);
        intake.out.finish_book(mark, intake.symbol, Role::Delta, seq, matches);
        is_right
    }

    /// Applies the levels pushed since `mark` if the book is kept; whether its checksum matches.
    fn apply(&mut self, head: Head, mark: usize, intake: &mut Intake<'_>) -> Option<bool> {
        let book = self.book.as_mut()?;
        let levels = &intake.out.events.levels[mark..];
        book.apply(levels);
        self.proof(head, intake)
    }

    /// Whether the book, if it is kept, is what the message says.
    fn proof(&mut self, head: Head, intake: &mut Intake<'_>) -> Option<bool> {
        let (book, expected) = self.book.as_mut().zip(head.checksum)?;
        Some(intake.checksum.interleaved(book) == expected)
    }

    /// The book is broken: the connection that is farthest goes on alone, and is to be asked for a snapshot.
    fn broken(&mut self, open: Conns) -> Option<Conn> {
        let farthest = self.places.in_step(open).iter().max_by_key(|conn| self.chain.reach(*conn))?;
        self.places.lead(farthest, &mut self.chain);
        Some(farthest)
    }

    fn lose(&mut self, symbol: SymbolIx, cause: Cause, out: &mut Outbox) {
        self.inband.on_loss(symbol, cause, out);
        self.book = None;
    }

    /// Nothing is known of what comes next.
    fn begin(&mut self) {
        self.chain = Chain::default();
        self.places = Places::default();
        self.ended = None;
        self.book = None;
    }

    /// Whether an update is from before the end of a chain, by id and by time: what a numbering that has begun anew brings
    /// is later.
    fn is_before_the_end(&mut self, ids: Option<(i64, i64)>, head: Head) -> bool {
        let Some(ended) = self.ended else { return false };
        let is_before = ids.is_some_and(|(id, _)| id <= ended.seq) && head.time.is_some_and(|time| time <= ended.time);
        if !is_before {
            self.ended = None;
        }
        is_before
    }

    fn others_in_step(&self, conn: Conn, intake: &Intake<'_>) -> Conns {
        self.places.in_step(intake.via.open.without(conn))
    }
}

impl Levels<'_, '_> {
    /// Emits them; gives where they begin. Nothing is emitted on an error.
    fn push(self, rows: LevelHead, out: &mut Outbox) -> Result<usize, FrameError> {
        let mark = out.level_mark();
        match self {
            Self::Wire(item) => {
                let pushed = rows.push_pairs(Side::Buy, "bids", item.get("bids"), out);
                pushed
                    .and_then(|()| rows.push_pairs(Side::Sell, "asks", item.get("asks"), out))
                    .inspect_err(|_| out.drop_levels(mark))?;
            }
            Self::Scanned(levels) => levels.push(&rows, out),
            Self::Kept(levels) => {
                levels.into_iter().for_each(|(side, price, qty)| rows.push(side, price, qty, out));
            }
        }
        Ok(mark)
    }

    /// Gives them to be kept, and emits nothing.
    fn keep(self, rows: LevelHead, out: &mut Outbox) -> Result<Vec<(Side, Decimal, Decimal)>, FrameError> {
        match self {
            Self::Wire(_) | Self::Scanned(_) => {
                let mark = self.push(rows, out)?;
                let levels = levels_of(&out.events.levels[mark..]);
                out.drop_levels(mark);
                Ok(levels)
            }
            Self::Kept(levels) => Ok(levels),
        }
    }
}

fn mark_levels(mark: usize, out: &mut Outbox) {
    out.events.levels[mark..].iter_mut().for_each(|level| level.flags = level.flags.with(Flags::AFTER_GAP));
}

impl<'t, 'i> Update<'t, 'i> {
    /// Reads one element of a push.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: ids or checksum are no numbers.
    pub(in crate::venue) fn read(is_snapshot: bool, item: View<'t, 'i>) -> Result<Self, FrameError> {
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
        let head = Head { time, checksum: checksum.transpose()? };
        Ok(Self { is_snapshot, ids, head, levels: Levels::Wire(item) })
    }

    /// Puts a scanned message together; `None` when its checksum is none.
    pub(in crate::venue) fn scanned(
        is_snapshot: bool,
        ids: Option<(i64, i64)>,
        time: Option<Micros>,
        checksum: i64,
        levels: &'t scan::Levels,
    ) -> Option<Self> {
        let checksum = Some(i32::try_from(checksum).ok()?).filter(|checksum| *checksum != 0);
        Some(Self { is_snapshot, ids, head: Head { time, checksum }, levels: Levels::Scanned(levels) })
    }
}
