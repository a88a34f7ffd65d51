//! `tapeway verify`: is what was committed still there, and what is known to be missing?
//!
//! ```text
//! snapshot    one read-only transaction sees one state of the database
//!   scope     lanes, instruments, gaps, seals: small, read at once
//!   passing   table by table, instrument by instrument: COPY (SELECT ...) TO STDOUT in order of venue time
//!               bytes   -> hash -> sums by hour and lane    against audit.seals
//!               ids     -> stretches                        against audit.gaps
//!               arrival -> order, frames, book
//!   judge     what each day of each channel came to
//!   lanes     watermarks against seals, seconds in which nothing came
//!   against   the journal's frames decoded again, held against the rows that differ
//! report      text, JSON or HTML
//! ```
//!
//! Memory is bounded by one instrument's ids (dense: few stretches), ten seconds of its rows, and the seals of the range.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    config::Database,
    journal,
    seal::{Key, Sum},
    store::{self, Connection, Connector, table::Table},
};

mod against;
mod arrival;
mod audit;
mod channel;
mod coverage;
mod findings;
mod follow;
mod html;
mod ids;
mod judge;
mod lanes;
pub mod moment;
pub mod report;
mod scope;
mod sealed;
mod stored;
mod text;

pub use html::html;
pub use report::{Finding, Report, Severity, Verdict};
pub use text::text;

use against::Journaled;
use channel::{Passing, Sums};
use coverage::Coverage;
use findings::Findings;
use judge::Judged;
use report::Against;
use scope::{Instrument, Scope};

/// What to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// First moment, as PostgreSQL understands it under UTC.
    pub from: String,
    /// First moment after the last, likewise.
    pub to: String,
    /// Only these venues; all when empty.
    pub venues: Vec<String>,
    /// Only these instruments, by the venue's own spelling; all when empty.
    pub instruments: Vec<String>,
    /// A journal to hold the rows against.
    pub journal: Option<PathBuf>,
    /// Seconds without a row on a lane that are told of.
    pub hole_seconds: i64,
    /// Say nothing on stderr while it runs.
    pub is_quiet: bool,
}

