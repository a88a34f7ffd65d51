//! `tapeway loopback`: the loopback venue server as a command.
//!
//! Prints one JSON line when it listens (`[{"venue","ws_url","http_url"}, ...]`) and one when it has stopped (the
//! counts of each venue), both on stdout; what it does in between goes to stderr.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::loopback::{self, Fault, Kinds, Options, Rate, Venue};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Venues to be, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["binance-spot", "binance-usdm", "coinbase", "kraken"])]
    venues: Vec<Venue>,
    /// What the markets grow from: the same seed gives the same events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instruments on each venue.
    #[arg(long, default_value_t = 8)]
    symbols: usize,
    /// Rows (trades, book levels, quotes) a second over all venues, or `max`.
    #[arg(long, default_value = "2000", value_parser = rate)]
    rate: Rate,
    /// What the markets make, separated by commas: trades, book, quotes.
    #[arg(long, value_delimiter = ',', default_values = ["trades", "book", "quotes"])]
    channels: Vec<String>,
    /// Levels a side of each book, about.
    #[arg(long, default_value_t = 120)]
    book_levels: usize,
    /// First port; the venues take it and the ones after it. 0 takes free ports.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Write every event made, sent or not, to this file (NDJSON).
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Speak TLS too and write the certificate to trust to this file (PEM).
    #[arg(long, value_name = "FILE")]
    tls_ca_out: Option<PathBuf>,
    /// Wait for slow clients instead of disconnecting them.
    #[arg(long)]
    lossless: bool,
    /// Megabytes that may wait for a client before it is disconnected.
    #[arg(long, default_value_t = 16)]
    buffer_mb: usize,
    /// A fault from the start, e.g. `kind=drop&venue=kraken&channel=book&p=0.001`; may be given again.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Play a recorded session instead of a market: `VENUE=FILE`.
    #[arg(long, value_parser = recording, value_name = "VENUE=FILE")]
    recording: Option<(Venue, PathBuf)>,
    /// Stop after so many seconds; otherwise on SIGTERM or Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Make at most so many rows on each venue, then only keep the connections.
    #[arg(long)]
    rows: Option<u64>,
    /// Begin each market when it has so many subscriptions.
    #[arg(long, default_value_t = 0)]
    wait_subscriptions: usize,
    /// Begin market time here (microseconds since 1970) instead of now.
    #[arg(long)]
    epoch_us: Option<i64>,
    /// Seconds between the Binance venues' pings.
    #[arg(long, default_value_t = 20)]
    ping_every: u64,
    /// Do not enforce the venues' limits on client messages and streams.
    #[arg(long)]
    no_limits: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Fails only when logging is set up already.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
    let seconds = args.seconds;
    let server = loopback::start(options(args)?)?;
    println!("{}", server.directory());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(until_stopped(seconds.map(Duration::from_secs)))?;
    let summary = server.stop()?;
    for venue in &summary.venues {
        eprint!("{}", venue.table());
    }
    println!("{}", serde_json::Value::from_iter(summary.venues.iter().map(loopback::VenueStats::json)));
    Ok(ExitCode::SUCCESS)
}

fn options(args: Args) -> Result<Options, Failure> {
    let known = ["trades", "book", "quotes"];
    if let Some(unknown) = args.channels.iter().find(|channel| !known.contains(&channel.as_str())) {
        return Err(Failure(format!("--channels: `{unknown}` is none of trades, book, quotes")));
    }
    let has = |channel: &str| args.channels.iter().any(|wanted| wanted == channel);
    Ok(Options {
        kinds: Kinds { has_trades: has("trades"), has_book: has("book"), has_quotes: has("quotes") },
        venues: args.venues,
        seed: args.seed,
        symbols: args.symbols,
        rate: args.rate,
        book_levels: args.book_levels,
        port: args.port,
        truth: args.truth,
        tls_ca_out: args.tls_ca_out,
        is_lossless: args.lossless,
        buffer_bytes_max: args.buffer_mb.saturating_mul(1 << 20),
        ping_every: Duration::from_secs(args.ping_every.max(1)),
        has_limits: !args.no_limits,
        epoch_us: args.epoch_us,
        wait_subscriptions: args.wait_subscriptions,
        rows_max: args.rows,
        faults: args.faults,
        recording: args.recording,
        ..Options::default()
    })
}

async fn until_stopped(after: Option<Duration>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let timer = async {
        match after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = timer => {}
    }
    Ok(())
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    text.parse().map(Rate::RowsPerSecond).map_err(|_| "should be a number of rows a second, or `max`".into())
}

fn recording(text: &str) -> Result<(Venue, PathBuf), String> {
    let (venue, path) = text.split_once('=').ok_or("should be VENUE=FILE")?;
    Ok((venue.parse().map_err(|error: loopback::UnknownVenue| error.to_string())?, path.into()))
}
