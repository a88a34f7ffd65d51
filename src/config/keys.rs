//! Every key there is, with its bounds, its default and what a choice costs: the one list that the reader, the
//! reference page and the shipped files are held to.

use std::time::Duration;

use tapeway_exchanges::symbols::SYMBOL_BYTES_MAX;

use super::kind::Kind;

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Full path, e.g. `journal.dir`.
    pub(super) path: &'static str,
    /// What it may hold.
    pub(super) kind: Kind,
    /// What is taken when the file does not say; `None` when there is none.
    pub(super) default: Option<&'static str>,
    /// What it means.
    pub(super) meaning: &'static str,
    /// What more or less of it costs.
    pub(super) cost: &'static str,
}

/// Keys of `tapeway.yaml`.
pub(super) const DAEMON: &[Key] = &[
    key(
        "journal.dir",
        Kind::Path,
        Some("/var/lib/tapeway/journal"),
        "Folder with one folder per lane. Holds what is not committed yet, so keep it on a disk that survives.",
        "All market data is written here once. A disk that syncs slowly delays every commit.",
    ),
    key(
        "journal.segment_bytes_max",
        Kind::Size { min: MIB, max: 4 * GIB },
        Some("64MiB"),
        "A segment is sealed at this size.",
        "Catch-up starts at a segment, so bigger segments mean more frames read again; smaller ones mean more files.",
    ),
    key(
        "journal.sync_interval",
        Kind::Span { min: ms(1), max: secs(10) },
        Some("10ms"),
        "Longest time between a frame's append and its fdatasync.",
        "Nothing is committed before it is synced: longer adds to latency, shorter costs more disk flushes.",
    ),
    key(
        "journal.keep_for",
        Kind::Span { min: Duration::ZERO, max: days(3650) },
        Some("24h"),
        "How long segments are kept after everything in them is committed.",
        "Disk. A database restored from a backup younger than this fills itself up again.",
    ),
    key(
        "journal.bytes_max",
        Kind::Size { min: 16 * MIB, max: 1024 * TIB },
        Some("20GiB"),
        "Most bytes all lanes together may take. Beyond it tapeway stops reading sockets and says so; it never \
         overwrites what is not committed.",
        "Disk. It bounds how long the database may be away.",
    ),
    key(
        "journal.free_bytes_min",
        Kind::Size { min: 0, max: 1024 * TIB },
        Some("2GiB"),
        "Free bytes to leave on the journal's disk; reached, it counts as full.",
        "Disk that stays unused.",
    ),
    key(
        "journal.compress",
        Kind::Flag,
        Some("true"),
        "Compress segments when they are sealed.",
        "Some CPU off the hot path, for a journal several times smaller.",
    ),
    key(
        "writer.threads",
        Kind::CountOrAuto { min: 1, max: THREADS_MAX },
        Some("auto"),
        "Writer threads, each with its own database connection. `auto` is one for every four cores, and two where there are fewer than eight (one on a single core).",
        "A busy writer takes one core here and about as much in the database.",
    ),
    key(
        "writer.pin",
        Kind::ChoiceOrNumbers { words: &["auto", "off"], end: CORES_MAX, len_max: 64 },
        Some("auto"),
        "Cores that writer threads are pinned to, in order, repeating. `auto` takes the last cores, one a thread, if \
         there are at least two.",
        "Pinning steadies latency, and hurts where another process is pinned to the same core.",
    ),
    key(
        "writer.batch_rows_max",
        Kind::Count { min: 1, max: 100_000 },
        Some("50_000"),
        "A batch is written at this many rows. TimescaleDB sorts at most 100,000 rows of one COPY.",
        "Bigger batches write faster and compress better, and take more memory.",
    ),
    key(
        "writer.batch_bytes_max",
        Kind::Size { min: 64 * KIB, max: 256 * MIB },
        Some("16MiB"),
        "A batch is written at this many encoded bytes.",
        "Two batches of this size are in memory per writer.",
    ),
    key(
        "writer.batch_age_max",
        Kind::Span { min: ms(1), max: secs(60) },
        Some("200ms"),
        "A batch is written when its oldest frame has waited this long.",
        "Rows are this much older when they become visible; shorter means more, smaller transactions.",
    ),
    key(
        "writer.queue_chunks_max",
        Kind::Count { min: 2, max: 65_536 },
        Some("256"),
        "Chunks a lane's queue holds. When it is full the lane reads on from the journal: nothing is lost.",
        "Memory: lanes x queue_chunks_max x chunk_rows_max x about 100 bytes at worst.",
    ),
    key(
        "writer.chunk_rows_max",
        Kind::Count { min: 1, max: 16_384 },
        Some("1_024"),
        "Rows in a chunk before it is handed to the queue.",
        "Smaller chunks wake the writer more often.",
    ),
    key(
        "database.url",
        Kind::Secret,
        None,
        "`postgresql://user:password@host:port/name` or `host=... user=... dbname=...`; sslmode and the other libpq \
         settings are honoured. This or `database.url_file` is required.",
        "None.",
    ),
    key("database.url_file", Kind::Path, None, "A file that holds the URL, instead of `database.url`.", "None."),
    key("database.password", Kind::Secret, None, "The password, when the URL does not hold it.", "None."),
    key(
        "database.password_file",
        Kind::Path,
        None,
        "A file that holds the password, instead of `database.password`.",
        "None.",
    ),
    key(
        "database.ca_file",
        Kind::Path,
        None,
        "PEM file of the certificate authority for `sslmode=verify-ca` and `verify-full`; the system's when absent.",
        "None.",
    ),
    key(
        "database.connect_timeout",
        Kind::Span { min: ms(100), max: secs(300) },
        Some("10s"),
        "Longest time to connect before the next try.",
        "Longer notices a dead server later.",
    ),
    key(
        "database.statement_timeout",
        Kind::Span { min: secs(1), max: secs(3600) },
        Some("60s"),
        "Longest time one statement or COPY may take before the connection is given up.",
        "Too short gives up on a server that is only slow, and writes the batch again.",
    ),
    key(
        "database.columnstore",
        Kind::Choice(&["auto", "off"]),
        Some("auto"),
        "`auto` uses TimescaleDB's columnstore and direct compress when the server can.",
        "`off` takes several times the disk and half the speed.",
    ),
    key(
        "database.tables.trades.chunk_interval",
        CHUNK_INTERVAL,
        Some("1d"),
        "Width of a chunk (TimescaleDB) or partition (PostgreSQL) of `trades`.",
        CHUNK_COST,
    ),
    key(
        "database.tables.trades.compress_after",
        AGE,
        Some("2h"),
        "Age at which chunks of `trades` are compressed, or merged when they arrived compressed. TimescaleDB only.",
        COMPRESS_COST,
    ),
    key(
        "database.tables.trades.drop_after",
        AGE,
        Some("never"),
        "Age at which rows of `trades` are dropped for good.",
        DROP_COST,
    ),
    key(
        "database.tables.book_deltas.chunk_interval",
        CHUNK_INTERVAL,
        Some("6h"),
        "Width of a chunk or partition of `book_deltas`.",
        CHUNK_COST,
    ),
    key(
        "database.tables.book_deltas.compress_after",
        AGE,
        Some("1h"),
        "Age at which chunks of `book_deltas` are compressed or merged. TimescaleDB only.",
        COMPRESS_COST,
    ),
    key(
        "database.tables.book_deltas.drop_after",
        AGE,
        Some("never"),
        "Age at which rows of `book_deltas` are dropped for good.",
        DROP_COST,
    ),
    key(
        "database.tables.quotes.chunk_interval",
        CHUNK_INTERVAL,
        Some("6h"),
        "Width of a chunk or partition of `quotes`.",
        CHUNK_COST,
    ),
    key(
        "database.tables.quotes.compress_after",
        AGE,
        Some("1h"),
        "Age at which chunks of `quotes` are compressed or merged. TimescaleDB only.",
        COMPRESS_COST,
    ),
    key(
        "database.tables.quotes.drop_after",
        AGE,
        Some("never"),
        "Age at which rows of `quotes` are dropped for good.",
        DROP_COST,
    ),
    key(
        "database.tables.order_books.chunk_interval",
        CHUNK_INTERVAL,
        Some("1d"),
        "Width of a chunk or partition of `order_books`.",
        CHUNK_COST,
    ),
    key(
        "database.tables.order_books.compress_after",
        AGE,
        Some("2h"),
        "Age at which chunks of `order_books` are compressed or merged. TimescaleDB only.",
        COMPRESS_COST,
    ),
    key(
        "database.tables.order_books.drop_after",
        AGE,
        Some("never"),
        "Age at which rows of `order_books` are dropped for good.",
        DROP_COST,
    ),
    key(
        "database.candles.refresh_every",
        Kind::Span { min: secs(1), max: days(1) },
        Some("1m"),
        "How often candles are brought up to date. TimescaleDB only: on PostgreSQL they are plain views.",
        "Each refresh reads the trades of `refresh_window` that changed.",
    ),
    key(
        "database.candles.refresh_window",
        Kind::Span { min: secs(60), max: days(365) },
        Some("3h"),
        "How far back a refresh looks. Trades healed later than this reach candles only by a refresh by hand.",
        "Wider costs more when old trades arrive.",
    ),
    key(
        "database.audit_drop_after",
        Kind::SpanOrNever { min: days(1), max: days(36_500) },
        Some("365d"),
        "Age at which rows of `audit.sessions` and `audit.rejects` are dropped for good. Gaps are kept for ever.",
        "Why a row was refused, and when connections were open, is not known any more for days before that.",
    ),
    key(
        "database.metadata_every",
        Kind::Span { min: secs(60), max: days(7) },
        Some("5m"),
        "How often instrument lists are fetched from the venues.",
        "One REST request a venue, counted in the venue's limit.",
    ),
    key(
        "http.listen",
        Kind::Address,
        Some("127.0.0.1:9464"),
        "Where `/metrics`, `/livez`, `/readyz` and `/status` listen.",
        "No password protects it: open it to others only behind something that asks for one.",
    ),
    key(
        "logging.level",
        Kind::Filter,
        Some("info"),
        "What is logged: a level, or levels by module.",
        "`debug` and `trace` are for a person watching; nothing is logged per event at any level.",
    ),
    key(
        "logging.format",
        Kind::Choice(&["text", "json"]),
        Some("text"),
        "One line of text, or one JSON object a line.",
        "None.",
    ),
    key(
        "shutdown_deadline",
        Kind::Span { min: Duration::ZERO, max: secs(3600) },
        Some("30s"),
        "How long a stop may take to commit what is queued. What is left is committed after the next start.",
        "Longer stops later when the database is slow. The supervisor's own limit must be longer.",
    ),
    key(
        "ca_file",
        Kind::Path,
        None,
        "PEM file of certificate authorities trusted for venues, beside the system's.",
        "Whoever holds one of these keys can pretend to be a venue.",
    ),
];

