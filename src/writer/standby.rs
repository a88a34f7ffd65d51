//! A lane on standby: another daemon holds it, and what that one has committed need not be kept here.
//!
//! Nothing that this journal holds is committed by it, so without more it would grow until it is full. Positions of two
//! journals have nothing in common, but moments have: the database says when the last frame that the owner committed was
//! received, and here it is noted now and then how far the journal was at which moment.
//!
//! ```text
//! noted     12:00:00 up to 4100   12:00:10 up to 4180   ...   12:05:10 up to 6900
//! owner     12:05:12, less MARGIN 12:00:12: frames before 4180 were received earlier, and count as committed
//! ```
//!
//! They count for this process alone: for retention, `/status` and the metrics, and no longer than the connection on which
//! the database said so lives. The watermark in the database stays where it is. A takeover begins there, reads what the
//! journal still has, and decides by what the database holds then whether the owner has written what it has not
//! ([`is_written`]): a database from an older backup makes the answer no.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tapeway_exchanges::ids::{FramePos, Micros, Nanos};
use tokio::time::Instant;

use crate::{lane::Lane, store::watermark::Watermark};

/// What a lane knows of the daemon that holds it.
#[derive(Debug, Default)]
pub(super) struct Standby {
    /// How far this journal itself is committed, while the lane is on standby.
    own: Option<Own>,
    /// When the database is asked next; at once when it has not been.
    ask_at: Option<Instant>,
    /// How far the journal was, oldest first. The first may count as committed, the others not yet.
    noted: VecDeque<Noted>,
}

/// What this journal itself has committed.
#[derive(Clone, Copy, Debug)]
struct Own {
    next: FramePos,
    rows: u64,
    rejected: u64,
}

/// How far the journal was at a moment: frames before `end` had been received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Noted {
    at: Micros,
    end: FramePos,
    /// Rows of all frames up to there.
    rows: u64,
}

impl Standby {
    /// Whether the database is to be asked how far the owner is.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.ask_at.is_none_or(|at| now >= at)
    }

    /// The database says how far this journal and the others of the lane are: what the owner has written counts as
    /// committed from now on.
    pub(super) fn learn(&mut self, lane: &Lane, found: &Watermark, now: Instant) {
        self.ask_at = Some(now + ASK_EVERY);
        let own = Own { next: found.next, rows: found.rows_total, rejected: found.rejected };
        self.own = Some(own);
        // The clock is read last: what is before that end was received by then.
        let (end, (rows, ..)) = (lane.progress.durable(), lane.rows.counts());
        self.note(Noted { at: micros(lane.disk.now()), end, rows });
        lane.progress.set_standby(true);
        match self.written(found.elsewhere.map(micros)).filter(|noted| noted.end > own.next) {
            Some(Noted { end, rows, .. }) => {
                lane.progress.set_committed(end);
                lane.rows.on_commit(own.rows, rows.saturating_sub(own.rows).max(own.rejected));
            }
            None => own.show(lane),
        }
    }

    /// The connection is gone, or the lane is no longer on standby: nothing is known of the owner any more.
    pub(super) fn forget(&mut self, lane: &Lane) {
        self.ask_at = None;
        lane.progress.set_standby(false);
        if let Some(own) = self.own.take() {
            own.show(lane);
        }
    }

    /// Remembers how far the journal is. While the owner stands still, only the first [`NOTED_MAX`] since then.
    fn note(&mut self, noted: Noted) {
        if self.noted.len() < NOTED_MAX {
            // A clock that was set back does not make older what was received before.
            let at = self.noted.back().map_or(noted.at, |last| last.at.max(noted.at));
            self.noted.push_back(Noted { at, ..noted });
        }
    }

    /// How far this journal was when it had received nothing that `owner`, the receive time of the last frame committed by
    /// the owner, is not past by [`MARGIN`].
    fn written(&mut self, owner: Option<Micros>) -> Option<Noted> {
        let limit = owner?.0.saturating_sub(MARGIN);
        while self.noted.get(1).is_some_and(|noted| noted.at.0 <= limit) {
            self.noted.pop_front();
        }
        self.noted.front().filter(|noted| noted.at.0 <= limit).copied()
    }
}

impl Own {
    fn show(self, lane: &Lane) {
        lane.progress.set_committed(self.next.min(lane.progress.durable()));
        lane.rows.on_commit(self.rows, self.rejected);
    }
}

