//! One chain of numbered messages over both connections of a lane: an update is taken from whichever connection
//! continues it.
//!
//! ```text
//! continues the chain               taken
//! ends at or before the last id     dropped: the other connection had it
//! beyond it, or reaching over it    held, while an open connection may still bring what continues the chain: one that
//!                                   has delivered nothing beyond the last id, or too little is held to know
//! nobody can bring it any more      the one that reaches over the last id is due; else that which begins first, after a
//!                                   gap
//! ```
//!
//! Ids only grow here. A venue whose numbering may begin anew counts them on before they come here
//! (`venue::okx::places`).

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    conn::{Conn, Conns, PerConn},
    event::{Level, Side},
    ids::Micros,
};

/// Where the chain ends, and what waits beyond.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// Last id of the chain; `None` before the first message since a connection was opened.
    last: Option<i64>,
    /// Last id that each open connection has delivered.
    #[serde(default)]
    reach: PerConn<Option<i64>>,
    /// Messages that do not continue the chain, and may when the other connection has delivered; in no order.
    #[serde(default)]
    held: Vec<Held>,
}

/// A message that waits.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) previous: i64,
    pub(crate) last_id: i64,
    pub(crate) time: Option<Micros>,
    pub(crate) levels: Vec<(Side, Decimal, Decimal)>,
    /// What the venue's own ids lack of these; 0 where they are the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) shift: i64,
    /// What the venue says the book must be after it, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<i32>,
}

/// A held message whose turn has come.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) message: Held,
    /// It continues the chain. Otherwise nobody can bring what does, and what it does not reach back over is missing.
    pub(crate) is_exact: bool,
}

impl Chain {
    pub(crate) fn last(&self) -> Option<i64> {
        self.last
    }

    /// Last id that a connection has delivered; `None` before the first.
    pub(crate) fn reach(&self, conn: Conn) -> Option<i64> {
        self.reach[conn]
    }

    /// A connection has delivered this id.
    #[inline]
    pub(crate) fn reached(&mut self, conn: Conn, id: i64) {
        self.reach[conn] = self.reach[conn].max(Some(id));
    }

    /// Nothing more is known of what a connection delivers: it ended, or begins anew.
    pub(crate) fn forget(&mut self, conn: Conn) {
        self.reach[conn] = None;
    }

    /// The chain goes on behind this id.
    #[inline]
    pub(crate) fn advance(&mut self, last: i64) {
        self.last = Some(last);
    }

    /// The chain begins anew behind this id, which this connection delivered.
    pub(crate) fn restart(&mut self, conn: Conn, last: i64) {
        *self = Self { last: Some(last), ..Self::default() };
        self.reach[conn] = Some(last);
    }

    /// The chain has ended with the last connection.
    pub(crate) fn end(&mut self) {
        self.last = None;
    }

    /// Whether something is held.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a message behind `previous` is to wait for what these `others` may bring.
    #[inline]
    pub(crate) fn must_wait(&self, previous: i64, others: Conns) -> bool {
        self.last.is_some_and(|last| previous != last) && (self.may_come(others) || self.is_waiting())
    }

    /// Keeps a message until its turn comes.
    pub(crate) fn hold(&mut self, message: Held) {
        self.held.push(message);
    }

    /// Takes out the next message that continues the chain, or that nothing can come before any more. Counts those
    /// dropped that the other connection had.
    pub(crate) fn due(&mut self, open: Conns, dropped: &mut u64) -> Option<Due> {
        let last = self.last?;
        let before = self.held.len();
        self.held.retain(|held| held.last_id > last);
        *dropped += (before - self.held.len()) as u64;
        let exact = self.held.iter().position(|held| held.previous == last);
        let at = match exact {
            Some(at) => at,
            None if self.may_come(open) => return None,
            // The one that reaches least back, or else begins first.
            None => {
                let by_distance = |(_, held): &(usize, &Held)| (held.previous > last, held.previous.abs_diff(last));
                self.held.iter().enumerate().min_by_key(by_distance)?.0
            }
        };
        Some(Due { message: self.held.swap_remove(at), is_exact: exact.is_some() })
    }