/// Keys of `exchanges/<venue>.yaml`.
pub(super) const VENUE: &[Key] = &[
    key("enabled", Kind::Flag, Some("false"), "Record this venue.", "None."),
    key(
        "symbols",
        Kind::Names { len_max: SYMBOLS_MAX },
        None,
        "Symbols as the venue spells them, or patterns with `*` and `?` over what trades there. Required when enabled.",
        "Every symbol is recorded whole: watch the row rate on the dashboard before adding a pattern such as `*USDT`.",
    ),
    key(
        "channels",
        Kind::Names { len_max: CHANNELS_MAX },
        Some("[trades, book]"),
        "What to record: `trades`, `book`, `quotes`, where the venue has them.",
        "`book` is many times the rows of `trades`; `quotes` are many too.",
    ),
    key(
        "book_depth",
        Kind::Count { min: 1, max: 10_000 },
        None,
        "Book levels a side, one of the depths the venue offers; the venue's default when absent.",
        "Deeper books send bigger snapshots and more changes.",
    ),
    key(
        "order_books.every",
        Kind::SpanOrNever { min: secs(1), max: days(1) },
        Some("10s"),
        "How often the best levels of each book are written whole, by the venue's clock; `never` for not at all.",
        "A row of `depth` levels a side an instrument: estimated at 10 KB for 200, so 90 MB an instrument and day at 10 s before \
         compression. Rarer makes `market_data.book_at()` read more changes.",
    ),
    key(
        "order_books.depth",
        Kind::Count { min: 1, max: 1_000 },
        Some("200"),
        "Levels a side of such a row.",
        "Size of the rows; beyond it `market_data.book_at()` knows nothing.",
    ),
    key(
        "lanes",
        Kind::Count { min: 1, max: LANES_MAX },
        Some("1"),
        "At least this many lanes, over which the symbols are spread; more are made when the limits ask for it.",
        "Each lane has its own journal folder, queue and place in the venue's connection limit.",
    ),
    key(
        "redundancy",
        Kind::Count { min: 1, max: 2 },
        Some("1"),
        "Connections of each lane that carry the same: with 2, what one misses the other has, and it is stored once.",
        "Twice the traffic, journal and decoding, and twice the places in the venue's connection limit.",
    ),
    key(
        "ws_url",
        Kind::Url(&["wss", "ws"]),
        None,
        "WebSocket base URL instead of the venue's public one.",
        "`ws://` is not encrypted: whoever sits between can change the data.",
    ),
    key(
        "http_url",
        Kind::Url(&["https", "http"]),
        None,
        "REST base URL instead of the venue's public one.",
        "`http://` is not encrypted: whoever sits between can change the data.",
    ),
    key(
        "limits.streams_per_connection",
        Kind::Count { min: 1, max: 100_000 },
        None,
        "Subscribed streams (symbol times channel) on one connection.",
        LIMIT_COST,
    ),
    key(
        "limits.messages_per_second",
        Kind::Count { min: 1, max: 10_000 },
        None,
        "Client messages a second on one connection.",
        LIMIT_COST,
    ),
    key(
        "limits.connects",
        Kind::Count { min: 1, max: 100_000 },
        None,
        "Connection attempts within `limits.connects_per`, from one address.",
        LIMIT_COST,
    ),
    key(
        "limits.connects_per",
        Kind::Span { min: secs(1), max: days(1) },
        None,
        "The time that `limits.connects` counts over.",
        LIMIT_COST,
    ),
    key(
        "limits.http_weight_per_minute",
        Kind::Count { min: 1, max: 1_000_000 },
        None,
        "REST request weight a minute, from one address.",
        LIMIT_COST,
    ),
    key(
        "limits.silence",
        Kind::Span { min: secs(1), max: days(1) },
        None,
        "Longest silence on a whole connection that is still normal; beyond it tapeway reconnects.",
        "Shorter reconnects for nothing on a quiet market, longer notices a dead connection later.",
    ),
    key(
        "limits.lifetime",
        Kind::SpanOrNever { min: secs(10), max: days(365) },
        None,
        "How long a connection may live before the venue ends it.",
        "tapeway opens another shortly before, and closes the old one when that delivers; shorter means more reconnects.",
    ),
];

