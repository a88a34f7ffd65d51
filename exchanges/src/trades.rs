//! Which trades of an instrument have been seen, by the venue's contiguous trade ids.
//!
//! ```text
//! id follows the last      emitted
//! id further on            emitted; the ids between are missing
//! id that is missing       emitted: it was late, came by the other connection, or is fetched
//! id seen before           not emitted: a repetition (the other connection, a snapshot after a reconnect, a doubled frame)
//! id just before the first emitted: it was late when the lane began; the ids between are missing
//! id far before the first  emitted, after a gap of unknown ids: the venue has begun to count anew
//! ```
//!
//! Missing ids are a gap when no open connection can bring them any more. A connection can no longer when it has
//! delivered a later id, or said that there is one: so with one connection that is at once. With two, the ids *wait*
//! until the other has passed them too, or is closed. A gap whose every id has come after all is closed as healed.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::Outbox,
    backfill::{Refusal, Refused, Served},
    conn::{Conns, PerConn, Via},
    error::FrameError,
    event::{Cause, Channel, GapClosed, GapEnd},
    gaps::{Span, gap},
    holes::{Holes, Page, Want},
    ids::{Micros, SymbolIx},
    sequence::Missing,
};

/// Trade ids of one instrument.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct TradeIds {
    /// First and last id since the numbering began for us.
    seen: Option<(i64, i64)>,
    /// Time of the trade with the last id.
    time: Option<Micros>,
    /// The last connection ended since the last trade, because.
    interrupted: Option<Cause>,
    /// Gaps some of whose trades may still come.
    holes: Holes,
    /// The highest id that each open connection has delivered or told of.
    #[serde(default)]
    reach: PerConn<Option<i64>>,
    /// Missing ids that the other connection may bring, in order.
    #[serde(default)]
    waiting: Vec<Waiting>,
}

/// A stretch of ids that one connection missed and the other has not passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Waiting {
    first: i64,
    last: i64,
    cause: Cause,
    since: Option<Micros>,
    until: Option<Micros>,
}

impl TradeIds {
    /// Connection `via.conn` ended. When it was the last, ids that the next trade skips were missed because of it.
    pub(crate) fn interrupt(&mut self, out: &mut Outbox, symbol: SymbolIx, via: Via, cause: Cause) {
        self.reach[via.conn] = None;
        let left = via.others();
        self.decide(out, symbol, left);
        if left.is_empty() && self.seen.is_some() {
            self.interrupted.get_or_insert(cause);
        }
    }

