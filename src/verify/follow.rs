//! One instrument's book, rebuilt from its rows by the rule in `exchanges/SEMANTICS.md`, to see whether it is ever
//! crossed. Unlike `tapeway book`, which has the adapter's own account of each message, this has the rows alone.

use rust_decimal::Decimal;
use tapeway_exchanges::{
    book::Book,
    event::{Flags, Side},
};

use super::stored::StoredLevel;

/// What is particular to the venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rule {
    /// What to add to a snapshot's id to get the first id newer than it, where snapshots come by REST.
    newer_than_snapshot: Option<i64>,
    /// The venue sends no removals for levels beyond the depth of its snapshot.
    is_cut: bool,
}

impl Rule {
    pub(super) fn of(venue: &str) -> Self {
        match venue {
            "binance-spot" => Self { newer_than_snapshot: Some(1), is_cut: false },
            "binance-usdm" | "binance-coinm" => Self { newer_than_snapshot: Some(0), is_cut: false },
            "kraken" => Self { newer_than_snapshot: None, is_cut: true },
            _ => Self::default(),
        }
    }
}

/// The book as far as it can be followed.
#[derive(Debug, Default)]
pub(super) struct Follower {
    rule: Rule,
    book: Book,
    is_live: bool,
    is_crossed: bool,
    keeps_from: Option<i64>,
    depth: Option<usize>,
    held: Vec<(Flags, StoredLevel)>,
    is_held_whole: bool,
}

impl Follower {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, is_held_whole: true, ..Self::default() }
    }

    /// Takes in all rows of one frame; whether the book has become crossed by it.
    pub(super) fn on_frame(&mut self, rows: &[(Flags, StoredLevel)]) -> bool {
        let is_snapshot = rows.iter().any(|(flags, _)| flags.has(Flags::SNAPSHOT));
        if is_snapshot {
            self.on_snapshot(rows);
        } else {
            self.on_delta(rows);
        }
        if let Some(depth) = self.depth {
            self.book.truncate(depth);
        }
        let was_crossed = self.is_crossed;
        self.is_crossed = self.is_live && self.book.is_crossed();
        self.is_crossed && !was_crossed
    }

    /// The book is not whole from here on.
    pub(super) fn on_gap(&mut self) {
        self.is_live = false;
        self.held.clear();
        self.is_held_whole = true;
    }

    fn on_snapshot(&mut self, rows: &[(Flags, StoredLevel)]) {
        let snapshot = || rows.iter().filter(|(flags, _)| flags.has(Flags::SNAPSHOT));
        self.is_live = self.is_held_whole && !snapshot().any(|(flags, _)| flags.has(Flags::AFTER_GAP));
        self.book.clear();
        let mut deepest = 0;
        for side in [Side::Buy, Side::Sell] {
            let of_side = snapshot().map(|(_, level)| level).filter(|level| level.side == side);
            let levels: Vec<(Decimal, Decimal)> = of_side.map(|level| (level.price, level.qty)).collect();
            deepest = deepest.max(levels.len());
            self.book.extend(side, levels.into_iter());
        }
        self.depth = self.rule.is_cut.then_some(deepest);
        let id = snapshot().find_map(|(_, level)| level.seq);
        self.keeps_from = self.rule.newer_than_snapshot.and_then(|more| id?.checked_add(more));
        let held = std::mem::take(&mut self.held);
        self.is_held_whole = true;
        if let Some(from) = self.keeps_from {
            let newer = held.iter().filter(|(_, level)| level.seq.is_some_and(|id| id >= from));
            newer.for_each(|(_, level)| self.book.set(level.side, level.price, level.qty));
        }
        let rest = rows.iter().filter(|(flags, _)| !flags.has(Flags::SNAPSHOT));
        rest.for_each(|(_, level)| self.book.set(level.side, level.price, level.qty));
    }

    fn on_delta(&mut self, rows: &[(Flags, StoredLevel)]) {
        if self.is_live {
            let is_old =
                |level: &StoredLevel| matches!((self.keeps_from, level.seq), (Some(from), Some(id)) if id < from);
            if rows.iter().any(|(flags, level)| flags.has(Flags::AFTER_GAP) && !is_old(level)) {
                self.on_gap();
            } else {
                for (_, level) in rows.iter().filter(|(_, level)| !is_old(level)) {
                    self.book.set(level.side, level.price, level.qty);
                }
                return;
            }
        }
        if self.rule.newer_than_snapshot.is_none() {
            return;
        }
        if self.held.len() + rows.len() > HELD_LEVELS_MAX {
            self.held.clear();
            self.is_held_whole = false;
        } else if self.is_held_whole {
            self.held.extend_from_slice(rows);
        }
    }
}

/// Levels held back for one snapshot; beyond it the next snapshot is no beginning.
const HELD_LEVELS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn level(flags: Flags, side: Side, price: i64, qty: i64, seq: i64) -> (Flags, StoredLevel) {
        (flags, StoredLevel { side, price: price.into(), qty: qty.into(), seq: Some(seq) })
    }

    #[test]
    fn a_book_is_judged_from_its_snapshot_on_and_not_behind_a_gap() {
        let mut book = Follower::new(Rule::of("coinbase"));
        let crossing = [level(Flags::LAST_IN_FRAME, Side::Buy, 12, 1, 5)];
        let removing = [level(Flags::LAST_IN_FRAME, Side::Buy, 12, 0, 6)];
        let snapshot = [level(Flags::SNAPSHOT, Side::Buy, 10, 1, 0), level(Flags::SNAPSHOT, Side::Sell, 11, 1, 0)];
        assert!(!book.on_frame(&crossing));
        assert!(!book.on_frame(&snapshot));
        assert!(book.on_frame(&crossing));
        assert!(!book.on_frame(&crossing), "it is the same crossing");
        assert!(!book.on_frame(&removing));
        book.on_gap();
        assert!(!book.on_frame(&crossing));
    }

    #[test]
    fn deltas_newer_than_a_snapshot_by_rest_count_and_older_ones_do_not() {
        let mut book = Follower::new(Rule::of("binance-spot"));
        let early = [level(Flags::AFTER_GAP, Side::Sell, 9, 1, 7), level(Flags::AFTER_GAP, Side::Buy, 8, 1, 7)];
        let late = [level(Flags::AFTER_GAP, Side::Sell, 11, 0, 9)];
        let snapshot = [level(Flags::SNAPSHOT, Side::Buy, 10, 1, 8), level(Flags::SNAPSHOT, Side::Sell, 11, 1, 8)];
        assert!(!book.on_frame(&early));
        assert!(!book.on_frame(&late));
        assert!(!book.on_frame(&snapshot), "the delta of id 7 is older than the snapshot");
        assert!(!book.on_frame(&[level(Flags::NONE, Side::Buy, 11, 1, 10)]), "the delta of id 9 took the ask away");
    }
}
