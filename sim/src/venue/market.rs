//! A small market: every trade it made and every change of its books is kept, because it is the truth.
//!
//! Invariants: the best bid is below the best ask; trade ids count up by one; update ids grow.

use std::collections::BTreeMap;

use crate::rng::Rng;

/// One instrument.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// As the venue spells it.
    pub name: &'static str,
    /// Quantities by price, both in smallest steps.
    pub bids: BTreeMap<u64, u64>,
    /// The same of the other side.
    pub asks: BTreeMap<u64, u64>,
    /// Id of the last change of the book.
    pub update_id: u64,
    /// Every trade so far; ids have no holes.
    pub trades: Vec<Trade>,
    /// Every book message so far.
    pub messages: Vec<Message>,
}

/// One message of changes.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// First and last update id.
    pub ids: (u64, u64),
    /// Microseconds since 1970.
    pub time_us: i64,
    /// How many levels it changes.
    pub levels: usize,
}

/// One trade.
#[derive(Clone, Copy, Debug)]
pub struct Trade {
    /// Counts up by one.
    pub id: u64,
    /// In smallest steps.
    pub price: u64,
    /// In smallest steps.
    pub qty: u64,
    /// The aggressor bought.
    pub is_buy: bool,
    /// Microseconds since 1970.
    pub time_us: i64,
}

/// Changed levels: side (bid) and price, new quantity.
pub type Changes = BTreeMap<(bool, u64), u64>;

/// What one step brought.
#[derive(Clone, Debug)]
pub struct Step {
    /// The trades made: indices into the symbol's list.
    pub trades: std::ops::Range<usize>,
    /// Changed levels.
    pub changes: Changes,
    /// Id of the last change before.
    pub previous_id: u64,
    /// Id of the first change.
    pub first_id: u64,
    /// Id of the last change.
    pub last_id: u64,
    /// Microseconds since 1970.
    pub time_us: i64,
}

impl Symbol {
    /// A market before its first step.
    #[must_use]
    pub fn new(name: &'static str, rng: &mut Rng) -> Self {
        let side = |rng: &mut Rng, is_bid: bool| {
            let level = |at: u64| if is_bid { START - 1 - 2 * at } else { START + 2 * at };
            (0..LEVELS_MAX as u64 - 2).map(|at| (level(at), quantity(rng))).collect()
        };
        let (bids, asks) = (side(rng, true), side(rng, false));
        let update_id = rng.between(1_000, 2_000_000_000);
        let first = Trade { id: rng.between(1, 3_000_000_000), price: START, qty: 1, is_buy: true, time_us: 0 };
        Self { name, bids, asks, update_id, trades: vec![first], messages: Vec::new() }
    }

    /// Makes trades and changes. `is_contiguous`: update ids count up by one.
    pub fn step(&mut self, rng: &mut Rng, now_us: i64, is_contiguous: bool) -> Step {
        let from = self.trades.len();
        let mut changes = BTreeMap::new();
        for _ in 0..rng.below(4).saturating_sub(1) {
            self.trade(rng, now_us, &mut changes);
        }
        for _ in 0..rng.below(4) {
            self.change(rng, &mut changes);
        }
        let previous_id = self.update_id;
        let (first_id, last_id) = if is_contiguous {
            (previous_id + 1, previous_id + changes.len() as u64)
        } else {
            let first = previous_id + 1 + rng.below(40);
            (first, first + rng.below(20))
        };
        let time_us = self.trades.last().map_or(now_us, |trade| trade.time_us.max(now_us));
        if !changes.is_empty() {
            self.update_id = last_id;
            self.messages.push(Message { ids: (first_id, last_id), time_us, levels: changes.len() });
        }
        Step { trades: from..self.trades.len(), changes, previous_id, first_id, last_id, time_us }
    }

    /// Best bid and ask: price, quantity.
    #[must_use]
    pub fn top(&self) -> [(u64, u64); 2] {
        let level = |level: Option<(&u64, &u64)>| level.map_or((0, 0), |(price, qty)| (*price, *qty));
        [level(self.bids.last_key_value()), level(self.asks.first_key_value())]
    }

    /// The trade with this id.
    #[must_use]
    pub fn trade_of(&self, id: u64) -> Option<&Trade> {
        let at = usize::try_from(id.checked_sub(self.trades[0].id)?).ok()?;
        self.trades.get(at)
    }

    /// The last trade so far.
    #[must_use]
    pub fn last_trade(&self) -> Trade {
        self.trades[self.trades.len() - 1]
    }

    fn trade(&mut self, rng: &mut Rng, now_us: i64, changes: &mut BTreeMap<(bool, u64), u64>) {
        let is_buy = rng.chance(500);
        let [bid, ask] = self.top();
        let (price, available) = if is_buy { ask } else { bid };
        let is_bid = !is_buy;
        let takes_all = rng.chance(300) && self.side(is_bid).len() > LEVELS_MIN;
        let qty = if takes_all { available } else { 1 + rng.below(available) };
        if qty == available && !takes_all {
            return;
        }
        self.set(is_bid, price, available - qty, changes);
        let before = self.last_trade();
        let time_us = now_us.max(before.time_us + 1);
        self.trades.push(Trade { id: before.id + 1, price, qty, is_buy, time_us });
    }

    fn change(&mut self, rng: &mut Rng, changes: &mut BTreeMap<(bool, u64), u64>) {
        let is_bid = rng.chance(500);
        let [bid, ask] = self.top();
        let near = rng.below(24);
        let len = self.side(is_bid).len();
        let prices: Vec<u64> = self.side(is_bid).keys().copied().collect();
        let price = match rng.below(3) {
            0 if is_bid => (ask.0 - 1).saturating_sub(near).max(1),
            0 => bid.0 + 1 + near,
            _ => *rng.pick(&prices),
        };
        let is_there = self.side(is_bid).contains_key(&price);
        let qty = if is_there && len > LEVELS_MIN && rng.chance(300) { 0 } else { quantity(rng) };
        if !is_there && len >= LEVELS_MAX {
            return;
        }
        self.set(is_bid, price, qty, changes);
    }

    fn set(&mut self, is_bid: bool, price: u64, qty: u64, changes: &mut BTreeMap<(bool, u64), u64>) {
        let side = if is_bid { &mut self.bids } else { &mut self.asks };
        if qty == 0 {
            side.remove(&price);
        } else {
            side.insert(price, qty);
        }
        changes.insert((is_bid, price), qty);
    }

    fn side(&self, is_bid: bool) -> &BTreeMap<u64, u64> {
        if is_bid { &self.bids } else { &self.asks }
    }
}

fn quantity(rng: &mut Rng) -> u64 {
    rng.between(1, 300_000_000)
}

const START: u64 = 10_000;
/// A side never gets shorter ...
const LEVELS_MIN: usize = 5;
/// ... nor longer: all of it is what a checksum covers.
const LEVELS_MAX: usize = 10;
