//! The open trade gaps of one instrument: which ids are still missing, and what becomes of them.
//!
//! ```text
//! id comes late by the stream            the hole gets smaller, the row counts as healed
//! id comes in an answer (a page)         the same
//! a page passes the id and has it not    lost: the venue's history does not have it
//! no answer brings it on, TRIES_MAX      lost: not served
//! every id has come                      the gap ends `healed`
//! nothing more to ask for, some lost     the gap ends `unhealable`, with how many and why
//! ```
//!
//! Everything here changes by journaled input only, and all of it is saved: an open hole is the job of fetching
//! it, before and after a restart.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::Outbox,
    event::{Cause, Channel, Flags, GapClosed, GapEnd, GapId, Trade},
    gaps::Span,
    ids::{Micros, SymbolIx},
};

/// Open gaps, oldest first, which is by id too.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Holes(Vec<Hole>);

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Hole {
    id: GapId,
    cause: Cause,
    /// Ids still missing, in order.
    ranges: Vec<(i64, i64)>,
    /// Trades that came after all.
    rows: u64,
    /// Ids that will not come.
    #[serde(default)]
    lost: u64,
    /// Why the first of them will not.
    #[serde(default)]
    why: Option<Box<str>>,
    /// Ids below this are not asked for: the gap is too large.
    #[serde(default)]
    floor: Option<i64>,
    /// Time of a trade not after the first one missing: where a history by time is read on.
    #[serde(default)]
    since: Option<Micros>,
    /// Time of the trade that showed the gap.
    #[serde(default)]
    until: Option<Micros>,
    /// The venue's list of recent trades begins after the first one missing.
    #[serde(default)]
    is_old: bool,
    /// Answers in a row that brought nothing.
    #[serde(default)]
    tries: u32,
}

/// What to ask a venue for next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Want {
    /// First id missing.
    pub(crate) first: i64,
    /// Last id missing of those that fit a page.
    pub(crate) last: i64,
    /// Time of a trade not after the first one missing.
    pub(crate) since: Option<Micros>,
    /// The venue's list of recent trades does not reach back that far.
    pub(crate) is_old: bool,
    /// Answers in a row that brought nothing.
    pub(crate) tries: u32,
}

/// Trades of a venue's history, and which stretch of it they are.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The first id each row stands for, and the row, whose id is the last; by id.
    pub(crate) trades: Vec<(i64, Trade)>,
    /// First and last id of the stretch the page is all there is of, and the time of the last. `None` for an
    /// empty page.
    pub(crate) covers: Option<(i64, i64, Micros)>,
    /// The venue serves recent trades only, and these are all of them.
    pub(crate) is_recent: bool,
    /// An empty page says that nothing happened before this moment.
    pub(crate) silent_until: Option<Micros>,
    /// Why a trade that the page passes is not in it, where there is more to say than that it is not.
    pub(crate) lacks: Option<&'static str>,
}

impl Page {
    /// A page of rows in any order that leaves nothing out between its first and its last id.
    pub(crate) fn contiguous(mut trades: Vec<(i64, Trade)>) -> Self {
        trades.sort_by_key(|(first, trade)| (*first, trade.trade_id));
        let last = trades.iter().filter_map(|(_, trade)| Some((trade.trade_id?, trade.time))).max_by_key(|last| last.0);
        let covers = trades.first().zip(last).map(|((first, _), (last, time))| (*first, last, time));
        Self { trades, covers, ..Self::default() }
    }

    /// The page was asked for from this id on: the venue has nothing between it and the first row.
    pub(crate) fn asked_from(mut self, id: i64) -> Self {
        self.covers = self.covers.map(|(first, last, time)| (first.min(id), last, time));
        self
    }
}

