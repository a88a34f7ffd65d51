//! A venue's WebSocket to the database: the real daemon as a process of its own, between loopback venues and the
//! database, all on this machine.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    BenchError, Options, Report, Stage,
    database::Target,
    float, progress,
    stand::{Reading, Stand},
};

/// Measures.
///
/// # Errors
///
/// [`BenchError`].
pub(super) async fn run(options: &Options, dir: &Path, target: &Target, report: &mut Report) -> Result<(), BenchError> {
    if let Some(rate) = options.rate {
        let of = format!("{rate:.0} rows/s, {} s", options.seconds);
        let mut runs = Vec::new();
        for nr in 1..=options.runs {
            let measured = once(options, dir, target, rate, options.seconds).await?;
            progress!("live run {nr} of {} at {rate:.0} rows/s: {}", options.runs, measured.line());
            runs.push(measured);
        }
        for (metric, unit, value) in METRICS {
            let values: Vec<f64> = runs.iter().filter_map(value).collect();
            report.add(Stage::Live, &of, metric, unit, &values);
        }
    }
    if options.is_search_wanted {
        search(options, dir, target, report).await?;
    }
    Ok(())
}

/// The highest rate that holds: doubles until one does not, halves the interval, and confirms with a full run.
async fn search(options: &Options, dir: &Path, target: &Target, report: &mut Report) -> Result<(), BenchError> {
    let mut good = 0.0;
    let mut bad = f64::INFINITY;
    let mut rate = options.rate.unwrap_or(RATE_FIRST).max(RATE_FIRST);
    while bad > good * SEARCH_PRECISION {
        let measured = once(options, dir, target, rate, options.seconds.min(PROBE_SECONDS)).await?;
        progress!("{rate:.0} rows/s {}: {}", if measured.holds() { "holds" } else { "does not hold" }, measured.line());
        if measured.holds() {
            good = rate;
        } else {
            bad = rate;
        }
        rate = if bad.is_infinite() { good * 1.5 } else { f64::midpoint(good, bad) };
        if bad < RATE_MIN {
            return Ok(());
        }
    }
    let mut rate = good;
    for _ in 0..CONFIRMATIONS_MAX {
        let measured = once(options, dir, target, rate, options.seconds).await?;
        progress!("confirming {rate:.0} rows/s for {} s: {}", options.seconds, measured.line());
        if measured.holds() {
            let of = format!("highest rate that holds for {} s", options.seconds);
            report.add(Stage::Live, &of, "rows_per_s_max", "rows/s", &[measured.rows_per_s]);
            for (metric, unit, value) in METRICS {
                report.add(Stage::Live, &of, metric, unit, &value(&measured).into_iter().collect::<Vec<_>>());
            }
            return Ok(());
        }
        rate *= 0.95;
    }
    Ok(())
}

/// One measurement.
struct Measured {
    /// Asked for.
    rate: f64,
    /// Sent by the venues.
    sent_per_s: f64,
    /// Committed.
    rows_per_s: f64,
    /// Quantiles of receive-to-commit, seconds.
    p50: Option<f64>,
    p99: Option<f64>,
    /// CPU of the daemon, in cores.
    cores: f64,
    /// The same of the database, when it is ours.
    database_cores: Option<f64>,
    /// The same of the loopback venues (and the bench itself).
    loopback_cores: Option<f64>,
    /// The daemon's memory at the beginning, at its largest and at the end, in bytes.
    resident: [u64; 3],
    /// Rows received and not committed at the beginning and at the end.
    pending: [u64; 2],
}

type Metric = (&'static str, &'static str, fn(&Measured) -> Option<f64>);

const METRICS: [Metric; 11] = [
    ("rows_per_s", "rows/s", |run| Some(run.rows_per_s)),
    ("commit_p50_ms", "ms", |run| run.p50.map(|seconds| seconds * 1e3)),
    ("commit_p99_ms", "ms", |run| run.p99.map(|seconds| seconds * 1e3)),
    ("cpu_cores", "cores", |run| Some(run.cores)),
    ("cpu_us_per_row", "us", |run| Some(run.cores * 1e6 / run.rows_per_s.max(1.0))),
    ("database_cpu_cores", "cores", |run| run.database_cores),
    ("loopback_cpu_cores", "cores", |run| run.loopback_cores),
    ("rss_mib", "MiB", |run| Some(mebibytes(run.resident[1]))),
    ("rss_growth_mib", "MiB", |run| Some(mebibytes(run.resident[2]) - mebibytes(run.resident[0]))),
    ("pending_rows_at_end", "rows", |run| Some(float(run.pending[1]))),
    ("sent_rows_per_s", "rows/s", |run| Some(run.sent_per_s)),
];

