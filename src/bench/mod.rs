//! `tapeway bench`: how fast each part is on this machine, and how close the whole is to the database itself.
//!
//! ```text
//! decode   frames -> events                    beside a typed serde_json decode of the same frames
//! encode   events -> COPY bytes
//! journal  append and sync, recover, read
//! sink     events -> writer -> database        \  beside psql \copy of the same rows, in the same order, in
//! catchup  journal -> replay -> writer -> database /  the same transactions, into the same tables
//! live     loopback -> daemon -> database      at a fixed rate, and the highest rate that holds
//! outage   the same with the database away     memory meanwhile, and the rate of catching up beside what is live
//! scale    what rows cost, how much room they take and how long questions take in a database that has grown
//! ```
//!
//! Frames come from a recording of the loopback venues made at the start, by the daemon itself with its database out
//! of reach; `decode` can take recorded files instead. The database is a private one unless one is named.
//!
//! - `report.rs`: values and medians; `process.rs`: CPU and memory; `database.rs`: the database; `material.rs`: what
//!   the stages work on; `frames.rs`: frames in memory; `copy.rs`: psql's side; `beside.rs`: both in turn
//! - `decode.rs`, `typed.rs`, `encode.rs`, `journal.rs`, `sink.rs`, `catchup.rs`, `live.rs`, `outage.rs`, `scale.rs`: the
//!   stages; `stand.rs`: venues, daemon and database of the last three

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use crate::{
    demo::{
        DemoError,
        cluster::{ClusterError, StopMode},
        truth::CompareError,
    },
    journal::Error as JournalError,
    loopback, recording, store,
};

mod beside;
mod catchup;
mod copy;
mod database;
mod decode;
mod encode;
mod frames;
mod journal;
mod live;
mod material;
mod outage;
mod process;
mod report;
mod scale;
mod sink;
mod stand;
mod typed;

pub use report::{Measured, Report, Stage};

use copy::Script;
use database::Target;
use frames::Frames;
use material::Material;

/// What to measure, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stages.
    pub stages: Vec<Stage>,
    /// Runs of each; the median is reported.
    pub runs: usize,
    /// Rows of a run, about.
    pub rows: u64,
    /// Rows stored when `scale` measures, ascending.
    pub stored: Vec<u64>,
    /// Length of a live measurement.
    pub seconds: u64,
    /// Rows a second of the live stage; `None` measures no fixed rate.
    pub rate: Option<f64>,
    /// Whether the live stage looks for the highest rate that holds, from `rate` on.
    pub is_search_wanted: bool,
    /// Seconds without a database in the outage stage.
    pub outage_seconds: u64,
    /// Loopback venues of the live stage.
    pub venues: Vec<loopback::Venue>,
    /// Instruments in all.
    pub symbols: usize,
    /// A database to measure; a private one when absent.
    pub database_url: Option<String>,
    /// Delete the rows that the database has.
    pub is_forced: bool,
    /// Plain PostgreSQL for the private database.
    pub is_plain: bool,
    /// Recordings for `decode`: files or folders of the corpus.
    pub recordings: Vec<PathBuf>,
    /// One JSON object a value.
    pub is_json: bool,
}

