//! Binary COPY read back to rows: the encoder's counterpart, written from PostgreSQL's documentation of the format.

use tapeway::store::table::Table;
use tapeway_exchanges::event::{Level, Quote, TopBook, Trade};

/// A number as text would have it: digits and how many of them are behind the dot.
pub type Number = (i128, u32);

/// One row of one of the event tables.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Row {
    /// The instrument's number.
    pub instrument: i32,
    /// Microseconds since 1970.
    pub time: i64,
    /// Microseconds since 1970.
    pub received: i64,
    /// `side`, where the table has one.
    pub side: Option<i16>,
    /// Price and quantity; of a quote two of each.
    pub numbers: [Option<Number>; 4],
    /// `trade_id` or `seq`.
    pub id: Option<i64>,
    /// `trade_ref`.
    pub text: Option<String>,
    /// `flags`.
    pub flags: i16,
}

/// A row and where it belongs.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The table.
    pub table: Table,
    /// `lane_id`.
    pub lane: i32,
    /// `frame_pos`.
    pub pos: u64,
    /// The row.
    pub row: Row,
}

impl Row {
    /// What a trade should be stored as.
    #[must_use]
    pub fn of_trade(trade: &Trade, instrument: i32, received: i64) -> Self {
        Self {
            instrument,
            time: trade.time.0,
            received,
            side: Some(trade.side.sql()),
            numbers: [Some(number(trade.price)), Some(number(trade.qty)), None, None],
            id: trade.trade_id,
            text: trade.trade_ref.as_deref().map(str::to_owned),
            flags: trade.flags.0.cast_signed(),
        }
    }

    /// What a level should be stored as.
    #[must_use]
    pub fn of_level(level: &Level, instrument: i32, received: i64) -> Self {
        Self {
            instrument,
            time: level.time.0,
            received,
            side: Some(level.side.sql()),
            numbers: [Some(number(level.price)), Some(number(level.qty)), None, None],
            id: level.seq,
            text: None,
            flags: level.flags.0.cast_signed(),
        }
    }

    /// What a quote should be stored as.
    #[must_use]
    pub fn of_quote(quote: &Quote, instrument: i32, received: i64) -> Self {
        let (bid, ask) = (quote.bid.unzip(), quote.ask.unzip());
        Self {
            instrument,
            time: quote.time.0,
            received,
            side: None,
            numbers: [bid.0, bid.1, ask.0, ask.1].map(|value| value.map(number)),
            id: quote.seq,
            text: None,
            flags: quote.flags.0.cast_signed(),
        }
    }

    /// What a whole book should be stored as: its lists and counts as one text, in the order of the columns.
    #[must_use]
    pub fn of_top_book(book: &TopBook, instrument: i32, received: i64) -> Self {
        let mut text = String::new();
        for side in [&book.bids, &book.asks] {
            text += &list(side.iter().map(|level| number(level.0)));
            text += &list(side.iter().map(|level| number(level.1)));
        }
        for count in [book.bids_exact, book.asks_exact] {
            text += &exact(count.map(u32::cast_signed));
        }
        Self {
            instrument,
            time: book.time.0,
            received,
            side: None,
            numbers: [None; 4],
            id: book.seq,
            text: Some(text),
            flags: book.flags.0.cast_signed(),
        }
    }
}

/// A list of numbers as one text.
fn list(numbers: impl Iterator<Item = Number>) -> String {
    numbers.map(|(mantissa, scale)| format!("{mantissa}e-{scale} ")).collect::<String>() + "/"
}

/// How many levels are exact, as text.
fn exact(count: Option<i32>) -> String {
    count.map_or_else(|| "all/".into(), |count| format!("{count}/"))
}

/// Reads a `numeric[]` of at most one dimension.
fn numerics(field: &[u8]) -> Result<String, String> {
    let mut input = Input { bytes: field, at: 0 };
    let dimensions = int(input.take(4)?)?;
    let (nulls, oid) = (int(input.take(4)?)?, int(input.take(4)?)?);
    if nulls != 0 || oid != 1_700 || !(0..=1).contains(&dimensions) {
        return Err(format!("no list of numbers: {dimensions} dimensions, nulls {nulls}, type {oid}"));
    }
    let mut numbers = Vec::new();
    if dimensions == 1 {
        let (count, first) = (int(input.take(4)?)?, int(input.take(4)?)?);
        if first != 1 {
            return Err(format!("a list that begins at {first}"));
        }
        for _ in 0..count {
            numbers.push(numeric(input.field()?.ok_or("a null in a list")?)?);
        }
    }
    if input.at == field.len() { Ok(list(numbers.into_iter())) } else { Err("bytes after a list".into()) }
}

fn number(value: rust_decimal::Decimal) -> Number {
    (value.mantissa(), value.scale())
}

/// Reads a whole COPY file of a table.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn read(table: Table, bytes: &[u8]) -> Result<Vec<Placed>, String> {
    let mut input = Input { bytes, at: 0 };
    if input.take(11)? != b"PGCOPY\n\xff\r\n\0" || input.take(8)? != [0; 8] {
        return Err("no COPY header".into());
    }
    let mut rows = Vec::new();
    loop {
        let fields = input.i16()?;
        if fields == -1 {
            break;
        }
        let expected = table.columns().len();
        if usize::try_from(fields) != Ok(expected) {
            return Err(format!("{} fields in row {}, {} has {expected}", fields, rows.len(), table.name()));
        }
        rows.push(row(table, &mut input)?);
    }
    if input.at == bytes.len() { Ok(rows) } else { Err("bytes after the trailer".into()) }
}

