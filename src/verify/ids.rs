//! The ids that were seen, as stretches: few where ids are dense.

use std::{collections::BTreeMap, ops::RangeInclusive};

/// A set of ids.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Last id of each stretch by its first.
    stretches: BTreeMap<i64, i64>,
    /// Ids that were not taken in, because there were too many stretches.
    pub(super) left_out: u64,
}

impl Ids {
    /// Takes in an id; `false` when it was there.
    pub(super) fn insert(&mut self, id: i64) -> bool {
        let before = self.stretches.range(..=id).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= id) {
            return false;
        }
        let joins = before.filter(|(_, last)| last.checked_add(1) == Some(id)).map(|(first, _)| first);
        let after = id.checked_add(1).and_then(|next| self.stretches.remove(&next));
        if joins.is_none() && after.is_none() && self.stretches.len() >= STRETCHES_MAX {
            self.left_out += 1;
            return true;
        }
        self.stretches.insert(joins.unwrap_or(id), after.unwrap_or(id));
        true
    }

    /// First and last id.
    pub(super) fn ends(&self) -> Option<(i64, i64)> {
        Some((*self.stretches.first_key_value()?.0, *self.stretches.last_key_value()?.1))
    }

    /// Stretches of ids between the first and the last that are not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = RangeInclusive<i64>> {
        let pairs = self.stretches.iter().zip(self.stretches.iter().skip(1));
        pairs.map(|((_, last), (first, _))| last + 1..=first - 1)
    }

    /// How many ids of a range are there.
    pub(super) fn count(&self, range: RangeInclusive<i64>) -> u64 {
        let (first, last) = (*range.start(), *range.end());
        let from = self.stretches.range(..=first).next_back().map_or(first, |(start, _)| *start);
        if from > last {
            return 0;
        }
        let inside = self.stretches.range(from..=last);
        inside.map(|(start, end)| length(&((*start).max(first)..=(*end).min(last)))).sum()
    }
}

/// Ids in a range.
pub(super) fn length(range: &RangeInclusive<i64>) -> u64 {
    if range.is_empty() { 0 } else { range.end().abs_diff(*range.start()).saturating_add(1) }
}

/// What of `range` is in none of `covers`, which need no order.
pub(super) fn uncovered(range: RangeInclusive<i64>, covers: &[RangeInclusive<i64>]) -> Vec<RangeInclusive<i64>> {
    let mut free = vec![range];
    for cover in covers {
        free = free
            .into_iter()
            .flat_map(|part| {
                let left = *part.start()..=(*part.end()).min(cover.start().saturating_sub(1));
                let right = (*part.start()).max(cover.end().saturating_add(1))..=*part.end();
                if cover.end() < part.start() || cover.start() > part.end() { vec![part] } else { vec![left, right] }
            })
            .filter(|part| !part.is_empty())
            .collect();
    }
    free
}

/// Stretches that are kept: ids with so many holes are not dense, and seals find what was doubled.
const STRETCHES_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stretches_are_the_set(list in prop::collection::vec(0..40i64, 0..60), a in 0..40i64, b in 0..40i64) {
            let (mut ids, mut set) = (Ids::default(), BTreeSet::new());
            for id in list {
                prop_assert_eq!(ids.insert(id), set.insert(id));
            }
            prop_assert_eq!(ids.ends(), set.first().copied().zip(set.last().copied()));
            let missing: Vec<i64> = ids.missing().flatten().collect();
            let expected: Vec<i64> = match ids.ends() {
                Some((first, last)) => (first..=last).filter(|id| !set.contains(id)).collect(),
                None => Vec::new(),
            };
            prop_assert_eq!(missing, expected);
            let (a, b) = (a.min(b), a.max(b));
            prop_assert_eq!(ids.count(a..=b), set.range(a..=b).count() as u64);
        }

        #[test]
        fn what_is_left_is_in_no_cover(covers in prop::collection::vec((0..30i64, 0..6i64), 0..6)) {
            let covers: Vec<_> = covers.into_iter().map(|(first, more)| first..=first + more).collect();
            let left: Vec<i64> = uncovered(5..=20, &covers).into_iter().flatten().collect();
            let expected: Vec<i64> = (5..=20).filter(|id| !covers.iter().any(|cover| cover.contains(id))).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
