//! Configuration as meant: the checked types that the rest of the daemon takes.
//!
//! Holding one of these is the proof that every rule has passed; nothing checks it again. [`Config::load`] makes
//! one from the files:
//!
//! - `yaml` turns a file into a tree that knows its lines; `env` puts `${NAME}` in;
//! - `keys` lists every key with its `kind`, bounds, default and cost: the one list that the reader, the
//!   reference page `docs/configuration.md` and the shipped files are held to;
//! - `values` holds a file against that list; `read` and `venue` add the rules that take more than one key;
//! - [`Problems`] is everything that is wrong, in all files, at once.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use tapeway_exchanges::{config::Limits, event::Channel, top_book::OrderBooks, venue::VenueSpec};

mod database_url;
mod env;
mod keys;
mod kind;
mod problem;
mod read;
mod reference;
mod secret;
#[cfg(test)]
mod tests;
mod values;
mod venue;
mod yaml;

pub use problem::{Problem, Problems};
pub use reference::reference;
pub use secret::Secret;

/// Everything in `config/tapeway.yaml` and `config/exchanges/*.yaml`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The raw-frame journal.
    pub journal: Journal,
    /// Writer threads and batches.
    pub writer: Writer,
    /// The database, its tables and policies.
    pub database: Database,
    /// Metrics and status endpoint.
    pub http: Http,
    /// Logs.
    pub logging: Logging,
    /// How long a stop may take before the rest is left to the next start.
    pub shutdown_deadline: Duration,
    /// Extra root certificates (PEM) trusted for venues, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Enabled venues.
    pub venues: Vec<Venue>,
}

impl Config {
    /// Whether everything outside `exchanges/` is the same.
    pub fn is_same_but_venues(&self, other: &Self) -> bool {
        Self { venues: other.venues.clone(), ..self.clone() } == *other
    }
}

/// `journal:`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Journal {
    /// Folder with one folder per lane.
    pub dir: PathBuf,
    /// A segment is sealed at this size.
    pub segment_bytes_max: u64,
    /// Longest time between an append and its `fdatasync`.
    pub sync_interval: Duration,
    /// How long committed segments are kept.
    pub keep_for: Duration,
    /// Most bytes all lanes together may take.
    pub bytes_max: u64,
    /// Free bytes the journal leaves on its disk.
    pub free_bytes_min: u64,
    /// Compress sealed segments.
    pub is_compressed: bool,
}

/// `writer:`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Writer {
    /// Writer threads; `None` chooses by the number of cores.
    pub threads: Option<usize>,
    /// Cores to pin writer threads to.
    pub pin: Pin,
    /// A batch is written at this many rows ...
    pub batch_rows_max: usize,
    /// ... or this many encoded bytes ...
    pub batch_bytes_max: usize,
    /// ... or when its oldest frame has waited this long.
    pub batch_age_max: Duration,
    /// Chunks a lane's queue holds before the lane falls back to the journal.
    pub queue_chunks_max: usize,
    /// Rows in a chunk before it is handed to the queue.
    pub chunk_rows_max: usize,
}

/// Which cores writer threads are pinned to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pin {
    /// The last cores, one a thread, if there are at least two.
    Auto,
    /// No pinning.
    Off,
    /// These, in order, repeating.
    Cores(Vec<usize>),
}

/// `database:`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// `postgresql://` URL or key=value string; sslmode and the rest are honoured.
    pub url: Secret,
    /// PEM file of the certificate authority for `sslmode=verify-*`; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time any one statement or COPY may take before the connection is given up.
    pub statement_timeout: Duration,
    /// Use the columnstore and direct compress when the server can.
    pub is_columnstore_wanted: bool,
    /// Policies by table (`trades`, `book_deltas`, `quotes`, ...).
    pub tables: BTreeMap<String, TablePolicy>,
    /// How often candles are refreshed.
    pub candles_refresh_every: Duration,
    /// How far back a refresh looks.
    pub candles_refresh_window: Duration,
    /// Age at which rows of `audit.sessions` and `audit.rejects` are dropped; `None` never. Gaps are kept for ever.
    pub audit_drop_after: Option<Duration>,
    /// How often instrument metadata is fetched from the venues.
    pub metadata_every: Duration,
}

impl Database {
    /// A database of which nothing but the URL is known; all else as when the configuration says nothing of it.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self {
            url: Secret::new(url.into()),
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            is_columnstore_wanted: true,
            tables: BTreeMap::new(),
            candles_refresh_every: Duration::from_secs(60),
            candles_refresh_window: Duration::from_secs(3 * 3_600),
            audit_drop_after: None,
            metadata_every: Duration::from_secs(300),
        }
    }
}

/// Time policies of one table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TablePolicy {
    /// Width of a chunk (TimescaleDB) or partition (plain PostgreSQL).
    pub chunk_interval: Duration,
    /// Age at which chunks are (re)compressed; `None` never. TimescaleDB only.
    pub compress_after: Option<Duration>,
    /// Age at which rows are dropped; `None` never.
    pub drop_after: Option<Duration>,
}

/// `http:`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Http {
    /// Where `/metrics`, `/livez`, `/readyz` and `/status` listen.
    pub listen: SocketAddr,
}

/// `logging:`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Logging {
    /// `tracing` filter, e.g. `info` or `tapeway=debug`.
    pub level: String,
    /// One JSON object a line instead of text.
    pub is_json: bool,
}

/// One `config/exchanges/<venue>.yaml` with `enabled: true`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Venue {
    /// The venue.
    pub spec: &'static VenueSpec,
    /// Symbols and patterns as written; patterns are resolved against the venue's instrument list.
    pub symbols: Vec<SymbolPattern>,
    /// What to record.
    pub channels: Vec<Channel>,
    /// Book levels a side.
    pub book_depth: Option<u32>,
    /// When whole books are written; `None` for never.
    pub order_books: Option<OrderBooks>,
    /// At least this many lanes.
    pub lanes_min: usize,
    /// Connections of each lane: 1 or 2.
    pub redundancy: u32,
    /// WebSocket base URL.
    pub ws_url: String,
    /// REST base URL.
    pub http_url: String,
    /// The venue's limits with the file's overrides.
    pub limits: Limits,
}

/// One entry of `symbols:`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SymbolPattern {
    /// Exactly this symbol.
    Exact(String),
    /// `*` and `?` wildcards against the venue's spelling; only instruments that trade.
    Glob(String),
}
