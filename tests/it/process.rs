//! The daemon as the process a user runs.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
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
    environment: Vec<(String, String)>,
    /// Length of the log before this run.
    log_before: usize,
}

impl Daemon {
    pub(crate) fn start(folder: &Path, config: &Path) -> Self {
        Self::start_with(folder, config, &[])
    }

    /// Starts it with variables added to its environment.
    pub(crate) fn start_with(folder: &Path, config: &Path, environment: &[(&str, &str)]) -> Self {
        let log = folder.join("tapeway.log");
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let log_before = fs::read_to_string(&log).unwrap_or_default().len();
        Self { child: spawn(config, &log, &environment), config: config.into(), log, environment, log_before }
    }

    /// SIGKILL: nothing is said, flushed or closed.
    pub(crate) fn kill(&mut self) {
        self.must_run();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.log_before = usize::try_from(fs::metadata(&self.log).unwrap().len()).unwrap();
        self.child = spawn(&self.config, &self.log, &self.environment);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until everything received is committed and nothing more comes.
    pub(crate) fn until_drained(&mut self) {
        self.until_drained_within(PATIENCE);
    }

    /// The same, with a limit.
    pub(crate) fn until_drained_within(&mut self, limit: Duration) {
        let mut before = None;
        self.until_within(limit, "everything is committed", |status| {
            std::thread::sleep(Duration::from_millis(300));
            let live: Vec<_> = lanes(status).into_iter().filter(|lane| lane["is_live"] == true).collect();
            let is_open = live.iter().all(|lane| lane["connection"] == "open");
            let appended = Some(sum(status, "appended"));
            let is_done = is_open && sum(status, "rows_pending") == 0 && before == appended;
            before = appended;
            is_done
        });
    }

    /// Waits until its status is so; the status that was.
    pub(crate) fn until(&mut self, what: &str, is_so: impl FnMut(&Value) -> bool) -> Value {
        self.until_within(PATIENCE, what, is_so)
    }

    fn until_within(&mut self, limit: Duration, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let started = Instant::now();
        loop {
            self.must_run();
            if let Some(status) = self.status() {
                if is_so(&status) {
                    return status;
                }
                last = status;
            }
            assert!(started.elapsed() < limit, "not within {limit:?}: {what}; it says {last:#}\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until it says that it is ready.
    pub(crate) fn until_ready(&mut self) {
        self.until("it is ready", |status| status["not_ready"].as_array().unwrap().is_empty());
    }

    /// Waits until its log of this run has a line with all these words; that line.
    pub(crate) fn until_logged(&mut self, words: &[&str]) -> String {
        let mut found = None;
        wait(PATIENCE, &format!("the log says {words:?}"), || {
            found = self.logged(words);
            found.is_some() || !self.is_running()
        });
        found.or_else(|| self.logged(words)).unwrap_or_else(|| panic!("no {words:?} in the log:\n{}", self.tail()))
    }

    /// The first line of this run's log with all these words.
    pub(crate) fn logged(&self, words: &[&str]) -> Option<String> {
        self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
    }

    /// The log of this run.
    pub(crate) fn log(&self) -> String {
        let Ok(mut file) = fs::File::open(&self.log) else { return String::new() };
        file.seek(SeekFrom::Start(self.log_before as u64)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_for_end();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.tail());
    }

    /// Waits until it has ended.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait(PATIENCE, "the daemon ends", || !self.is_running());
        self.child.wait().unwrap()
    }

    /// `/status`.
    pub(crate) fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/status")?.1).ok()
    }

    /// `/metrics`.
    pub(crate) fn metrics(&mut self) -> Metrics {
        let mut text = None;
        wait(PATIENCE, "/metrics answers", || {
            self.must_run();
            text = self.get("/metrics");
            text.is_some()
        });
        Metrics(text.unwrap().1)
    }

    /// `/readyz`: status and text.
    pub(crate) fn readyz(&mut self) -> (u16, String) {
        let mut answer = None;
        wait(PATIENCE, "/readyz answers", || {
            self.must_run();
            answer = self.get("/readyz");
            answer.is_some()
        });
        answer.unwrap()
    }

    /// What `tapeway status` prints.
    pub(crate) fn table(&mut self) -> String {
        self.until("it answers", |_| true);
        let output = tapeway(&["status", "--url", &format!("http://{}", self.listen().unwrap())]);
        assert!(output.status.success(), "{}", all_of(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Where its endpoint listens, once it does: the configuration says port 0.
    pub(crate) fn listen(&self) -> Option<String> {
        let line = self.logged(&["tapeway starts", "address="])?;
        Some(line.split("address=").nth(1)?.split(' ').next()?.to_owned())
    }

    /// Status and body of an answer; `None` while it does not listen.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.listen()?).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: tapeway\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    fn must_run(&mut self) {
        assert!(self.is_running(), "the daemon ended by itself:\n{}", self.tail());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; the test that needed it has said so.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            println!("the daemon's last words:\n{}", self.tail());
        }
    }
}

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// Every series of a metric whose labels contain all of `labels` (each as `name="value"`), with its value.
    pub(crate) fn series(&self, name: &str, labels: &[&str]) -> Vec<(String, f64)> {
        let of_name = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let is_whole = rest.is_empty() || rest.starts_with('{');
            is_whole.then(|| (rest.to_owned(), value.parse().unwrap()))
        });
        of_name.filter(|(found, _)| labels.iter().all(|label| found.contains(label))).collect()
    }

    /// The sum of those series.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name, labels).iter().map(|(_, value)| value).sum()
    }
}

/// The lanes of a status.
pub(crate) fn lanes(status: &Value) -> Vec<&Value> {
    status["lanes"].as_array().unwrap().iter().collect()
}

/// The sum of a number over all lanes of a status.
pub(crate) fn sum(status: &Value, key: &str) -> u64 {
    lanes(status).iter().map(|lane| lane[key].as_u64().unwrap()).sum()
}

/// A lane of a status.
pub(crate) fn lane<'a>(status: &'a Value, name: &str) -> &'a Value {
    lanes(status).into_iter().find(|lane| lane["lane"] == name).unwrap_or(&Value::Null)
}

/// Runs `tapeway` with arguments until it ends.
pub(crate) fn tapeway(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The daemon's binary: this build's, or the one that `TAPEWAY_BINARY` names.
fn binary() -> PathBuf {
    std::env::var_os("TAPEWAY_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tapeway").into(), PathBuf::from)
}

/// Both outputs of a command.
pub(crate) fn all_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn spawn(config: &Path, log: &Path, environment: &[(String, String)]) -> Child {
    let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
    Command::new(binary())
        .args(["run", "--config"])
        .arg(config)
        .envs(environment.iter().map(|(name, value)| (name, value)))
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

/// Far longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
