//! The order of a batch's rows: by instrument, then time, then as they came.
//!
//! Rows of one instrument mostly come in order of time already, so they are dealt out by instrument number (a
//! counting sort, linear) and a pile is only sorted when it turns out not to be in order.

use tapeway_exchanges::ids::Micros;

use crate::store::instruments::InstrumentId;

/// A row of a batch: which piece, which row of its kind in the piece's chunk.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RowRef {
    /// Index of the piece.
    pub piece: u32,
    /// Index of the row in the chunk's list.
    pub row: u32,
}

/// Memory for ordering, reused from batch to batch.
#[derive(Debug, Default)]
pub struct Sorter {
    rows: Vec<Entry>,
    dealt: Vec<Entry>,
    /// Rows by instrument number; afterwards where the pile ends.
    counts: Vec<u32>,
    /// Instrument numbers with a count.
    used: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    instrument: u32,
    at: RowRef,
    time: i64,
}

impl Sorter {
    /// Adds a row, in the order of arrival.
    pub fn push(&mut self, instrument: InstrumentId, time: Micros, at: RowRef) {
        let instrument = instrument.0.unsigned_abs();
        self.rows.push(Entry { instrument, at, time: time.0 });
    }

    /// Puts all rows added since the last call into `out`, in order.
    pub fn drain_into(&mut self, out: &mut Vec<RowRef>) {
        out.clear();
        out.reserve(self.rows.len());
        if self.rows.iter().any(|entry| entry.instrument > INSTRUMENT_COUNTED_MAX) {
            // Numbers this high come from a database with millions of instruments.
            self.rows.sort_by_key(|entry| (entry.instrument, entry.time));
        } else {
            self.deal();
        }
        out.extend(self.rows.drain(..).map(|entry| entry.at));
    }

    fn deal(&mut self) {
        for entry in &self.rows {
            let slot = entry.instrument as usize;
            if self.counts.len() <= slot {
                self.counts.resize(slot + 1, 0);
            }
            if self.counts[slot] == 0 {
                self.used.push(entry.instrument);
            }
            self.counts[slot] += 1;
        }
        self.used.sort_unstable();
        let mut start = 0;
        for instrument in &self.used {
            let count = &mut self.counts[*instrument as usize];
            start += std::mem::replace(count, start);
        }
        let dealt = &mut self.dealt;
        dealt.clear();
        dealt.extend_from_slice(&self.rows);
        for entry in &self.rows {
            let next = &mut self.counts[entry.instrument as usize];
            dealt[*next as usize] = *entry;
            *next += 1;
        }
        let mut from = 0;
        for instrument in self.used.drain(..) {
            let end = std::mem::take(&mut self.counts[instrument as usize]) as usize;
            let pile = &mut dealt[from..end];
            if !pile.is_sorted_by_key(|entry| entry.time) {
                pile.sort_by_key(|entry| entry.time); // Stable, and quick on what is nearly sorted.
            }
            from = end;
        }
        std::mem::swap(&mut self.rows, &mut self.dealt);
    }
}

/// Highest instrument number that is counted rather than compared: 4 MiB of counts.
const INSTRUMENT_COUNTED_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_by_instrument_and_time_and_otherwise_as_they_came(
            rows in prop::collection::vec((prop_oneof![1..5i32, Just(2_000_000)], 0..20i64), 0..200),
            repeats in 1..3,
        ) {
            let mut sorter = Sorter::default();
            let mut out = Vec::new();
            for _ in 0..repeats {
                let mut expected: Vec<_> = rows.iter().zip(0..).map(|((id, time), row)| (*id, *time, row)).collect();
                for (id, time, row) in &expected {
                    sorter.push(InstrumentId(*id), Micros(*time), RowRef { piece: 0, row: *row });
                }
                sorter.drain_into(&mut out);
                expected.sort();
                prop_assert_eq!(
                    out.iter().map(|at| at.row).collect::<Vec<_>>(),
                    expected.iter().map(|(_, _, row)| *row).collect::<Vec<_>>()
                );
            }
        }
    }
}
