//! Journal to database: the writer reads what a daemon with its database away has left, beside psql.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    BenchError, Options, Report, Stage,
    copy::Script,
    database::Target,
    float,
    material::{Material, writer_config},
    progress,
};
use crate::{lane::Lane, writer};

/// Measures.
///
/// # Errors
///
/// [`BenchError`].
pub(super) async fn run(
    options: &Options,
    dir: &Path,
    material: &Material,
    target: &Target,
    report: &mut Report,
) -> Result<(), BenchError> {
    let script = Script::write(dir, material, target).await?;
    let rows = float(script.rows_total());
    progress!("{} rows, {} transactions", script.rows_total(), script.batches);
    let (mut rates, mut copies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for nr in 1..=options.runs {
        // In turn, so that what else the machine does strikes both alike.
        let (own, copy) = if nr % 2 == 0 {
            let own = once(material, target, &script).await?;
            (own, script.run(target)?)
        } else {
            let copy = script.run(target)?;
            (once(material, target, &script).await?, copy)
        };
        let (own, copy) = (rows / own.as_secs_f64(), rows / copy.as_secs_f64());
        progress!("run {nr} of {}: catchup {own:.0} rows/s, \\copy {copy:.0} rows/s", options.runs);
        rates.push(own);
        copies.push(copy);
        ratios.push(own / copy);
    }
    target.empty()?;
    report.add(Stage::Catchup, "", "rows_per_s", "rows/s", &rates);
    report.add(Stage::Catchup, "", "copy_rows_per_s", "rows/s", &copies);
    report.add(Stage::Catchup, "", "ratio_to_copy", "ratio", &ratios);
    Ok(())
}

/// From the start of the writer to the last commit.
async fn once(material: &Material, target: &Target, script: &Script) -> Result<Duration, BenchError> {
    target.empty()?;
    let lanes = material.lanes()?;
    let limit = COMMIT_TIMEOUT + Duration::from_secs(script.rows_total() / COMMIT_ROWS_PER_S_MIN);
    let began = Instant::now();
    let handle = writer::start(&writer_config(), &target.database, lanes.clone())?;
    let is_done = |lane: &std::sync::Arc<Lane>| lane.progress.committed() >= lane.progress.appended();
    while !lanes.iter().all(is_done) {
        if began.elapsed() > limit {
            let detail = format!("{:?}", handle.states());
            return Err(BenchError::Late { what: "catchup", after: limit, detail });
        }
        sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    handle.stop(tokio::time::Instant::now() + COMMIT_TIMEOUT).await;
    script.verify("catchup", target)?;
    Ok(took)
}

/// Longest wait for the last commit, beside what its rows take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Far slower than any machine writes.
const COMMIT_ROWS_PER_S_MIN: u64 = 5_000;
