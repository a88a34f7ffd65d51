//! The truth file: every event a loopback market made, whether sent or not, one JSON object a line.
//!
//! Events, in the order the venue's market made them (`n` counts them per venue, from 0):
//!
//! ```text
//! {"n":0,"venue":"binance-spot","symbol":"BTCUSDT","kind":"trade","id":7,"price":"1.50","qty":"2","side":"buy",
//!  "time_us":1723161256322000,"sent":[1,3]}
//! {"n":1,...,"kind":"quote","u":12,"bid_price":"1.50","bid_qty":"2","ask_price":"1.60","ask_qty":"1",...}
//! {"n":2,...,"kind":"book","U":10,"u":12,"bids":[["1.50","2"]],"asks":[],...,"fault":"drop"}
//! ```
//!
//! - Prices and quantities are the very text of the frame; `side` is the aggressor's; quantity zero removes.
//! - `sent` names the connections that were given the frame. They got it unless their `closed` line says fewer
//!   bytes `written` than `queued`: then the tail of what was queued never left. `fault` is there when a fault
//!   struck: `drop` and `stall` are sent to nobody, `duplicate` twice, `swap` after the next frame of the same
//!   symbol and channel, `corrupt` cut in half, `checksum` with a wrong checksum.
//! - Binance books have `U` and `u` (USD-M also `pu`), Binance quotes `u`. Kraken books have `depth` and `checksum`, one line for each
//!   subscribed depth that the change shows in. Off-book prints have `"off_book":true`. `agg_trade` lines (id `a`)
//!   are there only when someone subscribed them.
//!
//! Between them, notes about connections, with `kind` one of `open`, `subscribe`, `unsubscribe`, `snapshot` (what a
//! snapshot, in-band or by HTTP, showed) and `closed`; a recording's frames are `frame` lines with their 0-based line
//! number. Lines of several venues come in blocks. The file is complete once the server has stopped; while it
//! runs, the last fifth of a second is missing.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use super::{
    faults::Fate,
    market::{Change, Trade},
    text::{put_decimal, put_u64},
    venue::{Instrument, Venue},
};

/// The thread that writes the file.
#[derive(Debug)]
pub(super) struct TruthFile {
    blocks: SyncSender<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

impl TruthFile {
    /// Creates (or empties) the file and starts the thread.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let (blocks, incoming) = sync_channel(BLOCKS_MAX);
        let thread = std::thread::Builder::new().name("truth".into()).spawn(move || write_blocks(file, &incoming))?;
        Ok(Self { blocks, thread })
    }

    /// A log of one venue that ends up in this file.
    pub(super) fn log(&self, venue: Venue) -> TruthLog {
        TruthLog { venue, blocks: Some(self.blocks.clone()), out: Vec::with_capacity(BLOCK_BYTES + 4_096), count: 0 }
    }

    /// Waits until everything is on the disk. All logs must be gone.
    ///
    /// # Errors
    ///
    /// The disk refused; the file is not complete.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.blocks);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the truth thread panicked")))
    }
}

