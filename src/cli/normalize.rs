//! `tapeway normalize`: recorded frames in, normalized events out, one JSON object a line.
//!
//! The shapes are described in `exchanges/SEMANTICS.md`. `frame` is the 0-based index of the line that the
//! event came from. Within a frame, gaps come first, then trades, books and quotes, then closed gaps and
//! errors.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use rust_decimal::Decimal;
use serde::Serialize;
use tapeway_exchanges::{
    event::{Channel, Events, Flags, Level, Note, Side},
    ids::{Micros, SymbolIx},
    replica::{BookMessage, Role},
    venue::{VENUES, VenueSpec, find},
};

use super::Failure;
use crate::recording::{self, Item, Recording};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The venue whose frames these are.
    #[arg(long, value_parser = venue)]
    venue: &'static VenueSpec,
    /// Exit with status 1 when a frame could not be decoded.
    #[arg(long)]
    strict: bool,
    /// Recorded frames, one JSON object a line, plain or zstd; standard input when absent or `-`.
    file: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let recording = Recording::open(&recording::path_or_stdin(args.file))?;
    let mut printer = Printer { out: BufWriter::with_capacity(1 << 16, io::stdout().lock()), errors: 0 };
    let done = recording.decode(args.venue, |item| match item {
        Item::Decoded(decoded) => printer.events(decoded.line, decoded.events, decoded.books),
        Item::Bad { line, error } => printer.bad_line(line, &error),
    });
    match done.and_then(|()| Ok(printer.out.flush()?)) {
        Err(Stop::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(Stop::Write(error)) => Err(error.into()),
        Err(Stop::Read(error)) => Err(error.into()),
        Ok(()) if args.strict && printer.errors > 0 => {
            Err(Failure(format!("{} frames could not be decoded", printer.errors)))
        }
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// The venue called `name`.
pub(super) fn venue(name: &str) -> Result<&'static VenueSpec, String> {
    find(name).ok_or_else(|| {
        let known: Vec<_> = VENUES.iter().map(|spec| spec.name).collect();
        format!("known venues are {}", known.join(", "))
    })
}

/// Why printing stopped.
#[derive(Debug)]
enum Stop {
    Read(recording::Error),
    Write(io::Error),
}

impl From<recording::Error> for Stop {
    fn from(error: recording::Error) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

struct Printer<W> {
    out: W,
    errors: u64,
}

/// One line of output.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Trade {
        symbol: &'a str,
        price: String,
        qty: String,
        side: Option<&'static str>,
        trade_id: Option<String>,
        ts_exchange_us: Option<i64>,
        flags: Vec<&'static str>,
    },
    Book {
        symbol: &'a str,
        is_snapshot: bool,
        bids: Vec<[String; 2]>,
        asks: Vec<[String; 2]>,
        seq: Option<i64>,
        ts_exchange_us: Option<i64>,
        flags: Vec<&'static str>,
    },
    Quote {
        symbol: &'a str,
        bid_price: Option<String>,
        bid_qty: Option<String>,
        ask_price: Option<String>,
        ask_qty: Option<String>,
        seq: Option<i64>,
        ts_exchange_us: Option<i64>,
        flags: Vec<&'static str>,
    },
    OrderBook {
        symbol: &'a str,
        bids: Vec<[String; 2]>,
        asks: Vec<[String; 2]>,
        bids_exact: Option<u32>,
        asks_exact: Option<u32>,
        seq: Option<i64>,
        ts_exchange_us: i64,
    },
    Gap {
        symbol: Option<&'a str>,
        channel: Option<&'static str>,
        cause: &'static str,
        first_missing: Option<i64>,
        last_missing: Option<i64>,
    },
    GapClosed {
        symbol: Option<&'a str>,
        channel: Option<&'static str>,
        cause: &'static str,
        end: &'static str,
        rows: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
    Error {
        reason: &'static str,
        error: &'a str,
    },
}

#[derive(Serialize)]
struct Framed<'a> {
    frame: u64,
    #[serde(flatten)]
    line: Line<'a>,
}

