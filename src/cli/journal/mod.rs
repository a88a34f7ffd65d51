//! `tapeway journal`: look at, verify or repair the raw-frame journal, with or without a daemon beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::Failure;
use crate::config::Config;

mod dump;
mod ls;
mod repair;
mod verify;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List lanes with their positions, segments and bytes.
    Ls(Folder),
    /// Read every record and check it. Exit status 1 when something durable cannot be read.
    Verify(Folder),
    /// Print frames.
    Dump(dump::Args),
    /// Cut damaged tails off into files beside the segments. Deletes nothing; refused while a daemon runs.
    Repair(Folder),
}

/// Which journal, and which of its lanes.
#[derive(Clone, Debug, clap::Args)]
struct Folder {
    /// The journal's folder; `journal.dir` of the configuration when absent.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// tapeway.yaml, or the folder it is in.
    #[arg(short, long, env = "TAPEWAY_CONFIG", default_value = "config/tapeway.yaml")]
    config: PathBuf,
    /// Only this lane.
    #[arg(long)]
    lane: Option<String>,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let result = match args.command {
        Command::Ls(folder) => ls::run(&folder),
        Command::Verify(folder) => verify::run(&folder),
        Command::Dump(args) => dump::run(&args),
        Command::Repair(folder) => repair::run(&folder),
    };
    match result {
        Err(Stop::Pipe) => Ok(ExitCode::SUCCESS),
        Err(Stop::Failure(failure)) => Err(failure),
        Ok(code) => Ok(code),
    }
}

/// Why a command ended early.
enum Stop {
    /// Nobody reads on.
    Pipe,
    /// It failed.
    Failure(Failure),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::Pipe } else { Self::Failure(error.into()) }
    }
}

impl From<crate::journal::Error> for Stop {
    fn from(error: crate::journal::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Folder {
    fn dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        match Config::load(&self.config) {
            Ok(config) => Ok(config.journal.dir),
            Err(problems) => Err(Failure(format!("no --dir, and {problems}"))),
        }
    }

    /// Folders of the lanes asked for, by name.
    fn lanes(&self) -> Result<Vec<PathBuf>, Failure> {
        let dir = self.dir()?;
        let failed = |error: std::io::Error| Failure(format!("{}: {error}", dir.display()));
        let mut lanes = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && self.lane.as_deref().is_none_or(|lane| name(&path) == lane) {
                lanes.push(path);
            }
        }
        if let Some(lane) = self.lane.as_deref().filter(|_| lanes.is_empty()) {
            return Err(Failure(format!("{}: no lane {lane}", dir.display())));
        }
        lanes.sort();
        Ok(lanes)
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