const fn key(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    meaning: &'static str,
    cost: &'static str,
) -> Key {
    Key { path, kind, default, meaning, cost }
}

/// Tables that have policies.
pub(super) const TABLES: [&str; 4] = ["trades", "book_deltas", "quotes", "order_books"];

/// Most entries of one venue's `symbols`; a pattern may match more.
const SYMBOLS_MAX: usize = 10_000;

/// Longest entry of `symbols`, in bytes.
pub(super) const SYMBOL_ENTRY_BYTES_MAX: usize = SYMBOL_BYTES_MAX;

/// Most entries of `channels`.
const CHANNELS_MAX: usize = 16;

/// Most lanes one venue may ask for.
const LANES_MAX: u64 = 64;

/// Most writer threads.
const THREADS_MAX: u64 = 64;

/// First core number that no machine of ours has.
const CORES_MAX: u64 = 1_024;

const CHUNK_INTERVAL: Kind = Kind::Span { min: secs(600), max: days(365) };
const AGE: Kind = Kind::SpanOrNever { min: secs(600), max: days(36_500) };

const CHUNK_COST: &str = "Shorter chunks keep the ones being written in memory and make dropping finer; many thousand \
                          slow planning down. Holds for new chunks.";
const COMPRESS_COST: &str = "Sooner saves disk sooner; rows healed later are merged in again at some CPU.";
const DROP_COST: &str = "`never` grows without end: set it, or watch the disk.";
const LIMIT_COST: &str = "The venue's own limit when absent. Above what the venue allows, it bans the address.";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn days(count: u64) -> Duration {
    secs(count * 86_400)
}
