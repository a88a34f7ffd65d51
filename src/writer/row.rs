//! Events as binary COPY rows.
//!
//! ```text
//! file  = "PGCOPY\n\xff\r\n\0" | flags u32 = 0 | extension u32 = 0 | row* | -1 i16
//! row   = fields i16 | field*
//! field = length i32 (-1: null) | bytes
//! ```
//!
//! Columns are in the order of [`Table::columns`]. Integers are big-endian, moments are microseconds since 2000.

use bytes::{BufMut, BytesMut};
use rust_decimal::Decimal;
use tapeway_exchanges::{
    event::{Events, Flags, Level, Quote, TopBook, Trade},
    ids::{FramePos, Micros, SymbolIx},
};

use super::numeric::put_numeric;
use crate::store::{instruments::InstrumentId, table::Table, watermark::LaneId};

/// What a row says beside its event.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The instrument's number.
    pub instrument: InstrumentId,
    /// The lane's number.
    pub lane: LaneId,
    /// The frame.
    pub pos: FramePos,
    /// When the frame arrived.
    pub received: Micros,
}

/// An event that is a row of a table.
pub trait Row: Sized + std::fmt::Debug {
    /// The table.
    const TABLE: Table;

    /// The rows of this kind in a chunk.
    fn list(events: &Events) -> &[Self];
    /// Index of the frame in the chunk.
    fn frame(&self) -> u32;
    /// The instrument.
    fn symbol(&self) -> SymbolIx;
    /// Time by the venue's clock.
    fn time(&self) -> Micros;
    /// Appends the row.
    fn put(&self, buf: &mut BytesMut, context: &Context);
}

impl Row for Trade {
    const TABLE: Table = Table::Trades;

    fn list(events: &Events) -> &[Self] {
        &events.trades
    }

    fn frame(&self) -> u32 {
        self.frame
    }

    fn symbol(&self) -> SymbolIx {
        self.symbol
    }

    fn time(&self) -> Micros {
        self.time
    }

    fn put(&self, buf: &mut BytesMut, context: &Context) {
        put_head(buf, 11, self.time, context);
        put_numeric(buf, self.price);
        put_numeric(buf, self.qty);
        put_i16(buf, self.side.sql());
        put_option_i64(buf, self.trade_id);
        match &self.trade_ref {
            Some(text) => put_text(buf, text),
            None => put_null(buf),
        }
        put_tail(buf, self.flags, context);
    }
}

impl Row for Level {
    const TABLE: Table = Table::BookDeltas;

    fn list(events: &Events) -> &[Self] {
        &events.levels
    }

    fn frame(&self) -> u32 {
        self.frame
    }

    fn symbol(&self) -> SymbolIx {
        self.symbol
    }

    fn time(&self) -> Micros {
        self.time
    }

    fn put(&self, buf: &mut BytesMut, context: &Context) {
        put_head(buf, 10, self.time, context);
        put_i16(buf, self.side.sql());
        put_numeric(buf, self.price);
        put_numeric(buf, self.qty);
        put_option_i64(buf, self.seq);
        put_tail(buf, self.flags, context);
    }
}

impl Row for Quote {
    const TABLE: Table = Table::Quotes;

    fn list(events: &Events) -> &[Self] {
        &events.quotes
    }

    fn frame(&self) -> u32 {
        self.frame
    }

    fn symbol(&self) -> SymbolIx {
        self.symbol
    }

    fn time(&self) -> Micros {
        self.time
    }

    fn put(&self, buf: &mut BytesMut, context: &Context) {
        put_head(buf, 11, self.time, context);
        for side in [self.bid, self.ask] {
            let (price, qty) = side.unzip();
            put_option_numeric(buf, price);
            put_option_numeric(buf, qty);
        }
        put_option_i64(buf, self.seq);
        put_tail(buf, self.flags, context);
    }
}

impl Row for TopBook {
    const TABLE: Table = Table::OrderBooks;

    fn list(events: &Events) -> &[Self] {
        &events.top_books
    }

    fn frame(&self) -> u32 {
        self.frame
    }

    fn symbol(&self) -> SymbolIx {
        self.symbol
    }

    fn time(&self) -> Micros {
        self.time
    }