impl Options {
    /// The same in sizes that take seconds and mean nothing: to see that it works.
    #[must_use]
    pub fn smoke(self) -> Self {
        let rate = self.rate.map(|rate| rate.min(4_000.0));
        let stored = vec![50_000];
        Self {
            runs: 1,
            rows: 20_000,
            stored,
            seconds: 2,
            outage_seconds: 3,
            rate,
            is_search_wanted: false,
            symbols: 8,
            ..self
        }
    }
}

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A file cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The database has rows that would be lost.
    #[error(
        "the database has tapeway data ({rows} lanes); the bench empties its tables: name an empty database, or delete them with --force"
    )]
    HasData {
        /// Lanes in it.
        rows: u64,
    },
    /// A server that the bench has not started is not its to stop.
    #[error("the stage `outage` stops the database: it takes none that is named with --database-url")]
    NotOurs,
    /// Ctrl-C.
    #[error(
        "interrupted: what was started is stopped; rows in a database that was named with --database-url are still there"
    )]
    Interrupted,
    /// psql does not run or is refused.
    #[error("psql: {0}")]
    Psql(String),
    /// The writer has not committed everything in time.
    #[error("{what}: not everything was committed after {after:?}: {detail}")]
    Late {
        /// The stage.
        what: &'static str,
        /// The limit.
        after: Duration,
        /// How far it is.
        detail: String,
    },
    /// What is in the database is not what was sent.
    #[error("{what}: the database does not hold what was sent: {detail}")]
    NotExact {
        /// The stage.
        what: &'static str,
        /// The difference.
        detail: String,
    },
    /// The kernel does not tell what a process uses.
    #[error("/proc does not tell what process {0} uses")]
    NoProc(u32),
    /// The daemon, or something around it.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// No private PostgreSQL.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No loopback venues.
    #[error(transparent)]
    Loopback(#[from] loopback::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A recording cannot be read.
    #[error(transparent)]
    Recording(#[from] recording::Error),
    /// The rows cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
}

/// Measures. Prints values on stdout as they come, and what it is doing on stderr.
///
/// # Errors
///
/// See [`BenchError`]. Whatever was started is stopped, and files and rows are removed.
pub async fn run(options: &Options) -> Result<Report, BenchError> {
    let dir = std::env::temp_dir().join(format!("tapeway-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(failed(&dir))?;
    // What is dropped half way stops what it has started.
    let report = tokio::select! {
        report = run_in(options, &dir) => report,
        _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
    };
    fs::remove_dir_all(&dir).map_err(failed(&dir))?;
    report
}

async fn run_in(options: &Options, dir: &Path) -> Result<Report, BenchError> {
    let mut report = Report::new(options.is_json);
    let is_wanted = |stages: &[Stage]| stages.iter().any(|stage| options.stages.contains(stage));
    let is_decode_generated = is_wanted(&[Stage::Decode]) && options.recordings.is_empty();
    let material = if is_decode_generated || is_wanted(&NEED_MATERIAL) {
        Some(Material::record(options, dir).await?)
    } else {
        None
    };
    if is_wanted(&[Stage::Decode]) && !options.recordings.is_empty() {
        decode::run(options, &Frames::of_recordings(&options.recordings)?, &mut report);
    }
    if let Some(material) = &material {
        without_database(options, dir, material, is_decode_generated, &mut report)?;
    }
    if is_wanted(&[Stage::Sink, Stage::Catchup, Stage::Live, Stage::Outage, Stage::Scale]) {
        let mut target = Target::open(options, dir).await?;
        let result = with_database(options, dir, material.as_ref(), &mut target, &mut report).await;
        let cleaned = target.clean(StopMode::Immediate).await;
        result?;
        cleaned?;
    }
    Ok(report)
}

fn without_database(
    options: &Options,
    dir: &Path,
    material: &Material,
    is_decode_generated: bool,
    report: &mut Report,
) -> Result<(), BenchError> {
    let is_journal = options.stages.contains(&Stage::Journal);
    if is_decode_generated || is_journal {
        let frames = Frames::of_material(material)?;
        if is_decode_generated {
            decode::run(options, &frames, report);
        }
        if is_journal {
            journal::run(options, dir, &frames, report)?;
        }
    }
    if options.stages.contains(&Stage::Encode) {
        encode::run(options, material, report)?;
    }
    Ok(())
}

async fn with_database(
    options: &Options,
    dir: &Path,
    material: Option<&Material>,
    target: &mut Target,
    report: &mut Report,
) -> Result<(), BenchError> {
    let is_wanted = |stage| options.stages.contains(&stage);
    if let Some(material) = material.filter(|_| is_wanted(Stage::Sink) || is_wanted(Stage::Catchup)) {
        let script = Script::write(dir, material, target).await?;
        progress!("{} rows, {} transactions", script.rows_total(), script.batches);
        if is_wanted(Stage::Sink) {
            sink::run(options, material, &script, target, report).await?;
        }
        if is_wanted(Stage::Catchup) {
            catchup::run(options, material, &script, target, report).await?;
        }
        script.remove()?;
    }
    if let Some(material) = material.filter(|_| is_wanted(Stage::Scale)) {
        scale::run(options, material, target, report).await?;
    }
    if is_wanted(Stage::Live) {
        live::run(options, dir, target, report).await?;
    }
    if is_wanted(Stage::Outage) {
        outage::run(options, dir, target, report).await?;
    }
    Ok(())
}

/// Stages that work on recorded material.
const NEED_MATERIAL: [Stage; 5] = [Stage::Encode, Stage::Journal, Stage::Sink, Stage::Catchup, Stage::Scale];

/// Says on stderr what is being done.
macro_rules! progress {
    ($($argument:tt)*) => { eprintln!("bench: {}", format_args!($($argument)*)) };
}
use progress;

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BenchError {
    let path = path.display().to_string();
    move |source| BenchError::File { path, source }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
