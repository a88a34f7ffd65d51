//! Everything around a daemon under test: loopback venues, a database behind a proxy, a folder with configuration,
//! journal and log.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;
use tapeway::loopback::{self, Options, Rate, Server, Venue, VenueStats};
use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    process::{Daemon, PATIENCE, wait},
    proof::{gaps, rows},
    proxy::Proxy,
};

/// What the world is made of.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) venues: Vec<Venue>,
    /// Instruments the venues have; all are recorded.
    pub(super) symbols: usize,
    /// Rows a second over all venues.
    pub(super) rate: f64,
    pub(super) has_tls: bool,
    /// Faults from the start.
    pub(super) faults: Vec<&'static str>,
    /// Lines added to `tapeway.yaml` at the top level.
    pub(super) main: &'static str,
    /// Lines of `journal:` beside `dir`.
    pub(super) journal: &'static str,
    /// Lines of `database:` beside `url`.
    pub(super) database: &'static str,
    /// Lines added to every venue's file.
    pub(super) venue: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            venues: Venue::ALL.to_vec(),
            symbols: 2,
            rate: 2_000.0,
            has_tls: false,
            faults: Vec::new(),
            main: "",
            journal: "  free_bytes_min: 0B\n",
            database: "",
            venue: "",
        }
    }
}

/// The surroundings of one daemon.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) cluster: Arc<Cluster>,
    /// Name of the database.
    pub(super) database: String,
    pub(super) proxy: Proxy,
    pub(super) venues: Server,
    setup: Setup,
}

impl World {
    /// A world on the cluster that tests share; `None`, said loudly, without PostgreSQL.
    pub(super) fn new(setup: Setup) -> Option<Self> {
        Some(Self::on(Cluster::shared()?, setup))
    }

    /// A world on this cluster.
    pub(super) fn on(cluster: Arc<Cluster>, setup: Setup) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = format!("world_{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let folder = tempfile::Builder::new().prefix("tapeway-daemon-").tempdir().unwrap();
        let venues = loopback::start(Options {
            venues: setup.venues.clone(),
            symbols: setup.symbols,
            rate: Rate::RowsPerSecond(setup.rate),
            truth: Some(folder.path().join("truth.ndjson")),
            is_lossless: true,
            has_tls: setup.has_tls,
            faults: setup.faults.iter().map(|fault| fault.parse().unwrap()).collect(),
            ..Options::default()
        })
        .unwrap();
        let proxy = Proxy::start(cluster.port);
        let world = Self { folder, cluster, database, proxy, venues, setup };
        fs::create_dir_all(world.config().join("exchanges")).unwrap();
        world.write_main(world.setup.main);
        for venue in &world.setup.venues {
            world.write_venue(*venue, &venue.symbols(world.setup.symbols), world.setup.venue);
        }
        world
    }

    /// Writes `tapeway.yaml`, with these lines at the top level.
    pub(super) fn write_main(&self, more: &str) {
        let database = self.cluster.database_at(&self.database, self.proxy.port);
        let text = format!(
            "{more}\njournal:\n  dir: {}\n{}writer:\n  pin: off\n  threads: 1\n\
             database:\n  url: {}\n{}http:\n  listen: 127.0.0.1:0\n",
            self.journal().display(),
            self.setup.journal,
            database.url.expose(),
            self.setup.database,
        );
        fs::write(self.config().join("tapeway.yaml"), text).unwrap();
    }

    /// Writes a venue's file: these symbols, all channels it has, and these lines.
    pub(super) fn write_venue(&self, venue: Venue, symbols: &[String], more: &str) {
        let channels = if venue == Venue::Coinbase { "[trades, book]" } else { "[trades, book, quotes]" };
        let list: String = symbols.iter().map(|symbol| format!("  - \"{symbol}\"\n")).collect();
        let (ws_url, http_url) = (self.venues.ws_url(venue), self.venues.http_url(venue));
        let limits = if more.contains("limits:") { "" } else { "limits:\n  connects: 1_000\n" };
        let text = format!(
            "enabled: true\nsymbols:\n{list}channels: {channels}\nws_url: {ws_url}\nhttp_url: {http_url}\n{limits}{more}"
        );
        fs::write(self.venue_file(venue), text).unwrap();
    }

