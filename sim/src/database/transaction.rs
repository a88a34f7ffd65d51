//! A transaction: what a connection did since BEGIN, and how COMMIT makes all of it visible at once.

use std::time::SystemTime;

use tapeway::store;
use tokio_postgres::error::SqlState;

use super::{
    World, refused,
    rows::Placed,
    state::{Gap, Reject, Session},
};
use crate::mutation::Mutation;

/// The stretch of a lane that a transaction committed.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// `lane_id`.
    pub lane: i32,
    /// Where the watermark was.
    pub old: u64,
    /// Where it is.
    pub new: u64,
}

/// What a connection did since BEGIN.
#[derive(Clone, Default)]
pub(super) struct Transaction {
    pub(super) is_failed: bool,
    pub(super) rows: Vec<Placed>,
    pub(super) sessions: Vec<((i32, i64), Session)>,
    pub(super) rejects: Vec<Reject>,
    pub(super) gaps: Vec<((i32, i64, i32), Gap)>,
    pub(super) lost: Vec<(i32, i64)>,
    pub(super) ends: Vec<((i32, i64, i32), End)>,
    pub(super) marks: Vec<Moved>,
}

/// The end of a gap.
#[derive(Clone)]
pub(super) struct End {
    pub(super) state: String,
    pub(super) rows: i64,
    pub(super) last: Option<i64>,
    pub(super) until: Option<SystemTime>,
    pub(super) detail: Option<String>,
}

/// A watermark moved.
#[derive(Clone, Copy)]
pub(super) struct Moved {
    pub(super) lane: i32,
    pub(super) old: u64,
    pub(super) new: u64,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) received: SystemTime,
}

impl World {
    /// Makes a transaction's effects visible, all at once.
    pub(super) fn apply(&mut self, transaction: Transaction) -> Result<(), store::Error> {
        for moved in &transaction.marks {
            let found = self.state.watermarks.get(&moved.lane).map(|mark| mark.next);
            if found != Some(moved.old) {
                return Err(refused("commit", SqlState::T_R_SERIALIZATION_FAILURE, "a watermark moved meanwhile"));
            }
        }
        for placed in &transaction.rows {
            let is_inside = transaction
                .marks
                .iter()
                .any(|mark| mark.lane == placed.lane && (mark.old..mark.new).contains(&placed.pos));
            if !is_inside {
                self.protocol.push(format!(
                    "a row of lane {} frame {} is committed in a transaction that does not move the watermark over it",
                    placed.lane, placed.pos
                ));
            }
        }
        self.counts.commits += 1;
        let state = &mut self.state;
        let copies = if self.mutation == Some(Mutation::RowsTwice) && self.counts.commits == 3 { 2 } else { 1 };
        for _ in 0..copies {
            for placed in &transaction.rows {
                let tables = state.rows.entry((placed.lane, placed.pos)).or_default();
                tables[placed.table as usize].push(placed.row.clone());
            }
        }
        for (key, session) in transaction.sessions {
            state.sessions.entry(key).or_insert(session);
        }
        state.rejects.extend(transaction.rejects);
        for (key, gap) in transaction.gaps {
            state.gaps.entry(key).or_insert(gap);
        }
        for (lane, end) in transaction.lost {
            for (_, gap) in state.gaps.range_mut((lane, i64::MIN, i32::MIN)..(lane, end, i32::MIN)) {
                if gap.state == "open" {
                    gap.state = "unhealable".into();
                    gap.detail = Some(END_LOST.into());
                }
            }
        }
        for (key, end) in transaction.ends {
            let Some(gap) = state.gaps.get_mut(&key) else { continue };
            gap.state = end.state;
            gap.healed += end.rows;
            gap.last = end.last.or(gap.last);
            gap.until = end.until.or(gap.until);
            gap.detail = end.detail.or_else(|| gap.detail.take());
        }
        for moved in &transaction.marks {
            let mark = state.watermarks.entry(moved.lane).or_default();
            mark.next = moved.new;
            mark.rows += moved.rows;
            mark.rejected += moved.rejected;
            mark.received = mark.received.max(Some(moved.received));
            self.applied.push(Applied { lane: moved.lane, old: moved.old, new: moved.new });
        }
        Ok(())
    }
}

/// What is said of a gap whose end is in frames that are lost.
pub const END_LOST: &str = "its end is in frames that are no longer in the journal";
