//! Native range partitions by time, where TimescaleDB is not there.
//!
//! A partition is named `<table>_p<first second since 1970>`. A new one is built beside the table and then attached, which
//! does not stop writers; dropping one does for a moment, so it is tried under a short lock timeout and
//! again at the next maintenance.

use std::{
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{info, warn};

use super::{Connection, Error, table::Table};
use crate::config::TablePolicy;

/// Makes sure of partitions for now and [`AHEAD_SECONDS`] ahead, and drops those past retention.
pub(super) async fn maintain(connection: &Connection, table: Table, policy: TablePolicy) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let width = width(policy);
    let until = now.saturating_add(AHEAD_SECONDS.clamp(width, width * AHEAD_PARTITIONS_MAX));
    let first = bucket(now, width);
    let starts: Vec<i64> = (0..).map(|nr| first - width + nr * width).take_while(|start| *start <= until).collect();
    ensure(connection, table, width, &starts).await?;
    let Some(age) = policy.drop_after else { return Ok(()) };
    let limit = now.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    for (name, range) in existing(connection, table).await? {
        if range.end <= limit {
            let sql = format!("SET lock_timeout = '{DROP_LOCK_MS}ms'; DROP TABLE market_data.\"{name}\"");
            match connection.run("drop a partition", &sql).await {
                Ok(()) => info!(partition = name, "partition past retention dropped"),
                Err(error) if error.code().is_some() => {
                    warn!(partition = name, %error, "partition not dropped now, trying again later");
                }
                Err(error) => return Err(error),
            }
            connection.run("reset lock timeout", "RESET lock_timeout").await?;
        }
    }
    Ok(())
}

/// Creates what is missing of the buckets that begin at `starts` (seconds since 1970, each as [`bucket`] gives it).
pub(crate) async fn ensure(connection: &Connection, table: Table, width: i64, starts: &[i64]) -> Result<(), Error> {
    connection.run("begin", "BEGIN").await?;
    let result = ensure_locked(connection, table, width, starts).await;
    connection.run("end", if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    result
}

async fn ensure_locked(connection: &Connection, table: Table, width: i64, starts: &[i64]) -> Result<(), Error> {
    connection
        .run("lock partitions", "SELECT pg_advisory_xact_lock(hashtextextended('tapeway partitions', 0))")
        .await?;
    let existing: Vec<_> = existing(connection, table).await?.into_iter().map(|(_, range)| range).collect();
    let (path, name) = (table.path(), table.name());
    for range in starts.iter().flat_map(|start| uncovered(*start..*start + width, &existing)) {
        let part = format!("market_data.\"{name}_p{}\"", range.start);
        let sql = format!(
            "CREATE TABLE {part} (LIKE {path} INCLUDING DEFAULTS INCLUDING CONSTRAINTS); \
             ALTER TABLE {path} ATTACH PARTITION {part} FOR VALUES FROM (to_timestamp({})) TO (to_timestamp({}))",
            range.start, range.end
        );
        connection.run("create a partition", &sql).await?;
    }
    Ok(())
}

async fn existing(connection: &Connection, table: Table) -> Result<Vec<(String, Range<i64>)>, Error> {
    let rows = connection.query("read partitions", EXISTING, &[&table.path()]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1)..row.get(2))).collect())
}

/// Start of the bucket that holds a second.
pub(crate) fn bucket(second: i64, width: i64) -> i64 {
    second.div_euclid(width) * width
}

/// Width of a partition, in whole seconds.
pub(crate) fn width(policy: TablePolicy) -> i64 {
    i64::try_from(policy.chunk_interval.as_secs()).unwrap_or(i64::MAX / 4).clamp(60, i64::MAX / 4)
}

/// The parts of `wanted` that no existing range covers, cut into buckets as wide as `wanted` allows: partitions made
/// under another width stay as they are, new ones fill the space between.
fn uncovered(wanted: Range<i64>, existing: &[Range<i64>]) -> Vec<Range<i64>> {
    let mut inside: Vec<_> =
        existing.iter().filter(|range| range.start < wanted.end && range.end > wanted.start).cloned().collect();
    inside.sort_unstable_by_key(|range| range.start);
    let mut free = Vec::new();
    let mut at = wanted.start;
    for range in inside {
        if range.start > at {
            free.push(at..range.start);
        }
        at = at.max(range.end);
    }
    if at < wanted.end {
        free.push(at..wanted.end);
    }
    free
}

/// How far ahead partitions are made, or one partition if that is wider ...
const AHEAD_SECONDS: i64 = 3 * 86_400;
/// ... but not more than this many.
const AHEAD_PARTITIONS_MAX: i64 = 32;
/// How long a drop may hold up writers.
const DROP_LOCK_MS: u32 = 2_000;

const EXISTING: &str = r"
SELECT child.relname::text,
       extract(epoch FROM bound[1]::timestamptz)::bigint,
       extract(epoch FROM bound[2]::timestamptz)::bigint
FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid,
LATERAL regexp_match(pg_get_expr(child.relpartbound, child.oid), $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$) bound
WHERE inhparent = to_regclass($1) AND bound IS NOT NULL
ORDER BY 2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered_is_left_alone_and_the_rest_is_filled() {
        assert_eq!(uncovered(0..100, &[]), std::slice::from_ref(&(0..100)));
        assert_eq!(uncovered(0..100, std::slice::from_ref(&(0..100))), vec![]);
        assert_eq!(uncovered(0..100, &[20..40, 90..200, -10..5]), vec![5..20, 40..90]);
    }

    #[test]
    fn a_second_before_1970_has_its_bucket_too() {
        assert_eq!(bucket(-1, 60), -60);
        assert_eq!(bucket(60, 60), 60);
    }
}
