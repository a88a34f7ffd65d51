//! `tapeway check`: is the configuration right, what is the database, what would run.

use std::{path::PathBuf, process::ExitCode};

use super::Failure;
use crate::{
    app::outlook::{Outlook, outlook},
    config::Config,
    status::proofs,
    store::{
        Capabilities, Connector, Layout,
        advice::{self, Advice},
    },
};

/// Starts nothing and changes nothing. Exit 0: `tapeway run` would start and record.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// tapeway.yaml, or the folder it is in; exchanges/*.yaml is beside it.
    #[arg(short, long, env = "TAPEWAY_CONFIG", default_value = "config/tapeway.yaml")]
    config: PathBuf,
    /// Do not ask the venues for their instrument lists: symbols are not verified, patterns not resolved.
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let config = Config::load(&args.config).map_err(|problems| Failure(problems.to_string()))?;
    println!("configuration  ok: {}", args.config.display());
    let journal = &config.journal;
    println!(
        "journal        {} (at most {} MiB, kept for {:?})",
        journal.dir.display(),
        journal.bytes_max >> 20,
        journal.keep_for
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_database_good = match runtime.block_on(capabilities(&config)) {
        Ok((found, advice)) => {
            let is_good = say_database(&found, config.database.is_columnstore_wanted);
            advice.iter().for_each(say_advice);
            is_good
        }
        Err(failure) => {
            println!("database       NOT REACHED: {failure}");
            false
        }
    };
    let outlooks = runtime.block_on(outlook(&config, !args.offline))?;
    if outlooks.is_empty() {
        println!("venues         NONE enabled: nothing would be recorded");
    }
    let are_venues_good = outlooks.iter().map(say_venue).fold(!outlooks.is_empty(), |all, one| all && one);
    let lanes: usize = outlooks.iter().map(|one| one.lanes.len()).sum();
    let connections: usize = outlooks.iter().map(|one| one.lanes.len() * one.redundancy as usize).sum();
    println!("in all         {lanes} lanes, {connections} connections");
    let is_good = is_database_good && are_venues_good;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn capabilities(config: &Config) -> Result<(Capabilities, Vec<Advice>), Failure> {
    let connection = Connector::new(&config.database, "check")?.connect().await?;
    let found = Capabilities::read(&connection).await?;
    let advice = advice::read(&connection, found.timescaledb.is_some() || found.is_timescaledb_offered).await?;
    Ok((found, advice))
}

/// Prints what a setting of the server should be; it would do as it is.
fn say_advice(advice: &Advice) {
    let Advice { setting, found, wanted, because } = advice;
    println!("  advice           {setting} is {found}, should be {wanted}: {because}");
}

/// Prints what the database is; false if it could not be recorded into.
fn say_database(found: &Capabilities, is_columnstore_wanted: bool) -> bool {
    let timescale = match (&found.timescaledb, found.is_timescaledb_offered) {
        (Some(version), _) if found.is_community => format!("TimescaleDB {version}"),
        (Some(version), _) => format!("TimescaleDB {version}, Apache edition: no columnstore, no policies"),
        (None, true) => "TimescaleDB offered, not created in this database yet".into(),
        (None, false) => "no TimescaleDB: native partitions, plain views, several times the disk".into(),
    };
    println!("database       PostgreSQL {}, {timescale}", found.server_version_text);
    let direct = match (found.has_direct_compress, is_columnstore_wanted) {
        (true, true) => "on: rows are compressed as they arrive",
        (true, false) => "off by configuration (database.columnstore: off)",
        (false, _) => "not offered by this server",
    };
    println!("  direct compress  {direct}");
    let schema = match found.layout {
        Some(Layout::Hypertable) => "there, hypertables",
        Some(Layout::Partitioned) => "there, native partitions",
        None => "not there yet; `tapeway migrate` or the first start makes it",
    };
    println!("  schema           {schema}");
    let (may, is_good) = match (found.is_read_only, found.can_insert, found.can_create) {
        (true, _, _) => ("the server is READ-ONLY", false),
        (_, Some(false), _) => ("the user may NOT insert into market_data.trades", false),
        (_, None, false) => ("the user may NOT create schemas in this database", false),
        (_, Some(true), _) | (_, None, true) => ("sufficient", true),
    };
    println!("  permissions      {may}");
    is_good
}

/// Prints what a venue would run; false if it would not record what was asked for.
fn say_venue(outlook: &Outlook) -> bool {
    let Outlook { venue, symbols, streams, redundancy, lanes, unknown, list_error } = outlook;
    let each = if *redundancy > 1 { format!(", {redundancy} connections each") } else { String::new() };
    println!("{venue:<14} {symbols} symbols, {streams} streams, {} lanes{each}", lanes.len());
    if let Some(spec) = tapeway_exchanges::venue::find(venue) {
        let mut channels: Vec<_> = lanes.iter().flat_map(|lane| &lane.channels).copied().collect();
        channels.sort_unstable();
        channels.dedup();
        let proof: Vec<String> = proofs(spec, &channels).map(|(channel, class)| format!("{channel} {class}")).collect();
        println!("  proof  {}; books: {}", proof.join(", "), spec.book_rule);
    }
    for lane in lanes {
        let shown: Vec<&str> = lane.symbols.iter().take(SYMBOLS_SHOWN).map(String::as_str).collect();
        let more = lane.symbols.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        println!("  {}  {}  {}{more}", lane.lane, lane.url, shown.join(" "));
    }
    if let Some(error) = list_error {
        println!("  instrument list NOT REACHED: {error}");
    }
    for symbol in unknown {
        println!("  symbol {symbol} is NOT in the venue's instrument list");
    }
    list_error.is_none() && unknown.is_empty()
}

/// Symbols of a lane that are spelt out.
const SYMBOLS_SHOWN: usize = 8;
