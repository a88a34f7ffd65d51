//! A private PostgreSQL cluster in a temporary folder: on a free loopback port and a Unix socket, gone when dropped.
//!
//! `initdb` refuses to run as root, so as root everything runs as user `postgres`.

use std::{
    collections::BTreeMap,
    fs,
    io::BufReader,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tapeway::{
    config::{Database, Secret, TablePolicy},
    store::{Connection, Connector},
};

/// Whether TimescaleDB is loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flavor {
    Plain,
    Timescale,
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    /// Gone with the cluster, unless it is to be kept.
    _temporary: Option<tempfile::TempDir>,
    bin: PathBuf,
    pub(crate) port: u16,
}

impl Cluster {
    /// Makes and starts a cluster; `None`, said loudly, when this machine cannot.
    pub(crate) fn start(flavor: Flavor) -> Option<Self> {
        Self::start_in(flavor, None)
    }

    /// The same in a folder that is not there yet and stays.
    pub(crate) fn start_in(flavor: Flavor, folder: Option<&Path>) -> Option<Self> {
        let Some(bin) = bin() else {
            println!("SKIPPED: PostgreSQL not installed");
            return None;
        };
        if flavor == Flavor::Timescale && !has_timescaledb(&bin) {
            println!("SKIPPED: TimescaleDB not installed");
            return None;
        }
        let temporary = match folder {
            Some(folder) => fs::create_dir(folder).map(|()| None).unwrap(),
            None => Some(tempfile::Builder::new().prefix("tapeway-pg-").tempdir().unwrap()),
        };
        let folder = temporary.as_ref().map_or_else(|| folder.unwrap().to_owned(), |folder| folder.path().to_owned());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { folder, _temporary: temporary, bin, port };
        let data = cluster.data();
        cluster
            .must("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"]);
        let preload = match flavor {
            Flavor::Plain => "",
            Flavor::Timescale => "shared_preload_libraries = 'timescaledb'\ntimescaledb.telemetry_level = off\n",
        };
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = on\n\
             full_page_writes = off\nmax_connections = 100\nshared_buffers = 64MB\nmax_wal_size = 2GB\n{preload}",
            cluster.socket_folder().display()
        );
        cluster.append_settings(&settings);
        cluster.up();
        Some(cluster)
    }

    /// Starts a cluster that [`start_in`](Self::start_in) made and [`leave`](Self::leave) left.
    pub(crate) fn reopen(folder: &Path) -> Self {
        let settings = fs::read_to_string(folder.join("data/postgresql.conf")).unwrap();
        let port = settings.lines().rev().find_map(|line| line.strip_prefix("port = ")).unwrap().parse().unwrap();
        let cluster = Self { folder: folder.into(), _temporary: None, bin: bin().unwrap(), port };
        cluster.up();
        cluster
    }

    /// Stops it in good order; says how to start it again.
    pub(crate) fn leave(self) -> String {
        self.must("pg_ctl", &["-D", &self.data(), "-w", "-t", "600", "-m", "fast", "stop"]);
        let user = if is_root() { "runuser -u postgres -- " } else { "" };
        format!("{user}{} -D {} -w -l {} start", self.bin.join("pg_ctl").display(), self.data(), self.log())
    }

    /// A plain cluster for tests that never stop it: the same for all who run at once, gone with the last of them.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start(Flavor::Plain)?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// Starts it again after [`stop`](Self::stop).
    pub(crate) fn up(&self) {
        self.must("pg_ctl", &["-D", &self.data(), "-w", "-t", "600", "-l", &self.log(), "start"]);
    }

    /// Stops it as a crash would: no checkpoint, no goodbye.
    pub(crate) fn stop(&self) {
        self.must("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-m", "immediate", "stop"]);
    }

    /// Copies the running cluster, with `pg_basebackup`.
    pub(crate) fn back_up(&self) {
        let (to, host, port) = (self.backup(), self.socket_folder().display().to_string(), self.port.to_string());
        self.must(
            "pg_basebackup",
            &["-D", &to, "-h", &host, "-p", &port, "-U", "postgres", "-X", "stream", "-c", "fast"],
        );
    }

    /// Destroys it and starts what [`back_up`](Self::back_up) copied in its place.
    pub(crate) fn restore(&self) {
        self.stop();
        fs::remove_dir_all(self.data()).unwrap();
        fs::rename(self.backup(), self.data()).unwrap();
        self.up();
    }

    fn backup(&self) -> String {
        self.folder.join("backup").display().to_string()
    }

    /// Adds lines to `postgresql.conf`, effective at the next start.
    pub(crate) fn append_settings(&self, lines: &str) {
        let path = self.folder.join("data/postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}\n{lines}\n")).unwrap();
    }

    /// Gives the server a certificate and restarts it with TLS.
    pub(crate) fn serve_tls(&self, certificate_pem: &str, key_pem: &str) {
        for (name, text) in [("server.crt", certificate_pem), ("server.key", key_pem)] {
            let path = self.folder.as_path().join("data").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                self.must_run(Command::new("chown").arg("postgres").arg(&path));
            }
        }
        self.append_settings("ssl = on");
        self.stop();
        self.up();
    }

    /// The configuration of a database of this cluster, made now, reached through `port`.
    pub(crate) fn database_at(&self, name: &str, port: u16) -> Database {
        let exists = self.psql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"));
        if exists.trim().is_empty() {
            self.psql("postgres", &format!("CREATE DATABASE {name}"));
        }
        Database {
            url: Secret::new(format!("postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable")),
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            is_columnstore_wanted: true,
            tables: BTreeMap::<String, TablePolicy>::new(),
            candles_refresh_every: Duration::from_secs(60),
            candles_refresh_window: Duration::from_secs(7_200),
            audit_drop_after: None,
            metadata_every: Duration::from_secs(300),
        }
    }

    /// The configuration of a database of this cluster, made now.
    pub(crate) fn database(&self, name: &str) -> Database {
        self.database_at(name, self.port)
    }

    /// What `psql` prints for a statement, tuples only.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.psql_command(database, sql).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Hands what a `COPY ... TO STDOUT` gives to a reader, as it comes.
    pub(crate) fn copy_out(&self, database: &str, sql: &str, read: impl FnOnce(&mut BufReader<ChildStdout>)) {
        let mut child = self.psql_command(database, sql).stdout(Stdio::piped()).spawn().unwrap();
        let mut stream = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
        read(&mut stream);
        drop(stream);
        assert!(child.wait().unwrap().success(), "{sql}: see above");
    }

    fn psql_command(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
            .arg("-h")
            .arg(self.socket_folder())
            .args(["-p", &self.port.to_string()]);
        command
    }

    /// Gives a folder to the server's user.
    pub(crate) fn own(&self, folder: &Path) {
        if is_root() {
            // The way to it has to be open as well.
            for above in folder.ancestors().skip(1).take_while(|above| *above != std::env::temp_dir()) {
                let mut mode = fs::metadata(above).unwrap().permissions();
                mode.set_mode(mode.mode() | 0o011);
                fs::set_permissions(above, mode).unwrap();
            }
            self.must_run(Command::new("chown").arg("postgres").arg(folder));
        }
    }

    /// Folder of the Unix socket.
    pub(crate) fn socket_folder(&self) -> &Path {
        self.folder.as_path()
    }

    fn data(&self) -> String {
        self.folder.as_path().join("data").display().to_string()
    }

    fn log(&self) -> String {
        self.folder.as_path().join("log").display().to_string()
    }

    fn must(&self, program: &str, arguments: &[&str]) {
        let path = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        self.must_run(command.args(arguments).current_dir(self.folder.as_path()));
    }

    fn must_run(&self, command: &mut Command) {
        // To a file, not a pipe: the server inherits it and would keep a pipe open.
        let printed = self.folder.as_path().join("printed");
        let file = fs::File::create(&printed).unwrap();
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        let log = fs::read_to_string(self.folder.as_path().join("log")).unwrap_or_default();
        assert!(status.success(), "{command:?}: {}\n{log}", fs::read_to_string(&printed).unwrap_or_default());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        let path = self.bin.join("pg_ctl");
        let mut command = if is_root() { Command::new("runuser") } else { Command::new(&path) };
        if is_root() {
            command.args(["-u", "postgres", "--"]).arg(&path);
        }
        let stopped: std::io::Result<Output> =
            command.args(["-D", &data, "-w", "-m", "immediate", "stop"]).current_dir("/").output();
        if let Err(error) = stopped {
            eprintln!("the test cluster in {data} could not be stopped: {error}");
        }
    }
}

/// Connects to a database.
pub(crate) async fn connect(database: &Database) -> Connection {
    Connector::new(database, "test").unwrap().connect().await.unwrap()
}

/// Runs a test on both kinds of server, skipping loudly what is not there.
pub(crate) fn on_each(test: impl Fn(&Cluster, Flavor)) {
    for flavor in [Flavor::Plain, Flavor::Timescale] {
        if let Some(cluster) = Cluster::start(flavor) {
            println!("on {flavor:?}");
            test(&cluster, flavor);
        }
    }
}

/// A runtime for one test.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whether a server is installed.
pub(crate) fn has_server() -> bool {
    bin().is_some()
}

/// Whether that server has TimescaleDB.
pub(crate) fn has_any_timescaledb() -> bool {
    bin().is_some_and(|bin| has_timescaledb(&bin))
}

fn bin() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    versions.sort();
    versions.into_iter().rev().find(|bin| bin.join("initdb").exists())
}

fn has_timescaledb(bin: &Path) -> bool {
    let output = Command::new(bin.join("pg_config")).arg("--pkglibdir").output();
    let Ok(output) = output else { return false };
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("timescaledb.so").exists()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
