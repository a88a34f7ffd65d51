//! A venue server on loopback: real WebSockets and HTTP in the formats of Binance spot, Binance USD-M, Coinbase
//! Exchange and Kraken, for demos, tests, load tests and capacity planning.
//!
//! ```text
//!              +-- engine thread, one a venue ------------------+
//!  seed -----> | market --> frames --> faults --> hub (queues) -+--> sockets (tokio)
//!  recording > |    \------------------------------> truth -----+--> truth file (thread)
//!              +--------^---------------------------------------+
//!                       | messages, HTTP requests, faults, in one order
//! ```
//!
//! Each venue listens on a port of its own, at the venue's own paths. A market moves on whether or not anyone
//! listens: what a client misses while it is away is a real gap, and the truth file (see [`truth`]) says which.
//! The same seed gives the same events; only their times are of the day, unless an epoch is given.
//!
//! - `mod.rs`: options, the server; `wire.rs`: sockets; `engine/`: one venue; `hub.rs`: connections and queues
//! - `market.rs`, `rng.rs`, `venue.rs`: the seeded market; `recording.rs`: the alternative to it
//! - `binance.rs`, `coinbase.rs`, `kraken.rs`: what each venue says; `http.rs`: its REST answers
//! - `faults.rs`, `truth.rs`, `stats.rs`, `tls.rs`, `text.rs`, `query.rs`

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam::channel::{Sender, bounded};
use tokio::{runtime::Runtime, sync::oneshot};

mod binance;
mod coinbase;
mod engine;
mod faults;
mod http;
mod hub;
mod kraken;
mod market;
mod query;
mod recording;
mod rng;
mod stats;
mod text;
mod tls;
pub mod truth;
mod venue;
mod wire;

pub use faults::{BadFault, Channel, Fault, FaultKind, When};
pub use recording::RecordingError;
pub use stats::{Count, SymbolStats, VenueStats};
pub use tls::TlsError;
pub use venue::{UnknownVenue, Venue};

use engine::{Engine, commands::Command};
use recording::Recording;
use tls::Tls;
use truth::{TruthFile, TruthLog};

/// What the server is to do. [`Default`] is a small market on free ports.
#[derive(Clone, Debug)]
pub struct Options {
    /// Venues to be.
    pub venues: Vec<Venue>,
    /// What the markets grow from.
    pub seed: u64,
    /// Instruments on each venue.
    pub symbols: usize,
    /// How fast.
    pub rate: Rate,
    /// What the markets make.
    pub kinds: Kinds,
    /// Levels a side of each book, about. At least 40.
    pub book_levels: usize,
    /// First port, the venues taking it and the ones after it in the order of `venues`; 0 takes free ports.
    pub port: u16,
    /// Where the truth goes.
    pub truth: Option<PathBuf>,
    /// Speak TLS too (plain connections stay possible), with a certificate of a new authority.
    pub has_tls: bool,
    /// Where the authority's certificate goes (PEM). Implies `has_tls`.
    pub tls_ca_out: Option<PathBuf>,
    /// A client that reads too slowly holds the market up instead of losing its connection.
    pub is_lossless: bool,
    /// Bytes that may wait for one connection before it is disconnected, unless lossless.
    pub buffer_bytes_max: usize,
    /// How often the Binance venues ping.
    pub ping_every: Duration,
    /// How long they wait for the pong.
    pub pong_within: Duration,
    /// How long Coinbase waits for the first subscription.
    pub subscribe_within: Duration,
    /// Whether the venues' limits on client messages and streams hold.
    pub has_limits: bool,
    /// Time between two bursts of a paced market.
    pub tick: Duration,
    /// Market time begins here (microseconds since 1970) and moves by `tick`; the host's clock when absent.
    pub epoch_us: Option<i64>,
    /// Each venue's market begins to move when there are this many subscriptions on it.
    pub wait_subscriptions: usize,
    /// Each venue's market stops, and its connections stay, after this many rows.
    pub rows_max: Option<u64>,
    /// Faults from the start.
    pub faults: Vec<Fault>,
    /// A recorded session to play instead of this venue's market.
    pub recording: Option<(Venue, PathBuf)>,
    /// Longest time clients may take, on a stop, to read what was sent.
    pub drain_within: Duration,
}

/// How fast rows are made. A row is a trade, a book level or a quote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many a second over all venues, shared equally.
    RowsPerSecond(f64),
    /// As fast as the machine, or with `is_lossless` the slowest client, allows. Stands still while nobody has
    /// subscribed.
    Max,
}

/// Kinds of events a market makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kinds {
    /// Trades.
    pub has_trades: bool,
    /// Book messages.
    pub has_book: bool,
    /// Best bid and ask.
    pub has_quotes: bool,
}

