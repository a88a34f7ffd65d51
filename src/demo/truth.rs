//! Is the database what the loopback venues sent? The truth file against the rows, event by event.
//!
//! Three rules: every event that was sent is in the database exactly once, with its ids, time, prices, quantities and
//! side as sent; nothing is in the database that the markets did not make; nothing is there twice. Snapshots repeat what
//! was sent before (levels flagged SNAPSHOT, the last trades on subscribing), so they are not held against the first rule.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io::{BufRead, BufReader},
    path::Path,
};

use futures_util::TryStreamExt;
use serde::Deserialize;
use thiserror::Error;
use tokio_postgres::{Client, NoTls};

/// Why the comparison could not be made.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The truth file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line of the truth file is not one.
    #[error("{path}: line {line}: {source}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The database refused.
    #[error("database: {0}")]
    Database(#[from] tokio_postgres::Error),
}

/// What the comparison found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Comparison {
    /// Rows that were sent and that the database has exactly once.
    pub equal: u64,
    /// Rows that were sent and that the database does not have.
    pub missing: u64,
    /// Rows that the database has more often than they were sent.
    pub doubled: u64,
    /// Rows that no market made.
    pub invented: u64,
    /// The first few of the last three, in words.
    pub examples: Vec<String>,
}

impl Comparison {
    /// Whether the database is exactly what was sent.
    pub const fn is_equal(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.invented == 0
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    venue: &'a str,
    #[serde(default)]
    symbol: &'a str,
    kind: &'a str,
    #[serde(default)]
    id: Option<i64>,
    #[serde(default)]
    u: Option<i64>,
    #[serde(default)]
    price: &'a str,
    #[serde(default)]
    qty: &'a str,
    #[serde(default)]
    side: &'a str,
    #[serde(default)]
    time_us: i64,
    #[serde(default)]
    sent: Vec<u64>,
    #[serde(default, borrow)]
    bids: Vec<[&'a str; 2]>,
    #[serde(default, borrow)]
    asks: Vec<[&'a str; 2]>,
    #[serde(default)]
    bid_price: &'a str,
    #[serde(default)]
    bid_qty: &'a str,
    #[serde(default)]
    ask_price: &'a str,
    #[serde(default)]
    ask_qty: &'a str,
}

/// How often a row was made, was sent, and is there.
#[derive(Clone, Copy, Default)]
struct Tally {
    made: u32,
    sent: u32,
    found: u32,
}

/// Rows by their 64-bit hash twice salted; two different rows meet with a chance below 2^-80 in a billion.
type Rows = HashMap<(u64, u64), Tally, BuildHasherDefault<DefaultHasher>>;

/// Compares a complete truth file with the database at `url`.
///
/// # Errors
///
/// The file or the database cannot be read.
pub async fn compare(truth: &Path, url: &str) -> Result<Comparison, CompareError> {
    let mut rows = Rows::default();
    read_truth(truth, &mut |row, is_sent| {
        let tally = rows.entry(hash(row)).or_default();
        tally.made += 1;
        tally.sent += u32::from(is_sent);
    })?;
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let mut comparison = Comparison::default();
    for query in [TRADES, LEVELS, QUOTES] {
        each_row(&client, query, &mut |row| match rows.get_mut(&hash(row)) {
            Some(tally) => tally.found += 1,
            None => {
                comparison.invented += 1;
                comparison.example("invented", row);
            }
        })
        .await?;
    }
    drop(client);
    connection.abort();
    let mut wrong = std::collections::HashSet::new();
    for (key, tally) in &rows {
        comparison.equal += u64::from(tally.found.min(tally.sent));
        comparison.missing += u64::from(tally.sent.saturating_sub(tally.found));
        comparison.doubled += u64::from(tally.found.saturating_sub(tally.made));
        if tally.found < tally.sent || tally.found > tally.made {
            wrong.insert(*key);
        }
    }
    if !wrong.is_empty() {
        read_truth(truth, &mut |row, _| {
            if let Some(tally) = wrong.take(&hash(row)).and_then(|key| rows.get(&key)) {
                comparison.example(if tally.found < tally.sent { "missing" } else { "doubled" }, row);
            }
        })?;
    }
    Ok(comparison)
}

impl Comparison {
    fn example(&mut self, what: &str, row: &str) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{what}: {row}"));
        }
    }
}

/// Calls `each` with every row of the truth, in the form the queries below print, and whether it was sent.
fn read_truth(path: &Path, each: &mut impl FnMut(&str, bool)) -> Result<(), CompareError> {
    let shown = path.display().to_string();
    let failed = |source| CompareError::File { path: shown.clone(), source };
    let reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let mut row = String::new();
    for (index, text) in reader.lines().enumerate() {
        let text = text.map_err(failed)?;
        let line: Line<'_> = serde_json::from_str(&text).map_err(|source| CompareError::Line {
            path: shown.clone(),
            line: index + 1,
            source,
        })?;
        let is_sent = !line.sent.is_empty();
        // Binance's frames say milliseconds; the market behind them has microseconds.
        let unit = if line.venue.starts_with("binance") { 1_000 } else { 1 };
        let (venue, symbol, time) = (line.venue, line.symbol, line.time_us / unit * unit);
        let id = |id: Option<i64>| id.map_or(String::new(), |id| id.to_string());
        let mut tell = |fields: std::fmt::Arguments<'_>| {
            row.clear();
            std::fmt::Write::write_fmt(&mut row, fields).expect("a String takes any text");
            each(&row, is_sent);
        };
        match line.kind {
            "trade" => {
                let side = if line.side == "buy" { 1 } else { -1 };
                tell(format_args!("t|{venue}|{symbol}|{}|{time}|{side}|{}|{}", id(line.id), line.price, line.qty));
            }
            "book" => {
                for (side, levels) in [(1, &line.bids), (-1, &line.asks)] {
                    for [price, qty] in levels {
                        tell(format_args!("l|{venue}|{symbol}|{}|{time}|{side}|{price}|{qty}", id(line.u)));
                    }
                }
            }
            "quote" => {
                let Line { bid_price, bid_qty, ask_price, ask_qty, .. } = line;
                tell(format_args!("q|{venue}|{symbol}|{}|{bid_price}|{bid_qty}|{ask_price}|{ask_qty}", id(line.u)));
            }
            _ => {} // Notes about connections and snapshots.
        }
    }
    Ok(())
}

