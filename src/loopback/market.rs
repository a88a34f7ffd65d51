//! A plausible market from a seed: order books that trades eat into and orders refill, one per instrument.
//!
//! The market moves in steps. A step belongs to one instrument: a few trades against the best levels, then
//! changes of single levels, mostly near the top. No price of a side changes twice in one step, so a step's
//! changes are one book message. Which steps follow each other depends on the seed alone, never on time or on
//! who listens; time only labels them.
//!
//! Invariants: the best bid is below the best ask; a removed level existed before the step; trade ids count up
//! by one per instrument; update ids grow, by one where the venue's do.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "prices are positive and far below 2^63, indexes far below 2^32"
)]

use std::collections::VecDeque;

use super::{rng::Rng, venue::Instrument};

/// How a venue's market behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Update ids count up by one; otherwise they jump.
    pub(super) is_contiguous: bool,
    /// Most level changes in a step beside those of its trades.
    pub(super) changes_max: u64,
    /// How many levels from the top the changes reach.
    pub(super) focus: u64,
    /// Some trades are prints outside the book.
    pub(super) has_off_book: bool,
    /// Levels a side, about.
    pub(super) levels: usize,
    /// Trades kept per instrument to be asked for again.
    pub(super) trades_kept: usize,
}

/// All instruments of one venue.
#[derive(Debug)]
pub(super) struct Market {
    pub(super) symbols: Vec<Symbol>,
    rng: Rng,
    style: Style,
}

/// One instrument's state.
#[derive(Debug)]
pub(super) struct Symbol {
    pub(super) instrument: Instrument,
    pub(super) bids: Side,
    pub(super) asks: Side,
    /// Id of the last change.
    pub(super) update_id: u64,
    /// The latest trades, oldest first; their ids have no holes.
    pub(super) trades: VecDeque<Trade>,
    next_trade_id: u64,
    time_us: i64,
}

/// One side of a book, best level last. Ordered by key: the price of a bid, the negated price of an ask.
#[derive(Debug, Default)]
pub(super) struct Side {
    levels: Vec<Level>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    key: i64,
    qty: u64,
}

/// One trade. Price and quantity in smallest steps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trade {
    pub(super) id: u64,
    pub(super) price: u64,
    pub(super) qty: u64,
    /// The aggressor bought.
    pub(super) is_buy: bool,
    /// A print outside the book.
    pub(super) is_off_book: bool,
    /// Microseconds since the Unix epoch; grows from trade to trade of an instrument.
    pub(super) time_us: i64,
}

/// A level as it is after a step. Quantity 0: removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Change {
    pub(super) is_bid: bool,
    pub(super) price: u64,
    pub(super) qty: u64,
}

/// What happened in one step. Reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Index of the instrument.
    pub(super) symbol: usize,
    pub(super) trades: Vec<Trade>,
    pub(super) changes: Vec<Change>,
    /// Id of the last change before the step.
    pub(super) previous_id: u64,
    /// Id of the step's first change; meaningless without changes.
    pub(super) first_id: u64,
    /// Id of the step's last change.
    pub(super) last_id: u64,
    pub(super) time_us: i64,
    /// The best bid or ask (price or quantity) is not what it was.
    pub(super) is_top_changed: bool,
    top_before: Option<Top>,
    changes_left: u64,
}

/// Best bid and ask: price, quantity.
pub(super) type Top = [(u64, u64); 2];

impl Market {
    /// The market of `instruments` as it is before its first step.
    pub(super) fn new(instruments: Vec<Instrument>, style: Style, seed: u64, stream: u64) -> Self {
        let mut rng = Rng::new(seed, stream);
        let symbols = instruments.into_iter().map(|instrument| Symbol::new(instrument, style, &mut rng)).collect();
        Self { symbols, rng, style }
    }

    /// Chooses the instrument of the next step. Nothing has moved yet.
    pub(super) fn choose(&mut self, step: &mut Step) {
        let count = self.symbols.len() as u64;
        let is_even = self.rng.next() & 1 == 0;
        step.symbol = if is_even { self.rng.below(count) } else { self.rng.near_zero(count) } as usize;
    }

