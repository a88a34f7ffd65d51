//! Rows in one form, whether they come from the database by binary COPY or from the adapter's events. What the database
//! sends is read here, numbers digit by digit, and not by the code that wrote it.

use std::{
    hash::{DefaultHasher, Hasher},
    io::Read,
};

use rust_decimal::Decimal;
use tapeway_exchanges::event::{Events, Level, Quote, TopBook, Trade};

use crate::cluster::Cluster;

/// A table of events.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Shape {
    Trades,
    Levels,
    Quotes,
    TopBooks,
}

/// How a column is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Column {
    Bytes,
    Number,
    Numbers,
}

/// A row: where it belongs, and all its columns in one form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) lane: i32,
    pub(super) pos: i64,
    bytes: &'a [u8],
}

impl Row<'_> {
    /// 128 bits of its columns.
    pub(super) fn hash(&self) -> u128 {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(self.bytes);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    }
}

impl Shape {
    pub(super) const ALL: [Self; 4] = [Self::Trades, Self::Levels, Self::Quotes, Self::TopBooks];

    /// What its rows' texts begin with.
    pub(super) const fn letter(self) -> char {
        match self {
            Self::Trades => 't',
            Self::Levels => 'l',
            Self::Quotes => 'q',
            Self::TopBooks => 'b',
        }
    }

    const fn query(self) -> &'static str {
        match self {
            Self::Trades => {
                "SELECT time, recv_time, instrument_id, price, qty, side, trade_id, trade_ref, flags, lane_id, frame_pos
                 FROM market_data.trades"
            }
            Self::Levels => {
                "SELECT time, recv_time, instrument_id, side, price, qty, seq, flags, lane_id, frame_pos
                 FROM market_data.book_deltas"
            }
            Self::Quotes => {
                "SELECT time, recv_time, instrument_id, bid_price, bid_qty, ask_price, ask_qty, seq, flags, lane_id,
                     frame_pos
                 FROM market_data.quotes"
            }
            Self::TopBooks => {
                "SELECT time, recv_time, instrument_id, seq, bid_prices, bid_qtys, ask_prices, ask_qtys, bids_exact,
                     asks_exact, flags, lane_id, frame_pos
                 FROM market_data.order_books"
            }
        }
    }

    const fn columns(self) -> &'static [Column] {
        use Column::{Bytes, Number, Numbers};
        match self {
            Self::Trades => &[Bytes, Bytes, Bytes, Number, Number, Bytes, Bytes, Bytes, Bytes, Bytes, Bytes],
            Self::Levels => &[Bytes, Bytes, Bytes, Bytes, Number, Number, Bytes, Bytes, Bytes, Bytes],
            Self::Quotes => &[Bytes, Bytes, Bytes, Number, Number, Number, Number, Bytes, Bytes, Bytes, Bytes],
            Self::TopBooks => {
                &[Bytes, Bytes, Bytes, Bytes, Numbers, Numbers, Numbers, Numbers, Bytes, Bytes, Bytes, Bytes, Bytes]
            }
        }
    }
}