fn row(table: Table, input: &mut Input<'_>) -> Result<Placed, String> {
    let (mut lane, mut pos) = (None, None);
    let mut numbers = [None; 4];
    let (mut time, mut received, mut instrument, mut side, mut id, mut text, mut flags) =
        (None, None, None, None, None, None, None);
    for column in table.columns() {
        let field = input.field()?;
        if matches!(*column, "bids_exact" | "asks_exact") {
            let text: &mut String = text.get_or_insert_default();
            text.push_str(&exact(field.map(int).transpose()?));
            continue;
        }
        let Some(field) = field else { continue };
        match *column {
            "time" => time = Some(long(field)? + EPOCH_MICROS),
            "recv_time" => received = Some(long(field)? + EPOCH_MICROS),
            "instrument_id" => instrument = Some(int(field)?),
            "price" | "bid_price" => numbers[0] = Some(numeric(field)?),
            "qty" | "bid_qty" => numbers[1] = Some(numeric(field)?),
            "ask_price" => numbers[2] = Some(numeric(field)?),
            "ask_qty" => numbers[3] = Some(numeric(field)?),
            "side" => side = Some(short(field)?),
            "trade_id" | "seq" => id = Some(long(field)?),
            "bid_prices" | "bid_qtys" | "ask_prices" | "ask_qtys" => {
                let text: &mut String = text.get_or_insert_default();
                text.push_str(&numerics(field)?);
            }
            "trade_ref" => text = Some(String::from_utf8(field.to_vec()).map_err(|error| error.to_string())?),
            "flags" => flags = Some(short(field)?),
            "lane_id" => lane = Some(int(field)?),
            "frame_pos" => pos = Some(long(field)?),
            other => return Err(format!("column {other} of {} is not known to the simulated database", table.name())),
        }
    }
    let need = |what: &str| format!("{what} is null in {}", table.name());
    Ok(Placed {
        table,
        lane: lane.ok_or_else(|| need("lane_id"))?,
        pos: pos.ok_or_else(|| need("frame_pos"))?.unsigned_abs(),
        row: Row {
            instrument: instrument.ok_or_else(|| need("instrument_id"))?,
            time: time.ok_or_else(|| need("time"))?,
            received: received.ok_or_else(|| need("recv_time"))?,
            side,
            numbers,
            id,
            text,
            flags: flags.ok_or_else(|| need("flags"))?,
        },
    })
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes.get(self.at..self.at + count).ok_or_else(|| format!("cut off at byte {}", self.at))?;
        self.at += count;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16, String> {
        short(self.take(2)?)
    }

    fn field(&mut self) -> Result<Option<&'a [u8]>, String> {
        let len = int(self.take(4)?)?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| format!("a field of length {len}"))?;
        self.take(len).map(Some)
    }
}

fn short(field: &[u8]) -> Result<i16, String> {
    field.try_into().map(i16::from_be_bytes).map_err(|_| format!("{} bytes for a smallint", field.len()))
}

fn int(field: &[u8]) -> Result<i32, String> {
    field.try_into().map(i32::from_be_bytes).map_err(|_| format!("{} bytes for an integer", field.len()))
}

fn long(field: &[u8]) -> Result<i64, String> {
    field.try_into().map(i64::from_be_bytes).map_err(|_| format!("{} bytes for a bigint", field.len()))
}

/// `ndigits i16 | weight i16 | sign u16 | dscale i16 | digit i16 *`, digits of base 10,000.
fn numeric(field: &[u8]) -> Result<Number, String> {
    let bad = |what: &str| format!("numeric: {what} in {field:?}");
    let words: Vec<i16> = field.chunks_exact(2).map(|word| i16::from_be_bytes([word[0], word[1]])).collect();
    let &[count, weight, sign, scale, ref digits @ ..] = &words[..] else { return Err(bad("no head")) };
    if usize::try_from(count) != Ok(digits.len()) || field.len() != words.len() * 2 {
        return Err(bad("another number of digits"));
    }
    if digits.iter().any(|digit| !(0..10_000).contains(digit)) {
        return Err(bad("a digit beyond its base"));
    }
    if digits.first() == Some(&0) || digits.last() == Some(&0) {
        return Err(bad("a zero digit at an end"));
    }
    let scale = u32::try_from(scale).map_err(|_| bad("a negative scale"))?;
    // The value times 10^scale: each digit stands for digit * 10000^(weight - index).
    let mut mantissa: i128 = 0;
    for (index, digit) in (0i32..).zip(digits) {
        let exponent = 4 * (i32::from(weight) - index) + i32::try_from(scale).map_err(|_| bad("scale"))?;
        let digit = i128::from(*digit);
        mantissa += match u32::try_from(exponent) {
            Ok(exponent) => digit * 10i128.checked_pow(exponent).ok_or_else(|| bad("too large"))?,
            Err(_) => {
                let cut = 10i128.pow(exponent.unsigned_abs());
                if digit % cut != 0 {
                    return Err(bad("digits behind the scale"));
                }
                digit / cut
            }
        };
    }
    match sign {
        0 => Ok((mantissa, scale)),
        0x4000 => Ok((-mantissa, scale)),
        _ => Err(bad("an unknown sign")),
    }
}

/// 2000-01-01 in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tapeway::writer::numeric::put_numeric;

    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        for text in ["0", "0.00", "1", "10000", "123456.7800", "0.00000001", "-5.50", "99999999.99999999", "0.1000"] {
            let value: rust_decimal::Decimal = text.parse().expect("a number");
            let mut bytes = BytesMut::new();
            put_numeric(&mut bytes, value);
            assert_eq!(numeric(&bytes[4..]), Ok(number(value)), "{text}");
        }
    }
}