impl Holes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers a gap whose ids are known. Gaps beyond what is kept are given up, the oldest first.
    pub(crate) fn open(
        &mut self,
        out: &mut Outbox,
        symbol: SymbolIx,
        (id, cause): (GapId, Cause),
        (first, last): (i64, i64),
        span: Span,
    ) {
        let floor = last.saturating_sub(FETCH_IDS_MAX - 1);
        let floor = (floor > first).then_some(floor);
        let Span { since, until } = span;
        let (rows, lost, tries, why, is_old) = (0, 0, 0, None, false);
        self.0.push(Hole {
            id,
            cause,
            ranges: vec![(first, last)],
            rows,
            lost,
            why,
            floor,
            since,
            until,
            is_old,
            tries,
        });
        self.shrink(out, symbol);
    }

    /// A trade came by the stream that is not newer than the newest. Takes its ids out of the hole its last id
    /// belongs to; `false` when that belongs to none.
    pub(crate) fn fill(&mut self, out: &mut Outbox, symbol: SymbolIx, (first, last): (i64, i64)) -> bool {
        let Some(at) = self.0.iter().position(|hole| hole.misses(last)) else { return false };
        self.0[at].remove(first, last);
        self.0[at].rows += 1;
        self.settle(out, symbol);
        self.shrink(out, symbol);
        true
    }

    /// What to ask for, in a page of at most `page` ids; `None` when there is nothing.
    pub(crate) fn want(&self, page: i64) -> Option<Want> {
        let (hole, first) = self.0.iter().find_map(|hole| Some((hole, hole.first()?)))?;
        let end = first.saturating_add(page - 1);
        let wanted = self.0.iter().flat_map(|hole| hole.ranges.iter());
        let last = wanted.filter(|(from, _)| *from <= end).map(|(_, to)| *to).max().unwrap_or(first).min(end);
        let Hole { since, is_old, tries, .. } = *hole;
        Some(Want { first, last, since, is_old, tries })
    }

    /// Takes in a page: emits what was missing, and learns what the venue does not have. `false` when the page
    /// brought nothing on.
    pub(crate) fn on_page(&mut self, out: &mut Outbox, symbol: SymbolIx, page: Page) -> bool {
        let mut is_progress = false;
        let learned = Page { trades: Vec::new(), ..page };
        for (first, trade) in page.trades {
            let Some(last) = trade.trade_id else { continue };
            let Some(hole) = self.0.iter_mut().find(|hole| hole.misses_all(first, last)) else { continue };
            hole.remove(first, last);
            hole.rows += 1;
            let flags = trade.flags.with(Flags::BACKFILL);
            out.push_trade(Trade { flags, symbol, ..trade });
            is_progress = true;
        }
        for (at, hole) in self.0.iter_mut().enumerate() {
            is_progress |= hole.learn(at == 0, &learned);
        }
        if is_progress {
            self.0.iter_mut().for_each(|hole| hole.tries = 0);
        } else {
            self.fail("the venue's answers do not have them");
        }
        self.settle(out, symbol);
        self.shrink(out, symbol);
        is_progress
    }

    /// An answer that was no page.
    pub(crate) fn on_failure(&mut self, out: &mut Outbox, symbol: SymbolIx, why: &str) {
        self.fail(why);
        self.settle(out, symbol);
    }

    /// Nothing of this will come: ends every gap.
    pub(crate) fn give_up(&mut self, out: &mut Outbox, symbol: SymbolIx, why: &str) {
        self.0.iter_mut().for_each(|hole| hole.lose_all(why));
        self.settle(out, symbol);
    }

    fn fail(&mut self, why: &str) {
        if let Some(hole) = self.0.iter_mut().find(|hole| hole.first().is_some()) {
            hole.tries += 1;
            if hole.tries >= TRIES_MAX
                && let Some(first) = hole.first()
            {
                let lost = hole.remove(first, first.saturating_add(WINDOW_IDS - 1));
                hole.lose(lost, &format!("not served in {TRIES_MAX} tries, the last one: {why}"));
                hole.tries = 0;
            }
        }
    }

    /// Ends the gaps that nothing is missing of any more, and those of which nothing more is to come.
    fn settle(&mut self, out: &mut Outbox, symbol: SymbolIx) {
        self.0.retain_mut(|hole| {
            let is_open = hole.first().is_some();
            if !is_open {
                hole.close(out, symbol);
            }
            is_open
        });
    }

    /// Keeps the memory bounded.
    fn shrink(&mut self, out: &mut Outbox, symbol: SymbolIx) {
        while self.0.len() > HOLES_MAX || self.0.iter().map(|hole| hole.ranges.len()).sum::<usize>() > PIECES_MAX {
            let mut oldest = self.0.remove(0);
            oldest.lose_all("more gaps are open than are kept");
            oldest.close(out, symbol);
        }
    }
}