/// Whether frames that this journal does not have were written by another owner of the lane. `first`: when the first frame
/// was received that it does have. `elsewhere`: when the last one was that others committed.
pub(super) fn is_written(first: Nanos, elsewhere: Option<SystemTime>) -> bool {
    // A time of zero is that of a damaged frame, whose time nobody knows.
    first.0 > 0 && elsewhere.is_some_and(|elsewhere| first.micros().0.saturating_add(SKEW) <= micros(elsewhere).0)
}

fn micros(time: SystemTime) -> Micros {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The owner has to be so far past the moment at which a frame was received here before that frame counts as committed
/// (microseconds): five times what two hosts' clocks may differ by. The rest is for a connection that brings later what the
/// other one brings at once.
const MARGIN: i64 = 300_000_000;
/// How far two hosts' clocks may be apart (microseconds); docs/standby.md asks for that.
const SKEW: i64 = 60_000_000;
/// How often the database is asked how far the owner is.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Moments remembered: those of [`MARGIN`], and as many again for an owner that lags. While it stands still longer, later
/// ones are not noted, and what they would have told waits for it to go on.
const NOTED_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn noted(minute: i64) -> Noted {
        let end = FramePos::new(minute.unsigned_abs() * 100);
        Noted { at: Micros(minute * MINUTE), end, rows: minute.unsigned_abs() * 1_000 }
    }

    /// A standby that noted every minute from the tenth to the thirtieth.
    fn standby() -> Standby {
        let mut standby = Standby::default();
        (10..=30).for_each(|minute| standby.note(noted(minute)));
        standby
    }

    fn owner_at(minute: i64) -> Option<Micros> {
        Some(Micros(minute * MINUTE))
    }

    #[test]
    fn what_was_received_five_minutes_before_the_owners_last_frame_counts_as_committed() {
        let mut standby = standby();
        assert_eq!(standby.written(owner_at(22)), Some(noted(17)));
        assert_eq!(standby.written(owner_at(23)), Some(noted(18)));
        assert_eq!(standby.written(Some(Micros(24 * MINUTE - 1))), Some(noted(18)), "not a moment earlier");
    }

    #[test]
    fn nothing_counts_as_committed_while_nobody_has_committed_anything_for_so_long() {
        assert_eq!(standby().written(None), None);
        assert_eq!(standby().written(owner_at(14)), None);
        assert_eq!(Standby::default().written(owner_at(90)), None);
    }

    #[test]
    fn an_owner_that_stands_still_lets_no_more_count_however_often_it_is_asked() {
        let mut standby = standby();
        for minute in 31..200 {
            standby.note(noted(minute));
            assert_eq!(standby.written(owner_at(22)), Some(noted(17)));
        }
        assert!(standby.noted.len() <= NOTED_MAX);
        // It goes on where it was, and then the rest is noted again.
        assert_eq!(standby.written(owner_at(40)), Some(noted(35)));
        for minute in 200..220 {
            standby.note(noted(minute));
        }
        assert_eq!(standby.written(owner_at(215)), Some(noted(210)));
    }

    #[test]
    fn a_database_from_an_older_backup_takes_back_what_counted_as_committed() {
        let mut standby = standby();
        assert_eq!(standby.written(owner_at(30)), Some(noted(25)));
        assert_eq!(standby.written(owner_at(20)), None, "what the owner wrote since is not there");
        assert_eq!(standby.written(owner_at(31)), Some(noted(26)), "the owner has written it again");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_older() {
        let mut standby = standby();
        let back = Noted { at: Micros(11 * MINUTE), ..noted(31) };
        standby.note(back);
        assert_eq!(standby.written(owner_at(34)), Some(noted(29)));
        assert_eq!(standby.written(owner_at(35)).map(|noted| noted.end), Some(back.end));
    }

    #[test]
    fn missing_frames_were_written_elsewhere_only_if_others_are_a_minute_past_the_first_that_is_there() {
        let minute = |minute: u64| UNIX_EPOCH + Duration::from_secs(60 * minute);
        let first = Nanos(20 * MINUTE * 1_000);
        assert!(is_written(first, Some(minute(21))));
        assert!(!is_written(first, Some(minute(21) - Duration::from_micros(1))));
        assert!(!is_written(first, None), "nobody else has written the lane");
        assert!(!is_written(Nanos(0), Some(minute(21))), "nobody knows when a damaged frame was received");
    }
}