    /// Begins the step: makes its trades.
    pub(super) fn begin(&mut self, now_us: i64, step: &mut Step) {
        let Self { symbols, rng, style } = self;
        let symbol = &mut symbols[step.symbol];
        symbol.time_us = now_us.max(symbol.time_us + 1);
        step.time_us = symbol.time_us;
        step.trades.clear();
        step.changes.clear();
        step.previous_id = symbol.update_id;
        step.first_id = 0;
        step.last_id = symbol.update_id;
        step.top_before = symbol.top();
        step.changes_left = 1 + rng.below(style.changes_max);
        let trades = rng.below(4).saturating_sub(1);
        for _ in 0..trades {
            symbol.trade(rng, style, step);
        }
    }

    /// Makes one more change of the step; false when there is none left.
    pub(super) fn advance(&mut self, step: &mut Step) -> bool {
        let Some(left) = step.changes_left.checked_sub(1) else { return false };
        step.changes_left = left;
        self.symbols[step.symbol].change(&mut self.rng, &self.style, step);
        true
    }

    /// Ends the step.
    pub(super) fn finish(&self, step: &mut Step) {
        step.is_top_changed = self.symbols[step.symbol].top() != step.top_before;
    }
}

impl Symbol {
    fn new(instrument: Instrument, style: Style, rng: &mut Rng) -> Self {
        let mut side = |is_bid: bool| {
            let mut price = instrument.price_start + i64::from(!is_bid);
            let mut levels = Vec::with_capacity(style.levels * 2);
            for _ in 0..style.levels {
                levels.push(Level { key: key(is_bid, price as u64), qty: quantity(&instrument, rng) });
                let gap = 1 + rng.below(3) as i64;
                price += if is_bid { -gap } else { gap };
            }
            levels.reverse();
            Side { levels }
        };
        let (bids, asks) = (side(true), side(false));
        let update_id = 50_000_000_000 + rng.below(1_000_000_000);
        let next_trade_id = 1_000_000 + rng.below(3_000_000_000);
        Self { bids, asks, update_id, trades: VecDeque::new(), next_trade_id, time_us: 0, instrument }
    }

    /// Best bid and ask, if both sides have any.
    pub(super) fn top(&self) -> Option<Top> {
        Some([self.bids.best()?, self.asks.best()?])
    }

    /// Id of the latest trade; the id before the first when there was none.
    pub(super) fn last_trade_id(&self) -> u64 {
        self.next_trade_id - 1
    }

    /// Trades with ids from `first` on, oldest first, as far as they are kept.
    pub(super) fn trades_from(&self, first: u64) -> impl DoubleEndedIterator<Item = &Trade> {
        let oldest = self.next_trade_id - self.trades.len() as u64;
        let skipped = first.saturating_sub(oldest).min(self.trades.len() as u64) as usize;
        self.trades.range(skipped..)
    }

    fn trade(&mut self, rng: &mut Rng, style: &Style, step: &mut Step) {
        let Some([bid, ask]) = self.top() else { return };
        let (start, mid) = (self.instrument.price_start, (bid.0 + ask.0) as i64 / 2);
        // The further the price has gone from where it began, the likelier it comes back.
        let buy_per_mille = (500 + (start - mid) * 5_000 / start).clamp(100, 900) as u64;
        let is_buy = rng.below(1_000) < buy_per_mille;
        let (price, available) = if is_buy { ask } else { bid };
        let is_off_book = style.has_off_book && rng.below(500) == 0;
        let side = if is_buy { &self.asks } else { &self.bids };
        let takes_all = side.levels.len() > LEVELS_MIN && rng.below(5) < 2;
        let qty = if takes_all { available } else { 1 + rng.below(available.max(2) - 1) };
        let qty = qty.min(available);
        let trade = Trade { id: self.next_trade_id, price, qty, is_buy, is_off_book, time_us: self.time_us };
        if !is_off_book {
            let left = available - qty;
            if left == 0 && !takes_all {
                return; // The last of a short side stays.
            }
            self.side(!is_buy).set(key(!is_buy, price), left);
            self.record(rng, style, step, Change { is_bid: !is_buy, price, qty: left });
        }
        self.next_trade_id += 1;
        self.time_us += 1;
        if self.trades.len() == style.trades_kept {
            self.trades.pop_front();
        }
        self.trades.push_back(trade);
        step.trades.push(trade);
    }

