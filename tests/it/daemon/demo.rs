//! `tapeway demo`: proves itself, and leaves nothing behind however it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{cluster, process::PATIENCE};

#[test]
fn the_demo_is_equal_on_plain_postgresql() {
    prove(&["--plain"]);
}

#[test]
fn the_demo_is_equal_on_timescaledb() {
    if !cluster::has_any_timescaledb() {
        println!("SKIPPED: TimescaleDB not installed");
        return;
    }
    prove(&[]);
}

fn prove(more: &[&str]) {
    let Some(demo) = Demo::start("4", more) else { return };
    let (text, is_success) = demo.end();
    assert!(is_success && text.contains("EQUAL"), "{text}");
}

#[test]
fn an_interrupted_demo_checks_what_it_has_and_leaves_nothing() {
    let Some(mut demo) = Demo::start("60", &["--plain"]) else { return };
    // Progress is shown while it records.
    demo.until_printed("rows/s");
    demo.signal(Signal::INT);
    let (text, is_success) = demo.end();
    assert!(is_success && text.contains("interrupted: stopping cleanly") && text.contains("EQUAL"), "{text}");
}

#[test]
fn a_demo_interrupted_while_it_sets_up_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let Some(mut demo) = Demo::start("60", &["--plain"]) else { return };
        demo.until_printed("folder");
        demo.signal(signal);
        let (text, is_success) = demo.end();
        assert!(!is_success && text.contains("interrupted; everything is stopped"), "{text}");
    }
}

/// A running demo, in a folder for temporary files of its own.
struct Demo {
    child: Child,
    folder: TempDir,
    lines: std::sync::mpsc::Receiver<String>,
    printed: String,
}

impl Demo {
    fn start(seconds: &str, more: &[&str]) -> Option<Self> {
        if !cluster::has_server() {
            println!("SKIPPED: PostgreSQL not installed");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("tapeway-demo-test-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tapeway"))
            .args(["demo", "--seconds", seconds, "--rate", "3000"])
            .args(more)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let both: [Box<dyn std::io::Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
        for output in both {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    drop(sender.send(line.unwrap()));
                }
            });
        }
        Some(Self { child, folder, lines, printed: String::new() })
    }

    fn until_printed(&mut self, words: &str) {
        while !self.printed.contains(words) {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it does not print {words:?}:\n{}", self.printed));
            self.printed += &format!("{line}\n");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits for its end: no file is left, and no process that knows its folder. What it printed, and whether it
    /// succeeded.
    fn end(mut self) -> (String, bool) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.printed += &format!("{line}\n");
        }
        let status = self.child.wait().unwrap();
        let text = &self.printed;
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}\n{text}");
        assert_eq!(processes_of(self.folder.path()), Vec::<String>::new(), "{text}");
        (self.printed, status.success())
    }
}

/// Command lines that hold a folder's name.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let bytes = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    });
    commands.filter(|command| command.contains(&name)).collect()
}
