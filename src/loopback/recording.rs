//! A recorded session played back: its frames in order, under the subscriptions clients make themselves.
//!
//! The file is NDJSON as recorders write it (`{"ts_recv_ns","conn","dir","raw"}`, plain or `.zst`): `in` lines are
//! frames, `rest` lines HTTP answers that arrived there, `out` lines are ignored. It is played once, from the start,
//! when the first subscriptions are there. Acknowledgements, status and heartbeats of the recorded session are left
//! out, since clients get their own; so are connection numbers.
//!
//! Binance depth requests are answered for the moment the playback has reached: the recorded snapshot with the
//! played depth frames applied. A Coinbase or Kraken client that joins late sees no snapshot until the recording has
//! one.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use rust_decimal::Decimal;
use serde_json::Value;

use super::{
    engine::Engine,
    faults::{Channel, Fate},
    venue::Venue,
};

/// A recorded session.
#[derive(Debug)]
pub(super) struct Recording {
    frames: Vec<Frame>,
    snapshots: Vec<Snapshot>,
    names: Vec<String>,
    books: BTreeMap<usize, Book>,
    at: usize,
}

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// A line is not one of a recording.
    #[error("{path}, line {line}: {source}")]
    Line { path: PathBuf, line: u64, source: serde_json::Error },
    /// There is nothing to play.
    #[error("{path}: no frame of {venue} in it")]
    Empty { path: PathBuf, venue: Venue },
}

#[derive(Debug)]
struct Frame {
    line: u64,
    symbol: usize,
    channel: Channel,
    rows: u64,
    data: Box<[u8]>,
}

/// A recorded depth answer and the number of frames before it.
#[derive(Debug)]
struct Snapshot {
    symbol: usize,
    at: usize,
    body: String,
}

#[derive(Debug, Default)]
struct Book {
    last_id: u64,
    next: usize,
    /// Bids, asks: price to its text and the quantity's.
    sides: [BTreeMap<Decimal, (String, String)>; 2],
}

#[derive(serde::Deserialize)]
struct Line {
    dir: String,
    #[serde(default)]
    raw: String,
    #[serde(default)]
    url: String,
}

impl Recording {
    /// Reads a recording of this venue.
    ///
    /// # Errors
    ///
    /// See [`RecordingError`].
    pub(super) fn read(path: &Path, venue: Venue) -> Result<Self, RecordingError> {
        let io = |source| RecordingError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let reader: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "zst") {
            Box::new(zstd::stream::read::Decoder::new(file).map_err(io)?)
        } else {
            Box::new(file)
        };
        let mut recording =
            Self { frames: Vec::new(), snapshots: Vec::new(), names: Vec::new(), books: BTreeMap::new(), at: 0 };
        for (number, line) in (0_u64..).zip(BufReader::new(reader).lines()) {
            let text = line.map_err(io)?;
            if text.trim().is_empty() {
                continue;
            }
            let line = serde_json::from_str(&text).map_err(|source| RecordingError::Line {
                path: path.into(),
                line: number,
                source,
            })?;
            recording.add(venue, number, line);
        }
        if recording.frames.is_empty() {
            return Err(RecordingError::Empty { path: path.into(), venue });
        }
        Ok(recording)
    }

    /// Sends the next frame; returns its rows.
    pub(super) fn step(&mut self, engine: &mut Engine) -> u64 {
        let Some(frame) = self.frames.get(self.at) else { return 0 };
        self.at += 1;
        let fate = engine.faults.fate(&self.names[frame.symbol], frame.channel);
        let fate = if fate == Fate::WrongChecksum { Fate::Sent } else { fate };
        engine.hub.sent.clear();
        engine.hub.deliver(frame.symbol, frame.channel, None, &frame.data, fate);
        engine.stats.add(frame.symbol, frame.channel, frame.rows, engine.hub.sent.len());
        let sent = std::mem::take(&mut engine.hub.sent);
        engine.truth.frame(frame.line, frame.rows, fate, &sent);
        engine.hub.sent = sent;
        frame.rows
    }

    /// The depth answer for the moment the playback has reached.
    pub(super) fn depth(&mut self, symbol: usize, limit: usize) -> Option<Vec<u8>> {
        let snapshot = self.snapshots.iter().find(|snapshot| snapshot.symbol == symbol)?;
        if self.at <= snapshot.at {
            return Some(snapshot.body.clone().into_bytes());
        }
        let book = self.books.entry(symbol).or_insert_with(|| Book::of(&snapshot.body));
        for frame in &self.frames[book.next..self.at] {
            if frame.symbol == symbol && frame.channel == Channel::Book {
                book.apply(&frame.data);
            }
        }
        book.next = self.at;
        Some(book.body(limit))
    }

    /// Whether all has been played.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.frames.len()
    }

    /// Number of symbols in it.
    pub(super) fn symbols(&self) -> usize {
        self.names.len()
    }

    /// A symbol's name.
    pub(super) fn symbol_name(&self, symbol: usize) -> &str {
        &self.names[symbol]
    }

    /// A symbol's index.
    pub(super) fn symbol_index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known.eq_ignore_ascii_case(name))
    }

    fn add(&mut self, venue: Venue, number: u64, line: Line) {
        match line.dir.as_str() {
            "in" => {
                // A frame that is no JSON is played to whoever has the book of the symbol before it.
                let parsed = serde_json::from_str::<Value>(&line.raw).unwrap_or(Value::Null);
                let Some((name, channel)) = subject(venue, &parsed, &line.raw) else { return };
                let symbol = self.intern(&name);
                let rows = rows(venue, &line.raw);
                let data = data(&line.raw).as_bytes().into();
                self.frames.push(Frame { line: number, symbol, channel, rows, data });
            }
            "rest" if line.url.contains("/depth") => {
                let query = line.url.split_once('?').map_or("", |(_, query)| query);
                let query = super::query::pairs(query);
                if let Some(name) = super::query::value(&query, "symbol") {
                    let symbol = self.intern(name);
                    self.snapshots.push(Snapshot { symbol, at: self.frames.len(), body: line.raw });
                }
            }
            _ => {}
        }
    }

    fn intern(&mut self, name: &str) -> usize {
        self.symbol_index(name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }
}

