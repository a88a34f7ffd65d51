//! Rows as the server gives them back: the bytes that were sealed, and what the checks need of them.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rust_decimal::Decimal;
use tapeway_exchanges::event::{Flags, Side};
use tokio_postgres::Client;

use super::Error;
use crate::store::{self, table::Table};

/// A row of an event table.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The instrument's number.
    pub(super) instrument: i32,
    /// Venue time, microseconds since 1970.
    pub(super) time: i64,
    /// Receive time, microseconds since 1970.
    pub(super) received: i64,
    /// Quality marks.
    pub(super) flags: Flags,
    /// The lane's number.
    pub(super) lane: i32,
    /// The frame.
    pub(super) pos: i64,
    /// What it says.
    pub(super) body: Body,
}

/// What a row says.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A trade.
    Trade {
        /// The venue's id.
        id: Option<i64>,
    },
    /// A level; `None` when a column holds what no level can be.
    Level(Option<StoredLevel>),
    /// Best bid and ask.
    Quote {
        /// Bid price.
        bid: Option<Decimal>,
        /// Ask price.
        ask: Option<Decimal>,
    },
}

/// A level of a book.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredLevel {
    /// Bid or ask.
    pub(super) side: Side,
    /// Price.
    pub(super) price: Decimal,
    /// Quantity, zero to remove.
    pub(super) qty: Decimal,
    /// The message's last update id.
    pub(super) seq: Option<i64>,
}

/// Streams the rows of a table for which `condition` holds, in order of time; `each` gets a row's bytes as they were
/// sealed, and the row.
pub(super) async fn each_row(
    client: &Client,
    table: Table,
    condition: &str,
    mut each: impl FnMut(&[u8], Stored) -> Result<(), Error>,
) -> Result<(), Error> {
    let sql = format!(
        "COPY (SELECT {} FROM {} WHERE {condition} ORDER BY \"time\") TO STDOUT (FORMAT binary)",
        table.columns().join(", "),
        table.path()
    );
    let doing = "read rows";
    let stream = client.copy_out(&sql).await.map_err(store::Error::server(doing))?;
    let mut stream = pin!(stream);
    let mut parser = Parser::default();
    while let Some(chunk) = stream.next().await {
        let chunk: Bytes = chunk.map_err(store::Error::server(doing))?;
        parser.feed(table, &chunk, &mut each)?;
    }
    if parser.is_ended { Ok(()) } else { Err(Error::Format { table, what: "the COPY ended in the middle".into() }) }
}

/// A binary COPY file in pieces.
#[derive(Debug, Default)]
struct Parser {
    /// What is left of the pieces before, when a row did not end with one.
    rest: BytesMut,
    has_header: bool,
    is_ended: bool,
}

impl Parser {
    fn feed(
        &mut self,
        table: Table,
        chunk: &[u8],
        each: &mut impl FnMut(&[u8], Stored) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.rest.is_empty() {
            let used = self.parse(table, chunk, each)?;
            self.rest.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        self.rest.extend_from_slice(chunk);
        let all = std::mem::take(&mut self.rest);
        let used = self.parse(table, &all, each)?;
        self.rest.extend_from_slice(&all[used..]);
        Ok(())
    }

    /// Takes whole rows off the front; returns how many bytes they were.
    fn parse(
        &mut self,
        table: Table,
        bytes: &[u8],
        each: &mut impl FnMut(&[u8], Stored) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let mut at = 0;
        if !self.has_header {
            if bytes.len() < HEADER_BYTES {
                return Ok(0);
            }
            self.has_header = true;
            at = HEADER_BYTES;
        }
        while !self.is_ended {
            let row = &bytes[at..];
            let Some(count) = row.first_chunk::<2>() else { break };
            let count = i16::from_be_bytes(*count);
            if count == -1 {
                self.is_ended = true;
                return Ok(at + 2);
            }
            if usize::try_from(count) != Ok(table.columns().len()) {
                return Err(Error::Format { table, what: format!("a row of {count} fields") });
            }
            let Some((fields, len)) = fields(row, table)? else { break };
            let stored = fields.stored(table)?;
            each(&row[..len], stored)?;
            at += len;
        }
        Ok(at)
    }
}

/// The fields of a row.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    list: [Option<&'a [u8]>; COLUMNS_MAX],
    count: usize,
}

