//! The command line: one file a command. Each prints results on stdout and everything else on stderr.

use std::{fmt::Display, process::ExitCode};

use clap::{Parser, Subcommand};

mod bench;
mod book;
mod check;
mod demo;
mod journal;
mod loopback;
mod migrate;
mod normalize;
mod panics;
mod run;
mod status;
mod verify;

/// Records every trade and every order-book change an exchange publishes into TimescaleDB, exactly once.
#[derive(Debug, Parser)]
#[command(name = "tapeway", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record: the daemon.
    Run(run::Args),
    /// Validate the configuration, look at the database, say what would run.
    Check(check::Args),
    /// The whole thing on this machine, against venues of its own, with proof.
    Demo(demo::Args),
    /// Create or update the database schema and reconcile its policies.
    Migrate(migrate::Args),
    /// Show what a running daemon is doing.
    Status(status::Args),
    /// Turn recorded frames into normalized events (NDJSON).
    Normalize(normalize::Args),
    /// Build the final order books of recorded frames (JSON).
    Book(book::Args),
    /// Look at, verify or repair the journal.
    Journal(journal::Args),
    /// Read the database back: what is complete, missing, doubled or altered?
    Verify(verify::Args),
    /// Measure each part and the whole on this machine, beside the database's own speed.
    Bench(bench::Args),
    /// A venue server on loopback: for demos, load tests and capacity planning.
    Loopback(Box<loopback::Args>),
}

/// Parses the command line, runs the command and returns its exit status: 0 done, 1 failed, 2 wrong usage;
/// `verify` has more.
#[must_use]
pub fn main() -> ExitCode {
    panics::end_the_process();
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Status(args) => status::run(args),
        Command::Normalize(args) => normalize::run(args),
        Command::Book(args) => book::run(args),
        Command::Journal(args) => journal::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Loopback(args) => loopback::run(*args),
    };
    result.unwrap_or_else(|failure| {
        eprintln!("tapeway: {failure}");
        ExitCode::FAILURE
    })
}

/// Why a command failed, ready to print: the error and what caused it, on one line each.
#[derive(Debug)]
struct Failure(String);

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self(text)
    }
}
