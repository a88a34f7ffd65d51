//! One order book: price levels of two sides, as the venue wrote them.
//!
//! Kept where a venue's proof needs the book itself (a checksum), and by whoever rebuilds a book from
//! events. Levels lie in sorted vectors with the best one last: changes are most frequent there and move
//! the least memory.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{Level, Side};

/// Two sides of price levels. Prices differ in value; text (trailing zeros) is that of the last message.
///
/// `N` is what may be noted beside a level until it changes (see [`levels_mut`](Self::levels_mut)); it is no part of the
/// book, of its comparison or of its serialized form.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(bound = "N: Copy + Default")]
pub struct Book<N: Copy = ()> {
    bids: Ladder<N>,
    asks: Ladder<N>,
}

/// One side's levels, the best one last.
#[derive(Clone, Debug, Default)]
struct Ladder<N> {
    levels: Vec<Rung<N>>,
    /// So many at the front are cut off: a book that is cut after every message would move all of them every time.
    cut: usize,
}

/// One level: price, quantity and note.
type Rung<N> = (Decimal, Decimal, N);

impl<N: Copy + Default> Book<N> {
    /// Empties both sides, keeping their memory.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// Adds many levels at once, in any order; of two with one price the later counts, zero quantities are
    /// dropped. Cheaper than [`set`](Self::set) one by one for a snapshot.
    pub fn extend(&mut self, side: Side, levels: impl Iterator<Item = (Decimal, Decimal)>) {
        let ladder = self.ladder_mut(side);
        ladder.tidy();
        ladder.levels.extend(levels.map(|(price, qty)| (price, qty, N::default())));
        ladder.levels.sort_by(|a, b| towards_best(side, a.0, b.0));
        let mut kept: Vec<Rung<N>> = Vec::with_capacity(ladder.levels.len());
        for level in &ladder.levels {
            match kept.last_mut() {
                Some(last) if last.0 == level.0 => *last = *level,
                Some(_) | None => kept.push(*level),
            }
        }
        kept.retain(|(_, qty, _)| !qty.is_zero());
        ladder.levels = kept;
    }

    /// [`extend`](Self::extend) with the levels of a snapshot, each on its own side.
    pub fn extend_both(&mut self, levels: &[Level]) {
        for side in [Side::Buy, Side::Sell] {
            self.extend(side, levels.iter().filter(|level| level.side == side).map(|level| (level.price, level.qty)));
        }
    }

    /// Sets the quantity at a price; zero removes the level.
    #[inline]
    pub fn set(&mut self, side: Side, price: Decimal, qty: Decimal) {
        let ladder = self.ladder_mut(side);
        ladder.set(side, price, qty, ladder.levels.len());
    }

    /// [`set`](Self::set)s the levels of a message. Cheapest when each side's come best first, as most venues send them.
    #[inline]
    pub fn apply(&mut self, levels: &[Level]) {
        let is_run =
            |a: &Level, b: &Level| a.side == b.side && towards_best(a.side, b.price, a.price) == Ordering::Less;
        for run in levels.chunk_by(is_run) {
            let ladder = self.ladder_mut(run[0].side);
            if run.len() < MERGE_MIN {
                let mut end = ladder.levels.len();
                for Level { side, price, qty, .. } in run {
                    end = ladder.set(*side, *price, *qty, end);
                }
            } else {
                ladder.merge(run);
            }
        }
    }

    /// Keeps the best `depth` levels of each side.
    #[inline]
    pub fn truncate(&mut self, depth: usize) {
        self.bids.truncate(depth);
        self.asks.truncate(depth);
    }

    /// Keeps the best `depth` levels of one side.
    pub fn truncate_side(&mut self, side: Side, depth: usize) {
        self.ladder_mut(side).truncate(depth);
    }