/// Why a server does not start or has not stopped well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be had.
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    /// A file cannot be written.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// A thread or the runtime cannot be started.
    #[error("starting the loopback server: {0}")]
    Start(io::Error),
    /// An engine thread panicked (its message is on stderr); its venue's truth ends there.
    #[error("the loopback engine of {0} panicked")]
    Panicked(Venue),
    /// The recording is of no use.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An option is out of its bounds.
    #[error("loopback option {name}: {found} is outside {allowed}")]
    Option { name: &'static str, found: String, allowed: &'static str },
}

/// A running server. Dropping it stops it.
pub struct Server {
    ports: Vec<(Venue, u16)>,
    engines: Vec<(Venue, Sender<Command>)>,
    threads: Vec<JoinHandle<VenueStats>>,
    stop: Arc<AtomicBool>,
    runtime: Option<Runtime>,
    truth: Option<TruthFile>,
    truth_path: PathBuf,
    ca_pem: Option<String>,
}

/// What a server made and sent, from its start to its stop.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Each venue's counts.
    pub venues: Vec<VenueStats>,
}

/// Starts a server on threads of its own. It listens when this returns.
///
/// # Errors
///
/// See [`Error`]; nothing is left running.
pub fn start(options: Options) -> Result<Server, Error> {
    check(&options)?;
    let tls = if options.has_tls || options.tls_ca_out.is_some() { Some(Tls::make()?) } else { None };
    if let (Some(path), Some(tls)) = (&options.tls_ca_out, &tls) {
        std::fs::write(path, &tls.ca_pem).map_err(|source| Error::File { path: path.clone(), source })?;
    }
    let mut recordings = Vec::new();
    if let Some((venue, path)) = &options.recording {
        recordings.push((*venue, Recording::read(path, *venue)?));
    }
    let listeners = listen(&options)?;
    let truth_path = options.truth.clone().unwrap_or_default();
    let truth = match &options.truth {
        Some(path) => Some(TruthFile::create(path).map_err(|source| Error::File { path: path.clone(), source })?),
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.venues.len().min(WORKERS_MAX))
        .thread_name("loopback")
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let ports: Vec<(Venue, u16)> = listeners.iter().map(|(venue, _, port)| (*venue, *port)).collect();

    let options = Arc::new(options);
    let stop = Arc::new(AtomicBool::new(false));
    let mut server = Server {
        ports,
        engines: Vec::new(),
        threads: Vec::new(),
        stop,
        runtime: Some(runtime),
        truth,
        truth_path,
        ca_pem: tls.as_ref().map(|tls| tls.ca_pem.clone()),
    };
    for venue in &options.venues {
        let recording = recordings.iter().position(|(of, _)| of == venue).map(|at| recordings.swap_remove(at).1);
        server.start_engine(*venue, &options, recording)?;
    }
    let shared = Arc::new(wire::Shared {
        options,
        tls: tls.map(|tls| tls.acceptor),
        connections: AtomicU64::new(0),
        engines: server.engines.clone(),
        directory: server.directory().to_string(),
    });
    if let Some(runtime) = &server.runtime {
        for (venue, listener, _) in listeners {
            let _context = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Start)?;
            runtime.spawn(wire::accept(listener, venue, Arc::clone(&shared)));
        }
    }
    Ok(server)
}

