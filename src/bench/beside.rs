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

/// Who fills the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    /// This crate.
    Own,
    /// psql.
    Copy,
    /// psql, into tables that are set as is best for taking in many instruments, whatever their readers would say.
    CopyGrouped,
}

impl Who {
    const fn name(self, stage: Stage) -> &'static str {
        match self {
            Self::Own => stage.name(),
            Self::Copy => "\\copy",
            Self::CopyGrouped => "\\copy without segments",
        }
    }
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
    let mut turns = vec![Who::Copy, Who::Own];
    if options.symbols >= MANY_INSTRUMENTS && target.has_columnstore() {
        turns.push(Who::CopyGrouped);
    }
    let mut runs: Vec<(Who, Run)> = Vec::new();
    for nr in 1..=options.runs {
        for who in &turns {
            target.empty()?;
            if *who == Who::CopyGrouped {
                target.set_segments(false)?;
            }
            if *who != Who::Own {
                script.prepare(target)?;
            }
            let (database_before, own_before) = (target.cpu_seconds(), cpu_seconds(std::process::id()));
            let took = if *who == Who::Own { once().await? } else { script.run(target)? };
            let (database_after, own_after) = (target.cpu_seconds(), cpu_seconds(std::process::id()));
            script.verify(who.name(stage), target)?;
            if *who == Who::CopyGrouped {
                target.empty()?;
                target.set_segments(true)?;
            }
            let run = Run {
                took,
                database_cpu: database_after.zip(database_before).map(|(after, before)| after - before),
                own_cpu: own_after.zip(own_before).map(|(after, before)| after - before),
            };
            let rate = float(script.rows_total()) / took.as_secs_f64();
            progress!("{} run {nr} of {}: {rate:.0} rows/s", who.name(stage), options.runs);
            runs.push((*who, run));
        }
        turns.rotate_left(1); // Nobody is always the one after somebody.
    }
    target.empty()?;
    let rows = float(script.rows_total());
    let of = |who: Who| runs.iter().filter(move |(whose, _)| *whose == who).map(|(_, run)| run);
    let rates = |who: Who| of(who).map(|run| rows / run.took.as_secs_f64()).collect::<Vec<_>>();
    let micros = |who: Who, seconds: fn(&Run) -> Option<f64>| {
        of(who).filter_map(seconds).map(|seconds| seconds * 1e6 / rows).collect::<Vec<_>>()
    };
    let ratios = |who: Who| rates(Who::Own).iter().zip(rates(who)).map(|(own, other)| own / other).collect::<Vec<_>>();
    report.add(stage, "", "rows_per_s", "rows/s", &rates(Who::Own));
    report.add(stage, "", "copy_rows_per_s", "rows/s", &rates(Who::Copy));
    report.add(stage, "", "ratio_to_copy", "ratio", &ratios(Who::Copy));
    report.add(stage, "", "grouped_copy_rows_per_s", "rows/s", &rates(Who::CopyGrouped));
    report.add(stage, "", "ratio_to_grouped_copy", "ratio", &ratios(Who::CopyGrouped));
    report.add(stage, "", "cpu_us_per_row", "us", &micros(Who::Own, |run| run.own_cpu));
    report.add(stage, "", "database_cpu_us_per_row", "us", &micros(Who::Own, |run| run.database_cpu));
    report.add(stage, "", "copy_database_cpu_us_per_row", "us", &micros(Who::Copy, |run| run.database_cpu));
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

/// From so many instruments on, a batch has few rows of each, and psql is also measured without segments.
const MANY_INSTRUMENTS: usize = 500;
/// Longest wait for the last commit, beside what its rows take.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Far slower than any machine writes.
const COMMIT_ROWS_PER_S_MIN: u64 = 5_000;