    /// Price and quantity of a side's levels, best first.
    #[inline]
    pub fn levels(&self, side: Side) -> impl ExactSizeIterator<Item = (Decimal, Decimal)> {
        self.ladder(side).pairs().rev()
    }

    /// Bids and asks, best first, each level with what is noted beside it: the default from its last change on.
    #[inline]
    pub(crate) fn levels_mut(&mut self) -> [impl Iterator<Item = (Decimal, Decimal, &mut N)>; 2] {
        [&mut self.bids, &mut self.asks].map(|Ladder { levels, cut }| {
            levels[*cut..].iter_mut().rev().map(|(price, qty, note)| (*price, *qty, note))
        })
    }

    /// Best bid at or above best ask: two venues' worth of truth in one book, or a lost change.
    #[must_use]
    pub fn is_crossed(&self) -> bool {
        matches!((self.bids.kept().last(), self.asks.kept().last()), (Some(bid), Some(ask)) if bid.0 >= ask.0)
    }

    #[inline]
    fn ladder(&self, side: Side) -> &Ladder<N> {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
            Side::Unknown => unreachable!("a book level has a side"),
        }
    }

    #[inline]
    fn ladder_mut(&mut self, side: Side) -> &mut Ladder<N> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
            Side::Unknown => unreachable!("a book level has a side"),
        }
    }
}

impl<N: Copy> Ladder<N> {
    fn clear(&mut self) {
        self.levels.clear();
        self.cut = 0;
    }

    /// Sets the quantity at a price, which is to be found or put before `end`. Gives where worse prices end.
    #[inline]
    fn set(&mut self, side: Side, price: Decimal, qty: Decimal, end: usize) -> usize
    where
        N: Default,
    {
        let Self { levels, cut } = self;
        let (found, at) = match find(side, &levels[*cut..end], price) {
            Ok(at) => (true, *cut + at),
            Err(at) => (false, *cut + at),
        };
        match (found, qty.is_zero()) {
            (true, true) => drop(levels.remove(at)),
            (true, false) => levels[at] = (price, qty, N::default()),
            (false, true) => {}
            (false, false) => levels.insert(at, (price, qty, N::default())),
        }
        at
    }

    /// Sets many levels, best first, each worse than the one before: what lies nearer is moved once, not once a level.
    fn merge(&mut self, run: &[Level])
    where
        N: Default,
    {
        let Some(Level { side, price: worst, .. }) = run.last() else { return };
        let kept = &self.levels[self.cut..];
        let begin = self.cut + find(*side, kept, *worst).unwrap_or_else(|at| at);
        let mut changes = run.iter().rev().map(|level| (level.price, level.qty, N::default())).peekable();
        for level in self.levels.split_off(begin) {
            let mut is_replaced = false;
            while let Some(change) = changes.peek().copied() {
                match towards_best(*side, change.0, level.0) {
                    Ordering::Greater => break,
                    Ordering::Equal => is_replaced = true,
                    Ordering::Less => {}
                }
                self.levels.extend(changes.next().filter(|(_, qty, _)| !qty.is_zero()));
            }
            if !is_replaced {
                self.levels.push(level);
            }
        }
        self.levels.extend(changes.filter(|(_, qty, _)| !qty.is_zero()));
    }

    /// Keeps the best `depth` levels.
    #[inline]
    fn truncate(&mut self, depth: usize) {
        self.cut = self.cut.max(self.levels.len().saturating_sub(depth));
        if self.cut > depth.saturating_add(CUT_SLACK) {
            self.tidy();
        }
    }

    /// Gives up what is cut off.
    #[cold]
    fn tidy(&mut self) {
        self.levels.drain(..self.cut);
        self.cut = 0;
    }

    fn kept(&self) -> &[Rung<N>] {
        &self.levels[self.cut..]
    }

    /// Price and quantity, the best last.
    #[inline]
    fn pairs(&self) -> impl DoubleEndedIterator<Item = (Decimal, Decimal)> + ExactSizeIterator {
        self.kept().iter().map(|(price, qty, _)| (*price, *qty))
    }
}

