//! Finds the rows that the server refuses, by halving. Pure: says what to try, is told how it went.

use std::ops::Range;

/// A search over rows `0..len`.
#[derive(Debug)]
pub struct Bisect {
    /// Ranges not yet known to be good, the next at the end.
    open: Vec<Range<usize>>,
    /// Rows refused on their own, with the server's words.
    found: Vec<(usize, String)>,
}

impl Bisect {
    /// A search that knows nothing yet.
    #[must_use]
    #[expect(clippy::single_range_in_vec_init, reason = "one open range is meant")]
    pub fn new(len: usize) -> Self {
        Self { open: if len == 0 { Vec::new() } else { vec![0..len] }, found: Vec::new() }
    }

    /// What to try next; `None` when all is known.
    #[must_use]
    pub fn next(&self) -> Option<Range<usize>> {
        self.open.last().cloned()
    }

    /// The server took what [`next`](Self::next) said.
    pub fn accepted(&mut self) {
        self.open.pop();
    }

    /// The server refused it.
    pub fn refused(&mut self, why: String) {
        let Some(range) = self.open.pop() else { return };
        if range.len() == 1 {
            self.found.push((range.start, why));
        } else {
            let middle = range.start + range.len() / 2;
            self.open.push(middle..range.end);
            self.open.push(range.start..middle);
        }
    }

    /// The rows found, with the server's words.
    #[must_use]
    pub fn into_found(self) -> Vec<(usize, String)> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_found_in_few_tries(
            len in 0..2_000usize,
            bad in prop::collection::btree_set(0..2_000usize, 0..8),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|row| *row < len).collect();
            let (mut search, mut tries) = (Bisect::new(len), 0);
            while let Some(range) = search.next() {
                tries += 1;
                if bad.range(range).next().is_some() { search.refused("no".into()) } else { search.accepted() }
            }
            let found: BTreeSet<usize> = search.into_found().into_iter().map(|(row, _)| row).collect();
            prop_assert!(tries <= 1 + bad.len() * 2 * 11, "{tries} tries for {} bad rows", bad.len());
            prop_assert_eq!(found, bad);
        }
    }
}
