//! `tapeway migrate`.

use std::{path::PathBuf, process::ExitCode};

use super::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure("not built yet".into()))
}