    fn put(&self, buf: &mut BytesMut, context: &Context) {
        put_head(buf, 13, self.time, context);
        put_option_i64(buf, self.seq);
        for side in [&self.bids, &self.asks] {
            put_numerics(buf, side.iter().map(|(price, _)| *price));
            put_numerics(buf, side.iter().map(|(_, qty)| *qty));
        }
        for exact in [self.bids_exact, self.asks_exact] {
            match exact {
                Some(count) => {
                    buf.put_i32(4);
                    buf.put_u32(count);
                }
                None => put_null(buf),
            }
        }
        put_tail(buf, self.flags, context);
    }
}

/// Begins a COPY file.
pub fn put_header(buf: &mut BytesMut) {
    buf.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
}

/// Ends a COPY file.
pub fn put_trailer(buf: &mut BytesMut) {
    buf.put_i16(-1);
}

/// Field count, time, recv_time, instrument_id.
fn put_head(buf: &mut BytesMut, fields: i16, time: Micros, context: &Context) {
    let mut head = [0u8; 2 + 12 + 12 + 8];
    head[..2].copy_from_slice(&fields.to_be_bytes());
    head[5] = 8;
    head[6..14].copy_from_slice(&pg_micros(time).to_be_bytes());
    head[17] = 8;
    head[18..26].copy_from_slice(&pg_micros(context.received).to_be_bytes());
    head[29] = 4;
    head[30..].copy_from_slice(&context.instrument.0.to_be_bytes());
    buf.extend_from_slice(&head);
}

/// flags, lane_id, frame_pos.
fn put_tail(buf: &mut BytesMut, flags: Flags, context: &Context) {
    let mut tail = [0u8; 6 + 8 + 12];
    tail[3] = 2;
    tail[4..6].copy_from_slice(&flags.0.to_be_bytes());
    tail[9] = 4;
    tail[10..14].copy_from_slice(&context.lane.0.to_be_bytes());
    tail[17] = 8;
    tail[18..].copy_from_slice(&context.pos.get().to_be_bytes());
    buf.extend_from_slice(&tail);
}

fn put_i16(buf: &mut BytesMut, value: i16) {
    let [high, low] = value.to_be_bytes();
    buf.extend_from_slice(&[0, 0, 0, 2, high, low]);
}

fn put_option_i64(buf: &mut BytesMut, value: Option<i64>) {
    match value {
        Some(value) => {
            let mut field = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
            field[4..].copy_from_slice(&value.to_be_bytes());
            buf.extend_from_slice(&field);
        }
        None => put_null(buf),
    }
}

fn put_option_numeric(buf: &mut BytesMut, value: Option<Decimal>) {
    match value {
        Some(value) => put_numeric(buf, value),
        None => put_null(buf),
    }
}

/// `numeric[]`: dimensions, whether nulls are in it, type of its elements, their number, index of the first; elements.
fn put_numerics(buf: &mut BytesMut, numbers: impl ExactSizeIterator<Item = Decimal>) {
    let (begin, count) = (buf.len(), numbers.len());
    buf.put_u32(0); // The length, when it is known.
    buf.put_i32(i32::from(count > 0));
    buf.put_i32(0);
    buf.put_u32(NUMERIC_OID);
    if count > 0 {
        buf.put_u32(u32::try_from(count).expect("a book's row has a few hundred levels"));
        buf.put_i32(1);
    }
    for number in numbers {
        put_numeric(buf, number);
    }
    let len = u32::try_from(buf.len() - begin - 4).expect("a field is far below 4 GiB");
    buf[begin..begin + 4].copy_from_slice(&len.to_be_bytes());
}

fn put_text(buf: &mut BytesMut, text: &str) {
    let len = u32::try_from(text.len()).expect("a field is far below 4 GiB");
    buf.put_u32(len);
    buf.extend_from_slice(text.as_bytes());
}

fn put_null(buf: &mut BytesMut) {
    buf.extend_from_slice(&[0xff; 4]);
}

/// Microseconds since 2000-01-01, PostgreSQL's epoch.
fn pg_micros(time: Micros) -> i64 {
    time.0.saturating_sub(PG_EPOCH_MICROS)
}

/// The type `numeric` in `pg_type`; the same in every server.
const NUMERIC_OID: u32 = 1_700;
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What a row takes at most without its texts: fixed fields, and four numerics of [`NUMERIC_BYTES_MAX`].
pub const ROW_BYTES_MAX: usize = 2 + 3 * 12 + 3 * 8 + 2 * 6 + 12 + 4 * NUMERIC_BYTES_MAX;
const NUMERIC_BYTES_MAX: usize = 28;