/// Calls `each` with every row of a query of one text column.
async fn each_row(client: &Client, query: &str, each: &mut impl FnMut(&str)) -> Result<(), CompareError> {
    let copy = format!("COPY ({query}) TO STDOUT");
    let mut stream = std::pin::pin!(client.copy_out(&copy).await?);
    let mut rest = Vec::new();
    while let Some(bytes) = stream.try_next().await? {
        rest.extend_from_slice(&bytes);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            each(&String::from_utf8_lossy(line));
        }
        rest.drain(..whole);
    }
    Ok(())
}

fn hash(row: &str) -> (u64, u64) {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    (hasher.hash_one((1u8, row)), hasher.hash_one((2u8, row)))
}

/// Microseconds since 1970, exactly: `extract` gives a numeric.
const TRADES: &str = "SELECT concat_ws('|', 't', i.venue, i.symbol, coalesce(trade_id::text, ''), \
     (extract(epoch FROM time) * 1000000)::bigint, side, price, qty) \
     FROM market_data.trades JOIN market_data.instruments i USING (instrument_id)";
const LEVELS: &str = "SELECT concat_ws('|', 'l', i.venue, i.symbol, coalesce(seq::text, ''), \
     (extract(epoch FROM time) * 1000000)::bigint, side, price, qty) \
     FROM market_data.book_deltas JOIN market_data.instruments i USING (instrument_id) WHERE flags & 2 = 0";
const QUOTES: &str = "SELECT concat_ws('|', 'q', i.venue, i.symbol, coalesce(seq::text, ''), \
     bid_price, bid_qty, ask_price, ask_qty) \
     FROM market_data.quotes JOIN market_data.instruments i USING (instrument_id) WHERE flags & 2 = 0";

/// Rows shown of what is wrong.
const EXAMPLES_MAX: usize = 12;
