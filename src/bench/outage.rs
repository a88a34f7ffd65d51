//! The database goes away while a venue's WebSocket does not: what the daemon needs meanwhile, and how fast it catches up
//! afterwards, while what is live goes on.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    BenchError, Options, Report, Stage,
    database::Target,
    float,
    live::mebibytes,
    progress,
    stand::{Reading, Stand},
};
use crate::demo::cluster::StopMode;

/// Measures.
///
/// # Errors
///
/// [`BenchError`]; [`BenchError::NotOurs`] for a database that was named.
pub(super) async fn run(
    options: &Options,
    dir: &Path,
    target: &mut Target,
    report: &mut Report,
) -> Result<(), BenchError> {
    let rate = options.rate.unwrap_or(RATE_DEFAULT);
    let away = Duration::from_secs(options.outage_seconds);
    let of = format!("{rate:.0} rows/s, {} s without a database", options.outage_seconds);
    let mut stand = Stand::start(options, dir.join("outage"), target, rate).await?;
    sleep(WARM_UP.min(away)).await;
    let before = Reading::take(&mut stand, target).await?;
    target.stop_server(StopMode::Immediate)?;
    progress!("outage: the database is stopped");
    let largest = largest_during(&mut stand, away).await?;
    target.start_server()?;
    let began = Instant::now();
    let back = Reading::take(&mut stand, target).await?;
    progress!("outage: the database is back, {} rows wait", back.rows(|lane| lane.rows_pending));
    let (caught_up, largest) = until_caught_up(&mut stand, target, rate, (began, largest)).await?;
    let took = (caught_up.at - back.at).as_secs_f64();
    let committed = caught_up.rows(|lane| lane.rows_committed) - back.rows(|lane| lane.rows_committed);
    let sent = float(caught_up.sent - back.sent) / took;
    stand.finish(Stage::Outage.name(), target).await?;
    let rows_per_s = float(committed) / took;
    let values = [
        ("rows_waiting", "rows", float(back.rows(|lane| lane.rows_pending))),
        ("catch_up_s", "s", took),
        ("rows_per_s", "rows/s", rows_per_s),
        ("ratio_to_live", "ratio", rows_per_s / rate),
        ("sent_rows_per_s", "rows/s", sent),
        ("rss_before_mib", "MiB", mebibytes(before.resident)),
        ("rss_mib", "MiB", mebibytes(largest)),
        ("rss_after_mib", "MiB", mebibytes(caught_up.resident)),
    ];
    for (metric, unit, value) in values {
        report.add(Stage::Outage, &of, metric, unit, &[value]);
    }
    Ok(())
}

/// The daemon's largest memory while the database is away.
async fn largest_during(stand: &mut Stand, away: Duration) -> Result<u64, BenchError> {
    let end = Instant::now() + away;
    let mut largest = 0;
    while Instant::now() < end {
        sleep(Duration::from_millis(500)).await;
        stand.daemon.check()?;
        largest = largest.max(stand.resident());
    }
    Ok(largest)
}

/// Waits until no more waits than usual.
async fn until_caught_up(
    stand: &mut Stand,
    target: &Target,
    rate: f64,
    (began, mut largest): (Instant, u64),
) -> Result<(Reading, u64), BenchError> {
    loop {
        sleep(Duration::from_millis(250)).await;
        let now = Reading::take(stand, target).await?;
        largest = largest.max(now.resident);
        let waiting = now.rows(|lane| lane.rows_pending);
        if float(waiting) <= rate * USUAL_SECONDS {
            return Ok((now, largest));
        }
        if began.elapsed() > CATCH_UP_TIMEOUT {
            let detail = format!("{waiting} rows wait");
            return Err(BenchError::Late { what: Stage::Outage.name(), after: CATCH_UP_TIMEOUT, detail });
        }
    }
}

/// Rows a second unless told otherwise.
const RATE_DEFAULT: f64 = 100_000.0;
/// Before the database goes.
const WARM_UP: Duration = Duration::from_secs(10);
/// Rows of so many seconds wait for their batch at any time.
const USUAL_SECONDS: f64 = 0.5;
/// Longest wait for the end of the backlog.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1_800);
