//! `tapeway demo`: the whole thing on this machine, against venues of its own.

use std::process::ExitCode;

use super::Failure;
use crate::demo::Demo;

/// Record from loopback venues into a private PostgreSQL, then compare every row with what was sent.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to record.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    seconds: u64,
    /// Rows a second over all four venues.
    #[arg(long, default_value_t = 20_000.0, value_name = "ROWS_PER_S")]
    rate: f64,
    /// Leave the database running and the folder in place.
    #[arg(long)]
    keep: bool,
    /// Instruments on each venue.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    symbols: u16,
    /// What the markets grow from; the same seed gives the same markets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plain PostgreSQL even if TimescaleDB is installed.
    #[arg(long)]
    plain: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { seconds, rate, keep, symbols, seed, plain } = args;
    let demo = Demo { seconds, rate, is_kept: keep, symbols: symbols.into(), seed, is_plain: plain };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(demo.run())?;
    Ok(if outcome.comparison.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
