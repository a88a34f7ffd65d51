//! Journal to database: the writer reads what a daemon with its database away has left, beside psql.

use std::time::{Duration, Instant};

use super::{
    BenchError, Options, Report, Stage,
    beside::{COMMIT_TIMEOUT, measure, until_committed},
    copy::Script,
    database::Target,
    material::{Material, writer_config},
};
use crate::writer;

/// Measures.
///
/// # Errors
///
/// [`BenchError`].
pub(super) async fn run(
    options: &Options,
    material: &Material,
    script: &Script,
    target: &Target,
    report: &mut Report,
) -> Result<(), BenchError> {
    measure(Stage::Catchup, options, target, script, report, async || once(material, target, script).await).await
}

/// From the start of the writer to the last commit.
async fn once(material: &Material, target: &Target, script: &Script) -> Result<Duration, BenchError> {
    let lanes = material.lanes()?;
    let began = Instant::now();
    let handle = writer::start(&writer_config(), &target.database, lanes.clone())?;
    until_committed(Stage::Catchup.name(), &lanes, &handle, script.rows_total()).await?;
    let took = began.elapsed();
    handle.stop(tokio::time::Instant::now() + COMMIT_TIMEOUT).await;
    Ok(took)
}