impl<N: Copy> PartialEq for Ladder<N> {
    fn eq(&self, other: &Self) -> bool {
        self.pairs().eq(other.pairs())
    }
}

impl<N: Copy> Eq for Ladder<N> {}

impl<N: Copy> Serialize for Ladder<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.pairs())
    }
}

impl<'de, N: Default> Deserialize<'de> for Ladder<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(Decimal, Decimal)>::deserialize(from)?;
        Ok(Self { levels: pairs.into_iter().map(|(price, qty)| (price, qty, N::default())).collect(), cut: 0 })
    }
}

/// Where a price is, or would be. Looks from the best price in steps that double, then halves: most changes are near it.
#[inline]
fn find<N>(side: Side, ladder: &[Rung<N>], price: Decimal) -> Result<usize, usize> {
    let (mut step, mut end) = (1, ladder.len());
    let mut begin = 0;
    while step <= ladder.len() {
        let at = ladder.len() - step;
        match towards_best(side, ladder[at].0, price) {
            Ordering::Equal => return Ok(at),
            Ordering::Less => {
                begin = at + 1;
                break;
            }
            Ordering::Greater => end = at,
        }
        step *= 2;
    }
    ladder[begin..end]
        .binary_search_by(|level| towards_best(side, level.0, price))
        .map(|at| begin + at)
        .map_err(|at| begin + at)
}

/// Orders prices of a side so that the best comes last.
#[inline]
fn towards_best(side: Side, a: Decimal, b: Decimal) -> Ordering {
    // A venue writes the prices of an instrument with one scale, mostly.
    let order = if a.scale() == b.scale() { a.mantissa().cmp(&b.mantissa()) } else { a.cmp(&b) };
    match side {
        Side::Sell => order.reverse(),
        Side::Buy | Side::Unknown => order,
    }
}

