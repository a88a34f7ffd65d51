//! `tapeway verify`: is what was committed still there, and what is known to be missing?

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use super::Failure;
use crate::{
    config::{Config, Database},
    verify::{self, Options, Verdict},
};

/// Read a range of the database back and say what is complete, missing, doubled or altered. Changes nothing.
///
/// Exit status: 0 everything that can be proven is complete; 3 something is missing and named in audit.gaps; 4 something is
/// missing, doubled or altered that nothing names; 1 no report could be made; 2 wrong usage.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// First moment (UTC): 2026-11-20, '2026-11-20 12:00', yesterday, ... Widened to a whole hour.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// First moment after the last one (UTC). Widened to a whole hour.
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: String,
    /// Only this venue; may be repeated.
    #[arg(long)]
    venue: Vec<String>,
    /// Only this instrument, by the venue's own spelling; may be repeated.
    #[arg(long)]
    instrument: Vec<String>,
    /// tapeway.yaml, or the folder it is in: for the database, and for retention on plain PostgreSQL.
    #[arg(short, long, env = "TAPEWAY_CONFIG", default_value = "config/tapeway.yaml")]
    config: PathBuf,
    /// The database, instead of the configuration's.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the report to this file instead of stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Decode this journal's frames again and compare row by row.
    #[arg(long, value_name = "DIR")]
    against_journal: Option<PathBuf>,
    /// Tell of stretches of a lane without a row that are longer than this: 30s, 5m, 1h.
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    hole: Duration,
    /// Exit 0 although something is missing, if audit.gaps names it.
    #[arg(long)]
    accept_gaps: bool,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A line a channel and day, then the findings.
    Text,
    /// One JSON object.
    Json,
    /// One page, with a strip a day.
    Html,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let (database, has_policies) = match &args.database_url {
        Some(url) => (Database::at(url), false),
        None => (Config::load(&args.config).map_err(|problems| Failure(problems.to_string()))?.database, true),
    };
    let options = Options {
        from: args.from,
        to: args.to,
        venues: args.venue,
        instruments: args.instrument,
        journal: args.against_journal,
        hole_seconds: i64::try_from(args.hole.as_secs()).unwrap_or(i64::MAX),
        is_quiet: args.quiet,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(verify::verify(&database, has_policies, &options))?;
    let text = match args.format {
        Format::Text => verify::text(&report),
        Format::Json => serde_json::to_string(&report)? + "\n",
        Format::Html => verify::html(&report),
    };
    match &args.out {
        Some(path) => fs::write(path, text).map_err(|error| Failure(format!("{}: {error}", path.display())))?,
        None => match io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        },
    }
    Ok(match report.verdict {
        Verdict::Complete | Verdict::Intact | Verdict::Unprovable => ExitCode::SUCCESS,
        Verdict::Gaps if args.accept_gaps => ExitCode::SUCCESS,
        Verdict::Gaps => ExitCode::from(GAPS),
        Verdict::Damaged => ExitCode::from(DAMAGED),
    })
}

fn span(text: &str) -> Result<Duration, String> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let seconds = match &text[unit..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        other => return Err(format!("unit {other:?} is none of s, m, h")),
    };
    let number: u64 = text[..unit].parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    match number.checked_mul(seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err("it must be at least one second".into()),
    }
}

/// Exit status when something is missing and named.
const GAPS: u8 = 3;
/// Exit status when something is damaged.
const DAMAGED: u8 = 4;