fn write_blocks(mut file: File, incoming: &Receiver<Vec<u8>>) -> io::Result<()> {
    for block in incoming {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// One venue's lines on their way to the file.
#[derive(Debug)]
pub(super) struct TruthLog {
    venue: Venue,
    blocks: Option<SyncSender<Vec<u8>>>,
    out: Vec<u8>,
    count: u64,
}

/// Parts of a book line that only some venues have.
#[derive(Clone, Copy, Debug)]
pub(super) enum BookIds {
    /// First and last update id, and the id before.
    Range { first: u64, last: u64, previous: Option<u64> },
    /// None.
    None,
    /// Depth of the view and the checksum sent.
    Checksum { depth: u16, checksum: u32 },
}

impl TruthLog {
    /// A log that goes nowhere.
    pub(super) fn off(venue: Venue) -> Self {
        Self { venue, blocks: None, out: Vec::new(), count: 0 }
    }

    /// Whether lines go anywhere.
    pub(super) fn is_on(&self) -> bool {
        self.blocks.is_some()
    }

    /// Events so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// A trade; `kind` is `trade` or `agg_trade`.
    pub(super) fn trade(
        &mut self,
        instrument: &Instrument,
        kind: &str,
        id: u64,
        trade: &Trade,
        fate: Fate,
        sent: &[u64],
    ) {
        if !self.begin(&instrument.symbol, kind) {
            return;
        }
        self.number("id", id);
        self.decimal("price", trade.price, instrument.price_scale, instrument.price_decimals);
        self.decimal("qty", trade.qty, instrument.qty_scale, instrument.qty_decimals);
        self.raw(if trade.is_buy { ",\"side\":\"buy\"" } else { ",\"side\":\"sell\"" });
        if trade.is_off_book {
            self.raw(",\"off_book\":true");
        }
        self.end(trade.time_us, fate, sent);
    }

    /// A best bid and ask, as price and quantity each.
    pub(super) fn quote(
        &mut self,
        instrument: &Instrument,
        id: Option<u64>,
        top: [(u64, u64); 2],
        time_us: i64,
        fate: Fate,
        sent: &[u64],
    ) {
        if !self.begin(&instrument.symbol, "quote") {
            return;
        }
        if let Some(id) = id {
            self.number("u", id);
        }
        for (price_key, qty_key, (price, qty)) in [("bid_price", "bid_qty", top[0]), ("ask_price", "ask_qty", top[1])] {
            self.decimal(price_key, price, instrument.price_scale, instrument.price_decimals);
            self.decimal(qty_key, qty, instrument.qty_scale, instrument.qty_decimals);
        }
        self.end(time_us, fate, sent);
    }

    /// A book message.
    pub(super) fn book(
        &mut self,
        instrument: &Instrument,
        ids: BookIds,
        changes: &[Change],
        time_us: i64,
        fate: Fate,
        sent: &[u64],
    ) {
        if !self.begin(&instrument.symbol, "book") {
            return;
        }
        match ids {
            BookIds::Range { first, last, previous } => {
                self.number("U", first);
                self.number("u", last);
                if let Some(previous) = previous {
                    self.number("pu", previous);
                }
            }
            BookIds::None => {}
            BookIds::Checksum { depth, checksum } => {
                self.number("depth", depth.into());
                self.number("checksum", checksum.into());
            }
        }
        self.raw(",\"bids\":");
        put_levels(&mut self.out, instrument, changes, true);
        self.raw(",\"asks\":");
        put_levels(&mut self.out, instrument, changes, false);
        self.end(time_us, fate, sent);
    }

    /// A frame of a recording, by its line in the file.
    pub(super) fn frame(&mut self, line: u64, rows: u64, fate: Fate, sent: &[u64]) {
        if !self.begin("", "frame") {
            return;
        }
        self.number("line", line);
        self.number("rows", rows);
        self.end(0, fate, sent);
    }

    /// A note: `fields` is JSON text that begins with a comma or is empty.
    pub(super) fn note(&mut self, kind: &str, conn: Option<u64>, symbol: &str, fields: &str) {
        if !self.is_on() {
            return;
        }
        let venue = self.venue;
        let symbol = if symbol.is_empty() { String::new() } else { format!(",\"symbol\":\"{symbol}\"") };
        let conn = conn.map_or(String::new(), |conn| format!(",\"conn\":{conn}"));
        self.raw(&format!("{{\"venue\":\"{venue}\"{symbol},\"kind\":\"{kind}\"{conn}{fields}}}\n"));
    }

    /// Hands whole lines to the writing thread.
    pub(super) fn flush(&mut self) {
        if let Some(blocks) = self.blocks.as_ref().filter(|_| !self.out.is_empty()) {
            let block = std::mem::replace(&mut self.out, Vec::with_capacity(BLOCK_BYTES + 4_096));
            // Fails only when the thread has met a disk error, which `finish` reports.
            drop(blocks.send(block));
        }
    }

    fn begin(&mut self, symbol: &str, kind: &str) -> bool {
        let count = self.count;
        self.count += 1;
        if !self.is_on() {
            return false;
        }
        self.raw("{\"n\":");
        put_u64(&mut self.out, count);
        for (key, value) in
            [(",\"venue\":\"", self.venue.name()), ("\",\"symbol\":\"", symbol), ("\",\"kind\":\"", kind)]
        {
            self.raw(key);
            self.raw(value);
        }
        self.raw("\"");
        true
    }

    fn end(&mut self, time_us: i64, fate: Fate, sent: &[u64]) {
        self.number("time_us", time_us.unsigned_abs());
        self.raw(",\"sent\":[");
        for (index, conn) in sent.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            put_u64(&mut self.out, *conn);
        }
        self.raw("]");
        if let Some(fault) = fate.name() {
            self.raw(",\"fault\":\"");
            self.raw(fault);
            self.raw("\"");
        }
        self.raw("}\n");
        if self.out.len() >= BLOCK_BYTES {
            self.flush();
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.raw(",\"");
        self.raw(key);
        self.raw("\":");
        put_u64(&mut self.out, value);
    }

    fn decimal(&mut self, key: &str, value: u64, scale: u32, decimals: u32) {
        self.raw(",\"");
        self.raw(key);
        self.raw("\":\"");
        put_decimal(&mut self.out, value, scale, decimals);
        self.raw("\"");
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// Appends one side's changes as `[["price","qty"],...]`.
pub(super) fn put_levels(out: &mut Vec<u8>, instrument: &Instrument, changes: &[Change], is_bid: bool) {
    let side = changes.iter().filter(|change| change.is_bid == is_bid);
    put_pairs(out, instrument, side.map(|change| (change.price, change.qty)));
}

/// Appends prices and quantities as `[["price","qty"],...]`.
pub(super) fn put_pairs(out: &mut Vec<u8>, instrument: &Instrument, levels: impl Iterator<Item = (u64, u64)>) {
    out.push(b'[');
    for (index, (price, qty)) in levels.enumerate() {
        out.extend_from_slice(if index > 0 { b",[\"" } else { b"[\"" });
        put_decimal(out, price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(b"\",\"");
        put_decimal(out, qty, instrument.qty_scale, instrument.qty_decimals);
        out.extend_from_slice(b"\"]");
    }
    out.push(b']');
}

/// Bytes handed to the writing thread at once.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks on their way to the disk; the market waits when there are more.
const BLOCKS_MAX: usize = 64;
