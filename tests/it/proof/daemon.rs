//! The daemon as the process a user runs.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// `tapeway run`, and where its log goes. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    config: PathBuf,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(folder: &Path, config: &Path) -> Self {
        let log = folder.join("tapeway.log");
        Self { child: spawn(config, &log), config: config.into(), log }
    }

    /// SIGKILL: nothing is said, flushed or closed.
    pub(crate) fn kill(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended by itself:\n{}", self.tail());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.config, &self.log);
    }

    /// Waits until everything received is committed and nothing more comes.
    pub(crate) fn until_drained(&mut self) {
        let mut before = None;
        wait(Duration::from_secs(120), "everything is committed", || {
            assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended by itself:\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(300));
            let Some(status) = self.status() else { return false };
            let lanes = status["lanes"].as_array().unwrap();
            let sum = |key: &str| lanes.iter().map(|lane| lane[key].as_u64().unwrap()).sum::<u64>();
            let is_open = lanes.iter().all(|lane| lane["connection"] == "open");
            let is_done = is_open && sum("rows_pending") == 0 && before == Some(sum("appended"));
            before = Some(sum("appended"));
            is_done
        });
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.tail());
    }

    fn status(&self) -> Option<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_tapeway"))
            .args(["status", "--json", "--url", &format!("http://{}", self.listen())])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    fn listen(&self) -> String {
        let text = fs::read_to_string(self.config.join("tapeway.yaml")).unwrap();
        text.lines().find_map(|line| line.trim().strip_prefix("listen: ")).unwrap().to_owned()
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            println!("the daemon's last words:\n{}", self.tail());
        }
    }
}

fn spawn(config: &Path, log: &Path) -> Child {
    let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tapeway"))
        .args(["run", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .unwrap()
}

/// Waits until something is so; panics when it is not within `limit`, which is far beyond what any machine needs.
pub(crate) fn wait(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
