//! Policies from the configuration, made true in the database: chunk widths, columnstore, retention, candle refresh, and
//! what is kept of sessions and rejects.
//!
//! Each is compared with what the database has and changed only where it differs, so that running it
//! again does nothing. On TimescaleDB its background jobs then do the work; on plain PostgreSQL
//! [`maintain`] does, called every few minutes.

use std::time::Duration;

use tracing::info;

use super::{
    Capabilities, Connection, Error, Layout,
    connect::Arguments,
    migrate, partitions,
    table::{ORDER_BY, SEGMENT_BY, Table},
};
use crate::config::{Database, TablePolicy};

/// Makes the database's policies those of the configuration.
///
/// # Errors
///
/// [`Error::NotMigrated`] before [`migrate`](super::migrate::migrate); [`Error::Server`] and [`Error::Timeout`]
/// with what was being done: what was changed before stays, running it again goes on.
pub async fn reconcile(connection: &Connection, capabilities: &Capabilities, database: &Database) -> Result<(), Error> {
    migrate::lock(connection).await?;
    let result = match capabilities.layout {
        None => Err(Error::NotMigrated),
        Some(Layout::Partitioned) => maintain(connection, capabilities, database).await,
        Some(Layout::Hypertable) => {
            for table in Table::ALL {
                hypertable(connection, table, table.policy(database), database.is_columnstore_wanted).await?;
            }
            candles(connection, database).await
        }
    };
    connection.run("release the migration lock", "SELECT pg_advisory_unlock_all()").await?;
    result
}

/// Creates partitions ahead of time and drops those past retention, except on TimescaleDB, whose own jobs do it; and
/// drops sessions and rejects past theirs. Call it every few minutes; a missed call is caught up by the next.
///
/// # Errors
///
/// [`Error::NotMigrated`], [`Error::Server`], [`Error::Timeout`]; calling it again goes on.
pub async fn maintain(connection: &Connection, capabilities: &Capabilities, database: &Database) -> Result<(), Error> {
    match capabilities.layout {
        None => return Err(Error::NotMigrated),
        Some(Layout::Hypertable) => {}
        Some(Layout::Partitioned) => {
            for table in Table::ALL {
                partitions::maintain(connection, table, table.policy(database)).await?;
            }
        }
    }
    match database.audit_drop_after {
        Some(age) => forget_audit(connection, age).await,
        None => Ok(()),
    }
}

/// Drops sessions and rejects older than `age`, so many at once and at most so often that a call does not take long.
async fn forget_audit(connection: &Connection, age: Duration) -> Result<(), Error> {
    for (table, time) in [("sessions", "at"), ("rejects", "received")] {
        let sql = format!(
            "DELETE FROM audit.{table} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM audit.{table} WHERE {time} < now() - make_interval(secs => $1) LIMIT {AUDIT_ROWS_MAX}))"
        );
        let mut dropped = 0;
        for _ in 0..AUDIT_TURNS_MAX {
            let rows = connection.execute("drop old audit rows", &sql, &[&seconds(age)]).await?;
            dropped += rows;
            if rows < AUDIT_ROWS_MAX {
                break;
            }
        }
        if dropped > 0 {
            info!(table, dropped, "old audit rows dropped");
        }
    }
    Ok(())
}

async fn hypertable(
    connection: &Connection,
    table: Table,
    policy: TablePolicy,
    is_columnstore_wanted: bool,
) -> Result<(), Error> {
    let (path, name) = (table.path(), table.name());
    let width = seconds(policy.chunk_interval);
    let is_width = is_true(
        connection,
        "SELECT time_interval = make_interval(secs => $2) FROM timescaledb_information.dimensions
         WHERE hypertable_schema = 'market_data' AND hypertable_name = $1",
        &[&name, &width],
    )
    .await?;
    if !is_width {
        let sql = format!("SELECT set_chunk_time_interval('{path}', make_interval(secs => {width}))");
        change(connection, table.name(), "chunk interval", &sql).await?;
    }
    if is_columnstore_wanted {
        let is_set = is_true(
            connection,
            "SELECT segmentby = $2 AND replace(orderby, '\"', '') = replace($3, '\"', '')
             FROM timescaledb_information.hypertable_columnstore_settings WHERE hypertable = to_regclass($1)",
            &[&path, &SEGMENT_BY, &ORDER_BY],
        )
        .await?;
        if !is_set {
            let sql = format!(
                "ALTER TABLE {path} SET (timescaledb.enable_columnstore, timescaledb.segmentby = '{SEGMENT_BY}', \
                 timescaledb.orderby = '{ORDER_BY}')"
            );
            change(connection, name, "columnstore", &sql).await?;
        }
    }
    job(
        connection,
        table,
        &Job {
            procedure: "policy_compression",
            key: "compress_after",
            remove: "CALL remove_columnstore_policy",
            add: "CALL add_columnstore_policy",
            argument: "after",
        },
        policy.compress_after.filter(|_| is_columnstore_wanted),
    )
    .await?;
    job(
        connection,
        table,
        &Job {
            procedure: "policy_retention",
            key: "drop_after",
            remove: "SELECT remove_retention_policy",
            add: "SELECT add_retention_policy",
            argument: "drop_after",
        },
        policy.drop_after,
    )
    .await
}

