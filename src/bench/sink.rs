//! Decoded events to database: what the writer makes of chunks that are ready in memory, beside psql.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tapeway_exchanges::event::Events;
use tokio::{sync::Notify, time::sleep};

use super::{
    BenchError, Options, Report, Stage,
    beside::{COMMIT_TIMEOUT, measure, until_committed},
    copy::Script,
    database::Target,
    material::{Material, writer_config},
};
use crate::{
    lane::{Lane, Progress, Rows},
    queue::Queue,
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
    script: &Script,
    target: &Target,
    report: &mut Report,
) -> Result<(), BenchError> {
    let mut chunks = Vec::new();
    material.each_chunk(|nr, _, events| {
        chunks.push((nr, events));
        Ok(())
    })?;
    let names = material.lanes()?;
    measure(Stage::Sink, options, target, script, report, async || once(&names, chunks.clone(), target, script).await)
        .await
}

/// From the start of the writer to the last commit, while chunks are offered as fast as the queues take them.
async fn once(
    names: &[Arc<Lane>],
    chunks: Vec<(usize, Events)>,
    target: &Target,
    script: &Script,
) -> Result<Duration, BenchError> {
    let lanes: Vec<Arc<Lane>> = names.iter().map(|lane| Arc::new(without_journal(lane))).collect();
    let began = Instant::now();
    let handle = writer::start(&writer_config(), &target.database, lanes.clone())?;
    for (nr, mut events) in chunks {
        let lane = &lanes[nr];
        let end = events.end();
        while let Err(back) = lane.queue.push(events) {
            events = back;
            sleep(Duration::from_millis(1)).await;
        }
        lane.progress.on_append(end);
        lane.progress.on_sync(end);
        lane.writer.notify_one();
    }
    until_committed(Stage::Sink.name(), &lanes, &handle, script.rows_total()).await?;
    let took = began.elapsed();
    handle.stop(tokio::time::Instant::now() + COMMIT_TIMEOUT).await;
    Ok(took)
}

/// The same lane with everything still to come, and nothing to read it from but the queue.
pub(super) fn without_journal(lane: &Lane) -> Lane {
    Lane {
        name: lane.name.clone(),
        venue: lane.venue,
        journal_id: rand::random(),
        disk: lane.disk.clone(),
        dir: PathBuf::from("/nonexistent"),
        progress: Arc::new(Progress::default()),
        rows: Rows::default(),
        queue: Queue::new(writer_config().queue_chunks_max),
        is_behind: AtomicBool::new(false),
        writer: Arc::new(Notify::new()),
    }
}
