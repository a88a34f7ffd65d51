//! Which connections go on where the emitted rows of a book do, and where their ids stand in its one chain.
//!
//! The venue's numbering may begin anew from a lower id. A *place* is an id counted on: places only grow, and a message
//! that renumbers has the place behind the one it names as previous. What a connection's ids lack of their places is its
//! *shift*.
//!
//! ```text
//! in step     one of its ids was found in the chain: its messages are judged by their places
//! strange     none has been, yet: its last messages are kept, for when one is
//! astray      in step, and then an id where the chain has none: it is strange again
//! ```
//!
//! While nobody else is in step, a connection is judged alone: what would lead it astray is a gap.

use std::collections::VecDeque;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    chain::{Chain, Held},
    conn::{Conn, Conns, PerConn},
    event::Side,
    ids::Micros,
    sequence::{Missing, Step},
};

/// The end of the chain in the venue's ids, and how each connection stands to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Places {
    /// Shift of the chain's last message.
    #[serde(default)]
    shift: i64,
    /// Places of the chain's last messages, oldest first.
    #[serde(default)]
    recent: VecDeque<i64>,
    #[serde(default)]
    copies: PerConn<Copy>,
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Copy {
    /// Its shift; `None` while it is strange.
    #[serde(skip_serializing_if = "Option::is_none")]
    shift: Option<i64>,
    /// Last id that it had delivered when it became strange, or its snapshot's.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    /// What it has delivered since, oldest first.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    kept: VecDeque<Strange>,
}

/// A message of which it is not known where it belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Strange {
    /// Its own id and the one before.
    pub(super) ids: (i64, i64),
    pub(super) time: Option<Micros>,
    pub(super) checksum: Option<i32>,
    pub(super) levels: Vec<(Side, Decimal, Decimal)>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    /// Place of the message before it.
    pub(super) previous: i64,
    pub(super) place: i64,
    /// The connection's shift from this message on.
    pub(super) shift: i64,
}

/// How a message stands to the chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fit {
    /// It is next, for want of a better one where the step is a gap.
    Next(Step),
    /// The chain has it, or is past it.
    Stale,
    /// What comes before it has not come.
    Beyond(Missing),
    /// The connection is not in step.
    Astray,
}

impl Places {
    /// How a message of a connection stands to the chain, by its own id and the one before.
    pub(super) fn judge(&self, conn: Conn, (id, previous): (i64, i64), chain: &Chain, is_alone: bool) -> (Fit, Spot) {
        let shift = self.copies[conn].shift.unwrap_or(self.shift);
        let spot = Spot::of(shift, (id, previous));
        let Some(last) = chain.last() else { return (Fit::Next(Step::First), spot) };
        if spot.previous == last {
            return (Fit::Next(Step::Next), spot);
        }
        let reach = chain.reach(conn);
        if id < previous && reach == Some(id.saturating_add(shift)) {
            // The message that renumbered, once more.
            return (Fit::Stale, Spot { place: id.saturating_add(shift), shift, ..spot });
        }
        if spot.previous > last {
            return (Fit::Beyond(self.missing(last, previous, shift)), spot);
        }
        if spot.place > last {
            return (if is_alone { Fit::Next(Step::Gap(Missing::UNKNOWN)) } else { Fit::Astray }, spot);
        }
        let is_back = reach.is_some_and(|reach| spot.place < reach);
        let is_below = self.recent.front().is_some_and(|oldest| spot.place < *oldest);
        let is_known = self.recent.contains(&spot.place);
        match (is_alone, is_back) {
            // The numbering began anew, and the message that says so is lost.
            (true, true) if is_below => {
                let place = last.saturating_add(1);
                let spot = Spot { previous: last, place, shift: place.saturating_sub(id) };
                (Fit::Next(Step::Gap(Missing::UNKNOWN)), spot)
            }
            (false, true) => (Fit::Astray, spot),
            (false, false) if !is_known && !is_below => (Fit::Astray, spot),
            (true | false, _) => (Fit::Stale, spot),
        }
    }

    /// The venue's ids between the chain's end and a message that names `previous`.
    fn missing(&self, last: i64, previous: i64, shift: i64) -> Missing {
        if shift == self.shift {
            Missing::between(last.saturating_sub(shift).saturating_add(1), previous)
        } else {
            Missing::UNKNOWN
        }
    }