/// Splits a row; `None` when it is not all there. With its length in bytes.
pub(super) fn fields(row: &[u8], table: Table) -> Result<Option<(Fields<'_>, usize)>, Error> {
    let count = table.columns().len();
    let mut list = [None; COLUMNS_MAX];
    let mut at = 2;
    for field in &mut list[..count] {
        let Some(len) = row.get(at..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        at += 4;
        let len = i32::from_be_bytes(*len);
        if len == -1 {
            continue;
        }
        let Ok(len) = usize::try_from(len) else {
            return Err(Error::Format { table, what: format!("a field of {len} bytes") });
        };
        let Some(bytes) = row.get(at..at + len) else { return Ok(None) };
        *field = Some(bytes);
        at += len;
    }
    Ok(Some((Fields { list, count }, at)))
}

impl Fields<'_> {
    /// Every field as text, in the order of the columns.
    pub(super) fn texts(&self, table: Table) -> Vec<String> {
        let columns = table.columns();
        self.list[..self.count].iter().zip(columns).map(|(field, column)| text(column, *field)).collect()
    }

    fn stored(&self, table: Table) -> Result<Stored, Error> {
        let integer = |at: usize| {
            let value = self.list[at].and_then(integer);
            value.ok_or_else(|| Error::Format { table, what: format!("{} is no integer", table.columns()[at]) })
        };
        let narrow = |at: usize| {
            i32::try_from(integer(at)?)
                .map_err(|_| Error::Format { table, what: format!("{} is too large", table.columns()[at]) })
        };
        let tail = self.count - 3;
        let number = |at: usize| self.list[at].and_then(decimal);
        let id = |at: usize| self.list[at].and_then(self::integer);
        let body = match table {
            Table::Trades => Body::Trade { id: id(6) },
            Table::BookDeltas => Body::Level(match (integer(3)?, number(4), number(5)) {
                (1, Some(price), Some(qty)) => Some(StoredLevel { side: Side::Buy, price, qty, seq: id(6) }),
                (-1, Some(price), Some(qty)) => Some(StoredLevel { side: Side::Sell, price, qty, seq: id(6) }),
                _ => None,
            }),
            Table::Quotes => Body::Quote { bid: number(3), ask: number(5) },
            Table::OrderBooks => Body::Quote { bid: self.list[4].and_then(first), ask: self.list[6].and_then(first) },
        };
        let flags = u16::try_from(integer(tail)?).unwrap_or(u16::MAX);
        Ok(Stored {
            instrument: narrow(2)?,
            time: integer(0)?.saturating_add(PG_EPOCH_MICROS),
            received: integer(1)?.saturating_add(PG_EPOCH_MICROS),
            flags: Flags(flags),
            lane: narrow(tail + 1)?,
            pos: integer(tail + 2)?,
            body,
        })
    }
}

/// A `smallint`, `int`, `bigint` or `timestamptz`.
fn integer(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        2 => Some(i16::from_be_bytes(*bytes.first_chunk()?).into()),
        4 => Some(i32::from_be_bytes(*bytes.first_chunk()?).into()),
        8 => Some(i64::from_be_bytes(*bytes.first_chunk()?)),
        _ => None,
    }
}

/// A `numeric`; `None` for NaN, infinities, and what a [`Decimal`] cannot hold.
fn decimal(bytes: &[u8]) -> Option<Decimal> {
    let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(2 * at..)?.first_chunk()?));
    let (count, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, word(3)?);
    if sign != 0 && sign != NEGATIVE {
        return None;
    }
    // The mantissa at the value's own scale: groups beyond the point, whole, then cut back.
    let mut mantissa: i128 = 0;
    let groups_behind = i32::from(scale).div_euclid(4) + i32::from(scale % 4 != 0);
    let last = -groups_behind;
    let mut power = i32::from(weight);
    let mut at = 0;
    while power >= last {
        let group = if at < count { word(4 + usize::from(at))? } else { 0 };
        mantissa = mantissa.checked_mul(10_000)?.checked_add(i128::from(group))?;
        at += 1;
        power -= 1;
    }
    let surplus = u32::try_from(groups_behind * 4 - i32::from(scale)).ok()?;
    mantissa /= 10_i128.pow(surplus);
    let mantissa = if sign == NEGATIVE { -mantissa } else { mantissa };
    Decimal::try_from_i128_with_scale(mantissa, scale.into()).ok()
}

