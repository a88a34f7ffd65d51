//! What the simulated database holds; a clone is a backup.

use std::{collections::BTreeMap, time::SystemTime};

use tapeway::store::table::Table;

use super::rows::Row;

/// Everything committed.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `audit.lanes`: numbers by venue, name and journal.
    pub lanes: BTreeMap<(String, String, u128), i32>,
    /// `audit.watermarks`.
    pub watermarks: BTreeMap<i32, Mark>,
    /// `market_data.instruments`.
    pub instruments: BTreeMap<(String, String), i32>,
    /// Rows of the event tables by lane and frame: trades, book levels, quotes, whole books.
    pub rows: BTreeMap<(i32, u64), [Vec<Row>; Table::COUNT]>,
    /// `audit.sessions`.
    pub sessions: BTreeMap<(i32, i64), Session>,
    /// `audit.rejects`.
    pub rejects: Vec<Reject>,
    /// `audit.gaps` by lane, frame and ordinal.
    pub gaps: BTreeMap<(i32, i64, i32), Gap>,
}

/// A row of `audit.watermarks`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// `next_pos`.
    pub next: u64,
    /// `rows_total`.
    pub rows: u64,
    /// `rejected`.
    pub rejected: u64,
    /// `last_received`.
    pub received: Option<SystemTime>,
}

/// A row of `audit.sessions`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// `at`.
    pub at: SystemTime,
    /// `is_open`.
    pub is_open: bool,
    /// `detail`.
    pub detail: String,
}

/// A row of `audit.rejects`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reject {
    /// `lane_id`.
    pub lane: i32,
    /// `frame_pos`.
    pub pos: i64,
    /// `reason`.
    pub reason: String,
    /// `detail`.
    pub detail: String,
}

/// A row of `audit.gaps`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// `instrument_id`.
    pub instrument: Option<i32>,
    /// `channel`.
    pub channel: Option<String>,
    /// `cause`.
    pub cause: String,
    /// `first_missing`.
    pub first: Option<i64>,
    /// `last_missing`.
    pub last: Option<i64>,
    /// `since`.
    pub since: Option<SystemTime>,
    /// `until`.
    pub until: Option<SystemTime>,
    /// `state`.
    pub state: String,
    /// `healed_rows`.
    pub healed: i64,
    /// `detail`.
    pub detail: Option<String>,
}

impl Gap {
    /// Whether the gap's ids include this one; an open end includes everything.
    #[must_use]
    pub fn covers(&self, id: i64) -> bool {
        self.first.is_none_or(|first| first <= id) && self.last.is_none_or(|last| id <= last)
    }
}
