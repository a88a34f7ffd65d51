//! The main job on an embedded default: loopback venues, the real daemon as a process of its own, a private
//! PostgreSQL, and at the end the truth.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    loopback::{self, Channel, Fault, FaultKind, Options, Rate, Venue, When},
    session::tls,
};

pub mod cluster;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod histogram;
mod interrupt;
mod progress;
mod summary;
pub mod truth;

use cluster::{Cluster, ClusterError, Extension, StopMode, free_port};
use daemon::Daemon;
use interrupt::Interrupt;
use progress::Progress;
use truth::{CompareError, Comparison};

/// What the demo is to do.
#[derive(Clone, Debug)]
pub struct Demo {
    /// How long to record.
    pub seconds: u64,
    /// Rows a second over all venues.
    pub rate: f64,
    /// Leave folder, database and daemon configuration behind.
    pub is_kept: bool,
    /// Instruments on each venue.
    pub symbols: usize,
    /// What the markets grow from.
    pub seed: u64,
    /// Do not use TimescaleDB even if the server has it.
    pub is_plain: bool,
}

/// Why the demo did not run through.
#[derive(Debug, Error)]
pub enum DemoError {
    /// A file cannot be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No private PostgreSQL.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No loopback venues.
    #[error(transparent)]
    Loopback(#[from] loopback::Error),
    /// The daemon's endpoint cannot be asked.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The daemon ended by itself.
    #[error("the daemon ended ({status}); its log is {log}:\n{tail}")]
    DaemonEnded {
        /// Its exit status.
        status: String,
        /// Its log file.
        log: String,
        /// The log's last lines.
        tail: String,
    },
    /// The daemon is not ready or not done in time.
    #[error("the daemon {what} after {after:?}: {detail}")]
    Late {
        /// What it should be.
        what: &'static str,
        /// The limit.
        after: Duration,
        /// What it says.
        detail: String,
    },
    /// The rows cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// Signals cannot be heard.
    #[error("signal handlers: {0}")]
    Signals(#[source] io::Error),
    /// Ctrl-C or SIGTERM, with nothing to compare yet, or once more.
    #[error("interrupted; everything is stopped")]
    Interrupted,
}

/// How the demo ended.
#[derive(Debug)]
pub struct Outcome {
    /// Whether the database is exactly what was sent.
    pub comparison: Comparison,
    /// Whether Ctrl-C ended it early.
    pub is_interrupted: bool,
}

impl Demo {
    /// Runs it, printing as it goes.
    ///
    /// # Errors
    ///
    /// See [`DemoError`]. Whatever was started is stopped.
    pub async fn run(&self) -> Result<Outcome, DemoError> {
        let mut interrupt = Interrupt::listen().map_err(DemoError::Signals)?;
        let dir = std::env::temp_dir().join(format!("tapeway-demo-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let outcome = self.run_in(&dir, &mut interrupt).await;
        if !self.is_kept {
            fs::remove_dir_all(&dir).map_err(failed(&dir))?;
        }
        outcome
    }

    async fn run_in(&self, dir: &Path, interrupt: &mut Interrupt) -> Result<Outcome, DemoError> {
        let extension = if self.is_plain { Extension::Never } else { Extension::WhenThere };
        println!("folder      {}", dir.display());
        let mut cluster = Cluster::create(&dir.join("postgres"), extension)?;
        let kind = match (cluster.has_timescaledb(), self.is_plain) {
            (true, _) => "with TimescaleDB",
            (false, true) => "plain PostgreSQL, as asked",
            (false, false) => "plain PostgreSQL (TimescaleDB is not installed)",
        };
        println!("database    {}  {kind}", cluster.url());
        let truth = dir.join("truth.ndjson");
        let venues = loopback::start(Options {
            venues: Venue::ALL.to_vec(),
            seed: self.seed,
            symbols: self.symbols,
            rate: Rate::RowsPerSecond(self.rate),
            truth: Some(truth.clone()),
            is_lossless: true,
            ..Options::default()
        })?;
        println!("venues      four on loopback, seed {}, {} instruments each", self.seed, self.symbols);
        let port = free_port().map_err(failed(dir))?;
        let settings = config::Settings {
            dir,
            database_url: &cluster.url(),
            venues: &Venue::ALL,
            server: &venues,
            symbols: self.symbols,
            port,
            is_journal_compressed: true,
            shutdown_seconds: 30,
        };
        let config = config::write(&settings).map_err(failed(dir))?;
        let mut daemon = Daemon::start(dir, &config, port)?;
        println!("daemon      http://127.0.0.1:{port}/status  /metrics  /readyz   log {}", daemon.log.display());
        tokio::select! {
            ready = daemon.until_ready() => ready?,
            () = interrupt.heard() => return Err(DemoError::Interrupted),
        }
        let is_interrupted = self.record(&mut daemon, &venues, interrupt).await?;
        venues.pause();
        let status = tokio::select! {
            status = daemon.until_drained() => status?,
            () = interrupt.heard() => return Err(DemoError::Interrupted),
        };
        daemon.stop()?;
        let sent = venues.stop()?;
        println!("\nchecking every row against what the venues sent ...");
        let url = cluster.url();
        let comparison = tokio::select! {
            comparison = truth::compare(&truth, &url) => comparison?,
            () = interrupt.heard() => return Err(DemoError::Interrupted),
        };
        let sent = sent.venues.iter().map(|venue| venue.total.sent).sum();
        summary::print(&cluster, &status, sent, &comparison, self.is_kept.then_some((dir, config.as_path())))?;
        if self.is_kept {
            cluster.keep();
        } else {
            cluster.stop(StopMode::Fast)?;
        }
        Ok(Outcome { comparison, is_interrupted })
    }

    /// Records for the time asked for, with a few faults on the way; true if Ctrl-C ended it.
    async fn record(
        &self,
        daemon: &mut Daemon,
        venues: &loopback::Server,
        interrupt: &mut Interrupt,
    ) -> Result<bool, DemoError> {
        let started = Instant::now();
        let length = Duration::from_secs(self.seconds);
        let mut faults = faults(length);
        let mut progress = Progress::new(length);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        while started.elapsed() < length {
            tokio::select! {
                _ = ticks.tick() => {}
                () = interrupt.heard() => {
                    progress.finish();
                    println!("interrupted: stopping cleanly");
                    return Ok(true);
                }
            }
            while let Some((_, fault)) = faults.pop_if(|(at, _)| *at <= started.elapsed()) {
                venues.fault(&fault);
            }
            daemon.check()?;
            if let Some((status, metrics)) = daemon.ask().await {
                progress.show(started.elapsed(), &status, &metrics);
            }
        }
        progress.finish();
        Ok(false)
    }
}

/// What goes wrong on purpose, latest first: frames that a venue never sends, and a wrong checksum.
fn faults(length: Duration) -> Vec<(Duration, Fault)> {
    let once = |kind, venue| Fault::new(kind).on(venue).channel(Channel::Book).when(When::Count(3));
    vec![
        (length.mul_f64(0.6), once(FaultKind::Checksum, Venue::Kraken)),
        (length.mul_f64(0.5), once(FaultKind::Drop, Venue::BinanceSpot)),
        (length.mul_f64(0.4), once(FaultKind::Drop, Venue::BinanceUsdm)),
    ]
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let path = path.display().to_string();
    move |source| DemoError::File { path, source }
}