/// Changes in order from which on they are merged and not set one by one.
const MERGE_MIN: usize = 8;
/// Levels that may be cut off and still in memory, beside as many as are kept.
const CUT_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::Flags,
        ids::{Micros, SymbolIx},
    };

    fn text(book: &Book, side: Side) -> Vec<String> {
        book.levels(side).map(|(price, qty)| format!("{price}:{qty}")).collect()
    }

    fn level(side: Side, price: u32, qty: u32) -> Level {
        let (price, qty) = (price.into(), qty.into());
        Level { frame: 0, symbol: SymbolIx(0), side, flags: Flags::NONE, time: Micros(0), price, qty, seq: None }
    }

    fn d(text: &str) -> Decimal {
        crate::number::decimal(text).unwrap()
    }

    #[test]
    fn best_comes_first_on_both_sides() {
        let mut book = Book::<()>::default();
        for price in ["10.0", "12.0", "11.0"] {
            book.set(Side::Buy, d(price), d("1"));
            book.set(Side::Sell, d(price), d("1"));
        }
        assert_eq!(text(&book, Side::Buy), ["12.0:1", "11.0:1", "10.0:1"]);
        assert_eq!(text(&book, Side::Sell), ["10.0:1", "11.0:1", "12.0:1"]);
        assert!(book.is_crossed());
    }

    #[test]
    fn a_level_is_found_by_value_and_keeps_the_newest_text() {
        let mut book = Book::<()>::default();
        book.set(Side::Buy, d("10.0"), d("1"));
        book.set(Side::Buy, d("10.00"), d("2.50"));
        assert_eq!(text(&book, Side::Buy), ["10.00:2.50"]);
        book.set(Side::Buy, d("10"), d("0.000"));
        assert!(text(&book, Side::Buy).is_empty());
    }

    #[test]
    fn cutting_keeps_the_best() {
        let mut book = Book::<()>::default();
        for price in 1..=5u32 {
            book.set(Side::Buy, price.into(), d("1"));
            book.set(Side::Sell, (price + 10).into(), d("1"));
        }
        book.truncate(2);
        assert_eq!(text(&book, Side::Buy), ["5:1", "4:1"]);
        assert_eq!(text(&book, Side::Sell), ["11:1", "12:1"]);
    }

    proptest! {
        /// Levels that are cut off are gone, whatever comes and goes afterwards.
        #[test]
        fn a_book_cut_after_every_change_is_the_best_of_a_map_cut_alike(
            changes in proptest::collection::vec((0u32..200, 0u32..3), 0..600),
            depth in 0usize..12,
        ) {
            let mut book = Book::<()>::default();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (price, qty) in changes {
                book.set(Side::Buy, price.into(), qty.into());
                book.truncate(depth);
                model.insert(price, qty);
                model.retain(|_, qty| *qty != 0);
                while model.len() > depth {
                    model.pop_first();
                }
            }
            let expected: Vec<(Decimal, Decimal)> =
                model.iter().rev().map(|(price, qty)| ((*price).into(), (*qty).into())).collect();
            prop_assert_eq!(book.levels(Side::Buy).collect::<Vec<_>>(), expected);
            let back: Book = serde_json::from_value(serde_json::to_value(&book).unwrap()).unwrap();
            prop_assert_eq!(&back, &book);
            prop_assert!(book.bids.levels.len() <= 2 * depth + CUT_SLACK + 1);
        }

        /// Whatever is on which side and in which order, best first or not.
        #[test]
        fn a_message_at_once_gives_what_its_levels_give_one_by_one(
            messages in proptest::collection::vec(
                (proptest::collection::vec((any::<bool>(), 0u32..60, 0u32..3), 0..40), 0u8..4),
                0..20,
            ),
            depth in 1usize..30,
        ) {
            let (mut one_by_one, mut at_once) = (Book::<()>::default(), Book::<()>::default());
            for (changes, order) in messages {
                let side = |is_bid| if is_bid { Side::Buy } else { Side::Sell };
                let mut levels: Vec<_> =
                    changes.into_iter().map(|(is_bid, price, qty)| level(side(is_bid), price, qty)).collect();
                match order {
                    0 => levels.sort_by_key(|level| level.price),
                    1 => levels.sort_by_key(|level| std::cmp::Reverse(level.price)),
                    _ => {}
                }
                levels.iter().for_each(|level| one_by_one.set(level.side, level.price, level.qty));
                at_once.apply(&levels);
                one_by_one.truncate(depth);
                at_once.truncate(depth);
                prop_assert_eq!(&at_once, &one_by_one);
            }
        }

        /// A map from price to quantity, where zero removes, is the model.
        #[test]
        fn any_changes_give_what_a_map_gives(changes in proptest::collection::vec((0u32..20, 0u32..3), 0..80), cut in 0usize..80) {
            let (snapshot, updates) = changes.split_at(cut.min(changes.len()));
            let mut book = Book::<()>::default();
            book.extend(Side::Sell, snapshot.iter().map(|(price, qty)| ((*price).into(), (*qty).into())));
            let mut at_once = book.clone();
            let mut model: BTreeMap<u32, u32> = snapshot.iter().copied().collect();
            for (price, qty) in updates {
                book.set(Side::Sell, (*price).into(), (*qty).into());
                model.insert(*price, *qty);
            }
            let levels: Vec<_> = updates.iter().map(|(price, qty)| level(Side::Sell, *price, *qty)).collect();
            at_once.apply(&levels);
            prop_assert_eq!(&at_once, &book);
            model.retain(|_, qty| *qty != 0);
            let expected: Vec<(Decimal, Decimal)> = model.iter().map(|(price, qty)| ((*price).into(), (*qty).into())).collect();
            prop_assert_eq!(book.levels(Side::Sell).collect::<Vec<_>>(), expected);
        }
    }
}