    pub(super) fn venue_file(&self, venue: Venue) -> PathBuf {
        self.config().join(format!("exchanges/{}.yaml", venue.name()))
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(super) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    /// Starts a daemon with variables added to its environment.
    pub(super) fn start_with(&self, environment: &[(&str, &str)]) -> Daemon {
        Daemon::start_with(self.folder.path(), &self.config(), environment)
    }

    /// Starts a daemon and waits until it is ready and every venue's trades and books come in.
    pub(super) fn start_recording(&self) -> Daemon {
        let mut daemon = self.start();
        daemon.until_ready();
        for venue in &self.setup.venues {
            self.until_more(*venue, "trades");
            self.until_more(*venue, "book_deltas");
        }
        daemon
    }

    pub(super) fn fault(&self, fault: &str) {
        self.venues.fault(&fault.parse().unwrap());
    }

    pub(super) fn stats(&self, venue: Venue) -> VenueStats {
        self.venues.stats().venue(venue).unwrap().clone()
    }

    pub(super) fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.database, sql).trim().to_owned()
    }

    /// A count that a statement gives; 0 while there is no such table.
    pub(super) fn count(&self, sql: &str) -> u64 {
        let is_there =
            self.psql("SELECT to_regclass('audit.gaps') IS NOT NULL AND to_regclass('market_data.quotes') IS NOT NULL");
        if is_there == "t" { self.psql(sql).parse().unwrap() } else { 0 }
    }

    /// Rows of a table that came from a venue.
    pub(super) fn rows(&self, venue: Venue, table: &str) -> u64 {
        self.count(&format!(
            "SELECT count(*) FROM market_data.{table} JOIN market_data.instruments USING (instrument_id)
             WHERE venue = '{}'",
            venue.name()
        ))
    }

    /// Rows of one symbol.
    pub(super) fn rows_of(&self, venue: Venue, symbol: &str, table: &str) -> u64 {
        self.count(&format!(
            "SELECT count(*) FROM market_data.{table} JOIN market_data.instruments USING (instrument_id)
             WHERE venue = '{}' AND symbol = '{symbol}'",
            venue.name()
        ))
    }

    /// Waits until a venue's rows in a table have become more.
    pub(super) fn until_more(&self, venue: Venue, table: &str) {
        let before = self.rows(venue, table);
        wait(PATIENCE, &format!("more {table} of {venue}"), || self.rows(venue, table) > before);
    }

    /// Waits until a count is above `floor`.
    pub(super) fn until_count(&self, floor: u64, sql: &str) {
        wait(PATIENCE, &format!("more than {floor}: {sql}"), || self.count(sql) > floor);
    }

    /// Everything has come in and is committed: stops daemon and venues, and holds the database against the journal, row
    /// by row, and against what the venues made: what is missing is named.
    pub(super) fn finish(self, daemon: Daemon) -> Finished {
        let finished = self.finish_unproven(daemon);
        gaps::check(&finished.truth_path(), (&finished.cluster, &finished.database), &finished.database);
        finished
    }

    /// As `finish`, for faults that a venue gives no means to notice: not held against what the venues made.
    pub(super) fn finish_unproven(self, mut daemon: Daemon) -> Finished {
        self.venues.pause();
        daemon.until_drained();
        daemon.stop();
        let Self { folder, cluster, database, venues, .. } = self;
        venues.stop().unwrap();
        let equal = rows::compare(&folder.path().join("journal"), (&cluster, &database), &database);
        assert!(equal > 0, "nothing was recorded");
        Finished { folder, cluster, database }
    }
}

/// What is left when daemon and venues have stopped.
pub(super) struct Finished {
    folder: TempDir,
    cluster: Arc<Cluster>,
    database: String,
}

impl Finished {
    pub(super) fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.database, sql).trim().to_owned()
    }

    /// The truth's lines for which `wanted` holds.
    pub(super) fn truth(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let text = fs::read_to_string(self.truth_path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(wanted).collect()
    }

    fn truth_path(&self) -> PathBuf {
        self.folder.path().join("truth.ndjson")
    }
}