/// Every row of a table in the database.
pub(super) fn each_row(cluster: &Cluster, database: &str, shape: Shape, mut each: impl FnMut(&Row<'_>)) {
    let query = format!("COPY ({}) TO STDOUT (FORMAT binary)", shape.query());
    cluster.copy_out(database, &query, |stream| {
        let mut head = [0; 19];
        stream.read_exact(&mut head).unwrap();
        assert!(head.starts_with(b"PGCOPY\n\xff\r\n\0"), "no binary COPY: {head:?}");
        let (mut field, mut bytes) = (Vec::new(), Vec::new());
        loop {
            let fields = i16::from_be_bytes(take(stream));
            if fields < 0 {
                return;
            }
            let columns = shape.columns();
            assert_eq!(usize::try_from(fields).unwrap(), columns.len());
            bytes.clear();
            let (mut lane, mut pos) = (0, 0);
            for (nr, column) in columns.iter().enumerate() {
                let Ok(len) = usize::try_from(i32::from_be_bytes(take(stream))) else {
                    put_null(&mut bytes);
                    continue;
                };
                field.resize(len, 0);
                stream.read_exact(&mut field).unwrap();
                match column {
                    Column::Bytes => put_bytes(&mut bytes, &field),
                    Column::Number => {
                        let (mantissa, scale) = number(&field);
                        put_number(&mut bytes, mantissa, scale);
                    }
                    Column::Numbers => put_numbers(&mut bytes, &field),
                }
                if nr + 2 == columns.len() {
                    lane = i32::from_be_bytes(field.as_slice().try_into().unwrap());
                }
                if nr + 1 == columns.len() {
                    pos = i64::from_be_bytes(field.as_slice().try_into().unwrap());
                }
            }
            each(&Row { lane, pos, bytes: &bytes });
        }
    });
}

/// Every row that a chunk of a lane gives. `instruments`: numbers of the chunk's symbols.
pub(super) fn each_row_of(chunk: &Events, lane: i32, instruments: &[i32], mut each: impl FnMut(Shape, &Row<'_>)) {
    let mut bytes = Vec::new();
    let head = |bytes: &mut Vec<u8>, time: i64, frame: u32, symbol: u32| {
        bytes.clear();
        put_bytes(bytes, &(time - PG_EPOCH_MICROS).to_be_bytes());
        put_bytes(bytes, &(chunk.received(frame).micros().0 - PG_EPOCH_MICROS).to_be_bytes());
        put_bytes(bytes, &instruments[symbol as usize].to_be_bytes());
    };
    let mut tail = |bytes: &mut Vec<u8>, shape: Shape, flags: u16, frame: u32| {
        let pos = chunk.pos(frame).get().cast_signed();
        put_bytes(bytes, &flags.to_be_bytes());
        put_bytes(bytes, &lane.to_be_bytes());
        put_bytes(bytes, &pos.to_be_bytes());
        each(shape, &Row { lane, pos, bytes });
    };
    for Trade { frame, symbol, side, flags, time, price, qty, trade_id, trade_ref } in &chunk.trades {
        head(&mut bytes, time.0, *frame, symbol.0);
        put_decimal(&mut bytes, Some(*price));
        put_decimal(&mut bytes, Some(*qty));
        put_bytes(&mut bytes, &side.sql().to_be_bytes());
        put_id(&mut bytes, *trade_id);
        match trade_ref {
            Some(text) => put_bytes(&mut bytes, text.as_bytes()),
            None => put_null(&mut bytes),
        }
        tail(&mut bytes, Shape::Trades, flags.0, *frame);
    }
    for Level { frame, symbol, side, flags, time, price, qty, seq } in &chunk.levels {
        head(&mut bytes, time.0, *frame, symbol.0);
        put_bytes(&mut bytes, &side.sql().to_be_bytes());
        put_decimal(&mut bytes, Some(*price));
        put_decimal(&mut bytes, Some(*qty));
        put_id(&mut bytes, *seq);
        tail(&mut bytes, Shape::Levels, flags.0, *frame);
    }
    for Quote { frame, symbol, flags, time, bid, ask, seq } in &chunk.quotes {
        head(&mut bytes, time.0, *frame, symbol.0);
        for side in [bid, ask] {
            put_decimal(&mut bytes, side.map(|(price, _)| price));
            put_decimal(&mut bytes, side.map(|(_, qty)| qty));
        }
        put_id(&mut bytes, *seq);
        tail(&mut bytes, Shape::Quotes, flags.0, *frame);
    }
    for TopBook { frame, symbol, flags, time, seq, bids, asks, bids_exact, asks_exact } in &chunk.top_books {
        head(&mut bytes, time.0, *frame, symbol.0);
        put_id(&mut bytes, *seq);
        for side in [bids, asks] {
            for column in [0, 1] {
                bytes.extend_from_slice(&u32::try_from(side.len()).unwrap().to_be_bytes());
                for level in side {
                    put_decimal(&mut bytes, Some([level.0, level.1][column]));
                }
            }
        }
        for exact in [bids_exact, asks_exact] {
            match exact {
                Some(exact) => put_bytes(&mut bytes, &exact.to_be_bytes()),
                None => put_null(&mut bytes),
            }
        }
        tail(&mut bytes, Shape::TopBooks, flags.0, *frame);
    }
}

/// A NUMERIC as the server sends it: digits of base 10,000, the first one's power, sign, digits after the point.
/// Returns all its digits as one number, and how many of them are after the point.
fn number(field: &[u8]) -> (i128, u32) {
    let short = |at: usize| i16::from_be_bytes([field[2 * at], field[2 * at + 1]]);
    let (digits, weight, sign, scale) = (short(0), i32::from(short(1)), short(2), u32::try_from(short(3)).unwrap());
    let mut mantissa = 0_i128;
    for nr in 0..digits {
        let digit = i128::from(short(4 + usize::try_from(nr).unwrap()));
        let power = 4 * (weight - i32::from(nr)) + scale.cast_signed();
        let unit = 10_i128.pow(power.unsigned_abs());
        mantissa += if power >= 0 {
            digit.checked_mul(unit).unwrap()
        } else {
            assert_eq!(digit % unit, 0, "a number has digits beyond its scale: {field:?}");
            digit / unit
        };
    }
    match sign {
        0 => (mantissa, scale),
        0x4000 => (-mantissa, scale),
        other => panic!("a number is none: sign {other:x}"),
    }
}

fn take<const N: usize>(stream: &mut impl Read) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn put_null(bytes: &mut Vec<u8>) {
    bytes.push(0);
}

fn put_bytes(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.push(1);
    bytes.extend_from_slice(&u32::try_from(field.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(field);
}

fn put_number(bytes: &mut Vec<u8>, mantissa: i128, scale: u32) {
    bytes.push(2);
    bytes.extend_from_slice(&mantissa.to_le_bytes());
    bytes.extend_from_slice(&scale.to_le_bytes());
}

fn put_decimal(bytes: &mut Vec<u8>, number: Option<Decimal>) {
    match number {
        Some(number) => put_number(bytes, number.mantissa(), number.scale()),
        None => put_null(bytes),
    }
}

/// Of an array of numbers: how many, and each. `field`: dimensions, nulls, type, and of one dimension its length and
/// first index.
fn put_numbers(bytes: &mut Vec<u8>, field: &[u8]) {
    let mut field = field;
    let [dimensions, nulls, oid] = std::array::from_fn(|_| u32::from_be_bytes(take(&mut field)));
    assert!(dimensions <= 1 && nulls == 0 && oid == 1_700, "no list of numbers: {dimensions} {nulls} {oid}");
    let count = if dimensions == 0 { 0 } else { u32::from_be_bytes(take(&mut field)) };
    if dimensions > 0 {
        assert_eq!(u32::from_be_bytes(take(&mut field)), 1);
    }
    bytes.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        let len = usize::try_from(u32::from_be_bytes(take(&mut field))).unwrap();
        let (mantissa, scale) = number(&field[..len]);
        put_number(bytes, mantissa, scale);
        field = &field[len..];
    }
    assert!(field.is_empty());
}

fn put_id(bytes: &mut Vec<u8>, id: Option<i64>) {
    match id {
        Some(id) => put_bytes(bytes, &id.to_be_bytes()),
        None => put_null(bytes),
    }
}

/// 2000-01-01, where the server's moments begin.
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;
