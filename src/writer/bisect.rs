//! Finds the rows that the server refuses: by halving, and by where the server says it stopped. Pure: says what to try,
//! is told how it went.
//!
//! Every row that is not named as refused has been part of a try that was accepted, whatever hints were given. A search
//! has a maximum of tries: when rows by the thousand are bad, what is left open is tried in pieces, and a piece that is
//! refused is refused as a whole.

use std::ops::Range;

/// A search over rows `0..len`.
#[derive(Debug)]
pub struct Bisect {
    /// Ranges not yet known to be good, the next at the end.
    open: Vec<Range<usize>>,
    /// Ranges refused, with the server's words: single rows while there are tries.
    found: Vec<(Range<usize>, String)>,
    tries_left: usize,
    /// The row that the server's last hint named, while it has not been tried.
    hinted: Option<usize>,
    /// A hint named a row that the server then took: hints say nothing here.
    is_misled: bool,
    /// No more tries to look for single rows.
    is_cut_short: bool,
}

impl Bisect {
    /// A search that knows nothing yet and takes about `tries_max` tries, at most [`PIECES`] and a few more.
    #[must_use]
    #[expect(clippy::single_range_in_vec_init, reason = "one open range is meant")]
    pub fn new(len: usize, tries_max: usize) -> Self {
        let open = if len == 0 { Vec::new() } else { vec![0..len] };
        Self { open, found: Vec::new(), tries_left: tries_max, hinted: None, is_misled: false, is_cut_short: false }
    }

    /// What to try next; `None` when all is known.
    #[must_use]
    pub fn next(&self) -> Option<Range<usize>> {
        self.open.last().cloned()
    }

    /// The server took what [`next`](Self::next) said.
    pub fn accepted(&mut self) {
        if let (Some(range), Some(hinted)) = (self.open.pop(), self.hinted.take()) {
            self.is_misled |= range == (hinted..hinted + 1);
        }
        self.tried();
    }

    /// The server refused it; `at` is the row in it at which the server says it stopped.
    pub fn refused(&mut self, why: String, at: Option<usize>) {
        let Some(range) = self.open.pop() else { return };
        self.hinted = None;
        let at = at.filter(|_| !self.is_misled);
        if range.len() == 1 || self.is_cut_short {
            self.found.push((range, why));
        } else if let Some(at) = at.filter(|at| *at < range.len()) {
            let suspect = range.start + at;
            self.halve(suspect + 1..range.end);
            self.push(range.start..suspect);
            self.push(suspect..suspect + 1);
            self.hinted = Some(suspect);
        } else {
            self.halve(range);
        }
        self.tried();
    }

    /// Tries that are left for another search.
    #[must_use]
    pub const fn tries_left(&self) -> usize {
        self.tries_left
    }

    /// The ranges found, with the server's words.
    #[must_use]
    pub fn into_found(self) -> Vec<(Range<usize>, String)> {
        self.found
    }

    fn tried(&mut self) {
        self.tries_left = self.tries_left.saturating_sub(1);
        if self.tries_left == 0 && !self.is_cut_short {
            self.is_cut_short = true;
            let open = std::mem::take(&mut self.open);
            let rows: usize = open.iter().map(ExactSizeIterator::len).sum();
            let piece = rows.div_ceil(PIECES).max(1);
            for range in open {
                let starts = range.clone().step_by(piece).rev();
                self.open.extend(starts.map(|start| start..(start + piece).min(range.end)));
            }
        }
    }

    fn halve(&mut self, range: Range<usize>) {
        let middle = range.start + range.len() / 2;
        self.push(middle..range.end);
        self.push(range.start..middle);
    }

    fn push(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.open.push(range);
        }
    }
}

/// Pieces that are tried when the tries are used up.
pub const PIECES: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// How a server answers: with the first bad row, with nothing, or with a row that is none of them.
    #[derive(Clone, Copy, Debug)]
    enum Hints {
        True,
        None,
        Wrong,
    }

    fn search(len: usize, tries_max: usize, bad: &BTreeSet<usize>, hints: Hints) -> (BTreeSet<usize>, usize, bool) {
        let (mut search, mut tries) = (Bisect::new(len, tries_max), 0);
        while let Some(range) = search.next() {
            tries += 1;
            assert!(!range.is_empty() && range.end <= len);
            match bad.range(range.clone()).next() {
                None => search.accepted(),
                Some(first) => {
                    let at = match hints {
                        Hints::True => Some(first - range.start),
                        Hints::None => None,
                        Hints::Wrong => Some(first.wrapping_mul(7) % (range.len() + 3)),
                    };
                    search.refused("no".into(), at);
                }
            }
        }
        let found = search.into_found();
        let is_single = found.iter().all(|(range, _)| range.len() == 1);
        (found.into_iter().flat_map(|(range, _)| range).collect(), tries, is_single)
    }

    fn hints() -> impl Strategy<Value = Hints> {
        prop::sample::select(vec![Hints::True, Hints::None, Hints::Wrong])
    }

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_found_in_few_tries(
            len in 0..2_000usize,
            bad in prop::collection::btree_set(0..2_000usize, 0..8),
            hints in hints(),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|row| *row < len).collect();
            let (found, tries, is_single) = search(len, 1_000, &bad, hints);
            let most = match hints {
                Hints::True => 1 + bad.len() * 4,
                Hints::None => 1 + bad.len() * 2 * 11,
                Hints::Wrong => 5 + bad.len() * (4 + 2 * 11),
            };
            prop_assert!(tries <= most, "{tries} tries for {} bad rows", bad.len());
            prop_assert_eq!(found, bad);
            prop_assert!(is_single);
        }

        #[test]
        fn many_bad_rows_do_not_take_many_tries_and_none_gets_through(
            bad in prop::collection::btree_set(0..5_000usize, 0..5_000),
            tries_max in 1..300usize,
            hints in hints(),
        ) {
            let (found, tries, _) = search(5_000, tries_max, &bad, hints);
            prop_assert!(tries <= tries_max + PIECES + 40, "{tries} tries");
            prop_assert!(found.is_superset(&bad));
        }
    }

    #[test]
    fn a_batch_of_nothing_but_bad_rows_is_refused_within_the_tries() {
        let bad: BTreeSet<usize> = (0..100_000).collect();
        let (found, tries, _) = search(100_000, 1_000, &bad, Hints::True);
        assert_eq!(found, bad);
        assert!(tries < 1_100, "{tries}");
    }
}