impl<W: Write> Printer<W> {
    fn events(&mut self, frame: u64, events: &Events, books: &[BookMessage]) -> Result<(), Stop> {
        for note in &events.notes {
            if let Note::Gap(gap) = note {
                let line = Line::Gap {
                    symbol: gap.symbol.map(|symbol| name(events, symbol)),
                    channel: gap.channel.map(Channel::name),
                    cause: gap.cause.name(),
                    first_missing: gap.first_missing,
                    last_missing: gap.last_missing,
                };
                self.line(frame, line)?;
            }
        }
        for trade in &events.trades {
            let line = Line::Trade {
                symbol: name(events, trade.symbol),
                price: trade.price.to_string(),
                qty: trade.qty.to_string(),
                side: side(trade.side),
                trade_id: trade
                    .trade_id
                    .map(|id| id.to_string())
                    .or_else(|| trade.trade_ref.as_deref().map(Into::into)),
                ts_exchange_us: venue_time(trade.time, trade.flags),
                flags: flags(trade.flags),
            };
            self.line(frame, line)?;
        }
        for message in books {
            self.book(frame, events, message)?;
        }
        for quote in &events.quotes {
            let line = Line::Quote {
                symbol: name(events, quote.symbol),
                bid_price: quote.bid.map(|(price, _)| price.to_string()),
                bid_qty: quote.bid.map(|(_, qty)| qty.to_string()),
                ask_price: quote.ask.map(|(price, _)| price.to_string()),
                ask_qty: quote.ask.map(|(_, qty)| qty.to_string()),
                seq: quote.seq,
                ts_exchange_us: venue_time(quote.time, quote.flags),
                flags: flags(quote.flags),
            };
            self.line(frame, line)?;
        }
        for book in &events.top_books {
            let text = |levels: &[(Decimal, Decimal)]| {
                levels.iter().map(|(price, qty)| [price.to_string(), qty.to_string()]).collect()
            };
            let line = Line::OrderBook {
                symbol: name(events, book.symbol),
                bids: text(&book.bids),
                asks: text(&book.asks),
                bids_exact: book.bids_exact,
                asks_exact: book.asks_exact,
                seq: book.seq,
                ts_exchange_us: book.time.0,
            };
            self.line(frame, line)?;
        }
        for note in &events.notes {
            match note {
                Note::GapClosed(closed) => {
                    let line = Line::GapClosed {
                        symbol: closed.symbol.map(|symbol| name(events, symbol)),
                        channel: closed.channel.map(Channel::name),
                        cause: closed.cause.name(),
                        end: closed.end.name(),
                        rows: closed.rows,
                        detail: closed.detail.as_deref(),
                    };
                    self.line(frame, line)?;
                }
                Note::Reject(reject) => {
                    self.errors += 1;
                    self.line(frame, Line::Error { reason: reject.reason, error: &reject.detail })?;
                }
                Note::Gap(_) | Note::Session(_) => {}
            }
        }
        Ok(())
    }

    fn book(&mut self, frame: u64, events: &Events, message: &BookMessage) -> Result<(), Stop> {
        let is_snapshot = match message.role {
            Role::Snapshot { .. } => true,
            Role::Delta => false,
            Role::Stale => return Ok(()),
        };
        let levels = &events.levels[message.levels.clone()];
        let of_side = |side| levels.iter().filter(move |level| level.side == side).map(level_text).collect();
        let line = Line::Book {
            symbol: name(events, message.symbol),
            is_snapshot,
            bids: of_side(Side::Buy),
            asks: of_side(Side::Sell),
            seq: message.last_id,
            ts_exchange_us: levels.first().and_then(|level| venue_time(level.time, level.flags)),
            flags: levels.first().map(|level| flags(level.flags)).unwrap_or_default(),
        };
        self.line(frame, line)
    }

    fn bad_line(&mut self, frame: u64, error: &str) -> Result<(), Stop> {
        self.errors += 1;
        self.line(frame, Line::Error { reason: "recording", error })
    }

    fn line(&mut self, frame: u64, line: Line<'_>) -> Result<(), Stop> {
        serde_json::to_writer(&mut self.out, &Framed { frame, line }).map_err(io::Error::from)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }
}

fn name(events: &Events, symbol: SymbolIx) -> &str {
    &events.symbols[symbol.0 as usize]
}

/// Price and quantity as the venue wrote them; a removal is `0` however the venue spells it.
fn level_text(level: &Level) -> [String; 2] {
    let qty = if level.qty.is_zero() { "0".into() } else { level.qty.to_string() };
    [level.price.to_string(), qty]
}

fn side(side: Side) -> Option<&'static str> {
    match side {
        Side::Buy => Some("buy"),
        Side::Sell => Some("sell"),
        Side::Unknown => None,
    }
}

/// The venue's own time; `None` when it gave none and `time` is the receive time.
fn venue_time(time: Micros, flags: Flags) -> Option<i64> {
    (!flags.has(Flags::VENUE_TIME_BAD)).then_some(time.0)
}

/// `LAST_IN_FRAME` is left out: it is the mark of one row, and this is one object a message.
fn flags(flags: Flags) -> Vec<&'static str> {
    Flags(flags.0 & !Flags::LAST_IN_FRAME.0).names().collect()
}
