//! The dashboard's SQL on a real server of the test's own, with the project's migrations.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{all_of, dashboard, files};

#[test]
fn every_sql_query_runs_on_timescaledb() {
    let Some(server) = Server::start(true) else { return };
    server.every_query_runs();
}

#[test]
fn every_sql_query_runs_on_plain_postgresql() {
    let Some(server) = Server::start(false) else { return };
    server.every_query_runs();
}

/// A private cluster on a socket in its own folder, migrated. Stops with the value.
struct Server {
    folder: TempDir,
    bin: PathBuf,
    is_root: bool,
}

impl Server {
    /// `None` after saying so when the server, or TimescaleDB when it is asked for, is not installed.
    fn start(is_timescale: bool) -> Option<Self> {
        let Some(bin) = bin() else {
            println!("SKIPPED: PostgreSQL not installed");
            return None;
        };
        let control = Command::new(bin.join("pg_config")).arg("--sharedir").output();
        let share = control.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        if is_timescale && !Path::new(&share).join("extension/timescaledb.control").exists() {
            println!("SKIPPED: TimescaleDB not installed");
            return None;
        }
        let folder = TempDir::with_prefix("tapeway-ops-").expect("a temporary folder");
        let server = Self { folder, bin, is_root: rustix::process::geteuid().is_root() };
        if server.is_root {
            // The server refuses to run as root: the folder belongs to the user it runs as.
            ok(Command::new("chown").arg("postgres").arg(server.folder.path()).output());
        }
        let data = server.path("data");
        ok(server.run("initdb").args(["-A", "trust", "-U", "tapeway", "-D", &data, "--no-sync"]).output());
        let mut settings = "listen_addresses = ''\nfsync = off\n".to_owned();
        if is_timescale {
            settings.push_str("shared_preload_libraries = 'timescaledb'\ntimescaledb.telemetry_level = off\n");
        }
        settings.push_str(&format!("unix_socket_directories = '{}'\n", server.folder.path().display()));
        let config = Path::new(&data).join("postgresql.auto.conf");
        fs::write(&config, settings).expect("the folder can be written");
        ok(server.run("pg_ctl").args(["-D", &data, "-w", "-t", "120", "-l", &server.path("log"), "start"]).output());
        if is_timescale {
            server.sql("CREATE EXTENSION timescaledb");
        }
        let mut migrations = files("sql/migrations");
        migrations.sort_by_key(|file| version(file));
        for migration in migrations {
            ok(server.psql().arg("-1").arg("-f").arg(migration).output());
        }
        Some(server)
    }

    fn every_query_runs(&self) {
        let queries = dashboard::sql_queries();
        assert!(queries.len() >= 3, "{queries:?}");
        for query in queries {
            let output = self.psql().args(["-c", &query.sql]).output().expect("psql runs");
            assert!(output.status.success(), "{}: {}\n{}", query.panel, all_of(&output), query.sql);
        }
    }

    fn sql(&self, sql: &str) {
        ok(self.psql().args(["-c", sql]).output());
    }

    fn psql(&self) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "tapeway", "-d", "postgres", "-h"])
            .arg(self.folder.path());
        command
    }

    /// A program of the server, as the user it has to run as.
    fn run(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        if !self.is_root {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
        command
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its folder goes with it; a server that is gone already needs no stop.
        drop(self.run("pg_ctl").args(["-D", &self.path("data"), "-m", "immediate", "-w", "stop"]).output());
    }
}

/// The folder with the newest installed server's programs.
fn bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.filter(|version| *version >= 15).max()?;
    Some(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// The number in `V12__name.sql`.
fn version(file: &Path) -> u32 {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let number = name.strip_prefix('V').and_then(|rest| rest.split_once("__")).map(|(number, _)| number.parse());
    number.and_then(Result::ok).unwrap_or_else(|| panic!("{name} is not called V<number>__<purpose>.sql"))
}

fn ok(output: std::io::Result<Output>) {
    let output = output.expect("the program can be started");
    assert!(output.status.success(), "{}", all_of(&output));
}