/// The numbers of a `numeric[]`; `None` if one cannot be read. In front: dimensions, nulls, type, length, first index.
fn decimals(bytes: &[u8]) -> Option<Vec<Decimal>> {
    let mut rest = bytes.get(ARRAY_HEAD_BYTES..).unwrap_or_default();
    let mut list = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        list.push(decimal(behind.get(..len)?)?);
        rest = &behind[len..];
    }
    rest.is_empty().then_some(list)
}

/// The first number of a `numeric[]`, if it has one.
fn first(bytes: &[u8]) -> Option<Decimal> {
    decimals(bytes)?.first().copied()
}

/// A field as text, for people.
fn text(column: &str, field: Option<&[u8]>) -> String {
    let Some(bytes) = field else { return "null".into() };
    let shown = match column {
        "time" | "recv_time" => integer(bytes).map(|micros| super::moment::iso(micros.saturating_add(PG_EPOCH_MICROS))),
        "price" | "qty" | "bid_price" | "bid_qty" | "ask_price" | "ask_qty" => {
            decimal(bytes).map(|value| value.to_string())
        }
        "bid_prices" | "bid_qtys" | "ask_prices" | "ask_qtys" => decimals(bytes).map(|list| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("{{{}}}", list.join(","))
        }),
        "trade_ref" => std::str::from_utf8(bytes).ok().map(str::to_owned),
        "flags" => integer(bytes).and_then(|flags| u16::try_from(flags).ok()).map(|flags| {
            let names: Vec<&str> = Flags(flags).names().collect();
            if names.is_empty() { flags.to_string() } else { names.join("+") }
        }),
        _ => integer(bytes).map(|value| value.to_string()),
    };
    shown.unwrap_or_else(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Signature, flags, length of the extension.
const HEADER_BYTES: usize = 19;
/// What stands before the elements of an array of one dimension; an empty one has less.
const ARRAY_HEAD_BYTES: usize = 20;
/// Columns of the widest table.
const COLUMNS_MAX: usize = 16;
/// The sign word of a negative `numeric`.
const NEGATIVE: u16 = 0x4000;
/// 2000-01-01, from which PostgreSQL counts.
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::writer::numeric::put_numeric;

    proptest! {
        #[test]
        fn a_numeric_comes_back_as_it_was_written(mantissa in -79_228_162_514_264_337_593_543_950_335_i128..79_228_162_514_264_337_593_543_950_335, scale in 0..29u32) {
            let value = Decimal::from_i128_with_scale(mantissa, scale);
            let mut buf = BytesMut::new();
            put_numeric(&mut buf, value);
            let back = decimal(&buf[4..]);
            prop_assert_eq!(back.map(|back| back.to_string()), Some(value.to_string()));
        }
    }

    #[test]
    fn nan_is_no_number() {
        assert_eq!(decimal(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), None);
    }

    #[test]
    fn a_row_in_pieces_is_read_whole() {
        let mut file = BytesMut::new();
        crate::writer::row::put_header(&mut file);
        let mut row = Vec::from(10i16.to_be_bytes());
        let mut put = |bytes: &[u8]| {
            row.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            row.extend_from_slice(bytes);
        };
        put(&5i64.to_be_bytes());
        put(&6i64.to_be_bytes());
        put(&7i32.to_be_bytes());
        put(&(-1i16).to_be_bytes());
        for _ in 0..2 {
            put(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
        }
        put(&8i64.to_be_bytes());
        put(&1i16.to_be_bytes());
        put(&2i32.to_be_bytes());
        put(&3i64.to_be_bytes());
        file.extend_from_slice(&row);
        crate::writer::row::put_trailer(&mut file);
        for size in [1, 7, 40, 1_000] {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for piece in file.chunks(size) {
                parser
                    .feed(Table::BookDeltas, piece, &mut |bytes, stored| {
                        assert_eq!(bytes, row);
                        seen.push(stored);
                        Ok(())
                    })
                    .unwrap();
            }
            assert!(parser.is_ended);
            let [stored] = seen.as_slice() else { panic!("{seen:?}") };
            assert_eq!((stored.instrument, stored.lane, stored.pos, stored.flags.0), (7, 2, 3, 1));
            assert!(matches!(&stored.body, Body::Level(Some(level)) if level.seq == Some(8)), "{stored:?}");
        }
    }
}
