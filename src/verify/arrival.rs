//! Rows that come in order of venue time, put back into the order in which they arrived.
//!
//! A row is let go once rows are read whose venue time is [`SLACK_MICROS`] past its receive time: nothing that arrived
//! before it can still come, unless the venue's clock is that much ahead of ours. What is held is what arrived in the last
//! minute of the rows being read, and what arrived long after it happened.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::stored::Stored;

/// Rows being put in order.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    held: BinaryHeap<Reverse<Held>>,
    taken: u64,
}

#[derive(Debug)]
struct Held {
    key: (i64, i32, i64, u64),
    row: Stored,
}

impl Arrival {
    /// Takes in the next row by venue time.
    pub(super) fn push(&mut self, row: Stored) {
        self.taken += 1;
        self.held.push(Reverse(Held { key: (row.received, row.lane, row.pos, self.taken), row }));
    }

    /// The next row by arrival, if it is certain when rows up to venue time `now` have been read.
    pub(super) fn pop(&mut self, now: i64) -> Option<Stored> {
        let is_certain = |held: &Held| held.key.0.saturating_add(SLACK_MICROS) < now;
        if self.held.len() <= HELD_ROWS_MAX && !self.held.peek().is_some_and(|Reverse(held)| is_certain(held)) {
            return None;
        }
        self.held.pop().map(|Reverse(held)| held.row)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// How far a venue's clock may be ahead of ours before rows are taken out of order.
const SLACK_MICROS: i64 = 10_000_000;
/// Rows held at most; beyond it they are let go uncertain.
const HELD_ROWS_MAX: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tapeway_exchanges::event::Flags;

    use super::*;
    use crate::verify::stored::Body;

    proptest! {
        #[test]
        fn rows_leave_in_the_order_in_which_they_came(delays in prop::collection::vec(0..3_600_000_000i64, 1..60)) {
            // The time of a row is its receive time less what it took to come.
            let mut rows: Vec<Stored> = (0i64..).zip(&delays).map(|(pos, delay)| {
                let received = 10_000_000_000 + pos * 1_000_000;
                let body = Body::Trade { id: None };
                Stored { instrument: 1, time: received - delay, received, flags: Flags::NONE, lane: 1, pos, body }
            }).collect();
            rows.sort_by_key(|row| row.time);
            let (mut arrival, mut out) = (Arrival::default(), Vec::new());
            for row in rows {
                let now = row.time;
                arrival.push(row);
                while let Some(row) = arrival.pop(now) { out.push(row.pos); }
            }
            while let Some(row) = arrival.pop(i64::MAX) { out.push(row.pos); }
            prop_assert!(out.is_sorted(), "{out:?}");
            prop_assert_eq!(out.len(), delays.len());
        }
    }
}