/// A kind of background job that has one age as its argument.
struct Job {
    procedure: &'static str,
    key: &'static str,
    remove: &'static str,
    add: &'static str,
    argument: &'static str,
}

async fn job(connection: &Connection, table: Table, job: &Job, wanted: Option<Duration>) -> Result<(), Error> {
    let sql = "SELECT extract(epoch FROM (config ->> $3)::interval)::bigint FROM timescaledb_information.jobs
               WHERE hypertable_schema = 'market_data' AND hypertable_name = $1 AND proc_name = $2";
    let rows = connection.query("read policies", sql, &[&table.name(), &job.procedure, &job.key]).await?;
    let found = rows.first().map(|row| row.get::<_, i64>(0));
    let wanted = wanted.map(|age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    if found == wanted {
        return Ok(());
    }
    let path = table.path();
    let mut sql = String::new();
    if found.is_some() {
        sql.push_str(&format!("{}('{path}'); ", job.remove));
    }
    if let Some(age) = wanted {
        sql.push_str(&format!("{}('{path}', {} => make_interval(secs => {age}))", job.add, job.argument));
    }
    change(connection, table.name(), job.key, &sql).await
}

async fn candles(connection: &Connection, database: &Database) -> Result<(), Error> {
    let every = seconds(database.candles_refresh_every);
    let mut window_max = Table::Trades.policy(database).drop_after;
    for (name, bucket) in CANDLES {
        let window = refresh_window(database.candles_refresh_window, bucket, window_max);
        // Higher levels read the level below, which retention of trades does not touch.
        window_max = None;
        let start = seconds(window);
        let is_set = is_true(
            connection,
            "SELECT schedule_interval = make_interval(secs => $2)
                AND (config ->> 'start_offset')::interval = make_interval(secs => $3)
                AND (config ->> 'end_offset')::interval = interval '0'
             FROM timescaledb_information.jobs
             JOIN _timescaledb_catalog.continuous_agg ON mat_hypertable_id = (config ->> 'mat_hypertable_id')::int
             WHERE proc_name = 'policy_refresh_continuous_aggregate'
                AND user_view_schema = 'aggregates' AND user_view_name = $1",
            &[&name, &every, &start],
        )
        .await?;
        if is_set {
            continue;
        }
        let sql = format!(
            "SELECT remove_continuous_aggregate_policy('aggregates.{name}', if_exists => true); \
             SELECT add_continuous_aggregate_policy('aggregates.{name}', \
                 start_offset => make_interval(secs => {start}), end_offset => interval '0', \
                 schedule_interval => make_interval(secs => {every}))"
        );
        change(connection, name, "candle refresh", &sql).await?;
    }
    Ok(())
}

/// How far back a refresh looks: at least [`REFRESH_BUCKETS_MIN`] buckets, or the server refuses the policy; less than
/// what retention drops, or a refresh would empty the candles of dropped trades.
fn refresh_window(wanted: Duration, bucket: Duration, drop_after: Option<Duration>) -> Duration {
    let least = bucket * REFRESH_BUCKETS_MIN;
    let most = drop_after.map_or(Duration::MAX, |age| age.saturating_sub(bucket));
    wanted.min(most).max(least)
}

async fn is_true(connection: &Connection, sql: &str, arguments: Arguments<'_>) -> Result<bool, Error> {
    let rows = connection.query("read policies", sql, arguments).await?;
    Ok(rows.first().and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false))
}

async fn change(connection: &Connection, table: &str, policy: &'static str, sql: &str) -> Result<(), Error> {
    info!(table, policy, "database policy changed");
    // In one transaction, so that a failing change does not leave the old policy removed.
    let sql = format!("BEGIN; {sql}; COMMIT");
    let result = connection.run(policy, &sql).await;
    if result.is_err() {
        connection.run("roll back a policy change", "ROLLBACK").await?;
    }
    result
}

#[expect(clippy::cast_precision_loss, reason = "durations from the configuration are far below 2^53 seconds")]
fn seconds(duration: Duration) -> f64 {
    duration.as_secs() as f64
}

/// Views of candles in schema `aggregates` with the width of a bucket, each built from the one before.
pub const CANDLES: [(&str, Duration); 7] = [
    ("ohlcv_1m", Duration::from_secs(60)),
    ("ohlcv_5m", Duration::from_secs(5 * 60)),
    ("ohlcv_15m", Duration::from_secs(15 * 60)),
    ("ohlcv_30m", Duration::from_secs(30 * 60)),
    ("ohlcv_1h", Duration::from_secs(3_600)),
    ("ohlcv_4h", Duration::from_secs(4 * 3_600)),
    ("ohlcv_1d", Duration::from_secs(86_400)),
];

/// Audit rows dropped in one statement ...
const AUDIT_ROWS_MAX: u64 = 10_000;
/// ... and statements a call: more than a lane in trouble makes in the quarter of an hour between two calls.
const AUDIT_TURNS_MAX: usize = 100;
/// Buckets that a refresh covers at least.
const REFRESH_BUCKETS_MIN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_refresh_never_reaches_into_dropped_trades() {
        assert_eq!(refresh_window(MINUTE * 120, MINUTE, Some(MINUTE * 60)), MINUTE * 59);
    }

    #[test]
    fn a_refresh_covers_whole_buckets_of_its_level() {
        assert_eq!(refresh_window(MINUTE * 120, MINUTE * 1_440, None), MINUTE * 4_320);
    }
}