    fn change(&mut self, rng: &mut Rng, style: &Style, step: &mut Step) {
        let is_bid = rng.next() & 1 == 0;
        let spread = self.top().map_or(1, |[bid, ask]| ask.0 - bid.0);
        let qty = quantity(&self.instrument, rng);
        let side = if is_bid { &self.bids } else { &self.asks };
        let len = side.levels.len();
        let from_best = rng.near_zero(style.focus.min(len as u64)) as usize;
        let at = len - 1 - from_best;
        let here = side.levels[at].key;
        let kind = rng.below(16);
        let (key, qty) = if spread > 1 && kind < 3 {
            (side.levels[len - 1].key + 1 + rng.below((spread - 1).min(4)) as i64, qty)
        } else if kind < 9 {
            (here, qty)
        } else if len < style.levels + rng.below(24) as usize {
            (here - 1 - rng.below(3) as i64, qty)
        } else if len > LEVELS_MIN {
            (if kind < 12 { side.levels[0].key } else { here }, 0)
        } else {
            return;
        };
        let price = key.unsigned_abs();
        let is_in_book = side.find(key).is_ok();
        let is_insert = key != here && qty > 0;
        if key == 0 || (key > 0) != is_bid || is_insert && is_in_book || step.has(is_bid, price) {
            return;
        }
        self.side(is_bid).set(key, qty);
        self.record(rng, style, step, Change { is_bid, price, qty });
    }

    fn record(&mut self, rng: &mut Rng, style: &Style, step: &mut Step, change: Change) {
        self.update_id += if style.is_contiguous { 1 } else { 1 + rng.below(60) };
        if step.first_id == 0 {
            step.first_id = self.update_id;
        }
        step.last_id = self.update_id;
        match step.changes.iter_mut().find(|known| known.is_bid == change.is_bid && known.price == change.price) {
            Some(known) => known.qty = change.qty,
            None => step.changes.push(change),
        }
    }

    fn side(&mut self, is_bid: bool) -> &mut Side {
        if is_bid { &mut self.bids } else { &mut self.asks }
    }
}

impl Side {
    /// Levels from the best on: price, quantity.
    pub(super) fn best_first(&self) -> impl Iterator<Item = (u64, u64)> {
        self.levels.iter().rev().map(|level| (level.key.unsigned_abs(), level.qty))
    }

    /// Key of the last level that a view of `depth` levels shows; `None` when it shows the whole side.
    pub(super) fn bound(&self, depth: usize) -> Option<i64> {
        self.levels.len().checked_sub(depth).map(|at| self.levels[at].key)
    }

    /// Levels a view of `depth` shows whose key is below `bound`: price, quantity.
    pub(super) fn entered(&self, depth: usize, bound: i64) -> impl Iterator<Item = (u64, u64)> {
        let shown = &self.levels[self.levels.len().saturating_sub(depth)..];
        shown.iter().take_while(move |level| level.key < bound).map(|level| (level.key.unsigned_abs(), level.qty))
    }

    fn best(&self) -> Option<(u64, u64)> {
        self.levels.last().map(|level| (level.key.unsigned_abs(), level.qty))
    }

    fn find(&self, key: i64) -> Result<usize, usize> {
        // Nearly every search ends near the best level.
        let mut at = self.levels.len();
        for _ in 0..8 {
            match at.checked_sub(1) {
                Some(below) if self.levels[below].key > key => at = below,
                Some(below) if self.levels[below].key == key => return Ok(below),
                Some(_) | None => return Err(at),
            }
        }
        self.levels[..at].binary_search_by_key(&key, |level| level.key)
    }

    fn set(&mut self, key: i64, qty: u64) {
        match self.find(key) {
            Ok(at) if qty == 0 => drop(self.levels.remove(at)),
            Ok(at) => self.levels[at].qty = qty,
            Err(at) => self.levels.insert(at, Level { key, qty }),
        }
    }
}

impl Step {
    /// Whether the step changed this level.
    pub(super) fn has(&self, is_bid: bool, price: u64) -> bool {
        self.changes.iter().any(|known| known.is_bid == is_bid && known.price == price)
    }
}

/// Where a price stands on its side: a greater key is nearer to the best.
pub(super) fn key(is_bid: bool, price: u64) -> i64 {
    if is_bid { price as i64 } else { -(price as i64) }
}

fn quantity(instrument: &Instrument, rng: &mut Rng) -> u64 {
    1 + rng.near_zero(instrument.qty_usual * 4)
}

