//! Lanes as the database knows them: who may write one, and how far it is committed.
//!
//! A lane is claimed with a session-level advisory lock on its name, so the claim ends with the connection. The
//! watermark itself moves in the transaction that carries the rows (see `writer::copy`), and only
//! from the value that the writer believes it has: whoever is wrong about it changes nothing.

use std::time::SystemTime;

use tapeway_exchanges::ids::FramePos;
use tokio_postgres::Row;

use super::{Connection, Error};

/// A lane's number in the database.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LaneId(pub i32);

/// How far a lane is committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Watermark {
    /// First position not yet committed.
    pub next: FramePos,
    /// Rows committed since the lane began.
    pub rows_total: u64,
    /// Rows refused since the lane began.
    pub rejected: u64,
    /// Receive time of the last frame that is committed.
    pub last_received: Option<SystemTime>,
    /// The same of the other journals that lanes of this name have had, the latest.
    pub elsewhere: Option<SystemTime>,
}

/// Tries to claim a lane for this connection; `false` when another connection has it.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn claim(connection: &Connection, venue: &str, name: &str) -> Result<bool, Error> {
    Ok(connection
        .query_one(
            "claim a lane",
            "SELECT pg_try_advisory_lock(hashtextextended('tapeway lane ' || $1 || '/' || $2, 0))",
            &[&venue, &name],
        )
        .await?
        .get(0))
}

/// Ends the session that has a lane if it is an earlier connection of this very thread, which the server does not yet
/// know to be dead; whether there was one.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn end_stale_claim(connection: &Connection, venue: &str, name: &str) -> Result<bool, Error> {
    Ok(!connection.query("end a stale claim", END_STALE_CLAIM, &[&venue, &name]).await?.is_empty())
}

/// Gives a claimed lane back.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn release(connection: &Connection, venue: &str, name: &str) -> Result<(), Error> {
    connection
        .execute(
            "release a lane",
            "SELECT pg_advisory_unlock(hashtextextended('tapeway lane ' || $1 || '/' || $2, 0))",
            &[&venue, &name],
        )
        .await
        .map(drop)
}

/// The lane's number, given now if this journal is new to the database.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn lane_id(connection: &Connection, venue: &str, name: &str, journal_id: u128) -> Result<LaneId, Error> {
    let journal_id = format!("{journal_id:032x}");
    Ok(LaneId(connection.query_one("look a lane up", LANE_ID, &[&venue, &name, &journal_id]).await?.get(0)))
}

/// Reads a lane's watermark.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn read(connection: &Connection, lane: LaneId) -> Result<Watermark, Error> {
    Ok(Watermark::of(&connection.query_one("read a watermark", READ, &[&lane.0]).await?))
}

/// How far a lane is that another connection has. Of this journal: its watermark, the first position if the database does not
/// know it; nothing is written for that. Of the others: when the last frame that they committed was received, but no later
/// than the server's own time of that commit, because a clock that was once ahead would vouch for frames to come.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn standing(connection: &Connection, venue: &str, name: &str, journal_id: u128) -> Result<Watermark, Error> {
    let journal_id = format!("{journal_id:032x}");
    let row = connection.query_one("ask how far a lane's owner is", STANDING, &[&venue, &name, &journal_id]).await?;
    Ok(Watermark::of(&row))
}

impl Watermark {
    fn of(row: &Row) -> Self {
        Self {
            next: FramePos::new(row.get::<_, i64>(0).unsigned_abs()),
            rows_total: row.get::<_, i64>(1).unsigned_abs(),
            rejected: row.get::<_, i64>(2).unsigned_abs(),
            last_received: row.get(3),
            elsewhere: row.get(4),
        }
    }
}

/// The application name holds a number that only this process and thread use. Waits a little for the session to be gone.
const END_STALE_CLAIM: &str = "
SELECT pg_terminate_backend(held.pid, 2000)
FROM (SELECT hashtextextended('tapeway lane ' || $1 || '/' || $2, 0) AS key) AS lane
JOIN pg_locks held ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
    AND held.classid = ((lane.key >> 32) & 4294967295)::oid AND held.objid = (lane.key & 4294967295)::oid
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
JOIN pg_stat_activity holder ON holder.pid = held.pid
WHERE holder.application_name = current_setting('application_name')
  AND holder.usename = current_user AND held.pid <> pg_backend_pid()";

/// Looks the lane up first: an upsert would use up a number at every connect.
const LANE_ID: &str = "
WITH venue AS (
    INSERT INTO market_data.venues (venue) VALUES ($1) ON CONFLICT DO NOTHING
), found AS (
    SELECT lane_id FROM audit.lanes WHERE venue = $1 AND name = $2 AND journal_id = $3::text::uuid
), made AS (
    INSERT INTO audit.lanes (venue, name, journal_id)
    SELECT $1, $2, $3::text::uuid WHERE NOT EXISTS (SELECT FROM found)
    ON CONFLICT (venue, name, journal_id) DO UPDATE SET name = excluded.name
    RETURNING lane_id
), watermark AS (
    INSERT INTO audit.watermarks (lane_id) SELECT lane_id FROM made ON CONFLICT DO NOTHING
)
SELECT lane_id FROM found UNION ALL SELECT lane_id FROM made";

const READ: &str = "
SELECT next_pos, rows_total, rejected, last_received,
       (SELECT max(others.last_received)
        FROM audit.lanes mine
        JOIN audit.lanes other ON other.venue = mine.venue AND other.name = mine.name AND other.lane_id <> mine.lane_id
        JOIN audit.watermarks others ON others.lane_id = other.lane_id
        WHERE mine.lane_id = own.lane_id)
FROM audit.watermarks own WHERE lane_id = $1";

/// A journal that has committed nothing has no receive time, and `least` would pass over that.
const STANDING: &str = "
SELECT coalesce(own.next_pos, 0), coalesce(own.rows_total, 0), coalesce(own.rejected, 0), own.last_received,
       (SELECT max(least(others.last_received, others.updated_at))
        FROM audit.lanes other JOIN audit.watermarks others USING (lane_id)
        WHERE other.venue = asked.venue AND other.name = asked.name AND other.journal_id <> asked.journal_id
          AND others.last_received IS NOT NULL)
FROM (SELECT $1::text AS venue, $2::text AS name, $3::text::uuid AS journal_id) AS asked
LEFT JOIN audit.lanes mine USING (venue, name, journal_id)
LEFT JOIN audit.watermarks own USING (lane_id)";
