//! A private PostgreSQL cluster in a folder of its own: for the demo, the tests and the benchmarks.
//!
//! Listens on a free loopback port, trusts local connections, loads TimescaleDB when the server has it. Never
//! touches a cluster it did not make.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use thiserror::Error;

/// A running cluster, or one that was stopped and can be started again. Dropping it stops the server; the folder
/// stays.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    is_running: bool,
    is_kept: bool,
    has_timescaledb: bool,
}

/// Whether TimescaleDB is to be loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extension {
    /// If the server has it.
    WhenThere,
    /// Never: plain PostgreSQL.
    Never,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopMode {
    /// Clean.
    Fast,
    /// As in a crash: no checkpoint, recovery at the next start.
    Immediate,
}

/// Why there is no cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// PostgreSQL's server programs are not installed.
    #[error("no PostgreSQL server found below /usr/lib/postgresql; install postgresql-15")]
    NotInstalled,
    /// A root user needs the postgres user, because the server refuses to run as root.
    #[error("running as root, and there is no user postgres to run the server as")]
    NoOwner,
    /// A file or folder of the cluster cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A server program failed.
    #[error("{program}: {output}")]
    Program {
        /// Which.
        program: String,
        /// What it printed.
        output: String,
    },
}

impl Cluster {
    /// Makes and starts a cluster below `dir`, which must not hold one yet, with an empty database `tapeway` (and the
    /// TimescaleDB extension in it, if loaded).
    ///
    /// # Errors
    ///
    /// PostgreSQL is not installed or does not start.
    pub fn create(dir: &Path, extension: Extension) -> Result<Self, ClusterError> {
        let bin = newest_server().ok_or(ClusterError::NotInstalled)?;
        let owner = if rustix::process::geteuid().is_root() {
            Some(postgres_user().ok_or(ClusterError::NoOwner)?)
        } else {
            None
        };
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| ClusterError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        if let Some((uid, gid)) = owner {
            chown(dir, Some(uid), Some(gid)).map_err(failed(dir))?;
        }
        let port = free_port().map_err(failed(dir))?;
        let has_timescaledb = extension == Extension::WhenThere && has_timescaledb(&bin);
        let mut cluster =
            Self { bin, dir: dir.into(), port, owner, is_running: false, is_kept: false, has_timescaledb };
        let data = cluster.data();
        cluster.program(
            "initdb",
            [
                "-D".as_ref(),
                data.as_os_str(),
                "-A".as_ref(),
                "trust".as_ref(),
                "-U".as_ref(),
                "tapeway".as_ref(),
                "-E".as_ref(),
                "UTF8".as_ref(),
                "--no-locale".as_ref(),
            ],
        )?;
        let settings = data.join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(&settings).map_err(failed(&settings))?;
        file.write_all(cluster.settings().as_bytes()).map_err(failed(&settings))?;
        cluster.start()?;
        cluster.psql("postgres", "CREATE DATABASE tapeway")?;
        if has_timescaledb {
            cluster.psql("tapeway", "CREATE EXTENSION timescaledb")?;
        }
        Ok(cluster)
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// The server does not start; its log is in the message.
    pub fn start(&mut self) -> Result<(), ClusterError> {
        let (data, log) = (self.data(), self.dir.join("server.log"));
        let arguments: [&OsStr; 8] = [
            "-D".as_ref(),
            data.as_os_str(),
            "-l".as_ref(),
            log.as_os_str(),
            "-w".as_ref(),
            "-t".as_ref(),
            "120".as_ref(),
            "start".as_ref(),
        ];
        self.program("pg_ctl", arguments)?;
        self.is_running = true;
        Ok(())
    }

    /// Stops the server.
    ///
    /// # Errors
    ///
    /// The server does not stop in time.
    pub fn stop(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        let data = self.data();
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        let arguments: [&OsStr; 8] = [
            "-D".as_ref(),
            data.as_os_str(),
            "-m".as_ref(),
            mode.as_ref(),
            "-w".as_ref(),
            "-t".as_ref(),
            "60".as_ref(),
            "stop".as_ref(),
        ];
        self.program("pg_ctl", arguments)?;
        self.is_running = false;
        Ok(())
    }

    /// Leaves the server running when this is dropped.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Runs SQL with psql and returns what it prints.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        let url = self.url_of(database);
        let output =
            self.program("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql].map(OsStr::new))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Process id of the server's first process.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn pid(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid"))?;
        let first = text.lines().next().and_then(|line| line.trim().parse().ok());
        first.ok_or_else(|| io::Error::other("postmaster.pid does not begin with a process id"))
    }

    /// Where the server is, for the database `tapeway`.
    pub fn url(&self) -> String {
        self.url_of("tapeway")
    }

    /// The port it listens on, on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether TimescaleDB is loaded.
    pub const fn has_timescaledb(&self) -> bool {
        self.has_timescaledb
    }

    /// How a person stops a server that was kept.
    pub fn stop_command(&self) -> String {
        let user = if self.owner.is_some() { "runuser -u postgres -- " } else { "" };
        format!("{user}{} -D {} -m fast stop", self.bin.join("pg_ctl").display(), self.data().display())
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgresql://tapeway@127.0.0.1:{}/{database}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn settings(&self) -> String {
        let preload = if self.has_timescaledb {
            "shared_preload_libraries = 'timescaledb'\ntimescaledb.telemetry_level = off\n"
        } else {
            ""
        };
        format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nmax_connections = 60\n\
             shared_buffers = 256MB\nmax_wal_size = 4GB\nwal_compression = on\nmax_locks_per_transaction = 256\n\
             max_worker_processes = 16\n{preload}",
            self.port
        )
    }

    fn program<'a>(&self, name: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<Output, ClusterError> {
        let mut command = Command::new(self.bin.join(name));
        // Ctrl-C in the terminal reaches the demo alone, which stops things in order.
        command.process_group(0);
        command.args(arguments).current_dir("/").env_remove("PGHOST").env_remove("PGPORT").env_remove("PGDATABASE");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        let failed = |output: String| ClusterError::Program { program: name.into(), output };
        // The server inherits pg_ctl's output; a pipe would stay open as long as the server lives.
        let output = if name == "pg_ctl" {
            let status = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
            status.map(|status| Output { status, stdout: Vec::new(), stderr: Vec::new() })
        } else {
            command.output()
        };
        let output = output.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(output);
        }
        let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
        if name == "pg_ctl" {
            text = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
            text = text
                .lines()
                .rev()
                .take(LOG_LINES_SHOWN)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("\n");
        }
        Err(failed(format!("{} {text}", output.status)))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_running
            && !self.is_kept
            && let Err(failure) = self.stop(StopMode::Immediate)
        {
            eprintln!("the private PostgreSQL below {} could not be stopped: {failure}", self.dir.display());
        }
    }
}

/// The programs of the newest PostgreSQL that Debian's packages have put on this machine.
fn newest_server() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| number(path))?;
    Some(newest.join("bin"))
}

/// psql of the newest server on this machine, or the one on the path.
pub fn psql_program() -> PathBuf {
    newest_server().map(|bin| bin.join("psql")).filter(|psql| psql.exists()).unwrap_or_else(|| "psql".into())
}

fn has_timescaledb(bin: &Path) -> bool {
    bin.parent().is_some_and(|version| version.join("lib/timescaledb.so").exists())
}

/// User and group id of `postgres`.
fn postgres_user() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A loopback port that nothing listens on.
///
/// # Errors
///
/// As the system has them.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Lines of the server's log shown when it does not start.
const LOG_LINES_SHOWN: usize = 15;
