//! `tapeway bench`: how fast, on this machine.

use std::{path::PathBuf, process::ExitCode};

use super::Failure;
use crate::{
    bench::{self, Options, Stage},
    loopback::Venue,
};

/// Measure each part and the whole on this machine, beside the database's own speed.
///
/// Values go to stdout, one a line; what is being done goes to stderr. Files, processes and rows are removed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to measure, separated by commas: decode, encode, journal, sink, catchup, live, outage, scale.
    /// Everything but the last two when absent.
    #[arg(value_delimiter = ',', value_name = "STAGES")]
    stages: Vec<Stage>,
    /// Runs of each measurement; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// Rows of a run of every stage but live; of scale, the rows that are written again and again.
    #[arg(long, default_value_t = 3_000_000)]
    rows: u64,
    /// Rows stored when scale measures, ascending, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["5000000", "50000000"], value_name = "ROWS")]
    stored: Vec<u64>,
    /// Seconds of a run of live.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seconds without a database in outage.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    outage_seconds: u64,
    /// Rows a second of live and outage.
    #[arg(long, default_value_t = 100_000.0, value_name = "ROWS_PER_S")]
    rate: f64,
    /// Do not look for the highest rate that holds.
    #[arg(long)]
    no_search: bool,
    /// Loopback venues to record from, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["binance-spot", "binance-usdm", "coinbase", "kraken"])]
    venues: Vec<Venue>,
    /// Instruments, over all venues.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    symbols: u16,
    /// Measure this database, whose tables are emptied, instead of a private one.
    #[arg(long, env = "TAPEWAY_BENCH_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Delete what the named database has recorded.
    #[arg(long, requires = "database_url")]
    force: bool,
    /// Plain PostgreSQL for the private database, even if TimescaleDB is installed.
    #[arg(long, conflicts_with = "database_url")]
    plain: bool,
    /// Decode these recordings instead of generated frames: files `<venue>/<name>.jsonl.zst`.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Decode the recordings of a corpus (a folder with frames/<venue>/*.jsonl.zst).
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Tiny sizes, one run: does everything work?
    #[arg(long)]
    smoke: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let stages = if args.stages.is_empty() {
        Stage::ALL.into_iter().filter(|stage| !matches!(stage, Stage::Outage | Stage::Scale)).collect()
    } else {
        args.stages
    };
    let mut options = Options {
        stages,
        runs: args.runs.into(),
        rows: args.rows,
        stored: args.stored,
        seconds: args.seconds,
        outage_seconds: args.outage_seconds,
        rate: Some(args.rate),
        is_search_wanted: !args.no_search,
        venues: args.venues,
        symbols: args.symbols.into(),
        database_url: args.database_url,
        is_forced: args.force,
        is_plain: args.plain,
        recordings: args.files.into_iter().chain(args.corpus).collect(),
        is_json: args.json,
    };
    if args.smoke {
        options = options.smoke();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(bench::run(&options))?;
    Ok(ExitCode::SUCCESS)
}
