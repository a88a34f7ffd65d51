//! What the stages work on: a journal that the daemon itself recorded from the loopback venues, with its database out
//! of reach.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tapeway_exchanges::{event::Events, ids::FramePos, venue};
use tokio::{sync::Notify, time::sleep};

use super::{BenchError, Options, Stage, failed, progress};
use crate::{
    config,
    demo::{
        DemoError,
        cluster::free_port,
        config::{Settings, write},
        daemon::Daemon,
    },
    journal::Journal,
    lane::{Lane, Rows},
    loopback::{self, Rate},
    queue::Queue,
    replay::Replay,
};

/// A recorded journal.
pub(super) struct Material {
    journal: Journal,
}

impl Material {
    /// Records about `options.rows` rows below `dir`: as fast as it goes, or, for a database that is to look like one that
    /// was recorded into for days, at a usual rate, so that whole books are among them.
    ///
    /// # Errors
    ///
    /// The venues or the daemon do not run, or the rows do not come in time.
    pub(super) async fn record(options: &Options, dir: &Path) -> Result<Self, BenchError> {
        let Options { venues, symbols, rows, .. } = options;
        progress!("recording {rows} rows from {} loopback venues into a journal", venues.len());
        let dir = dir.join("recorded");
        std::fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let symbols = (symbols / venues.len()).max(1);
        let server = loopback::start(loopback::Options {
            venues: venues.clone(),
            symbols,
            rate: if options.stages.contains(&Stage::Scale) { Rate::RowsPerSecond(USUAL_RATE) } else { Rate::Max },
            is_lossless: true,
            rows_max: Some(rows.div_ceil(venues.len() as u64)),
            ..loopback::Options::default()
        })?;
        let port = free_port().map_err(failed(&dir))?;
        let config = write(&Settings {
            dir: &dir,
            database_url: NO_DATABASE,
            venues,
            server: &server,
            symbols,
            port,
            is_journal_compressed: false,
            shutdown_seconds: 1,
        });
        let config = config.map_err(failed(&dir))?;
        let mut daemon = Daemon::start(&dir, &config, port)?;
        until_recorded(&mut daemon, &server, *rows).await?;
        daemon.stop()?;
        server.stop()?;
        Ok(Self { journal: Journal::open(&journal_config(dir.join("journal")))? })
    }

    /// The lanes as a daemon's start has them: everything is appended and durable, nothing is known to be committed.
    ///
    /// # Errors
    ///
    /// As the journal has them.
    pub(super) fn lanes(&self) -> Result<Vec<Arc<Lane>>, BenchError> {
        let mut lanes = Vec::new();
        for identity in self.journal.found()? {
            let Some(venue) = venue::find(&identity.venue) else { continue };
            let (journal, _) = self.journal.lane(&identity.venue, &identity.lane)?;
            lanes.push(Arc::new(Lane {
                name: identity.lane,
                venue,
                journal_id: identity.journal_id,
                disk: journal.disk(),
                dir: journal.dir().into(),
                progress: journal.progress(),
                rows: Rows::default(),
                queue: Queue::new(writer_config().queue_chunks_max),
                is_behind: AtomicBool::new(false),
                writer: Arc::new(Notify::new()),
            }));
        }
        Ok(lanes)
    }

    /// Decodes everything, chunk by chunk as catch-up does, lane by lane in turn, and hands each chunk with its lane's
    /// index to `each`, which may give back memory for another.
    ///
    /// # Errors
    ///
    /// As the journal has them, and those of `each`.
    pub(super) fn each_chunk(
        &self,
        mut each: impl FnMut(usize, &Arc<Lane>, Events) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let mut replays = Vec::new();
        for (nr, lane) in self.lanes()?.into_iter().enumerate() {
            replays.push((nr, Replay::open(&lane, FramePos::FIRST)?, lane));
        }
        let rows_max = writer_config().chunk_rows_max;
        while !replays.is_empty() {
            let mut at = 0;
            while let Some((nr, replay, lane)) = replays.get_mut(at) {
                match replay.next_chunk(lane, rows_max, Events::default())? {
                    Ok(chunk) => {
                        each(*nr, lane, chunk)?;
                        at += 1;
                    }
                    Err(_) => drop(replays.remove(at)),
                }
            }
        }
        Ok(())
    }
}

/// Waits until the markets are done and the daemon has taken in all they sent.
async fn until_recorded(daemon: &mut Daemon, server: &loopback::Server, rows: u64) -> Result<(), BenchError> {
    let began = Instant::now();
    let limit = RECORD_TIMEOUT + Duration::from_secs(rows / RECORD_ROWS_PER_S_MIN);
    let mut before = None;
    let mut received = 0;
    while began.elapsed() < limit {
        daemon.check()?;
        sleep(Duration::from_millis(300)).await;
        let Some((status, _)) = daemon.ask().await else { continue };
        received = status.lanes.iter().map(|lane| lane.rows_received).sum();
        if server.stats().rows() >= rows && before == Some(received) {
            return Ok(());
        }
        before = Some(received);
    }
    let detail = format!("{received} of {rows} rows are received");
    Err(DemoError::Late { what: "has not recorded everything", after: limit, detail }.into())
}

/// The writer as shipped.
pub(super) fn writer_config() -> config::Writer {
    config::Writer {
        threads: None,
        pin: config::Pin::Auto,
        batch_rows_max: 50_000,
        batch_bytes_max: 16 << 20,
        batch_age_max: Duration::from_millis(200),
        queue_chunks_max: 256,
        chunk_rows_max: 1_024,
    }
}

/// The journal as shipped, but nothing is compressed or removed meanwhile.
pub(super) fn journal_config(dir: PathBuf) -> config::Journal {
    config::Journal {
        dir,
        segment_bytes_max: 64 << 20,
        sync_interval: Duration::from_millis(10),
        keep_for: Duration::from_secs(7 * 86_400),
        bytes_max: u64::MAX,
        free_bytes_min: 0,
        is_compressed: false,
    }
}

/// Nothing listens there: the daemon records, and its writer waits.
const NO_DATABASE: &str = "postgresql://nobody@127.0.0.1:1/none";
/// Rows a second of a busy recorder.
const USUAL_RATE: f64 = 100_000.0;
/// Longest wait for a recording, beside what its rows take.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);
/// Far slower than any machine records.
const RECORD_ROWS_PER_S_MIN: u64 = 10_000;
