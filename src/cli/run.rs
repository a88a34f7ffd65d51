//! `tapeway run`: the daemon.

use std::{path::PathBuf, process::ExitCode};

use super::Failure;
use crate::{
    app::{self, Stopped, logging},
    config::Config,
    metrics,
};

/// Record until SIGTERM or Ctrl-C. SIGHUP reads the configuration again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// tapeway.yaml, or the folder it is in; exchanges/*.yaml is beside it.
    #[arg(short, long, env = "TAPEWAY_CONFIG", default_value = "config/tapeway.yaml")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let config = Config::load(&args.config).map_err(|problems| Failure(problems.to_string()))?;
    logging::init(&config.logging)?;
    let prometheus = metrics::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(session_threads())
        .thread_name("session")
        .enable_all()
        .build()?;
    let stopped = runtime.block_on(app::run(config, args.config, prometheus))?;
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    Ok(match stopped {
        Stopped::Clean | Stopped::Backlog(_) => ExitCode::SUCCESS,
    })
}

/// Half the cores read and decode; the writers and the database have the rest.
fn session_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// How long tasks that are still running may take to notice the end.
const RUNTIME_STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
