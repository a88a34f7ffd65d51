//! A database that has grown: what a row costs to write, how much room it takes, how long the usual questions take, at
//! each of several numbers of stored rows.
//!
//! The material is written again and again by the writer, each time later than before, so that its rows spread over
//! days as a recorder's do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt;
use tapeway_exchanges::{
    event::Events,
    ids::{Micros, Nanos},
};
use tokio::time::sleep;

use super::{
    BenchError, Options, Report, Stage,
    beside::{COMMIT_TIMEOUT, until_committed},
    copy::register,
    database::Target,
    float,
    material::{Material, writer_config},
    process::cpu_seconds,
    progress,
    sink::without_journal,
};
use crate::{
    lane::Lane,
    store::{Connection, Layout, table::Table},
    writer,
};

/// Measures.
///
/// # Errors
///
/// [`BenchError`].
pub(super) async fn run(
    options: &Options,
    material: &Material,
    target: &Target,
    report: &mut Report,
) -> Result<(), BenchError> {
    target.empty()?;
    let connection = target.connect().await?;
    register(material, &connection).await?;
    let mut load = Load::new(material)?;
    let handle = writer::start(&writer_config(), &target.database, load.lanes.clone())?;
    for stored in &options.stored {
        progress!("scale: filling up to {stored} rows");
        while load.rows + load.rows_a_round < *stored {
            load.round(&handle).await?;
        }
        let of = format!("{stored} rows stored");
        let (mut rates, mut own, mut database) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.runs {
            let before = (cpu_seconds(std::process::id()), target.cpu_seconds());
            let took = load.round(&handle).await?;
            let rows = float(load.rows_a_round);
            rates.push(rows / took.as_secs_f64());
            let used = |after: Option<f64>, before: Option<f64>| Some((after? - before?) * 1e6 / rows);
            own.extend(used(cpu_seconds(std::process::id()), before.0));
            database.extend(used(target.cpu_seconds(), before.1));
        }
        report.add(Stage::Scale, &of, "rows_per_s", "rows/s", &rates);
        report.add(Stage::Scale, &of, "cpu_us_per_row", "us", &own);
        report.add(Stage::Scale, &of, "database_cpu_us_per_row", "us", &database);
        questions(&connection, &of, options.runs, report).await?;
    }
    handle.stop(tokio::time::Instant::now() + COMMIT_TIMEOUT).await;
    storage(&connection, target, &load, report).await?;
    target.empty()
}

/// The material in memory, and how often it has been written.
struct Load {
    lanes: Vec<Arc<Lane>>,
    chunks: Vec<(usize, Events)>,
    /// By lane: frames and rows of one round.
    sizes: Vec<(u64, u64)>,
    rows_a_round: u64,
    rounds: u64,
    rows: u64,
}

impl Load {
    fn new(material: &Material) -> Result<Self, BenchError> {
        let mut chunks = Vec::new();
        material.each_chunk(|nr, _, events| {
            chunks.push((nr, events));
            Ok(())
        })?;
        let lanes: Vec<Arc<Lane>> = material.lanes()?.iter().map(|lane| Arc::new(without_journal(lane))).collect();
        let mut sizes = vec![(0, 0); lanes.len()];
        for (nr, events) in &chunks {
            sizes[*nr].0 += events.received.len() as u64;
            sizes[*nr].1 += events.rows() as u64;
        }
        let rows_a_round = sizes.iter().map(|(_, rows)| rows).sum();
        Ok(Self { lanes, chunks, sizes, rows_a_round, rounds: 0, rows: 0 })
    }

