//! Seals of a batch: one statement, next to the watermark.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::Statement;

use super::batch::{Mark, Sealed};
use crate::{
    seal::{self, Key, Sum},
    store::{self, Connection, connect::Arguments, within},
};

/// Columns of `audit.seals`.
#[derive(Debug, Default)]
struct Columns {
    hour: Vec<SystemTime>,
    lane: Vec<i32>,
    relation: Vec<&'static str>,
    instrument: Vec<i32>,
    rows: Vec<i64>,
    high: Vec<i64>,
    low: Vec<i64>,
}

impl Columns {
    fn of(sealed: &Sealed) -> Self {
        let mut columns = Self::default();
        for (Key { hour, lane, table, instrument }, sum) in &sealed.seals {
            columns.push(*hour, lane.0, table.name(), instrument.0, *sum);
        }
        for mark in &sealed.marks {
            let frames = mark.new.frames_since(mark.old).unwrap_or_default();
            columns.count(mark, FRAMES, frames);
            columns.count(mark, REFUSED, mark.rejected);
        }
        columns
    }

    fn count(&mut self, mark: &Mark, relation: &'static str, rows: u64) {
        if rows > 0 {
            let hour = seal::hour_of(mark.received.micros().0);
            self.push(hour, mark.lane_id.0, relation, 0, Sum { rows, ..Sum::default() });
        }
    }

    fn push(&mut self, hour: i64, lane: i32, relation: &'static str, instrument: i32, sum: Sum) {
        self.hour.push(UNIX_EPOCH + Duration::from_secs(hour.max(0).unsigned_abs()));
        self.lane.push(lane);
        self.relation.push(relation);
        self.instrument.push(instrument);
        self.rows.push(sum.rows.cast_signed());
        self.high.push(sum.high.cast_signed());
        self.low.push(sum.low.cast_signed());
    }
}

/// Adds a batch's seals to those in the database, inside the batch's transaction.
pub(super) async fn write(connection: &Connection, statement: &Statement, sealed: &Sealed) -> Result<(), store::Error> {
    let Columns { hour, lane, relation, instrument, rows, high, low } = Columns::of(sealed);
    if hour.is_empty() {
        return Ok(());
    }
    let arguments: Arguments<'_> = &[&hour, &lane, &relation, &instrument, &rows, &high, &low];
    within("write seals", connection.timeout(), connection.client.execute(statement, arguments)).await.map(drop)
}

/// Makes the triggers of the audit tables seal what this session writes there.
pub(super) const ON: &str = "SET tapeway.seals = 'on'";

/// Lanes are written by one transaction at a time, so two never wait for each other's seals.
pub(super) const UPSERT: &str = "
INSERT INTO audit.seals AS s (hour, lane_id, relation, instrument_id, rows, hash_high, hash_low)
SELECT * FROM unnest($1::timestamptz[], $2::int[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[])
ON CONFLICT (hour, lane_id, relation, instrument_id) DO UPDATE
SET rows = s.rows + excluded.rows, hash_high = s.hash_high + excluded.hash_high, hash_low = s.hash_low + excluded.hash_low";

/// `relation` of the positions that a watermark passed.
const FRAMES: &str = "frames";
/// `relation` of the rows that a watermark counts as rejected.
const REFUSED: &str = "refused";