impl Server {
    /// The WebSocket base URL of a venue: scheme, host and port. Panics if the server is not that venue.
    #[must_use]
    pub fn ws_url(&self, venue: Venue) -> String {
        let scheme = if self.ca_pem.is_some() { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{}", self.port(venue))
    }

    /// The REST base URL of a venue, without a trailing slash. Panics if the server is not that venue.
    #[must_use]
    pub fn http_url(&self, venue: Venue) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port(venue))
    }

    /// The port of a venue. Panics if the server is not that venue.
    #[must_use]
    pub fn port(&self, venue: Venue) -> u16 {
        self.ports.iter().find(|(known, _)| *known == venue).expect("the caller asked for this venue at the start").1
    }

    /// The certificate that clients have to trust, PEM, when there is TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Where to find what: one entry a venue, as printed at the start and answered to `GET /loopback`.
    #[must_use]
    pub fn directory(&self) -> serde_json::Value {
        let entry = |(venue, _): &(Venue, u16)| serde_json::json!({"venue": venue.name(), "ws_url": self.ws_url(*venue), "http_url": self.http_url(*venue)});
        self.ports.iter().map(entry).collect()
    }

    /// Puts a fault in force, or takes faults back.
    pub fn fault(&self, fault: &Fault) {
        for (venue, engine) in &self.engines {
            if fault.venue.is_none_or(|wanted| wanted == *venue) {
                // Fails only when the engine has stopped, and then there is nothing to disturb.
                drop(engine.send(Command::Fault(fault.clone())));
            }
        }
    }

    /// Makes every market stand still: what has been sent arrives, nothing new is sent, connections and heartbeats
    /// go on.
    pub fn pause(&self) {
        for (_, engine) in &self.engines {
            // Fails only when the engine has stopped, and then it stands still already.
            drop(engine.send(Command::Pause));
        }
    }

    /// What has been made and sent so far. Blocks for the few milliseconds an engine needs to answer.
    #[must_use]
    pub fn stats(&self) -> Summary {
        let ask = |(_, engine): &(Venue, Sender<Command>)| {
            let (reply, mut answer) = oneshot::channel();
            engine.send(Command::Stats(reply)).ok()?;
            for _ in 0..STATS_CHECKS_MAX {
                match answer.try_recv() {
                    Ok(stats) => return Some(stats),
                    Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(STATS_CHECK_EVERY),
                    Err(oneshot::error::TryRecvError::Closed) => return None,
                }
            }
            None
        };
        Summary { venues: self.engines.iter().filter_map(ask).collect() }
    }

    /// Stops: markets first, then connections once they have what was sent, then the truth file, which is complete
    /// and on the disk when this returns.
    ///
    /// # Errors
    ///
    /// The truth file could not be written, or an engine panicked.
    pub fn stop(mut self) -> Result<Summary, Error> {
        self.shut_down()
    }

    fn start_engine(
        &mut self,
        venue: Venue,
        options: &Arc<Options>,
        recording: Option<Recording>,
    ) -> Result<(), Error> {
        let log = self.truth.as_ref().map_or_else(|| TruthLog::off(venue), |truth| truth.log(venue));
        let (commands, incoming) = bounded(COMMANDS_MAX);
        let engine = Engine::new(venue, options, log, recording, incoming, Arc::clone(&self.stop));
        let thread = std::thread::Builder::new().name(venue.name().into()).spawn(move || engine.run());
        self.threads.push(thread.map_err(Error::Start)?);
        self.engines.push((venue, commands));
        Ok(())
    }

    fn shut_down(&mut self) -> Result<Summary, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let names: Vec<Venue> = self.engines.iter().map(|(venue, _)| *venue).collect();
        let ended: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Some(truth) = self.truth.take() {
            truth.finish().map_err(|source| Error::File { path: self.truth_path.clone(), source })?;
        }
        let ended = ended.into_iter().zip(names);
        let venues = ended.map(|(stats, venue)| stats.map_err(|_| Error::Panicked(venue))).collect::<Result<_, _>>()?;
        Ok(Summary { venues })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the loopback truth file is not complete");
        }
    }
}

impl Summary {
    /// One venue's counts, if the server is that venue.
    #[must_use]
    pub fn venue(&self, venue: Venue) -> Option<&VenueStats> {
        self.venues.iter().find(|stats| stats.venue == venue)
    }

    /// Rows made on all venues.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.venues.iter().map(VenueStats::rows).sum()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            venues: Venue::ALL.to_vec(),
            seed: 1,
            symbols: 8,
            rate: Rate::RowsPerSecond(2_000.0),
            kinds: Kinds { has_trades: true, has_book: true, has_quotes: true },
            book_levels: 120,
            port: 0,
            truth: None,
            has_tls: false,
            tls_ca_out: None,
            is_lossless: false,
            buffer_bytes_max: 16 << 20,
            ping_every: Duration::from_secs(20),
            pong_within: Duration::from_secs(60),
            subscribe_within: Duration::from_secs(5),
            has_limits: true,
            tick: Duration::from_millis(5),
            epoch_us: None,
            wait_subscriptions: 0,
            rows_max: None,
            faults: Vec::new(),
            recording: None,
            drain_within: Duration::from_secs(5),
        }
    }
}

fn check(options: &Options) -> Result<(), Error> {
    let outside = |name, found: &dyn ToString, allowed| Err(Error::Option { name, found: found.to_string(), allowed });
    if options.venues.is_empty() {
        return outside("venues", &0, "1..=4");
    }
    if !(1..=SYMBOLS_MAX).contains(&options.symbols) {
        return outside("symbols", &options.symbols, "1..=5000");
    }
    if !(40..=5_000).contains(&options.book_levels) {
        return outside("book_levels", &options.book_levels, "40..=5000");
    }
    if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&options.tick) {
        return outside("tick", &format!("{:?}", options.tick), "1ms..=1s");
    }
    match options.rate {
        Rate::RowsPerSecond(rows) if !(rows > 0.0 && rows <= 1e9) => outside("rate", &rows, "0 (exclusive)..=1e9"),
        Rate::RowsPerSecond(_) | Rate::Max => Ok(()),
    }
}

fn listen(options: &Options) -> Result<Vec<(Venue, TcpListener, u16)>, Error> {
    let mut listeners = Vec::new();
    for (offset, venue) in (0_u16..).zip(&options.venues) {
        let port = if options.port == 0 { 0 } else { options.port.saturating_add(offset) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        listeners.push((*venue, listener, port));
    }
    Ok(listeners)
}

/// Commands waiting for one engine; the network side waits when there are more.
const COMMANDS_MAX: usize = 1_024;
const SYMBOLS_MAX: usize = 5_000;
const WORKERS_MAX: usize = 2;
const STATS_CHECK_EVERY: Duration = Duration::from_millis(1);
const STATS_CHECKS_MAX: usize = 10_000;