impl Book {
    fn of(body: &str) -> Self {
        let parsed = serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
        let mut book = Self { last_id: parsed["lastUpdateId"].as_u64().unwrap_or(0), ..Self::default() };
        book.set(0, &parsed["bids"]);
        book.set(1, &parsed["asks"]);
        book
    }

    fn apply(&mut self, data: &[u8]) {
        let Ok(frame) = serde_json::from_slice::<Value>(data) else { return };
        let last_id = frame["u"].as_u64().unwrap_or(0);
        if last_id > self.last_id {
            self.set(0, &frame["b"]);
            self.set(1, &frame["a"]);
            self.last_id = last_id;
        }
    }

    fn set(&mut self, side: usize, levels: &Value) {
        for level in levels.as_array().into_iter().flatten() {
            let (Some(price), Some(qty)) = (level[0].as_str(), level[1].as_str()) else { continue };
            let Ok(key) = price.parse::<Decimal>() else { continue };
            if qty.parse::<Decimal>().is_ok_and(|qty| qty.is_zero()) {
                self.sides[side].remove(&key);
            } else {
                self.sides[side].insert(key, (price.to_owned(), qty.to_owned()));
            }
        }
    }

    fn body(&self, limit: usize) -> Vec<u8> {
        let bids: Vec<_> = self.sides[0].values().rev().take(limit).collect();
        let asks: Vec<_> = self.sides[1].values().take(limit).collect();
        serde_json::json!({"lastUpdateId": self.last_id, "bids": bids, "asks": asks}).to_string().into_bytes()
    }
}

/// What a recorded frame is about; `None` for frames that are not played.
fn subject(venue: Venue, frame: &Value, raw: &str) -> Option<(String, Channel)> {
    match venue {
        Venue::BinanceSpot | Venue::BinanceUsdm => {
            let stream = match frame["stream"].as_str() {
                Some(stream) => stream,
                None => raw.strip_prefix("{\"stream\":\"")?.split('"').next()?,
            };
            let (symbol, channel) = stream.split_once('@')?;
            let channel = match channel {
                "trade" => Channel::Trades,
                "aggTrade" => Channel::AggTrades,
                "bookTicker" => Channel::Quotes,
                _ if channel == "depth" || channel.starts_with("depth@") => Channel::Book,
                _ => return None,
            };
            Some((symbol.to_ascii_uppercase(), channel))
        }
        Venue::Coinbase => {
            let channel = match frame["type"].as_str()? {
                "match" | "last_match" => Channel::Trades,
                "snapshot" | "l2update" => Channel::Book,
                "heartbeat" => Channel::Heartbeat,
                _ => return None,
            };
            Some((frame["product_id"].as_str()?.to_owned(), channel))
        }
        Venue::Kraken => {
            let channel = match frame["channel"].as_str()? {
                "book" => Channel::Book,
                "trade" => Channel::Trades,
                "ticker" => Channel::Quotes,
                _ => return None,
            };
            Some((frame["data"][0]["symbol"].as_str()?.to_owned(), channel))
        }
    }
}

/// The part of a frame that is the same for every subscriber: what is inside a combined stream's wrapper.
fn data(raw: &str) -> &str {
    let inner = raw.strip_prefix("{\"stream\":\"").and_then(|rest| rest.split_once(",\"data\":"));
    inner.map_or(raw, |(_, data)| data.strip_suffix('}').unwrap_or(data))
}

/// About how many rows a frame makes.
fn rows(venue: Venue, raw: &str) -> u64 {
    let mark = if venue == Venue::Kraken { "\"price\":" } else { "[\"" };
    (raw.matches(mark).count() as u64).max(1)
}