    /// Writes the material once more, and waits until it is committed.
    async fn round(&mut self, handle: &writer::Handle) -> Result<Duration, BenchError> {
        let began = Instant::now();
        for (nr, events) in &self.chunks {
            let lane = &self.lanes[*nr];
            let mut events = self.later(*nr, events);
            let end = events.end();
            while let Err(back) = lane.queue.push(events) {
                events = back;
                sleep(Duration::from_millis(1)).await;
            }
            lane.progress.on_append(end);
            lane.progress.on_sync(end);
            lane.writer.notify_one();
        }
        until_committed(Stage::Scale.name(), &self.lanes, handle, self.rows_a_round).await?;
        self.rounds += 1;
        self.rows += self.rows_a_round;
        Ok(began.elapsed())
    }

    /// The chunk as it would have come so many rounds later: positions, times and trade ids go on.
    fn later(&self, nr: usize, events: &Events) -> Events {
        let mut events = events.clone();
        if self.rounds == 0 {
            return events;
        }
        let rounds = i64::try_from(self.rounds).expect("far fewer rounds");
        let micros = rounds * i64::try_from(ROUND_EVERY.as_micros()).expect("hours");
        events.first = events.first.plus(self.rounds * self.sizes[nr].0);
        events.rows_total += self.rounds * self.sizes[nr].1;
        events.notes.clear();
        events.received.iter_mut().for_each(|at| *at = Nanos(at.0 + micros * 1_000));
        for row in &mut events.trades {
            row.time = Micros(row.time.0 + micros);
            row.trade_id = row.trade_id.map(|id| id + rounds * TRADES_A_ROUND);
        }
        events.levels.iter_mut().for_each(|row| row.time = Micros(row.time.0 + micros));
        events.top_books.iter_mut().for_each(|row| row.time = Micros(row.time.0 + micros));
        events.quotes.iter_mut().for_each(|row| row.time = Micros(row.time.0 + micros));
        events
    }
}

/// The questions that users ask of any instrument, at any moment of what is stored.
async fn questions(connection: &Connection, of: &str, runs: usize, report: &mut Report) -> Result<(), BenchError> {
    let (from, to): (f64, f64) = {
        let sql = "SELECT extract(epoch FROM min(time))::float8, extract(epoch FROM max(time))::float8 FROM market_data.trades";
        let row = connection.query_one("look for the first and the last trade", sql, &[]).await?;
        (row.get(0), row.get(1))
    };
    let sql = format!(
        "CALL refresh_continuous_aggregate('aggregates.ohlcv_1m', to_timestamp({from}) - interval '1 hour', \
         to_timestamp({to}) - interval '1 hour')"
    );
    let has_aggregates = connection
        .query("look for continuous aggregates", "SELECT FROM pg_extension WHERE extname = 'timescaledb'", &[])
        .await?;
    if !has_aggregates.is_empty() {
        connection.run("refresh the candles", &sql).await?;
    }
    // As autovacuum does a minute after so much was written; without, the planner takes a few rows for a million.
    connection.run("gather statistics", "ANALYZE").await?;
    let sql = "SELECT DISTINCT instrument_id FROM market_data.trades";
    let instruments: Vec<i32> =
        connection.query("list instruments", sql, &[]).await?.iter().map(|row| row.get(0)).collect();
    for (metric, sql) in QUESTIONS {
        let mut millis = Vec::new();
        for nr in 0..QUESTIONS_MIN.max(runs) {
            let instrument = instruments[nr % instruments.len()];
            let at: f64 = rand::rng().random_range(from..=to);
            let began = Instant::now();
            connection.query("ask", sql, &[&instrument, &at]).await?;
            millis.push(began.elapsed().as_secs_f64() * 1e3);
        }
        millis.sort_by(f64::total_cmp);
        let quantile = |share: usize| millis[(millis.len() * share / 100).min(millis.len() - 1)];
        report.add(Stage::Scale, of, metric.0, "ms", &[quantile(50)]);
        report.add(Stage::Scale, of, metric.1, "ms", &[quantile(99)]);
    }
    Ok(())
}

