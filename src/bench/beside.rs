//! A database stage beside psql: in turn, into the same tables, so that what else the machine does strikes both alike.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    BenchError, Options, Report, Stage, copy::Script, database::Target, float, process::cpu_seconds, progress,
};
use crate::{lane::Lane, writer};

/// One run.
struct Run {
    took: Duration,
    /// CPU seconds of the server, when it is ours.
    database_cpu: Option<f64>,
    /// CPU seconds of this process.
    own_cpu: Option<f64>,
}

/// Runs `once`, which fills the empty tables, and psql in turn.
///
/// # Errors
///
/// Theirs, and [`BenchError::NotExact`].
pub(super) async fn measure(
    stage: Stage,
    options: &Options,
    target: &Target,
    script: &Script,
    report: &mut Report,
    mut once: impl AsyncFnMut() -> Result<Duration, BenchError>,
) -> Result<(), BenchError> {
    let (mut own, mut copy) = (Vec::new(), Vec::new());
    for nr in 1..=options.runs {
        for is_copy in if nr % 2 == 0 { [false, true] } else { [true, false] } {
            target.empty()?;
            if is_copy {
                script.prepare(target)?;
            }
            let (database_before, own_before) = (target.cpu_seconds(), cpu_seconds(std::process::id()));
            let took = if is_copy { script.run(target)? } else { once().await? };
            let (database_after, own_after) = (target.cpu_seconds(), cpu_seconds(std::process::id()));
            script.verify(if is_copy { "\\copy" } else { stage.name() }, target)?;
            let run = Run {
                took,
                database_cpu: database_after.zip(database_before).map(|(after, before)| after - before),
                own_cpu: own_after.zip(own_before).map(|(after, before)| after - before),
            };
            if is_copy { &mut copy } else { &mut own }.push(run);
        }
        let rate = |runs: &[Run]| runs.last().map_or(0.0, |run| float(script.rows_total()) / run.took.as_secs_f64());
        progress!(
            "{} run {nr} of {}: {:.0} rows/s, \\copy {:.0} rows/s",
            stage.name(),
            options.runs,
            rate(&own),
            rate(&copy)
        );
    }
    target.empty()?;
    let rows = float(script.rows_total());
    let rates = |runs: &[Run]| runs.iter().map(|run| rows / run.took.as_secs_f64()).collect::<Vec<_>>();
    let micros = |runs: &[Run], of: fn(&Run) -> Option<f64>| {
        runs.iter().filter_map(of).map(|seconds| seconds * 1e6 / rows).collect::<Vec<_>>()
    };
    let (own_rates, copy_rates) = (rates(&own), rates(&copy));
    let ratios: Vec<f64> = own_rates.iter().zip(&copy_rates).map(|(own, copy)| own / copy).collect();
    report.add(stage, "", "rows_per_s", "rows/s", &own_rates);
    report.add(stage, "", "copy_rows_per_s", "rows/s", &copy_rates);
    report.add(stage, "", "ratio_to_copy", "ratio", &ratios);
    report.add(stage, "", "cpu_us_per_row", "us", &micros(&own, |run| run.own_cpu));
    report.add(stage, "", "database_cpu_us_per_row", "us", &micros(&own, |run| run.database_cpu));
    report.add(stage, "", "copy_database_cpu_us_per_row", "us", &micros(&copy, |run| run.database_cpu));
    Ok(())
}

/// Waits until everything that is appended is committed.
///
/// # Errors
///
/// [`BenchError::Late`].
pub(super) async fn until_committed(
    what: &'static str,
    lanes: &[Arc<Lane>],
    handle: &writer::Handle,
    rows: u64,
) -> Result<(), BenchError> {
    let limit = COMMIT_TIMEOUT + Duration::from_secs(rows / COMMIT_ROWS_PER_S_MIN);
    let began = Instant::now();
    while lanes.iter().any(|lane| lane.progress.committed() < lane.progress.appended()) {
        if began.elapsed() > limit {
            return Err(BenchError::Late { what, after: limit, detail: format!("{:?}", handle.states()) });
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Longest wait for the last commit, beside what its rows take.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Far slower than any machine writes.
const COMMIT_ROWS_PER_S_MIN: u64 = 5_000;
