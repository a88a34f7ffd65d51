//! A real Prometheus of the test's own, and the dashboard's queries on it.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{dashboard, exposition, root};

#[test]
fn every_dashboard_query_gives_series_with_the_labels_its_legend_shows() {
    let Some(prometheus) = Prometheus::start(exposition::serve()) else { return };
    // No alert fires here, so the annotation that marks them has nothing to show.
    dashboard::every_query_runs(&prometheus, |query| !query.expr.starts_with("ALERTS"));
}

/// A running Prometheus that scrapes one target every second, with the project's alert rules. Ends with the value.
#[derive(Debug)]
pub(crate) struct Prometheus {
    process: Child,
    address: SocketAddr,
    /// Its configuration and data; gone with the value.
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it and waits until it answers; `None` after saying so when Prometheus is not installed.
    pub(crate) fn start(target: SocketAddr) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let rules = root().join("prometheus/rules/*.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: tapeway\n    static_configs: [{{targets: ['{target}']}}]\n",
            rules.display()
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("the folder can be written");
        for _ in 0..STARTS_MAX {
            // The port is free now and can be taken by another process before Prometheus has it: then again.
            let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
            let Some(mut process) = spawn(folder.path(), address) else {
                println!("SKIPPED: Prometheus not installed");
                return None;
            };
            if is_ready(&mut process, address) {
                return Some(Self { process, address, _folder: folder });
            }
        }
        panic!("Prometheus does not start: {}", fs::read_to_string(folder.path().join("log")).unwrap_or_default())
    }

    /// The series that `expr` gives now.
    ///
    /// # Errors
    ///
    /// What Prometheus says about it.
    pub(crate) fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        let json = get(self.address, &format!("/api/v1/query?query={}", percent(expr)))?;
        let json: Value = serde_json::from_str(&json).map_err(|error| format!("{expr}: {error}: {json}"))?;
        let series = json["data"]["result"].as_array().filter(|_| json["status"] == "success");
        series.cloned().ok_or_else(|| format!("{expr}: {json}"))
    }

    /// The series that `expr` gives once there are any. Panics when there are none after a long time.
    pub(crate) fn until_some(&self, expr: &str) -> Vec<Value> {
        self.until_some_while(expr, || true).expect("it waits as long as it may")
    }

    /// The same, as long as `may_wait`; `None` when it no longer may.
    pub(crate) fn until_some_while(&self, expr: &str, mut may_wait: impl FnMut() -> bool) -> Option<Vec<Value>> {
        let started = Instant::now();
        while may_wait() {
            let series = self.query(expr).unwrap_or_else(|error| panic!("{error}"));
            if !series.is_empty() {
                return Some(series);
            }
            assert!(started.elapsed() < PATIENCE, "nothing came of {expr}");
            thread::sleep(Duration::from_millis(200));
        }
        None
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        stop(&mut self.process);
    }
}

fn spawn(folder: &Path, address: SocketAddr) -> Option<Child> {
    Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log")).expect("the folder can be written"))
        .spawn()
        .ok()
}

/// Whether it answers before it ends or patience does.
fn is_ready(process: &mut Child, address: SocketAddr) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE && process.try_wait().is_ok_and(|status| status.is_none()) {
        if get(address, "/-/ready").is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    stop(process);
    false
}

fn stop(process: &mut Child) {
    // It may have ended by itself, which is as good.
    drop(process.kill());
    drop(process.wait());
}

/// The body of an answer with status 200.
fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends with the connection and comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(format!("status {status}: {body}")) }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Long enough for the slowest machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most attempts to start on a free port.
const STARTS_MAX: usize = 5;