impl Hole {
    /// First id that is asked for.
    fn first(&self) -> Option<i64> {
        let floor = self.floor.unwrap_or(i64::MIN);
        self.ranges.iter().find(|(_, last)| *last >= floor).map(|(first, _)| (*first).max(floor))
    }

    fn misses(&self, id: i64) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&id))
    }

    fn misses_all(&self, first: i64, last: i64) -> bool {
        first <= last && self.ranges.iter().any(|(from, to)| *from <= first && last <= *to)
    }

    /// Takes `first..=last` out of what is missing; how many ids of it were.
    fn remove(&mut self, first: i64, last: i64) -> u64 {
        let mut removed = 0;
        let mut at = 0;
        while let Some((from, to)) = self.ranges.get(at).copied() {
            if to < first || last < from {
                at += 1;
                continue;
            }
            removed += count(from.max(first), to.min(last));
            let before = (from < first).then(|| (from, first - 1));
            let after = (last < to).then(|| (last + 1, to));
            let kept = usize::from(before.is_some()) + usize::from(after.is_some());
            self.ranges.splice(at..=at, before.into_iter().chain(after));
            at += kept;
        }
        removed
    }

    /// What a page says beyond its rows: ids it passes and does not have, and from when on to read on. `true` when
    /// that brings the hole on.
    fn learn(&mut self, is_first: bool, page: &Page) -> bool {
        let Page { covers, is_recent, silent_until, lacks, trades: _ } = *page;
        let Some(wanted) = self.first() else { return false };
        let Some((first, last, time)) = covers else {
            let is_new = silent_until.filter(|until| {
                is_first
                    && self.since.is_some_and(|since| *until > since)
                    && self.until.is_some_and(|end| *until <= end)
            });
            self.since = is_new.or(self.since);
            return is_new.is_some();
        };
        let lost = self.remove(first, last);
        self.lose(lost, lacks.unwrap_or("the venue's history does not have them"));
        let is_older = is_recent && !self.is_old && wanted < first;
        self.is_old |= is_older;
        let is_later = !is_recent && last < wanted && self.since.is_none_or(|since| time > since);
        if is_later {
            self.since = Some(time);
        }
        lost > 0 || (is_first && (is_older || is_later))
    }

    fn lose(&mut self, ids: u64, why: &str) {
        self.lost += ids;
        if ids > 0 && self.why.is_none() {
            self.why = Some(why.into());
        }
    }

    fn lose_all(&mut self, why: &str) {
        let ids = self.ranges.drain(..).map(|(first, last)| count(first, last)).sum();
        self.lose(ids, why);
    }

    /// Emits the end. What is left below the floor was never asked for.
    fn close(&mut self, out: &mut Outbox, symbol: SymbolIx) {
        self.lose_all("the gap is larger than is asked for, its newest part was");
        let (end, detail) = match &self.why {
            None => (GapEnd::Healed, None),
            Some(why) => (GapEnd::Unhealable, Some(format!("{} trades: {why}", self.lost).into())),
        };
        let Self { id, cause, rows, .. } = *self;
        let (symbol, channel) = (Some(symbol), Some(Channel::Trades));
        let (last_missing, until) = (None, None);
        out.push_gap_closed(GapClosed { frame: 0, id, symbol, channel, cause, end, rows, last_missing, until, detail });
    }
}

fn count(first: i64, last: i64) -> u64 {
    last.abs_diff(first).saturating_add(1)
}