    /// Whether the trade with these ids (`first == last` but for venues that merge trades) is to be
    /// emitted. Emits the gap it reveals or the end of the gap it fills.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        out: &mut Outbox,
        symbol: SymbolIx,
        via: Via,
        (first, last): (i64, i64),
        time: Micros,
    ) -> bool {
        let reach = &mut self.reach[via.conn];
        *reach = (*reach).max(Some(last));
        let is_new = match &mut self.seen {
            Some((_, seen)) if first <= seen.saturating_add(1) && last > *seen => {
                *seen = last;
                self.interrupted = None;
                self.time = Some(time);
                true
            }
            Some(_) | None => self.admit_other(out, symbol, via, (first, last), time),
        };
        if !self.waiting.is_empty() {
            self.decide(out, symbol, via.open);
        }
        is_new
    }

    /// The venue says on a connection that `last` is its last trade id. What we have not seen of it is missing.
    pub(crate) fn expect(&mut self, out: &mut Outbox, symbol: SymbolIx, via: Via, last: i64, time: Micros) {
        let reach = &mut self.reach[via.conn];
        *reach = (*reach).max(Some(last));
        if let Some((_, seen)) = self.seen
            && last > seen
        {
            self.skip(out, symbol, via, Missing::between(seen + 1, last), time);
            self.seen = self.seen.map(|(first, _)| (first, last));
            self.time = Some(time);
        }
        if !self.waiting.is_empty() {
            self.decide(out, symbol, via.open);
        }
    }

    /// The channel is no longer recorded: what waits is missing, and nothing of what is missing will come.
    pub(crate) fn end(&mut self, out: &mut Outbox, symbol: SymbolIx) {
        self.reach = PerConn::default();
        self.decide(out, symbol, Conns::NONE);
        if self.seen.is_some() {
            self.interrupted.get_or_insert(Cause::Downtime);
        }
        self.give_up(out, symbol, NOT_RECORDED);
    }

    /// Highest id seen.
    pub(crate) fn last(&self) -> Option<i64> {
        self.seen.map(|(_, last)| last)
    }

    /// Whether trades are missing that may still come.
    #[inline]
    pub(crate) fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// What to ask the venue for next, at most `page` ids.
    pub(crate) fn want(&self, page: i64) -> Option<Want> {
        self.holes.want(page)
    }

    /// Takes in the answer to a request for missing trades: a page of the venue's history, or an error and how it is
    /// meant.
    ///
    /// # Errors
    ///
    /// Beside how it served: the error given. What follows from it is noted already.
    pub(crate) fn on_answer(
        &mut self,
        out: &mut Outbox,
        symbol: SymbolIx,
        answer: Result<Page, Refused>,
    ) -> (Served, Result<(), FrameError>) {
        let Refused { how, error } = match answer {
            Ok(page) => {
                let is_progress = self.holes.on_page(out, symbol, page);
                return (if is_progress { Served::Yes } else { Served::No }, Ok(()));
            }
            Err(refused) => refused,
        };
        match how {
            Refusal::Busy => {}
            Refusal::Final => self.holes.give_up(out, symbol, &error.to_string()),
            Refusal::Odd => self.holes.on_failure(out, symbol, &error.to_string()),
        }
        (Served::No, Err(error))
    }

    /// Nothing of what is missing will come.
    pub(crate) fn give_up(&mut self, out: &mut Outbox, symbol: SymbolIx, why: &str) {
        self.holes.give_up(out, symbol, why);
    }

    fn admit_other(
        &mut self,
        out: &mut Outbox,
        symbol: SymbolIx,
        via: Via,
        (first, last): (i64, i64),
        time: Micros,
    ) -> bool {
        let Some((oldest, seen)) = self.seen else {
            self.seen = Some((first, last));
            self.time = Some(time);
            return true;
        };
        if last <= seen && last >= oldest {
            if last == seen {
                self.interrupted = None; // A new connection begins with the last trade: none was missed till then.
            }
            let is_new = self.fill_waiting(out, (first, last)) || self.holes.fill(out, symbol, (first, last));
            out.repeats.dropped += u64::from(!is_new);
            return is_new;
        }
        self.admit_outside(out, symbol, via, (first, last), (oldest, seen), time);
        true
    }

    /// A trade beyond the last one, or from before the first.
    #[cold]
    fn admit_outside(
        &mut self,
        out: &mut Outbox,
        symbol: SymbolIx,
        via: Via,
        (first, last): (i64, i64),
        (oldest, seen): (i64, i64),
        time: Micros,
    ) {
        // One connection may have begun well ahead of the other.
        let late_max = if via.others().is_empty() { LATE_IDS_MAX } else { WAIT_IDS_MAX };
        if last > seen {
            self.skip(out, symbol, via, Missing::between(seen + 1, first - 1), time);
            self.seen = Some((oldest, last));
        } else if oldest.abs_diff(last) <= late_max {
            if last.saturating_add(1) < oldest {
                let span = Span { since: Some(time), until: None };
                self.miss(out, symbol, via.open, Cause::Sequence, Missing::between(last + 1, oldest - 1), span);
            }
            self.seen = Some((first, seen));
            return;
        } else {
            self.decide(out, symbol, Conns::NONE);
            self.holes.give_up(out, symbol, "the venue has begun to count anew");
            self.reach = PerConn::default();
            self.reach[via.conn] = Some(last);
            self.skip(out, symbol, via, Missing::UNKNOWN, time);
            self.seen = Some((first, last));
        }
        self.time = Some(time);
    }

    fn skip(&mut self, out: &mut Outbox, symbol: SymbolIx, via: Via, missing: Missing, time: Micros) {
        let cause = self.interrupted.take().unwrap_or(Cause::Sequence);
        self.miss(out, symbol, via.open, cause, missing, Span { since: self.time, until: Some(time) });
    }

    /// Ids are missing: they wait for the connections that may bring them, or are a gap.
    fn miss(
        &mut self,
        out: &mut Outbox,
        symbol: SymbolIx,
        open: Conns,
        cause: Cause,
        missing: Missing,
        Span { since, until }: Span,
    ) {
        match missing {
            Missing { first: Some(first), last: Some(last) } if self.frontier(open) < last => {
                let at = self.waiting.partition_point(|waiting| waiting.first < first);
                self.waiting.insert(at, Waiting { first, last, cause, since, until });
            }
            Missing { .. } => self.open(out, symbol, cause, missing, Span { since, until }),
        }
    }

    /// The id up to which every open connection has delivered what it will.
    fn frontier(&self, open: Conns) -> i64 {
        open.iter().map(|conn| self.reach[conn].unwrap_or(i64::MIN)).min().unwrap_or(i64::MAX)
    }

    /// Ends the wait for what no open connection can bring any more, and for what is beyond the bounds: it is a gap.
    #[cold]
    fn decide(&mut self, out: &mut Outbox, symbol: SymbolIx, open: Conns) {
        let frontier = self.frontier(open);
        let bound = self.seen.map_or(i64::MIN, |(_, last)| last.saturating_sub_unsigned(WAIT_IDS_MAX));
        while let Some(Waiting { first, last, cause, since, until }) = self.waiting.first().copied()
            && (last <= frontier || last < bound || self.waiting.len() > WAITING_MAX)
        {
            self.waiting.remove(0);
            self.open(out, symbol, cause, Missing::between(first, last), Span { since, until });
        }
    }

    /// A trade came that another connection missed: takes it out of what waits; `false` when it is none of that.
    fn fill_waiting(&mut self, out: &mut Outbox, (first, last): (i64, i64)) -> bool {
        let Some(at) = self.waiting.iter().position(|waiting| (waiting.first..=waiting.last).contains(&last)) else {
            return false;
        };
        let whole = self.waiting.remove(at);
        let before = Waiting { last: first.saturating_sub(1), ..whole };
        let after = Waiting { first: last.saturating_add(1), ..whole };
        let left = [before, after].into_iter().filter(|piece| piece.first <= piece.last);
        self.waiting.splice(at..at, left);
        let is_filled = !self.waiting.iter().any(|left| left.first <= whole.last && left.last >= whole.first);
        out.repeats.filled += u64::from(is_filled);
        true
    }

    fn open(&mut self, out: &mut Outbox, symbol: SymbolIx, cause: Cause, missing: Missing, span: Span) {
        let id = out.push_gap(gap(Some(symbol), Some(Channel::Trades), cause, missing, span));
        match missing {
            Missing { first: Some(first), last: Some(last) } => {
                self.holes.open(out, symbol, (id, cause), (first, last), span);
            }
            Missing { first: None, .. } | Missing { last: None, .. } => {
                let (symbol, channel, end) = (Some(symbol), Some(Channel::Trades), GapEnd::Unhealable);
                let detail = Some("which trades are missing is not known".into());
                let (frame, rows, last_missing, until) = (0, 0, None, None);
                out.push_gap_closed(GapClosed {
                    frame,
                    id,
                    symbol,
                    channel,
                    cause,
                    end,
                    rows,
                    last_missing,
                    until,
                    detail,
                });
            }
        }
    }
}

