//! The rules that prove a numbered stream whole, apart from any venue.
//!
//! Each takes the last id seen and the ids of the next message and says how the message stands to what was
//! before. None of them changes anything: the caller decides what a stale message or a gap means for it.

/// How a numbered message follows the one before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// There was none before it.
    First,
    /// It follows.
    Next,
    /// It is a repetition, or comes after its successor.
    Stale,
    /// Something between is missing; the message is the new baseline.
    Gap(Missing),
}

/// The ids between two messages, both ends included; `None` where the numbering does not tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Missing {
    /// First id missing.
    pub first: Option<i64>,
    /// Last id missing.
    pub last: Option<i64>,
}

impl Missing {
    /// Nothing known of the ids.
    pub const UNKNOWN: Self = Self { first: None, last: None };

    /// The interval from `first` to `last`; unknown when that holds no id.
    #[must_use]
    pub const fn between(first: i64, last: i64) -> Self {
        if first <= last { Self { first: Some(first), last: Some(last) } } else { Self::UNKNOWN }
    }
}

/// Contiguous range: a message covers the ids `first..=last`, and each id belongs to some message.
///
/// 1. `last` at or before the id seen is stale.
/// 2. `first` more than one after the id seen is a gap.
#[must_use]
pub const fn range(seen: Option<i64>, first: i64, last: i64) -> Step {
    let Some(seen) = seen else { return Step::First };
    if last <= seen {
        Step::Stale
    } else if first > seen.saturating_add(1) {
        Step::Gap(Missing::between(seen.saturating_add(1), first - 1))
    } else {
        Step::Next
    }
}

/// Linked chain of growing ids: a message names its own id and the id of the one before it.
///
/// 1. An id at or before the one seen is stale.
/// 2. A `previous` other than the id seen is a gap.
#[must_use]
pub const fn link(seen: Option<i64>, previous: i64, id: i64) -> Step {
    let Some(seen) = seen else { return Step::First };
    if id <= seen {
        Step::Stale
    } else if previous == seen {
        Step::Next
    } else {
        Step::Gap(Missing::between(seen.saturating_add(1), previous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: i64, last: i64) -> Step {
        Step::Gap(Missing { first: Some(first), last: Some(last) })
    }

    /// Binance spot, "How to manage a local order book correctly": a gap iff `U > last + 1`; `u <= last`
    /// says nothing new; an overlap is applied.
    mod contiguous_range {
        use super::*;

        #[test]
        fn a_message_that_begins_after_the_last_id_follows() {
            assert_eq!(range(Some(100), 101, 105), Step::Next);
        }

        #[test]
        fn one_that_overlaps_follows() {
            assert_eq!(range(Some(100), 90, 105), Step::Next);
        }

        #[test]
        fn one_that_ends_at_the_last_id_is_stale() {
            assert_eq!(range(Some(100), 95, 100), Step::Stale);
        }

        #[test]
        fn one_that_skips_an_id_is_a_gap_of_that_id() {
            assert_eq!(range(Some(100), 102, 105), gap(101, 101));
        }
    }

    /// Binance USD-M: a gap iff `pu` is not the last `u`; `u <= last` is stale.
    mod linked_chain {
        use super::*;

        #[test]
        fn one_that_names_the_last_id_follows() {
            assert_eq!(link(Some(100), 100, 107), Step::Next);
        }

        #[test]
        fn one_that_names_a_later_id_is_a_gap_up_to_that_id() {
            assert_eq!(link(Some(100), 104, 107), gap(101, 104));
        }

        #[test]
        fn one_that_names_an_earlier_id_but_is_newer_is_a_gap_of_unknown_ids() {
            assert_eq!(link(Some(100), 99, 107), Step::Gap(Missing::UNKNOWN));
        }

        #[test]
        fn a_repetition_is_stale() {
            assert_eq!(link(Some(100), 95, 100), Step::Stale);
        }
    }
}