impl Options {
    /// Whether no instrument is left out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.venues.is_empty() && self.instruments.is_empty()
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Error {
    /// The database could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The schema is older than seals.
    #[error("the database has no audit.seals: its schema is older than this tapeway; run `tapeway migrate`")]
    NoSeals,
    /// Nothing lies between the two moments.
    #[error("--from {from} is not before --to {to}")]
    Range {
        /// `--from`
        from: String,
        /// `--to`
        to: String,
    },
    /// A name that the database does not know.
    #[error("no {what} {name:?} in the database")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The server sent what is no binary COPY of the table.
    #[error("{}: {what} where a row was expected", table.path())]
    Format {
        /// The table.
        table: Table,
        /// What came instead.
        what: String,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The folder is no journal.
    #[error("{dir}: {what}")]
    Folder {
        /// The folder.
        dir: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Reads the range and says what it came to. `policies`: whether retention of the configuration is known, which plain
/// PostgreSQL does not store. Changes nothing.
///
/// # Errors
///
/// [`Error`]; damage is no error but a finding.
pub async fn verify(database: &Database, policies: bool, options: &Options) -> Result<Report, Error> {
    let begun = Instant::now();
    // One statement streams for as long as the range is large.
    let patient = Database { statement_timeout: STATEMENT_TIMEOUT, ..database.clone() };
    let connection = Connector::new(&patient, "verify")?.connect().await?;
    connection.run("open a snapshot", SNAPSHOT).await?;
    let scope = Scope::read(&connection, options, policies.then_some(database)).await?;
    let mut run = Run::new(&scope, options);
    if let Some(dir) = &options.journal {
        run.journaled = Some(Journaled::open(dir, &scope, &mut run.findings)?);
    }
    run.pass(&connection).await?;
    sealed::compare(&scope, &run.found, &run.rows_by_hour, &mut run.findings, &mut run.by_day);
    audit::compare(&connection, &scope, &mut run.findings).await?;
    let lanes = lanes::check(&connection, &scope, &run.coverage, options.hole_seconds, &mut run.findings).await?;
    let against = match run.journaled.take() {
        Some(journaled) => Some(journaled.compare(&connection, &scope, &mut run.findings).await?),
        None => None,
    };
    connection.run("close the snapshot", "ROLLBACK").await?;
    Ok(run.report(lanes, against, begun))
}

/// A run under way.
struct Run<'a> {
    scope: &'a Scope,
    found: HashMap<Key, Sum>,
    /// Rows by table and hour, of all instruments.
    rows_by_hour: HashMap<(Table, i64), u64>,
    coverage: Coverage,
    findings: Findings,
    journaled: Option<Journaled>,
    judged: Vec<Judged>,
    by_day: sealed::ByDay,
    rows: u64,
    unsealed: u64,
    progress: Progress,
}

impl<'a> Run<'a> {
    fn new(scope: &'a Scope, options: &Options) -> Self {
        Self {
            scope,
            found: HashMap::new(),
            rows_by_hour: HashMap::new(),
            coverage: Coverage::new(scope.from, scope.to),
            findings: Findings::default(),
            journaled: None,
            judged: Vec::new(),
            by_day: sealed::ByDay::default(),
            rows: 0,
            unsealed: 0,
            progress: Progress { is_quiet: options.is_quiet, begun: Instant::now(), told: Instant::now() },
        }
    }

    /// Streams every row of the range once.
    async fn pass(&mut self, connection: &Connection) -> Result<(), Error> {
        let scope = self.scope;
        for (nr, instrument) in scope.instruments.iter().enumerate() {
            for table in Table::ALL {
                let condition = format!("instrument_id = {} AND {}", instrument.id, scope.in_range());
                let sums = Sums {
                    found: &mut self.found,
                    journaled: self.journaled.as_mut(),
                    coverage: &mut self.coverage,
                    findings: &mut self.findings,
                };
                let mut passing = Passing::new(scope, instrument, table, sums);
                let (progress, before) = (&mut self.progress, self.rows);
                let mut rows = 0;
                stored::each_row(&connection.client, table, &condition, |bytes, row| {
                    rows += 1;
                    if rows % PROGRESS_ROWS == 0 {
                        progress.tell(before + rows, nr, scope.instruments.len(), instrument, table);
                    }
                    passing.row(bytes, row);
                    Ok(())
                })
                .await?;
                passing.end();
                self.rows += rows;
                let seen = passing.seen();
                self.unsealed += seen.unsealed;
                let judged = judge::judge(connection, scope, instrument, table, seen, &mut self.findings).await?;
                self.judged.push(judged);
            }
        }
        for (key, sum) in &self.found {
            *self.rows_by_hour.entry((key.table, key.hour)).or_default() += sum.rows;
        }
        if scope.is_whole {
            self.strangers(connection).await?;
        }
        Ok(())
    }

    /// Rows of instruments that the database does not know.
    async fn strangers(&mut self, connection: &Connection) -> Result<(), Error> {
        for table in Table::ALL {
            let sql = format!(
                "SELECT instrument_id, lane_id, count(*), (extract(epoch FROM min(\"time\")) * 1000000)::bigint
                 FROM {} r WHERE {} AND NOT EXISTS
                    (SELECT FROM market_data.instruments i WHERE i.instrument_id = r.instrument_id)
                 GROUP BY 1, 2 ORDER BY 1, 2",
                table.path(),
                self.scope.in_range()
            );
            for row in connection.query("look for unknown instruments", &sql, &[]).await? {
                let (instrument, lane, rows): (i32, i32, i64) = (row.get(0), row.get(1), row.get(2));
                self.findings.add(Finding {
                    severity: Severity::Damage,
                    kind: "unknown_instrument",
                    venue: String::new(),
                    symbol: String::new(),
                    table: table.name(),
                    lane_id: Some(lane),
                    at: moment::iso(row.get(3)),
                    detail: format!(
                        "{rows} rows of instrument {instrument}, which market_data.instruments does not have"
                    ),
                });
            }
        }
        Ok(())
    }

    fn report(self, lanes: lanes::Checked, against_journal: Option<Against>, begun: Instant) -> Report {
        let scope = self.scope;
        let holes: BTreeMap<i32, Vec<(i64, i64)>> = lanes.holes;
        let mut channels: Vec<report::ChannelReport> = Vec::new();
        for judged in self.judged {
            channels.extend(judged.report(scope, &self.by_day, &holes));
        }
        let worst = channels.iter().map(|channel| channel.verdict).max().unwrap_or(Verdict::Complete);
        let verdict = match (self.findings.has_damage, self.findings.has_gap) {
            (true, _) => Verdict::Damaged,
            (false, true) => worst.max(Verdict::Gaps),
            (false, false) => worst,
        };
        let (findings, findings_left_out) = self.findings.finish();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            server: scope.server.clone(),
            from: moment::iso(scope.from),
            to: moment::iso(scope.to),
            verdict,
            rows: self.rows,
            seconds: begun.elapsed().as_secs_f64(),
            retired_seals: self.by_day.retired,
            unsealed_rows: self.unsealed,
            channels,
            lanes: lanes.list,
            findings,
            findings_left_out,
            against_journal,
        }
    }
}

/// Tells on stderr how far it is.
struct Progress {
    is_quiet: bool,
    begun: Instant,
    told: Instant,
}

impl Progress {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    fn tell(&mut self, rows: u64, nr: usize, of: usize, instrument: &Instrument, table: Table) {
        if self.is_quiet || self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        let millions = rows as f64 / 1e6;
        let rate = millions / self.begun.elapsed().as_secs_f64();
        let (venue, symbol, name) = (&instrument.venue, &instrument.symbol, table.name());
        eprintln!(
            "{venue} {symbol} {name} (instrument {} of {of}): {millions:.1} million rows, {rate:.2} million a second",
            nr + 1
        );
    }
}

/// What passed by of one table and instrument.
#[derive(Debug, Default)]
struct Seen {
    days: BTreeMap<i64, channel::Day>,
    ids: ids::Ids,
    lanes: BTreeSet<i32>,
    unsealed: u64,
}

/// A snapshot that nothing times out; moments as the seals of audit rows have them.
const SNAPSHOT: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET tcp_user_timeout = 0; \
    SET timezone = 'UTC'; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Longest time one statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Rows between two looks at the clock.
const PROGRESS_ROWS: u64 = 65_536;