/// Bytes a row takes: as it came, after recompression, and in the row store with its index.
async fn storage(connection: &Connection, target: &Target, load: &Load, report: &mut Report) -> Result<(), BenchError> {
    let mut bytes = Vec::new();
    let is_hypertable = match target.capabilities.layout {
        Some(Layout::Hypertable) => true,
        Some(Layout::Partitioned) | None => false,
    };
    bytes.push(("bytes_per_row", size(connection, is_hypertable).await?));
    if is_hypertable {
        for table in Table::ALL {
            let sql =
                format!("SELECT compress_chunk(chunk, recompress => true) FROM show_chunks('{}') chunk", table.path());
            target.psql(&["-c", &sql])?;
        }
        bytes.push(("recompressed_bytes_per_row", size(connection, true).await?));
    }
    for (metric, bytes) in bytes {
        report.add(Stage::Scale, "", metric, "bytes", &[float(bytes) / float(load.rows)]);
    }
    // Of each table a part, for as many rows as it has.
    let mut bytes = 0.0;
    for table in Table::ALL {
        let sql = format!(
            "CREATE TABLE market_data.row_store AS SELECT * FROM {} LIMIT {ROW_STORE_ROWS};
             CREATE INDEX ON market_data.row_store (instrument_id, time DESC)",
            table.path()
        );
        connection.run("make a row store", &sql).await?;
        let sql = format!(
            "SELECT (SELECT count(*) FROM market_data.row_store)::float8, pg_total_relation_size('market_data.row_store')::float8,
                    (SELECT count(*) FROM {})::float8",
            table.path()
        );
        let row = connection.query_one("measure the row store", &sql, &[]).await?;
        let (sample, size, all): (f64, f64, f64) = (row.get(0), row.get(1), row.get(2));
        bytes += size / sample.max(1.0) * all;
        connection.run("drop the row store", "DROP TABLE market_data.row_store").await?;
    }
    report.add(Stage::Scale, "", "row_store_bytes_per_row", "bytes", &[bytes / float(load.rows.max(1))]);
    Ok(())
}

/// Bytes of all event tables.
async fn size(connection: &Connection, is_hypertable: bool) -> Result<u64, BenchError> {
    let mut bytes = 0;
    for table in Table::ALL {
        let path = table.path();
        let sql = if is_hypertable {
            format!("SELECT coalesce(hypertable_size('{path}'), 0)::bigint")
        } else {
            format!("SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('{path}')")
        };
        bytes += connection.query_one("measure a table", &sql, &[]).await?.get::<_, i64>(0).unsigned_abs();
    }
    Ok(bytes)
}

/// Names of the median and of the 99th percentile, and what is asked of instrument `$1` and moment `$2`.
const QUESTIONS: [((&str, &str), &str); 3] = [
    (
        ("latest_trades_p50_ms", "latest_trades_p99_ms"),
        "SELECT time, price, qty, side FROM market_data.trades
         WHERE instrument_id = $1 AND $2::float8 IS NOT NULL ORDER BY time DESC LIMIT 100",
    ),
    (
        ("candles_p50_ms", "candles_p99_ms"),
        "SELECT bucket, open, high, low, close, volume FROM aggregates.ohlcv_1m
         WHERE instrument_id = $1 AND bucket >= to_timestamp($2) - interval '1 day' AND bucket < to_timestamp($2)",
    ),
    (
        ("book_at_p50_ms", "book_at_p99_ms"),
        "SELECT side, level, price, qty FROM market_data.book_at($1, to_timestamp($2::float8), 20)",
    ),
];
/// Times each question is asked at least.
const QUESTIONS_MIN: usize = 200;
/// How much later each round of the material is: rows spread over days.
const ROUND_EVERY: Duration = Duration::from_secs(90 * 60);
/// More trades than any instrument has in one round.
const TRADES_A_ROUND: i64 = 100_000_000;
/// Rows of each table that are put into the row store.
const ROW_STORE_ROWS: u32 = 1_000_000;
