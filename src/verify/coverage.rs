//! In which seconds anything came on a lane: a bit a second.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Coverage {
    /// First second, since 1970.
    from: i64,
    seconds: usize,
    lanes: BTreeMap<i32, Vec<u64>>,
}

impl Coverage {
    /// Of a range in microseconds since 1970.
    pub(super) fn new(from: i64, to: i64) -> Self {
        let from = from.div_euclid(1_000_000);
        let seconds = usize::try_from(to.div_euclid(1_000_000) - from).unwrap_or(0).min(SECONDS_MAX);
        Self { from, seconds, lanes: BTreeMap::new() }
    }

    /// A row of the lane came then.
    pub(super) fn add(&mut self, lane: i32, received: i64) {
        let Ok(second) = usize::try_from(received.div_euclid(1_000_000) - self.from) else { return };
        if second < self.seconds {
            let bits = self.lanes.entry(lane).or_insert_with(|| vec![0; self.seconds.div_ceil(64)]);
            bits[second / 64] |= 1 << (second % 64);
        }
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = i32> {
        self.lanes.keys().copied()
    }

    /// First and last second of a lane in which anything came.
    pub(super) fn ends(&self, lane: i32) -> Option<(i64, i64)> {
        let bits = self.lanes.get(&lane)?;
        let is_set = |second: &usize| bits[second / 64] >> (second % 64) & 1 == 1;
        let first = (0..self.seconds).find(is_set)?;
        let last = (0..self.seconds).rev().find(is_set)?;
        Some((self.second(first), self.second(last)))
    }

    /// Stretches of at least `least` seconds, between the first and the last second of a lane in which anything came, in
    /// which nothing did: first second, and second after the last.
    pub(super) fn holes(&self, lane: i32, least: i64) -> Vec<(i64, i64)> {
        let (Some(bits), Some((first, last))) = (self.lanes.get(&lane), self.ends(lane)) else { return Vec::new() };
        let mut holes = Vec::new();
        let mut before = first;
        for second in first..=last {
            let at = usize::try_from(second - self.from).unwrap_or(0);
            if bits[at / 64] >> (at % 64) & 1 == 1 {
                if second - before > least {
                    holes.push((before + 1, second));
                }
                before = second;
            }
        }
        holes
    }

    fn second(&self, at: usize) -> i64 {
        self.from + i64::try_from(at).unwrap_or(0)
    }
}

/// Ten years.
const SECONDS_MAX: usize = 10 * 366 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_between_two_seconds_with_rows() {
        let mut coverage = Coverage::new(1_000_000_000, 1_300_000_000);
        for second in [1_010, 1_011, 1_100, 1_129] {
            coverage.add(7, second * 1_000_000);
        }
        coverage.add(7, 5_000_000_000);
        assert_eq!(coverage.ends(7), Some((1_010, 1_129)));
        assert_eq!(coverage.holes(7, 30), [(1_012, 1_100)]);
        assert_eq!(coverage.holes(7, 29 - 1), [(1_012, 1_100), (1_101, 1_129)]);
        assert_eq!(coverage.lanes().collect::<Vec<_>>(), [7]);
    }
}
