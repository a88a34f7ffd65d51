//! The real daemon as a process of its own, between loopback venues and the database that is measured.

use std::{fs, path::PathBuf, time::Instant};

use super::{
    BenchError, Options,
    database::Target,
    failed,
    process::{cpu_seconds, resident_bytes},
};
use crate::{
    demo::{
        cluster::free_port,
        config::{Settings, write},
        daemon::Daemon,
        histogram::Histogram,
        truth,
    },
    loopback::{self, Rate},
    metrics::RECEIVE_TO_COMMIT,
    status::{LaneStatus, Status},
};

/// What runs while something is measured.
pub(super) struct Stand {
    pub(super) server: loopback::Server,
    pub(super) daemon: Daemon,
    dir: PathBuf,
}

impl Stand {
    /// Starts venues that send `rate` rows a second and the daemon that records them, below `dir`; waits until it does.
    ///
    /// # Errors
    ///
    /// One of them does not start.
    pub(super) async fn start(options: &Options, dir: PathBuf, target: &Target, rate: f64) -> Result<Self, BenchError> {
        target.empty()?;
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let symbols = (options.symbols / options.venues.len()).max(1);
        let server = loopback::start(loopback::Options {
            venues: options.venues.clone(),
            symbols,
            rate: Rate::RowsPerSecond(rate),
            truth: Some(dir.join(TRUTH)),
            is_lossless: true,
            ..loopback::Options::default()
        })?;
        let port = free_port().map_err(failed(&dir))?;
        let config = write(&Settings {
            dir: &dir,
            database_url: target.url(),
            venues: &options.venues,
            server: &server,
            symbols,
            port,
            is_journal_compressed: true,
            shutdown_seconds: 30,
        });
        let config = config.map_err(failed(&dir))?;
        let mut daemon = Daemon::start(&dir, &config, port)?;
        daemon.until_ready().await?;
        Ok(Self { server, daemon, dir })
    }

    /// Lets everything be committed, stops, and compares the database with what was sent.
    ///
    /// # Errors
    ///
    /// [`BenchError::NotExact`]; or something does not end.
    pub(super) async fn finish(self, stage: &'static str, target: &Target) -> Result<(), BenchError> {
        let Self { server, mut daemon, dir } = self;
        server.pause();
        daemon.until_drained().await?;
        daemon.stop()?;
        server.stop()?;
        let comparison = truth::compare(&dir.join(TRUTH), target.url()).await?;
        if !comparison.is_equal() {
            return Err(BenchError::NotExact { what: stage, detail: format!("{comparison:?}") });
        }
        fs::remove_dir_all(&dir).map_err(failed(&dir))?;
        target.empty()
    }

    /// The daemon's memory now, in bytes; 0 if the kernel does not tell.
    pub(super) fn resident(&self) -> u64 {
        resident_bytes(self.daemon.id()).unwrap_or(0)
    }
}

/// What has been used and done so far.
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) latency: Histogram,
    pub(super) sent: u64,
    pub(super) cpu: f64,
    pub(super) database_cpu: Option<f64>,
    pub(super) loopback_cpu: Option<f64>,
    pub(super) resident: u64,
}

impl Reading {
    pub(super) async fn take(stand: &mut Stand, target: &Target) -> Result<Self, BenchError> {
        let Stand { server, daemon, .. } = stand;
        let pid = daemon.id();
        loop {
            daemon.check()?;
            let Some((status, metrics)) = daemon.ask().await else { continue };
            let at = Instant::now();
            let cpu = cpu_seconds(pid).ok_or(BenchError::NoProc(pid))?;
            let resident = resident_bytes(pid).ok_or(BenchError::NoProc(pid))?;
            let sent = server.stats().venues.iter().map(|venue| venue.total.sent).sum();
            return Ok(Self {
                at,
                status,
                latency: Histogram::read(&metrics, RECEIVE_TO_COMMIT),
                sent,
                cpu,
                database_cpu: target.cpu_seconds(),
                loopback_cpu: cpu_seconds(std::process::id()),
                resident,
            });
        }
    }

    pub(super) fn rows(&self, of: fn(&LaneStatus) -> u64) -> u64 {
        self.status.lanes.iter().map(of).sum()
    }
}

/// What the venues have sent, below the stand's folder.
const TRUTH: &str = "truth.ndjson";