impl Measured {
    /// Whether everything went through at the rate asked for and nothing was left to pile up.
    fn holds(&self) -> bool {
        let is_sent = self.sent_per_s >= self.rate * HOLDS_SHARE;
        let is_committed = self.rows_per_s >= self.rate * HOLDS_SHARE;
        let grown = float(self.pending[1].saturating_sub(self.pending[0]));
        is_sent && is_committed && grown <= self.rate * LAG_SECONDS_MAX
    }

    fn line(&self) -> String {
        let millis = |seconds: Option<f64>| seconds.map_or(f64::NAN, |seconds| seconds * 1e3);
        format!(
            "sent {:.0}/s, committed {:.0}/s, p50 {:.0} ms, p99 {:.0} ms, daemon {:.2} cores, database {:.2}, loopback {:.2}, \
             {:.0} MiB, pending {} to {}",
            self.sent_per_s,
            self.rows_per_s,
            millis(self.p50),
            millis(self.p99),
            self.cores,
            self.database_cores.unwrap_or(f64::NAN),
            self.loopback_cores.unwrap_or(f64::NAN),
            mebibytes(self.resident[1]),
            self.pending[0],
            self.pending[1],
        )
    }
}

/// Starts everything anew, measures for `seconds`, and compares the database with what was sent.
async fn once(options: &Options, dir: &Path, target: &Target, rate: f64, seconds: u64) -> Result<Measured, BenchError> {
    let mut stand = Stand::start(options, dir.join("live"), target, rate).await?;
    let measured = measure(&mut stand, target, rate, seconds).await?;
    stand.finish(Stage::Live.name(), target).await?;
    Ok(measured)
}

async fn measure(stand: &mut Stand, target: &Target, rate: f64, seconds: u64) -> Result<Measured, BenchError> {
    // Snapshots, new chunks of the tables, caches: not what is asked here.
    sleep(WARM_UP.min(Duration::from_secs(seconds))).await;
    let first = Reading::take(stand, target).await?;
    let end = first.at + Duration::from_secs(seconds);
    let mut largest = first.resident;
    loop {
        sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now()))).await;
        stand.daemon.check()?;
        largest = largest.max(stand.resident());
        if Instant::now() >= end {
            break;
        }
    }
    let last = Reading::take(stand, target).await?;
    let took = (last.at - first.at).as_secs_f64();
    let latency = last.latency.since(&first.latency);
    let difference = |now: Option<f64>, before: Option<f64>| Some((now? - before?) / took);
    let committed = last.rows(|lane| lane.rows_committed) - first.rows(|lane| lane.rows_committed);
    Ok(Measured {
        rate,
        sent_per_s: float(last.sent - first.sent) / took,
        rows_per_s: float(committed) / took,
        p50: latency.quantile(0.5),
        p99: latency.quantile(0.99),
        cores: (last.cpu - first.cpu) / took,
        database_cores: difference(last.database_cpu, first.database_cpu),
        loopback_cores: difference(last.loopback_cpu, first.loopback_cpu),
        resident: [first.resident, largest.max(last.resident), last.resident],
        pending: [first.rows(|lane| lane.rows_pending), last.rows(|lane| lane.rows_pending)],
    })
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

/// Before a measurement begins.
const WARM_UP: Duration = Duration::from_secs(5);
/// Where the search begins, at least.
const RATE_FIRST: f64 = 100_000.0;
/// A search that fails below this has found nothing.
const RATE_MIN: f64 = 1_000.0;
/// Length of one step of the search.
const PROBE_SECONDS: u64 = 15;
/// The search ends when the lowest rate that failed is this close to the highest that held.
const SEARCH_PRECISION: f64 = 1.06;
/// Full runs at falling rates before the search gives up.
const CONFIRMATIONS_MAX: usize = 5;
/// A rate holds if this share of it was sent and committed ...
const HOLDS_SHARE: f64 = 0.98;
/// ... and the rows waiting have not grown by more than this many seconds' worth.
const LAG_SECONDS_MAX: f64 = 0.5;