    /// What is missing before a message that was held.
    pub(super) fn missing_before(&self, last: i64, held: &Held) -> Missing {
        self.missing(last, held.previous.saturating_sub(held.shift), held.shift)
    }

    /// The venue's id of the chain's end.
    pub(super) fn seq(&self, last: i64) -> i64 {
        last.saturating_sub(self.shift)
    }

    /// A connection has delivered this.
    #[inline]
    pub(super) fn follow(&mut self, conn: Conn, spot: Spot) {
        self.copies[conn].shift = Some(spot.shift);
    }

    /// The chain goes on with a message of this place and shift.
    #[inline]
    pub(super) fn link(&mut self, place: i64, shift: i64) {
        self.shift = shift;
        if self.recent.back() == Some(&place) {
            return; // A keep-alive.
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(place);
    }

    #[inline]
    pub(super) fn is_in_step(&self, conn: Conn) -> bool {
        self.copies[conn].shift.is_some()
    }

    /// Those in step of these.
    pub(super) fn in_step(&self, mut open: Conns) -> Conns {
        for conn in Conn::ALL {
            if !self.is_in_step(conn) {
                open.remove(conn);
            }
        }
        open
    }

    /// A connection is in step, and no other.
    pub(super) fn lead(&mut self, conn: Conn, chain: &mut Chain) {
        if self.is_in_step(conn.other()) {
            self.lose(conn.other(), chain);
        }
        if !self.is_in_step(conn) {
            self.copies[conn] = Copy { shift: Some(self.shift), ..Copy::default() };
        }
    }

    /// A connection that was in step is strange from here on.
    pub(super) fn lose(&mut self, conn: Conn, chain: &mut Chain) {
        let shift = self.copies[conn].shift.unwrap_or(self.shift);
        let seq = chain.reach(conn).map(|reach| reach.saturating_sub(shift));
        chain.forget(conn);
        self.begin(conn, seq);
    }

    /// A connection begins anew, strange, with a snapshot of this id, if it has one.
    pub(super) fn begin(&mut self, conn: Conn, seq: Option<i64>) {
        self.copies[conn] = Copy { seq, ..Copy::default() };
    }

    /// The chain begins anew with a snapshot of this id, by this connection.
    pub(super) fn restart(&mut self, conn: Conn, seq: i64, chain: &mut Chain) {
        self.lead(conn, chain);
        self.copies[conn].shift = Some(0);
        self.shift = 0;
        self.recent.clear();
        self.recent.push_back(seq);
        chain.restart(conn, seq);
    }

    /// Keeps a message of a strange connection; of too many the oldest is forgotten.
    pub(super) fn keep(&mut self, conn: Conn, message: Strange) {
        let Copy { seq, kept, .. } = &mut self.copies[conn];
        if kept.len() >= RECENT_MAX {
            kept.pop_front();
        }
        *seq = Some(message.ids.0);
        kept.push_back(message);
    }

    /// A strange connection is in step if one of its ids is one of the chain's. Gives what it has delivered behind that,
    /// which is still to be judged.
    pub(super) fn join(&mut self, conn: Conn, chain: &mut Chain) -> Option<Vec<Strange>> {
        let Self { shift, recent, copies } = self;
        let copy = &mut copies[conn];
        let is_known = |id: i64| recent.contains(&id.saturating_add(*shift));
        let of_kept = copy.kept.iter().enumerate().rev().find_map(|(at, message)| match message.ids {
            (id, _) if is_known(id) => Some((at + 1, id)),
            (_, previous) if is_known(previous) => Some((at, previous)),
            _ => None,
        });
        let of_snapshot = || copy.seq.filter(|seq| copy.kept.is_empty() && is_known(*seq)).map(|seq| (0, seq));
        let (from, id) = of_kept.or_else(of_snapshot)?;
        let behind = copy.kept.drain(from..).collect();
        *copy = Copy { shift: Some(*shift), ..Copy::default() };
        chain.reached(conn, id.saturating_add(*shift));
        Some(behind)
    }
}

impl Spot {
    fn of(shift: i64, (id, previous): (i64, i64)) -> Self {
        let before = previous.saturating_add(shift);
        if id >= previous {
            return Self { previous: before, place: id.saturating_add(shift), shift };
        }
        let place = before.saturating_add(1);
        Self { previous: before, place, shift: place.saturating_sub(id) }
    }
}

/// Messages that one connection may be behind or ahead of the other, and still be found to be in step with it.
const RECENT_MAX: usize = 32;
