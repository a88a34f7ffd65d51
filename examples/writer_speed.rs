//! How fast rows are encoded, and committed beside `psql \copy` of the same bytes in the same transactions.
//!
//! `cargo run --release --example writer_speed -- <database URL> [rows] [rows a batch] [instruments]`; the database
//! is migrated and its trades are emptied. Rows are trades in chunks of 1,000 as a session gives them, each chunk
//! of all instruments in order of time.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use rust_decimal::Decimal;
use tapeway::{
    config::{Database, Pin, Secret, Writer},
    journal::disk::RealDisk,
    lane::{Lane, Progress, Rows},
    queue::Queue,
    store::{self, instruments::InstrumentId, table::Table, watermark::LaneId},
    writer::{
        self,
        batch::{Piece, Sealed},
        encode::{Encoder, Poison, Scratch},
    },
};
use tapeway_exchanges::{
    event::{Events, Flags, Side, Trade},
    ids::{FramePos, Micros, Nanos, SymbolIx},
    symbols::Symbol,
    venue::VENUES,
};
use tokio::sync::Notify;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(url) = arguments.first() else {
        eprintln!("usage: writer_speed <database URL> [rows] [rows a batch] [instruments]");
        return Ok(ExitCode::from(2));
    };
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (rows, batch_rows, instruments) = (number(1, 2_000_000)?, number(2, 20_000)?, number(3, 64)?);
    let chunks = chunks(rows, instruments);
    let database = database(url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(store::prepare(&database))?;
    println!("{rows} trades, {instruments} instruments, {batch_rows} rows a transaction; {found:?}");

    let (batches, per_second) = encode(&chunks, usize::try_from(batch_rows)?, instruments);
    println!("encode: {per_second:.0} rows/s (ordered and encoded)");
    let folder = std::env::temp_dir().join(format!("tapeway-writer-speed-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let script = script(&folder, &batches, found.direct_compress(true))?;
    drop(batches);
    for round in 1..=ROUNDS {
        empty(url)?;
        let per_second = write(&chunks, &database, usize::try_from(batch_rows)?)?;
        let size = sizes(url)?;
        println!("round {round}: writer {per_second:.0} rows/s, {size}");
        empty(url)?;
        let begun = Instant::now();
        psql(url, &["-f", &script.display().to_string()])?;
        let per_second = rate(rows, begun.elapsed());
        println!("round {round}: \\copy  {per_second:.0} rows/s, {}", sizes(url)?);
    }
    fs::remove_dir_all(folder)?;
    Ok(ExitCode::SUCCESS)
}

/// Trades of all instruments, one a frame, in chunks of 1,000.
fn chunks(rows: u64, instruments: u64) -> Vec<Events> {
    let symbols: Arc<[Symbol]> = (0..instruments).map(|nr| Symbol::from(format!("SYM{nr}USDT"))).collect();
    let mut chunks = Vec::new();
    for first in (0..rows).step_by(1_000) {
        let mut events = Events { symbols: symbols.clone(), ..Events::default() };
        events.clear(FramePos::new(first));
        for frame in 0..1_000u32.min(u32::try_from(rows - first).unwrap_or(u32::MAX)) {
            let nr = first + u64::from(frame);
            // Not in turn, and prices that walk.
            let symbol = ((nr * 2_654_435_761) >> 7) % instruments;
            let number = nr.cast_signed();
            let time = START + number * 50;
            events.received.push(Nanos((time + 2_345) * 1_000));
            events.trades.push(Trade {
                frame,
                symbol: SymbolIx(u32::try_from(symbol).unwrap_or(0)),
                side: if nr % 3 == 0 { Side::Sell } else { Side::Buy },
                flags: Flags::NONE,
                time: Micros(time),
                price: Decimal::new(6_180_000 + symbol.cast_signed() * 1_000 + (number / 64 * 7_919) % 997, 2),
                qty: Decimal::new(1 + number * 104_729 % 99_991, 5),
                trade_id: Some(5_266_583_935 + number),
                trade_ref: None,
            });
        }
        chunks.push(events);
    }
    chunks
}

fn encode(chunks: &[Events], batch_rows: usize, instruments: u64) -> (Vec<Sealed>, f64) {
    let numbers: Arc<[InstrumentId]> =
        (1..).map(InstrumentId).take(usize::try_from(instruments).unwrap_or(0)).collect();
    let lane = lane();
    let mut scratch = Scratch::default();
    let mut batches = Vec::new();
    let mut took = Duration::ZERO;
    for group in chunks.chunks(batch_rows.div_ceil(1_000)) {
        let pieces = group
            .iter()
            .map(|events| Piece {
                lane: lane.clone(),
                lane_id: LaneId(1),
                old: events.first,
                from: 0,
                events: events.clone(),
                left_out: Vec::new(),
                instruments: numbers.clone(),
            })
            .collect();
        let begun = Instant::now();
        let (sealed, back) = Encoder::new(pieces, scratch, None, Poison::default()).finish();
        took += begun.elapsed();
        scratch = back;
        batches.push(sealed);
    }
    let rows: u64 = batches.iter().map(Sealed::rows).sum();
    (batches, rate(rows, took))
}

fn write(chunks: &[Events], database: &Database, batch_rows: usize) -> Result<f64, Failure> {
    let settings = Writer {
        threads: Some(1),
        pin: Pin::Off,
        batch_rows_max: batch_rows,
        batch_bytes_max: 64 << 20,
        batch_age_max: Duration::from_millis(200),
        queue_chunks_max: 64,
        chunk_rows_max: 1_000,
    };
    let lane = lane();
    let handle = writer::start(&settings, database, vec![lane.clone()])?;
    while !handle.states().iter().any(|state| state.lanes.iter().any(|lane| lane.state == "claimed")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let cpu_before = cpu_seconds();
    let begun = Instant::now();
    for events in chunks {
        let mut events = events.clone();
        let end = events.end();
        while let Err(back) = lane.queue.push(events) {
            events = back;
            std::thread::sleep(Duration::from_micros(200));
        }
        lane.progress.on_append(end);
        lane.progress.on_sync(end);
        lane.writer.notify_one();
    }
    while lane.progress.committed() < lane.progress.appended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    let rows: u64 = chunks.iter().map(|events| events.rows() as u64).sum();
    let cpu = cpu_seconds() - cpu_before;
    println!("         daemon side: {:.3} microseconds of CPU a row, feeding included", cpu * 1e6 / float(rows));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(handle.stop(tokio::time::Instant::now() + Duration::from_secs(10)));
    Ok(rate(rows, took))
}

/// The same bytes for psql: a file a batch, a transaction each, a watermark in it too.
fn script(folder: &std::path::Path, batches: &[Sealed], is_direct: bool) -> Result<PathBuf, Failure> {
    let mut script = String::from("\\set ON_ERROR_STOP 1\n");
    if is_direct {
        script.push_str("SET timescaledb.enable_direct_compress_copy = on;\n");
    }
    for (nr, sealed) in batches.iter().enumerate() {
        let file = folder.join(nr.to_string());
        let mut out = fs::File::create(&file)?;
        for block in sealed.copies.iter().flat_map(|copy| &copy.blocks) {
            out.write_all(block)?;
        }
        script.push_str(&format!(
            "BEGIN;\n\\copy {} ({}) FROM '{}' (FORMAT binary)\nUPDATE audit.watermarks SET updated_at = now();\nCOMMIT;\n",
            Table::Trades.path(),
            Table::Trades.columns().join(", "),
            file.display()
        ));
    }
    let path = folder.join("script");
    fs::write(&path, script)?;
    Ok(path)
}

fn lane() -> Arc<Lane> {
    Arc::new(Lane {
        name: format!("{}.0", VENUES[0].name),
        venue: &VENUES[0],
        journal_id: rand::random(),
        disk: Arc::new(RealDisk),
        dir: PathBuf::from("/nonexistent"),
        progress: Arc::new(Progress::default()),
        rows: Rows::default(),
        queue: Queue::new(64),
        is_behind: AtomicBool::new(false),
        writer: Arc::new(Notify::new()),
    })
}

fn database(url: &str) -> Database {
    Database {
        url: Secret::new(url.into()),
        ca_file: None,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(60),
        is_columnstore_wanted: true,
        tables: std::collections::BTreeMap::new(),
        candles_refresh_every: Duration::from_secs(3_600),
        candles_refresh_window: Duration::from_secs(7_200),
        audit_drop_after: None,
        metadata_every: Duration::from_secs(300),
    }
}

fn empty(url: &str) -> Result<(), Failure> {
    psql(url, &["-c", "TRUNCATE market_data.trades, audit.watermarks, audit.lanes", "-c", "CHECKPOINT"]).map(drop)
}

fn sizes(url: &str) -> Result<String, Failure> {
    let sql = "SELECT format('%s rows, %s', count(*), pg_size_pretty(
                   CASE WHEN (SELECT relkind FROM pg_class WHERE oid = 'market_data.trades'::regclass) = 'r'
                   THEN hypertable_size('market_data.trades') ELSE 0 END)) FROM market_data.trades";
    Ok(psql(url, &["-XAtc", sql])?.trim().to_owned())
}

fn psql(url: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("psql").arg("-q").arg(url).args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// CPU time of this process so far, all threads.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    float(ticks) / 100.0
}

fn rate(rows: u64, took: Duration) -> f64 {
    float(rows) / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

const ROUNDS: usize = 3;
/// 2025-06-01 in microseconds.
const START: i64 = 1_748_736_000_000_000;