/// A side never gets shorter than this.
const LEVELS_MIN: usize = 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::venue::Venue, *};

    fn style(is_contiguous: bool) -> Style {
        Style { is_contiguous, changes_max: 12, focus: 40, has_off_book: false, levels: 100, trades_kept: 50 }
    }

    fn market(seed: u64) -> Market {
        Market::new((0..5).map(|index| Instrument::nth(Venue::BinanceSpot, index)).collect(), style(true), seed, 0)
    }

    fn steps(market: &mut Market, count: usize, mut each: impl FnMut(&Market, &Step)) {
        let mut step = Step::default();
        for tick in 0..count {
            market.choose(&mut step);
            market.begin(tick as i64, &mut step);
            while market.advance(&mut step) {}
            market.finish(&mut step);
            each(market, &step);
        }
    }

    #[test]
    fn one_seed_is_one_market_and_another_seed_another() {
        let run = |seed| {
            let mut seen = Vec::new();
            steps(&mut market(seed), 5_000, |_, step| {
                seen.push((step.symbol, step.trades.clone(), step.changes.clone()))
            });
            seen
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn changes_applied_to_the_first_book_give_the_last() {
        let mut market = market(3);
        let whole = |symbol: &Symbol| -> BTreeMap<(bool, u64), u64> {
            let sides = [(true, &symbol.bids), (false, &symbol.asks)].into_iter();
            sides.flat_map(|(is_bid, side)| side.best_first().map(move |(price, qty)| ((is_bid, price), qty))).collect()
        };
        let mut books: Vec<_> = market.symbols.iter().map(whole).collect();
        steps(&mut market, 100_000, |market, step| {
            let book = &mut books[step.symbol];
            for change in &step.changes {
                let level = (change.is_bid, change.price);
                if change.qty == 0 {
                    assert!(book.remove(&level).is_some(), "a level that was not there is removed: {change:?}");
                } else {
                    book.insert(level, change.qty);
                }
            }
            let [bid, ask] = market.symbols[step.symbol].top().unwrap();
            assert!(bid.0 < ask.0);
            assert!(ask.0 - bid.0 < 200, "the spread ran away: {}", ask.0 - bid.0);
        });
        for (symbol, book) in market.symbols.iter().zip(&books) {
            assert_eq!(&whole(symbol), book, "{}", symbol.instrument.symbol);
            assert!((LEVELS_MIN..200).contains(&symbol.bids.levels.len()), "{}", symbol.bids.levels.len());
        }
    }

    #[test]
    fn trades_have_ids_without_holes_and_growing_times() {
        let mut last: BTreeMap<usize, Trade> = BTreeMap::new();
        steps(&mut market(9), 20_000, |_, step| {
            for trade in &step.trades {
                if let Some(before) = last.insert(step.symbol, *trade) {
                    assert_eq!(trade.id, before.id + 1);
                    assert!(trade.time_us > before.time_us);
                }
                assert!(trade.qty > 0);
            }
        });
        assert_eq!(last.len(), 5);
    }

    #[test]
    fn kept_trades_are_found_by_id() {
        let mut market = market(1);
        steps(&mut market, 5_000, |_, _| {});
        let symbol = &market.symbols[0];
        let last = symbol.last_trade_id();
        let ids: Vec<u64> = symbol.trades_from(last - 9).map(|trade| trade.id).collect();
        assert_eq!(ids, (last - 9..=last).collect::<Vec<_>>());
        assert_eq!(symbol.trades_from(0).count(), 50);
        assert_eq!(symbol.trades_from(last + 1).count(), 0);
    }

    #[test]
    fn update_ids_chain_from_step_to_step() {
        for is_contiguous in [true, false] {
            let instruments = vec![Instrument::nth(Venue::BinanceUsdm, 0)];
            let mut market = Market::new(instruments, style(is_contiguous), 5, 0);
            let mut last = market.symbols[0].update_id;
            steps(&mut market, 10_000, |_, step| {
                assert_eq!(step.previous_id, last);
                if !step.changes.is_empty() {
                    assert!(step.first_id > last && step.last_id >= step.first_id);
                    assert!(!is_contiguous || step.first_id == last + 1);
                    last = step.last_id;
                }
            });
        }
    }
}
