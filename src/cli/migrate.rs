//! `tapeway migrate`.

use std::{path::PathBuf, process::ExitCode};

use super::Failure;
use crate::{
    config::Config,
    store::{self, Layout},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration: `tapeway.yaml`, or the folder it is in.
    #[arg(short, long, value_name = "PATH", default_value = "config")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let config = Config::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(store::prepare(&config.database))?;
    let layout = match found.layout {
        Some(Layout::Hypertable) => "TimescaleDB hypertables",
        Some(Layout::Partitioned) => "native partitions",
        None => return Err(Failure("the schema is not there after migrating".into())),
    };
    println!(
        "PostgreSQL {}, TimescaleDB {}: schema and policies up to date, events in {layout}",
        found.server_version_text,
        found.timescaledb.as_deref().unwrap_or("none"),
    );
    Ok(ExitCode::SUCCESS)
}