/// Why missing trades are given up of an instrument that is taken out of the configuration.
pub(crate) const NOT_RECORDED: &str = "the instrument is no longer recorded";
/// How far below the first id seen a trade may be and still be a late one: further, the venue counts anew.
const LATE_IDS_MAX: u64 = 64;
/// How far one connection may be ahead of the other: ids missing further back are waited for no more.
const WAIT_IDS_MAX: u64 = 65_536;
/// Stretches of one instrument that wait at once; the oldest beyond this is a gap.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::At,
        conn::Conn,
        event::{GapEnd, Note},
        ids::{FramePos, Nanos},
    };

    const SYMBOL: SymbolIx = SymbolIx(0);
    const ALONE: Via = Via { conn: Conn::FIRST, open: Conns::NONE };

    /// Feeds ids one by one; gives which were admitted, and the notes.
    fn feed(trades: &mut TradeIds, ids: &[i64]) -> (Vec<i64>, Vec<Note>) {
        let mut out = Outbox::default();
        out.begin(At { pos: FramePos::FIRST, received: Nanos(0), conn: Conn::FIRST });
        let kept = ids.iter().copied().filter(|id| trades.admit(&mut out, SYMBOL, ALONE, (*id, *id), Micros(*id)));
        let kept = kept.collect();
        (kept, out.events.notes)
    }

    fn gaps(notes: &[Note]) -> Vec<(Cause, Option<i64>, Option<i64>)> {
        let gap = |note: &Note| match note {
            Note::Gap(gap) => Some((gap.cause, gap.first_missing, gap.last_missing)),
            Note::GapClosed(_) | Note::Reject(_) | Note::Session(_) => None,
        };
        notes.iter().filter_map(gap).collect()
    }

    #[test]
    fn contiguous_ids_pass_without_a_word() {
        let (kept, notes) = feed(&mut TradeIds::default(), &[7, 8, 9]);
        assert_eq!((kept, notes), (vec![7, 8, 9], vec![]));
    }

    #[test]
    fn a_skipped_stretch_is_a_gap_that_names_its_ids() {
        let (kept, notes) = feed(&mut TradeIds::default(), &[7, 11]);
        assert_eq!((kept, gaps(&notes)), (vec![7, 11], vec![(Cause::Sequence, Some(8), Some(10))]));
    }

    #[test]
    fn a_repetition_is_not_emitted_twice() {
        let (kept, notes) = feed(&mut TradeIds::default(), &[7, 8, 8, 7, 9]);
        assert_eq!((kept, notes), (vec![7, 8, 9], vec![]));
    }

    #[test]
    fn late_trades_are_emitted_once_and_heal_their_gap() {
        let (kept, notes) = feed(&mut TradeIds::default(), &[7, 11, 9, 9, 8, 10, 10]);
        assert_eq!(kept, [7, 11, 9, 8, 10]);
        assert!(
            matches!(&notes[..], [Note::Gap(_), Note::GapClosed(closed)] if closed.rows == 3 && closed.end == GapEnd::Healed)
        );
    }

    #[test]
    fn a_lane_that_begins_with_a_trade_out_of_order_takes_the_late_ones() {
        let mut trades = TradeIds::default();
        let (kept, notes) = feed(&mut trades, &[8, 7, 9, 8, 7]);
        assert_eq!((kept, notes), (vec![8, 7, 9], vec![]));
        let (kept, notes) = feed(&mut TradeIds::default(), &[8, 5, 9, 7, 6, 5, 7]);
        assert_eq!((kept, gaps(&notes)), (vec![8, 5, 9, 7, 6], vec![(Cause::Sequence, Some(6), Some(7))]));
        assert!(
            matches!(&notes[..], [Note::Gap(_), Note::GapClosed(closed)] if closed.rows == 2 && closed.end == GapEnd::Healed)
        );
    }

    #[test]
    fn ids_that_begin_anew_are_emitted_after_a_gap_of_unknown_size() {
        let (kept, notes) = feed(&mut TradeIds::default(), &[700, 701, 1, 2]);
        assert_eq!((kept, gaps(&notes)), (vec![700, 701, 1, 2], vec![(Cause::Sequence, None, None)]));
    }

    #[test]
    fn what_a_closed_connection_missed_is_named_at_the_first_trade_after_it() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        trades.interrupt(&mut Outbox::default(), SYMBOL, ALONE, Cause::Reconnect);
        let (_, notes) = feed(&mut trades, &[10, 12]);
        assert_eq!(gaps(&notes), [(Cause::Reconnect, Some(8), Some(9)), (Cause::Sequence, Some(11), Some(11))]);
    }

    #[test]
    fn a_reconnect_that_missed_nothing_is_no_gap() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        trades.interrupt(&mut Outbox::default(), SYMBOL, ALONE, Cause::Downtime);
        let (_, notes) = feed(&mut trades, &[8, 10]);
        assert_eq!(gaps(&notes), [(Cause::Sequence, Some(9), Some(9))]);
    }

    #[test]
    fn the_last_trade_repeated_after_a_reconnect_says_that_none_was_missed_till_then() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        trades.interrupt(&mut Outbox::default(), SYMBOL, ALONE, Cause::Reconnect);
        let (kept, notes) = feed(&mut trades, &[7, 9]);
        assert_eq!((kept, gaps(&notes)), (vec![9], vec![(Cause::Sequence, Some(8), Some(8))]));
    }

    #[test]
    fn what_the_venue_says_it_has_sent_is_missing_until_it_comes() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        let mut out = Outbox::default();
        out.begin(At { pos: FramePos::FIRST, received: Nanos(0), conn: Conn::FIRST });
        trades.expect(&mut out, SYMBOL, ALONE, 8, Micros(8));
        assert_eq!(gaps(&out.events.notes), [(Cause::Sequence, Some(8), Some(8))]);
        assert_eq!(feed(&mut trades, &[8, 8, 9]).0, [8, 9]);
    }
}
