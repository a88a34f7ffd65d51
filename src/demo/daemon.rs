//! The daemon as a process of its own: this very program.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{DemoError, failed};
use crate::{
    session::{connect::Dialer, http, tls},
    status::Status,
};

/// A running `tapeway run`. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) log: PathBuf,
    url: String,
    dialer: Dialer,
}

impl Daemon {
    /// Starts it; its log goes into `dir`.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub(crate) fn start(dir: &Path, config: &Path, port: u16) -> Result<Self, DemoError> {
        let log = dir.join("tapeway.log");
        let stderr = File::create(&log).map_err(failed(&log))?;
        let program = std::env::current_exe().map_err(failed(Path::new("/proc/self/exe")))?;
        let child = Command::new(&program)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0) // Ctrl-C in the terminal does not reach it: it is stopped in order.
            .spawn()
            .map_err(failed(&program))?;
        let dialer = Dialer::new(tls::client_config(None)?);
        Ok(Self { child, log, url: format!("http://127.0.0.1:{port}"), dialer })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// It ended, or is not ready in time.
    pub(crate) async fn until_ready(&mut self) -> Result<(), DemoError> {
        let started = Instant::now();
        let mut detail = String::from("it does not answer");
        while started.elapsed() < READY_TIMEOUT {
            self.check()?;
            if let Ok(answer) = http::get(&self.dialer, &format!("{}/readyz", self.url)).await {
                if answer.status == 200 {
                    return Ok(());
                }
                detail = String::from_utf8_lossy(&answer.body).into_owned();
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(DemoError::Late { what: "is not ready", after: READY_TIMEOUT, detail })
    }

    /// Waits until everything it has received is committed, and nothing more comes.
    ///
    /// # Errors
    ///
    /// It ended, or has rows left at the end of a generous time.
    pub(crate) async fn until_drained(&mut self) -> Result<Status, DemoError> {
        let started = Instant::now();
        let mut before = None;
        let mut detail = String::new();
        while started.elapsed() < DRAIN_TIMEOUT {
            self.check()?;
            sleep(Duration::from_millis(500)).await;
            let Some((status, _)) = self.ask().await else { continue };
            let pending: u64 = status.lanes.iter().map(|lane| lane.rows_pending).sum();
            let received: u64 = status.lanes.iter().map(|lane| lane.rows_received).sum();
            if pending == 0 && before == Some(received) {
                return Ok(status);
            }
            detail = format!("{pending} rows are pending");
            before = Some(received);
        }
        Err(DemoError::Late { what: "is not done", after: DRAIN_TIMEOUT, detail })
    }

    /// Its status and metrics, if it answers.
    pub(crate) async fn ask(&self) -> Option<(Status, String)> {
        let status = http::get(&self.dialer, &format!("{}/status", self.url)).await.ok()?;
        let metrics = http::get(&self.dialer, &format!("{}/metrics", self.url)).await.ok()?;
        let status = serde_json::from_slice(&status.body).ok()?;
        Some((status, String::from_utf8_lossy(&metrics.body).into_owned()))
    }

    /// Sees to it that it is still running.
    ///
    /// # Errors
    ///
    /// It ended; the end of its log is in the message.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.ended(&status.to_string())),
            Ok(None) => Ok(()),
            Err(failure) => Err(self.ended(&failure.to_string())),
        }
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    ///
    /// It did not stop cleanly.
    pub(crate) fn stop(mut self) -> Result<(), DemoError> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && let Err(failure) = kill_process(pid, Signal::TERM)
        {
            return Err(self.ended(&failure.to_string()));
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.ended(&status.to_string())),
            Err(failure) => Err(self.ended(&failure.to_string())),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn ended(&self, status: &str) -> DemoError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        DemoError::DaemonEnded { status: status.into(), log: self.log.display().to_string(), tail }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, or killed now; there is nothing to do about a failure of either.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Longest wait until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until everything is committed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Lines of its log shown when it ends by itself.
const LOG_LINES_SHOWN: usize = 20;