    /// Whether one of these connections may bring what continues the chain: it has delivered nothing beyond it.
    fn may_come(&self, open: Conns) -> bool {
        open.iter().any(|conn| self.reach[conn] <= self.last) && self.held.len() < HELD_MAX
    }
}

/// The levels of rows, to be kept.
pub(crate) fn levels_of(rows: &[Level]) -> Vec<(Side, Decimal, Decimal)> {
    rows.iter().map(|level| (level.side, level.price, level.qty)).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Messages of one book that wait for the other connection; when there are so many, it is waited for no more.
const HELD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Conn = Conn::FIRST;
    const OTHER: Conn = Conn::SECOND;

    fn both() -> Conns {
        let mut both = Conns::NONE;
        Conn::ALL.into_iter().for_each(|conn| both.insert(conn));
        both
    }

    /// A chain that ends at 10, and of which `conn` has delivered these beyond: id before and id.
    fn chain(conn: Conn, beyond: &[(i64, i64)]) -> Chain {
        let mut chain = Chain::default();
        chain.advance(10);
        Conn::ALL.into_iter().for_each(|conn| chain.reached(conn, 10));
        for (previous, last_id) in beyond.iter().copied() {
            assert!(chain.must_wait(previous, both().without(conn)));
            let (time, levels, shift, checksum) = (None, Vec::new(), 0, None);
            chain.hold(Held { previous, last_id, time, levels, shift, checksum });
            chain.reached(conn, last_id);
        }
        chain
    }

    /// Takes what is due; gives its ids, those that are not exact negative, and how many were dropped.
    fn take(chain: &mut Chain, open: Conns) -> (Vec<i64>, u64) {
        let (mut taken, mut dropped) = (Vec::new(), 0);
        while let Some(Due { message, is_exact }) = chain.due(open, &mut dropped) {
            chain.advance(message.last_id);
            taken.push(if is_exact { message.last_id } else { -message.last_id });
        }
        (taken, dropped)
    }

    #[test]
    fn what_is_held_is_due_when_the_other_connection_has_brought_what_is_before_it() {
        let mut chain = chain(ONE, &[(12, 13), (11, 12), (13, 15)]);
        assert_eq!(take(&mut chain, both()), (vec![], 0));
        chain.advance(11);
        chain.reached(OTHER, 11);
        assert_eq!(take(&mut chain, both()), (vec![12, 13, 15], 0));
        assert!(!chain.is_waiting());
    }

    #[test]
    fn what_the_other_connection_brought_too_is_dropped() {
        let mut chain = chain(ONE, &[(11, 12), (12, 13)]);
        chain.advance(12);
        chain.reached(OTHER, 12);
        assert_eq!(take(&mut chain, both()), (vec![13], 1));
    }

    #[test]
    fn what_begins_first_is_due_once_the_other_connection_has_passed_it_or_is_closed() {
        let mut passed = chain(ONE, &[(13, 14), (11, 12)]);
        passed.reached(OTHER, 14);
        assert_eq!(take(&mut passed, both()), (vec![-12, -14], 0));
        let mut closed = chain(ONE, &[(11, 12)]);
        closed.forget(OTHER);
        assert_eq!(take(&mut closed, both().without(OTHER)), (vec![-12], 0));
    }

    #[test]
    fn what_reaches_over_the_end_goes_before_what_begins_beyond_it() {
        let mut chain = chain(ONE, &[(11, 13)]);
        chain.hold(Held { previous: 8, last_id: 11, ..chain.held[0].clone() });
        chain.reached(OTHER, 13);
        assert_eq!(take(&mut chain, both()), (vec![-11, 13], 0));
    }

    #[test]
    fn the_other_connection_is_waited_for_no_more_when_too_much_is_held() {
        let beyond: Vec<_> = (0..64).map(|id| (id + 11, id + 12)).collect();
        let mut chain = chain(ONE, &beyond);
        let (taken, _) = take(&mut chain, both());
        assert_eq!((taken.first(), taken.len()), (Some(&-12), 64));
    }
}
