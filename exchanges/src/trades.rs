//! Which trades of an instrument have been seen, by the venue's contiguous trade ids.
//!
//! ```text
//! id follows the last      emitted
//! id further on            emitted, after a gap that names the ids between
//! id inside an open gap    emitted: it was late, or is fetched; a gap whose every id has come is closed as healed
//! id seen before           not emitted: a repetition (a snapshot after a reconnect, a doubled frame)
//! id just before the first emitted: it was late when the lane began; the ids between are a gap
//! id far before the first  emitted, after a gap of unknown ids: the venue has begun to count anew
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    adapter::Outbox,
    backfill::{Refusal, Served},
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
    /// The connection ended since the last trade, because.
    interrupted: Option<Cause>,
    /// Gaps some of whose trades may still come.
    holes: Holes,
}

impl TradeIds {
    /// The connection ended: ids that the next trade skips were missed because of it.
    pub(crate) fn interrupt(&mut self, cause: Cause) {
        if self.seen.is_some() {
            self.interrupted.get_or_insert(cause);
        }
    }

    /// Whether the trade with these ids (`first == last` but for venues that merge trades) is to be
    /// emitted. Emits the gap it reveals or the end of the gap it fills.
    #[inline]
    pub(crate) fn admit(&mut self, out: &mut Outbox, symbol: SymbolIx, ids: (i64, i64), time: Micros) -> bool {
        let (first, last) = ids;
        match &mut self.seen {
            Some((_, seen)) if first <= seen.saturating_add(1) && last > *seen => {
                *seen = last;
                self.interrupted = None;
                self.time = Some(time);
                true
            }
            Some(_) | None => self.admit_other(out, symbol, ids, time),
        }
    }

    /// The venue says that `last` is its last trade id. What we have not seen of it is missing.
    pub(crate) fn expect(&mut self, out: &mut Outbox, symbol: SymbolIx, last: i64, time: Micros) {
        if let Some((_, seen)) = self.seen
            && last > seen
        {
            self.skip(out, symbol, Missing::between(seen + 1, last), time);
            self.seen = self.seen.map(|(first, _)| (first, last));
            self.time = Some(time);
        }
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
        answer: Result<Page, (Refusal, FrameError)>,
    ) -> (Served, Result<(), FrameError>) {
        let (refusal, error) = match answer {
            Ok(page) => {
                let is_progress = self.holes.on_page(out, symbol, page);
                return (if is_progress { Served::Yes } else { Served::No }, Ok(()));
            }
            Err(refused) => refused,
        };
        match refusal {
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

    #[cold]
    fn admit_other(&mut self, out: &mut Outbox, symbol: SymbolIx, (first, last): (i64, i64), time: Micros) -> bool {
        let Some((oldest, seen)) = self.seen else {
            self.seen = Some((first, last));
            self.time = Some(time);
            return true;
        };
        if last > seen {
            self.skip(out, symbol, Missing::between(seen + 1, first - 1), time);
            self.seen = Some((oldest, last));
        } else if last < oldest && oldest.abs_diff(last) <= LATE_IDS_MAX {
            if last.saturating_add(1) < oldest {
                let span = Span { since: Some(time), until: None };
                self.open(out, symbol, Cause::Sequence, Missing::between(last + 1, oldest - 1), span);
            }
            self.seen = Some((first, seen));
            return true;
        } else if last < oldest {
            self.holes.give_up(out, symbol, "the venue has begun to count anew");
            self.skip(out, symbol, Missing::UNKNOWN, time);
            self.seen = Some((first, last));
        } else {
            if last == seen {
                self.interrupted = None; // A new connection begins with the last trade: none was missed till then.
            }
            return self.holes.fill(out, symbol, (first, last));
        }
        self.time = Some(time);
        true
    }

    fn skip(&mut self, out: &mut Outbox, symbol: SymbolIx, missing: Missing, time: Micros) {
        let cause = self.interrupted.take().unwrap_or(Cause::Sequence);
        self.open(out, symbol, cause, missing, Span { since: self.time, until: Some(time) });
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

/// How far below the first id seen a trade may be and still be a late one: further, the venue counts anew.
const LATE_IDS_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::At,
        event::{GapEnd, Note},
        ids::{FramePos, Nanos},
    };

    const SYMBOL: SymbolIx = SymbolIx(0);

    /// Feeds ids one by one; gives which were admitted, and the notes.
    fn feed(trades: &mut TradeIds, ids: &[i64]) -> (Vec<i64>, Vec<Note>) {
        let mut out = Outbox::default();
        out.begin(At { pos: FramePos::FIRST, received: Nanos(0) });
        let kept = ids.iter().copied().filter(|id| trades.admit(&mut out, SYMBOL, (*id, *id), Micros(*id)));
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
        trades.interrupt(Cause::Reconnect);
        let (_, notes) = feed(&mut trades, &[10, 12]);
        assert_eq!(gaps(&notes), [(Cause::Reconnect, Some(8), Some(9)), (Cause::Sequence, Some(11), Some(11))]);
    }

    #[test]
    fn a_reconnect_that_missed_nothing_is_no_gap() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        trades.interrupt(Cause::Downtime);
        let (_, notes) = feed(&mut trades, &[8, 10]);
        assert_eq!(gaps(&notes), [(Cause::Sequence, Some(9), Some(9))]);
    }

    #[test]
    fn the_last_trade_repeated_after_a_reconnect_says_that_none_was_missed_till_then() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        trades.interrupt(Cause::Reconnect);
        let (kept, notes) = feed(&mut trades, &[7, 9]);
        assert_eq!((kept, gaps(&notes)), (vec![9], vec![(Cause::Sequence, Some(8), Some(8))]));
    }

    #[test]
    fn what_the_venue_says_it_has_sent_is_missing_until_it_comes() {
        let mut trades = TradeIds::default();
        feed(&mut trades, &[7]);
        let mut out = Outbox::default();
        out.begin(At { pos: FramePos::FIRST, received: Nanos(0) });
        trades.expect(&mut out, SYMBOL, 8, Micros(8));
        assert_eq!(gaps(&out.events.notes), [(Cause::Sequence, Some(8), Some(8))]);
        assert_eq!(feed(&mut trades, &[8, 8, 9]).0, [8, 9]);
    }
}
