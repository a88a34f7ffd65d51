//! The last row of an instrument that is in the database, and what of ours comes after it.

use tapeway_exchanges::{
    event::Flags,
    ids::{FramePos, Micros, Nanos},
};
use tokio_postgres::Row as SqlRow;

use super::moment;

/// The last trade of an instrument in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastTrade {
    pub(super) id: i64,
    pub(super) time: Micros,
    /// A trade of ours has been held against it.
    pub(super) is_met: bool,
}

/// The last message of an instrument's book, or quote, in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) seq: Option<i64>,
    pub(super) time: Micros,
    /// Messages without ids that carry this very time.
    twins: i64,
    /// Of our frames that carry it, the last, and how many.
    met: Option<(FramePos, i64)>,
    /// The join has been looked at.
    pub(super) is_met: bool,
    /// Our numbered book is not whole since before the first message of it that we have: the gap that says why is not ours
    /// to keep any more.
    pub(super) is_broken: bool,
}

impl Last {
    pub(super) fn of(row: &SqlRow) -> Self {
        let twins = row.get::<_, Option<i64>>(3).unwrap_or_default();
        Self { seq: row.get(1), time: moment(row, 2), twins, met: None, is_met: false, is_broken: false }
    }

    /// Whether a message of ours comes after it.
    pub(super) fn is_followed_by(
        &mut self,
        (seq, time): (Option<i64>, Micros),
        flags: Flags,
        (pos, received): (FramePos, Nanos),
        until: Micros,
    ) -> bool {
        if let Some((last, seq)) = self.seq.zip(seq) {
            return seq > last;
        }
        if flags.has(Flags::VENUE_TIME_BAD) {
            return received.micros() > until;
        }
        if time != self.time {
            return time > self.time;
        }
        let (at, count) = self.met.unwrap_or((pos, 1));
        let count = if at == pos { count } else { count + 1 };
        self.met = Some((pos, count));
        count > self.twins
    }
}
