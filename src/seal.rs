//! Seals: how many rows were committed and the sum of their hashes, by hour, lane, table and instrument.
//!
//! The writer makes them from the bytes it sends and writes them in the transaction that carries the rows
//! (`audit.seals`); `tapeway verify` makes them again from the bytes the server gives back. A binary COPY writes a
//! row alike in both directions, so equal seals mean equal rows, in whatever order.

use twox_hash::XxHash3_64;

use crate::store::{instruments::InstrumentId, table::Table, watermark::LaneId};

/// What one seal is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Start of the hour, in seconds since 1970.
    pub hour: i64,
    /// The lane.
    pub lane: LaneId,
    /// The table.
    pub table: Table,
    /// The instrument.
    pub instrument: InstrumentId,
}

/// How many rows, and the sum of their hashes in halves: neither overflows an `i64` below 2^31 rows, also not in SQL.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sum {
    /// Rows.
    pub rows: u64,
    /// Sum of the hashes' upper halves.
    pub high: u64,
    /// Sum of the hashes' lower halves.
    pub low: u64,
}

impl Sum {
    /// Adds a row by its hash.
    pub fn add(&mut self, hash: u64) {
        self.rows += 1;
        self.high += hash >> 32;
        self.low += hash & u64::from(u32::MAX);
    }

    /// Adds all rows of another sum.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.high += other.high;
        self.low += other.low;
    }
}

/// The hash of a row: XXH3-64 with seed 0 of its bytes in a binary COPY, from the field count on.
#[must_use]
pub fn hash(row: &[u8]) -> u64 {
    XxHash3_64::oneshot(row)
}

/// Start of the hour that holds a moment, in seconds since 1970; the moment is in microseconds.
#[must_use]
pub const fn hour_of(micros: i64) -> i64 {
    micros.div_euclid(HOUR_MICROS) * HOUR_SECONDS
}

/// Makes seals of rows that mostly come with the key of the row before.
#[derive(Debug, Default)]
pub struct Sealer {
    current: Option<(Key, Sum)>,
    /// End of the current hour, in microseconds.
    until: i64,
    done: Vec<(Key, Sum)>,
}

impl Sealer {
    /// Takes in a row by its bytes.
    pub fn add(&mut self, table: Table, instrument: InstrumentId, lane: LaneId, micros: i64, row: &[u8]) {
        let hash = hash(row);
        if let Some((key, sum)) = &mut self.current
            && key.instrument == instrument
            && key.lane == lane
            && key.table == table
            && micros < self.until
            && micros >= self.until - HOUR_MICROS
        {
            sum.add(hash);
            return;
        }
        let key = Key { hour: hour_of(micros), lane, table, instrument };
        self.until = key.hour * 1_000_000 + HOUR_MICROS;
        let mut sum = Sum::default();
        sum.add(hash);
        self.done.extend(self.current.replace((key, sum)));
    }

    /// The seals, one a key and in its order; none are left.
    pub fn take(&mut self) -> Vec<(Key, Sum)> {
        let mut list = std::mem::take(&mut self.done);
        list.extend(self.current.take());
        list.sort_unstable_by_key(|(key, _)| *key);
        list.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1.merge(later.1);
            }
            is_same
        });
        list
    }
}

/// Seconds of a seal: an hour, which every table's partitions are multiples of by default.
pub const HOUR_SECONDS: i64 = 3_600;
/// The same in microseconds.
pub const HOUR_MICROS: i64 = HOUR_SECONDS * 1_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_xxh3() {
        // As the reference implementation gives them for the empty input and "a".
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash(b"a"), 0xe6c6_32b6_1e96_4e1f);
    }

    proptest! {
        #[test]
        fn seals_do_not_depend_on_the_order_of_rows(
            rows in prop::collection::vec((0..3i32, 0..2i32, -2 * HOUR_MICROS..2 * HOUR_MICROS, any::<[u8; 4]>()), 0..100),
        ) {
            let mut sealer = Sealer::default();
            let mut expected: BTreeMap<Key, Sum> = BTreeMap::new();
            for (instrument, lane, time, bytes) in &rows {
                let (instrument, lane) = (InstrumentId(*instrument), LaneId(*lane));
                sealer.add(Table::Trades, instrument, lane, *time, bytes);
                let key = Key { hour: hour_of(*time), lane, table: Table::Trades, instrument };
                expected.entry(key).or_default().add(hash(bytes));
            }
            prop_assert_eq!(sealer.take(), expected.into_iter().collect::<Vec<_>>());
            prop_assert!(sealer.take().is_empty());
        }
    }
}