/// Open gaps of one instrument; the oldest beyond this are given up.
const HOLES_MAX: usize = 256;
/// Pieces that the open gaps of one instrument may fall into together; the oldest gaps beyond this are given up.
const PIECES_MAX: usize = 1_024;
/// Ids of one gap that are asked for, its newest: more is no gap but another numbering, and would take hours.
const FETCH_IDS_MAX: i64 = 1_000_000;
/// Answers in a row without what was asked for, until it is given up.
const TRIES_MAX: u32 = 6;
/// How many ids are given up then: about what one page holds. What comes after may be served all the same.
const WINDOW_IDS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;
    use crate::{
        adapter::At,
        conn::Conn,
        event::{Note, Side},
        ids::{FramePos, Nanos},
    };

    const SYMBOL: SymbolIx = SymbolIx(0);

    fn outbox() -> Outbox {
        let mut out = Outbox::default();
        out.begin(At { pos: FramePos::FIRST, received: Nanos(0), conn: Conn::FIRST });
        out
    }

    fn holes(out: &mut Outbox, gaps: &[(i64, i64)]) -> Holes {
        let mut holes = Holes::default();
        for (ordinal, gap) in (0..).zip(gaps) {
            let id = GapId { pos: FramePos::FIRST, ordinal };
            let span = Span { since: Some(Micros(gap.0 - 1)), until: Some(Micros(gap.1 + 1)) };
            holes.open(out, SYMBOL, (id, Cause::Sequence), *gap, span);
        }
        holes
    }

    fn trade(id: i64) -> Trade {
        Trade {
            frame: 0,
            symbol: SYMBOL,
            side: Side::Buy,
            flags: Flags::NONE,
            time: Micros(id),
            price: Decimal::ONE,
            qty: Decimal::ONE,
            trade_id: Some(id),
            trade_ref: None,
        }
    }

    fn page(ids: impl IntoIterator<Item = i64>) -> Page {
        Page::contiguous(ids.into_iter().map(|id| (id, trade(id))).collect())
    }

    fn emitted(out: &Outbox) -> Vec<i64> {
        out.events.trades.iter().map(|trade| trade.trade_id.unwrap()).collect()
    }

    fn ends(out: &Outbox) -> Vec<(GapEnd, u64, Option<&str>)> {
        let end = |note: &Note| match note {
            Note::GapClosed(closed) => Some((closed.end, closed.rows, closed.detail.as_deref().map(|_| "why"))),
            Note::Gap(_) | Note::Reject(_) | Note::Session(_) => None,
        };
        // Details are looked at where they matter.
        out.events.notes.iter().filter_map(end).collect()
    }

    fn detail(out: &Outbox) -> String {
        let detail = |note: &Note| match note {
            Note::GapClosed(closed) => closed.detail.as_deref().map(str::to_owned),
            Note::Gap(_) | Note::Reject(_) | Note::Session(_) => None,
        };
        out.events.notes.iter().find_map(detail).unwrap_or_default()
    }

    #[test]
    fn a_page_gives_what_is_missing_and_nothing_else_and_heals() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 6), (9, 9)]);
        assert_eq!(holes.want(100).map(|want| (want.first, want.last)), Some((5, 9)));
        assert!(holes.on_page(&mut out, SYMBOL, page([10, 9, 8, 7, 6, 5, 4, 5])));
        assert_eq!(emitted(&out), [5, 6, 9]);
        assert!(out.events.trades.iter().all(|trade| trade.flags == Flags::BACKFILL));
        assert_eq!(ends(&out), [(GapEnd::Healed, 2, None), (GapEnd::Healed, 1, None)]);
        assert!(holes.is_empty() && holes.want(100).is_none());
    }

    #[test]
    fn a_page_that_ends_early_leaves_the_rest_to_be_asked_for() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 2_000)]);
        assert_eq!(holes.want(1_000).map(|want| (want.first, want.last)), Some((5, 1_004)));
        assert!(holes.on_page(&mut out, SYMBOL, page(5..=300)));
        assert_eq!(holes.want(1_000).map(|want| (want.first, want.last)), Some((301, 1_300)));
        assert!(ends(&out).is_empty());
    }

    #[test]
    fn what_a_page_passes_and_does_not_have_is_lost() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 8)]);
        holes.on_page(&mut out, SYMBOL, page([4, 5, 7, 9]));
        assert_eq!((emitted(&out), ends(&out)), (vec![5, 7], vec![(GapEnd::Unhealable, 2, Some("why"))]));
        assert_eq!(detail(&out), "2 trades: the venue's history does not have them");
    }

    #[test]
    fn a_history_that_begins_later_has_lost_what_was_asked_for_before() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 8)]);
        holes.on_page(&mut out, SYMBOL, page([7, 8, 9]).asked_from(5));
        assert_eq!((emitted(&out), ends(&out)), (vec![7, 8], vec![(GapEnd::Unhealable, 2, Some("why"))]));
    }

    #[test]
    fn empty_answers_are_borne_a_few_times() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 8), (20, 20)]);
        for _ in 1..TRIES_MAX {
            assert!(!holes.on_page(&mut out, SYMBOL, page([])));
        }
        assert!(ends(&out).is_empty());
        holes.on_failure(&mut out, SYMBOL, "HTTP 404");
        assert_eq!(ends(&out), [(GapEnd::Unhealable, 0, Some("why"))]);
        assert_eq!(detail(&out), "4 trades: not served in 6 tries, the last one: HTTP 404");
        assert_eq!(holes.want(100).map(|want| (want.first, want.tries)), Some((20, 0)));
    }

    #[test]
    fn a_history_by_time_is_read_on_from_where_the_page_ended() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(50, 3_000)]);
        assert_eq!(holes.want(9).and_then(|want| want.since), Some(Micros(49)));
        assert!(!holes.on_page(&mut out, SYMBOL, page(10..=48)));
        assert_eq!(holes.want(9).map(|want| (want.since, want.tries)), Some((Some(Micros(49)), 1)));
        assert!(holes.on_page(&mut out, SYMBOL, page(40..=1_039)));
        assert_eq!(holes.want(9).map(|want| (want.first, want.since)), Some((1_040, Some(Micros(1_039)))));
    }

    #[test]
    fn an_hour_without_trades_is_passed_over_as_long_as_the_gap_lasts() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(50, 3_000)]);
        let silent = |until| Page { silent_until: Some(Micros(until)), ..Page::default() };
        assert!(holes.on_page(&mut out, SYMBOL, silent(2_000)));
        assert_eq!(holes.want(9).and_then(|want| want.since), Some(Micros(2_000)));
        assert!(!holes.on_page(&mut out, SYMBOL, silent(2_000)));
        assert!(!holes.on_page(&mut out, SYMBOL, silent(9_000)));
    }

    #[test]
    fn the_recent_trades_say_that_older_ones_are_elsewhere() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 8)]);
        assert!(!holes.want(9).unwrap().is_old);
        let recent = Page { is_recent: true, ..page([8, 9, 10]) };
        assert!(holes.on_page(&mut out, SYMBOL, recent));
        assert!(holes.want(9).unwrap().is_old);
        assert_eq!(emitted(&out), [8]);
    }

    #[test]
    fn a_row_for_several_ids_is_taken_only_if_all_of_them_are_missing() {
        let mut out = outbox();
        let mut holes = holes(&mut out, &[(5, 9)]);
        holes.on_page(&mut out, SYMBOL, Page::contiguous(vec![(4, trade(5)), (6, trade(8)), (9, trade(10))]));
        assert_eq!((emitted(&out), ends(&out)), (vec![8], vec![(GapEnd::Unhealable, 1, Some("why"))]));
        assert_eq!(detail(&out), "2 trades: the venue's history does not have them");
    }

    #[test]
    fn a_gap_too_large_is_asked_for_in_its_newest_part() {
        let mut out = outbox();
        let last = 10 * FETCH_IDS_MAX;
        let mut holes = holes(&mut out, &[(1, last)]);
        let first = last - FETCH_IDS_MAX + 1;
        assert_eq!(holes.want(10).map(|want| want.first), Some(first));
        assert!(holes.fill(&mut out, SYMBOL, (7, 7)), "late trades of the other part are still taken");
        holes.on_page(&mut out, SYMBOL, Page { trades: vec![], covers: Some((first, last, Micros(0))), ..page([]) });
        assert_eq!(ends(&out), [(GapEnd::Unhealable, 1, Some("why"))]);
        assert!(holes.is_empty());
    }

    #[test]
    fn many_gaps_and_pieces_stay_bounded_and_what_is_given_up_is_said() {
        let mut out = outbox();
        let gaps: Vec<_> = (0..1_000).map(|at| (at * 10, at * 10 + 4)).collect();
        let mut holes = holes(&mut out, &gaps);
        assert_eq!((holes.0.len(), ends(&out).len()), (HOLES_MAX, 1_000 - HOLES_MAX));
        for (first, _) in gaps {
            holes.fill(&mut out, SYMBOL, (first + 1, first + 1));
            holes.fill(&mut out, SYMBOL, (first + 3, first + 3));
        }
        assert!(holes.0.iter().map(|hole| hole.ranges.len()).sum::<usize>() <= PIECES_MAX);
        let mut holes = self::holes(&mut out, &[(0, 100_000)]);
        assert!((0..50_000).filter(|id| holes.fill(&mut out, SYMBOL, (id * 2, id * 2))).count() > PIECES_MAX / 2);
        assert!(holes.is_empty());
    }

    #[test]
    fn the_shape_of_an_earlier_version_is_read() {
        let old = r#"[{"id":{"pos":3,"ordinal":0},"cause":"sequence","ranges":[[5,8]],"rows":1}]"#;
        let holes: Holes = serde_json::from_str(old).unwrap();
        assert_eq!(holes.want(100).map(|want| (want.first, want.last, want.since)), Some((5, 8, None)));
    }

    proptest! {
        /// Whatever pages come in whatever order, with late trades between them and restarts: each missing id is
        /// emitted at most once, none that was not missing, and at the end each is accounted for.
        #[test]
        fn each_missing_id_comes_once_and_is_accounted_for(
            gaps in prop::collection::btree_set(0i64..60, 1..12),
            pages in prop::collection::vec((0i64..200, 1i64..40, prop::collection::btree_set(0i64..200, 0..9)), 0..40),
            late in prop::collection::vec(0i64..200, 0..40),
        ) {
            let gaps: Vec<_> = gaps.into_iter().map(|gap| (gap * 3, gap * 3 + 1)).collect();
            let mut out = outbox();
            let mut holes = holes(&mut out, &gaps);
            let mut came = Vec::new();
            for (at, (from, length, absent)) in pages.into_iter().enumerate() {
                holes.on_page(&mut out, SYMBOL, page((from..from + length).filter(|id| !absent.contains(id))));
                if let Some(id) = late.get(at).filter(|id| holes.fill(&mut out, SYMBOL, (**id, **id))) {
                    came.push(*id);
                }
                holes = serde_json::from_value(serde_json::to_value(&holes).unwrap()).unwrap();
            }
            holes.give_up(&mut out, SYMBOL, "the test ends");
            let mut ids = emitted(&out);
            ids.extend(came);
            ids.sort_unstable();
            let whole = ids.len();
            ids.dedup();
            prop_assert_eq!(ids.len(), whole);
            prop_assert!(ids.iter().all(|id| gaps.iter().any(|(first, last)| (first..=last).contains(&id))));
            let ends = ends(&out);
            prop_assert_eq!(ends.len(), gaps.len());
            prop_assert_eq!(ends.iter().map(|end| end.1).sum::<u64>(), whole as u64);
            let is_whole = whole as i64 == gaps.iter().map(|(first, last)| last - first + 1).sum::<i64>();
            prop_assert_eq!(ends.iter().all(|end| end.0 == GapEnd::Healed), is_whole);
        }
    }
}
