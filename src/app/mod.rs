//! The daemon: everything started in the right order, changed on SIGHUP, stopped in the right order.
//!
//! Start: endpoint, journal (lock, recovery), writers, lanes. Stop, so that no received frame is lost:
//!
//! 1. sessions, so nothing new arrives; each closes its connection and seals its journal;
//! 2. writers, which drain and commit until the deadline;
//! 3. the journal's threads;
//! 4. the endpoint, last, so that a scrape can watch the drain.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tapeway_exchanges::metadata::Instrument;
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    api::{Api, BindError},
    config::{Config, Database, Venue},
    journal::{self, Journal},
    session::{VenueLink, connect::Dialer, tls},
    status::{Board, WriterStatus},
    store, writer,
};

mod directory;
mod fleet;
pub mod logging;
pub mod outlook;
mod supervise;

use fleet::{Fleet, FleetError};

/// Why the daemon could not start, or could not go on.
#[derive(Debug, Error)]
pub enum AppError {
    /// The endpoint cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS trust cannot be loaded.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// A lane cannot be used.
    #[error(transparent)]
    Lane(#[from] FleetError),
    /// The database settings cannot be used.
    #[error(transparent)]
    Database(#[from] store::Error),
    /// Signals cannot be heard.
    #[error("signal handlers: {0}")]
    Signals(#[source] std::io::Error),
    /// A lane's journal cannot be trusted any more; a restart recovers it.
    #[error("the journal of lane {lane} is lost to this process; restart to recover it")]
    JournalLost {
        /// The lane.
        lane: String,
    },
}

/// How the daemon ended.
#[derive(Debug, Eq, PartialEq)]
pub enum Stopped {
    /// Everything received is committed.
    Clean,
    /// These were still running or had rows left at the deadline; the next start commits the rest.
    Backlog(Vec<String>),
}

/// Runs until SIGTERM or SIGINT. `config_path` is read again on SIGHUP.
///
/// # Errors
///
/// See [`AppError`]. Nothing that was received is lost by any of them.
pub async fn run(config: Config, config_path: PathBuf, prometheus: PrometheusHandle) -> Result<Stopped, AppError> {
    let heard = |kind| signal(kind).map_err(AppError::Signals);
    let (mut term, mut int, mut hup) =
        (heard(SignalKind::terminate())?, heard(SignalKind::interrupt())?, heard(SignalKind::hangup())?);
    let board = Arc::new(Board::default());
    let (stop_api, api_stopped) = watch::channel(false);
    let api = Api::bind(config.http.listen).await?;
    info!(address = %api.address, version = env!("CARGO_PKG_VERSION"), "tapeway starts");
    let api = tokio::spawn(api.serve(board.clone(), prometheus.clone(), api_stopped));
    let mut daemon = Daemon::start(config, board.clone()).await?;
    refresh(&board, &daemon.journal, &daemon.observer);
    board.running();
    supervise::ready();
    let keep_alive = tokio::spawn(supervise::keep_alive(board.clone()));
    let refresh = every_second(board.clone(), daemon.journal.clone(), daemon.observer.clone(), prometheus);
    let refresh = tokio::spawn(refresh);
    let lost = loop {
        tokio::select! {
            _ = term.recv() => break None,
            _ = int.recv() => break None,
            _ = hup.recv() => daemon.reload(&config_path).await,
            Some(lane) = daemon.lost.recv() => break Some(lane),
            Some((venue, list)) = daemon.lists.recv() => daemon.on_list(venue, list).await,
        }
    };
    let deadline = daemon.config.shutdown_deadline;
    info!(?deadline, "stopping");
    supervise::stopping(deadline);
    board.stopping();
    let (late, journal) = daemon.stop(Instant::now() + deadline).await;
    drop(journal);
    keep_alive.abort();
    refresh.abort();
    stop_api.send_replace(true);
    if tokio::time::timeout(API_STOP_TIMEOUT, api).await.is_err() {
        warn!("the HTTP endpoint did not end in time");
    }
    if let Some(lane) = lost {
        return Err(AppError::JournalLost { lane });
    }
    if late.is_empty() {
        info!("stopped; everything received is committed");
        return Ok(Stopped::Clean);
    }
    for one in &late {
        warn!("not done at the deadline: {one}");
    }
    info!("stopped; the next start commits the rest from the journal");
    Ok(Stopped::Backlog(late))
}

/// What runs between start and stop.
struct Daemon {
    config: Config,
    board: Arc<Board>,
    dialer: Dialer,
    journal: Arc<Journal>,
    observer: writer::Observer,
    fleet: Fleet,
    links: HashMap<&'static str, Arc<VenueLink>>,
    /// Instrument lists as they come in.
    lists: mpsc::Receiver<(&'static str, Vec<Instrument>)>,
    lists_sender: mpsc::Sender<(&'static str, Vec<Instrument>)>,
    /// The newest list of each venue.
    known: HashMap<&'static str, Vec<Instrument>>,
    fetchers: HashMap<&'static str, JoinHandle<()>>,
    /// Each venue's newest list on its way into the database.
    describers: HashMap<&'static str, JoinHandle<()>>,
    /// Why the configuration on disk is not in force.
    refused: Option<String>,
    /// Venues whose lanes could not be made what they should be, and why.
    failed: BTreeMap<&'static str, String>,
    /// Turns true when the database has the schema.
    schema: watch::Receiver<bool>,
    schema_keeper: JoinHandle<()>,
    /// Lanes whose journal is lost.
    lost: mpsc::Receiver<String>,
}

impl Daemon {
    async fn start(config: Config, board: Arc<Board>) -> Result<Self, AppError> {
        let dialer = Dialer::new(tls::client_config(config.ca_file.as_deref())?);
        let journal = Arc::new(Journal::open(&config.journal)?);
        let (schema_ready, schema) = watch::channel(false);
        let schema_keeper = tokio::spawn(keep_schema(config.database.clone(), schema_ready, board.clone()));
        let writers = writer::start(&config.writer, &config.database, Vec::new())?;
        let observer = writers.observer();
        let (lost_sender, lost) = mpsc::channel(LOST_MAX);
        let fleet = Fleet::recover(&config, journal.clone(), writers, board.clone(), lost_sender)?;
        let (lists_sender, lists) = mpsc::channel(LISTS_MAX);
        let mut daemon = Self {
            config,
            board,
            dialer,
            journal,
            observer,
            fleet,
            links: HashMap::new(),
            lists,
            lists_sender,
            known: HashMap::new(),
            fetchers: HashMap::new(),
            describers: HashMap::new(),
            refused: None,
            failed: BTreeMap::new(),
            schema,
            schema_keeper,
            lost,
        };
        for venue in daemon.config.venues.clone() {
            daemon.arrange(&venue).await?;
        }
        daemon.notice();
        Ok(daemon)
    }

    /// Starts or changes a venue's lanes, and the task that keeps its instrument list fresh. A venue whose patterns
    /// need the list waits for it; the others do not wait for that venue.
    async fn arrange(&mut self, venue: &Venue) -> Result<(), FleetError> {
        let name = venue.spec.name;
        let link = self
            .links
            .entry(name)
            .or_insert_with(|| Arc::new(VenueLink::new(self.dialer.clone(), venue.limits)))
            .clone();
        let fetcher =
            fetch_lists(venue.clone(), link.clone(), self.config.database.metadata_every, self.lists_sender.clone());
        if let Some(before) = self.fetchers.insert(name, tokio::spawn(fetcher)) {
            before.abort();
        }
        let known = self.known.get(name).map_or(&[][..], Vec::as_slice);
        let recorded = self.fleet.recorded(name);
        if known.is_empty() && directory::needs_list(&venue.symbols) {
            let symbols = directory::remembered(&venue.symbols, &recorded);
            info!(
                venue = name,
                remembered = symbols.len(),
                "waits for the venue's instrument list: its symbols are patterns; meanwhile those that the journal remembers"
            );
            return if symbols.is_empty() { Ok(()) } else { self.fleet.arrange(venue, symbols, &link).await };
        }
        let symbols = directory::resolve(&venue.symbols, known, &recorded);
        if symbols.is_empty() {
            warn!(venue = name, "no instrument that trades matches the configured symbols");
        }
        self.fleet.arrange(venue, symbols, &link).await
    }

    /// A fresh instrument list: describe the instruments, and take up what newly matches a pattern.
    async fn on_list(&mut self, name: &'static str, list: Vec<Instrument>) {
        let Some(venue) = self.config.venues.iter().find(|venue| venue.spec.name == name).cloned() else { return };
        for symbol in directory::unknown(&venue.symbols, &list) {
            warn!(venue = name, symbol, "configured, but not in the venue's instrument list");
        }
        let database = self.config.database.clone();
        let (described, schema) = (list.clone(), self.schema.clone());
        let describer = tokio::spawn(async move {
            if let Err(failure) = describe(&database, schema, name, &described).await {
                warn!(venue = name, error = %failure, "instruments could not be described; will be tried with the next list");
            }
        });
        // An older list that still waits for the database is of no use any more.
        if let Some(before) = self.describers.insert(name, describer) {
            before.abort();
        }
        self.known.insert(name, list);
        if directory::needs_list(&venue.symbols) {
            let symbols = directory::resolve(&venue.symbols, &self.known[name], &self.fleet.recorded(name));
            let Some(link) = self.links.get(name).cloned() else { return };
            // Lanes whose symbols are the same notice nothing.
            let result = self.fleet.arrange(&venue, symbols, &link).await;
            self.arranged(name, result);
        }
        self.notice();
    }

    /// Keeps what went wrong with a venue's lanes until it is put right.
    fn arranged(&mut self, venue: &'static str, result: Result<(), FleetError>) {
        self.failed.remove(venue);
        if let Err(failure) = result {
            error!(venue, error = %failure, "lanes could not be changed");
            self.failed.insert(venue, failure.to_string());
        }
    }

    /// SIGHUP: reads the configuration again. Venues and symbols change at once; what needs a restart is named.
    async fn reload(&mut self, path: &std::path::Path) {
        supervise::reloading(true);
        match Config::load(path) {
            Ok(config) => {
                info!("configuration read again");
                self.refused = None;
                self.take_over(config).await;
            }
            Err(problems) => {
                error!("the configuration has problems; the old one stays in force:\n{problems}");
                let first = problems.list().first().map(ToString::to_string).unwrap_or_default();
                let count = problems.list().len();
                self.refused =
                    Some(format!("{count} problems in the configuration on disk, the old one is in force: {first}"));
            }
        }
        self.notice();
        supervise::reloading(false);
    }

    async fn take_over(&mut self, config: Config) {
        if !config.is_same_but_venues(&self.config) {
            warn!("settings outside exchanges/ changed: they need a restart");
        }
        let before = std::mem::replace(&mut self.config.venues, config.venues);
        for name in before.iter().map(|venue| venue.spec.name).chain(self.fleet.venues()) {
            if !self.config.venues.iter().any(|venue| venue.spec.name == name) {
                for task in [self.fetchers.remove(name), self.describers.remove(name)].into_iter().flatten() {
                    task.abort();
                }
                self.failed.remove(name);
                self.known.remove(name);
                self.fleet.retire_venue(name).await;
            }
        }
        for venue in self.config.venues.clone() {
            let was = before.iter().find(|one| one.spec.name == venue.spec.name);
            if was == Some(&venue) && !self.failed.contains_key(venue.spec.name) {
                continue;
            }
            if was.is_some_and(|was| was.limits != venue.limits) {
                self.links.remove(venue.spec.name);
            }
            let result = self.arrange(&venue).await;
            self.arranged(venue.spec.name, result);
        }
    }

    /// Says on /readyz what is missing beside lanes and writers.
    fn notice(&self) {
        let waiting = self
            .config
            .venues
            .iter()
            .filter(|venue| directory::needs_list(&venue.symbols) && !self.known.contains_key(venue.spec.name));
        let waiting = waiting.map(|venue| format!("venue {}: waits for its instrument list", venue.spec.name));
        let failed = self.failed.iter().map(|(venue, why)| format!("venue {venue}: lanes could not be changed: {why}"));
        self.board.set_notices(self.refused.clone().into_iter().chain(waiting).chain(failed).collect());
    }

    async fn stop(self, deadline: Instant) -> (Vec<String>, Arc<Journal>) {
        for task in self.fetchers.values().chain(self.describers.values()) {
            task.abort();
        }
        self.schema_keeper.abort();
        (self.fleet.stop(deadline).await, self.journal)
    }
}

/// Fetches a venue's instrument list again and again.
async fn fetch_lists(
    venue: Venue,
    link: Arc<VenueLink>,
    every: Duration,
    lists: mpsc::Sender<(&'static str, Vec<Instrument>)>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        loop {
            match directory::fetch(&venue, &link).await {
                Ok(list) => {
                    if lists.send((venue.spec.name, list)).await.is_err() {
                        return;
                    }
                    break;
                }
                Err(failure) => {
                    warn!(venue = venue.spec.name, error = %failure, "no instrument list; will try again");
                    tokio::time::sleep(LIST_RETRY).await;
                }
            }
        }
    }
}

/// Makes the schema and the policies what they should be, as soon as the database can be reached, and keeps partitions
/// made ahead. Writers wait for the schema; sessions do not.
async fn keep_schema(database: Database, ready: watch::Sender<bool>, board: Arc<Board>) {
    let mut said = String::new();
    let capabilities = loop {
        match store::prepare(&database).await {
            Ok(capabilities) => break capabilities,
            Err(failure) => {
                let why = failure.to_string();
                if why != said {
                    warn!(error = why, "the database is not prepared yet; will try again");
                }
                board.set_unprepared(Some(why.clone()));
                said = why;
                tokio::time::sleep(PREPARE_RETRY).await;
            }
        }
    };
    board.set_unprepared(None);
    info!(
        postgresql = capabilities.server_version_text,
        timescaledb = capabilities.timescaledb.as_deref().unwrap_or("none"),
        direct_compress = capabilities.direct_compress(database.is_columnstore_wanted),
        "database prepared"
    );
    ready.send_replace(true);
    let mut ticks = interval(MAINTAIN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(failure) = maintain(&database).await {
            warn!(error = %failure, "tables could not be maintained; will try again");
        }
    }
}

async fn maintain(database: &Database) -> Result<(), store::Error> {
    let connection = store::Connector::new(database, "maintain")?.connect().await?;
    let capabilities = store::Capabilities::read(&connection).await?;
    store::policies::maintain(&connection, &capabilities, database).await
}

/// Writes what a venue says of its instruments into the database.
async fn describe(
    database: &Database,
    mut schema: watch::Receiver<bool>,
    venue: &str,
    list: &[Instrument],
) -> Result<(), store::Error> {
    if schema.wait_for(|is_ready| *is_ready).await.is_err() {
        return Ok(()); // The daemon is stopping.
    }
    let connection = store::Connector::new(database, "instruments")?.connect().await?;
    let counts = store::instruments::enrich(&connection, venue, list).await?;
    info!(venue, ?counts, "instruments described");
    Ok(())
}

/// A writer thread as the status page shows it.
fn writer_status(state: writer::ShardState) -> WriterStatus {
    #[expect(clippy::cast_precision_loss, reason = "a Unix time in seconds")]
    let last_error = state.last_error.map(|(at, error)| (at as f64, error));
    let standby = state.lanes.iter().filter(|lane| lane.state == "standby").map(|lane| lane.lane.clone());
    let refused = state.lanes.iter().filter_map(|lane| Some(format!("lane {}: {}", lane.lane, lane.why.as_ref()?)));
    WriterStatus {
        writer: state.shard,
        is_database_up: state.is_database_up,
        is_direct_compress_on: state.is_direct_compress_on,
        standby: standby.collect(),
        refused: refused.collect(),
        last_error,
    }
}

/// Renews what the board cannot see by itself.
fn refresh(board: &Board, journal: &Journal, writers: &writer::Observer) {
    board.set_journal_bytes(journal.space().bytes());
    board.set_writers(writers.read().into_iter().map(writer_status).collect());
}

/// Keeps the board and the recorder fresh.
async fn every_second(
    board: Arc<Board>,
    journal: Arc<Journal>,
    writers: writer::Observer,
    prometheus: PrometheusHandle,
) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        prometheus.run_upkeep();
        refresh(&board, &journal, &writers);
    }
}

/// How long the endpoint may take to end.
const API_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Between tries to prepare the database.
const PREPARE_RETRY: Duration = Duration::from_secs(2);
/// How often tables are maintained.
const MAINTAIN_EVERY: Duration = Duration::from_secs(15 * 60);
/// Between tries to fetch an instrument list.
const LIST_RETRY: Duration = Duration::from_secs(15);
/// Instrument lists that may wait to be taken up.
const LISTS_MAX: usize = 8;
/// Lost lanes that may wait to be noticed; one is enough to stop.
const LOST_MAX: usize = 4;
