//! Binance's messages, read off the tape in one pass.
//!
//! ```text
//! {"stream":"btcusdt@trade","data":{"e":"trade",...}}   combined streams; the bare inner object is read too
//! {"result":null,"id":1}                                a request was accepted
//! {"error":{"code":2,"msg":"..."},"id":1}               a request was refused (older: code and msg outside)
//! ```
//!
//! Sources: github.com/binance/binance-spot-api-docs `web-socket-streams.md`; developers.binance.com,
//! "USD-M / COIN-M futures, WebSocket market streams". NOTES.md has the evidence for each field.

use crate::{
    adapter::Outbox,
    error::FrameError,
    event::Side,
    ids::Micros,
    json::View,
    levels::LevelHead,
    number,
    scan::{Levels, Scan},
    time::epoch,
};

/// What a frame is.
#[derive(Debug)]
pub(super) enum Message<'t, 'i> {
    Trade(TradeWire<'t, 'i>),
    Depth(DepthWire<'t, 'i>),
    Quote(QuoteWire<'t, 'i>),
    Answer {
        id: i64,
        refusal: Option<String>,
    },
    /// The venue is about to close the connection.
    Shutdown,
    /// A documented message of a stream that is not recorded.
    Other,
}

/// `trade` and `aggTrade`.
#[derive(Debug)]
pub(super) struct TradeWire<'t, 'i> {
    pub(super) symbol: &'i str,
    pub(super) is_aggregate: bool,
    pub(super) id: i64,
    pub(super) fields: Fields<'t, 'i>,
}

/// `depthUpdate` of a diff stream.
#[derive(Debug)]
pub(super) struct DepthWire<'t, 'i> {
    pub(super) symbol: &'i str,
    pub(super) first_id: i64,
    pub(super) last_id: i64,
    /// `pu`: futures only.
    pub(super) previous_id: Option<i64>,
    /// As [`Fields::time`].
    pub(super) time: Option<Micros>,
    levels: DepthLevels<'t, 'i>,
}

/// The levels of a delta, as they were read.
#[derive(Debug)]
enum DepthLevels<'t, 'i> {
    Tape { bids: Option<View<'t, 'i>>, asks: Option<View<'t, 'i>> },
    Scanned(&'t Levels),
}

/// `bookTicker`.
#[derive(Debug)]
pub(super) struct QuoteWire<'t, 'i> {
    pub(super) symbol: &'i str,
    pub(super) fields: Fields<'t, 'i>,
}

/// The one- and two-letter keys of an inner object; what each holds depends on the message.
#[derive(Debug, Default)]
pub(super) struct Fields<'t, 'i> {
    pub(super) kind: Option<&'i str>,
    symbol: Option<&'i str>,
    event_time: Option<View<'t, 'i>>,
    time: Option<View<'t, 'i>>,
    first_id: Option<View<'t, 'i>>,
    last_id: Option<View<'t, 'i>>,
    previous_id: Option<View<'t, 'i>>,
    trade_id: Option<View<'t, 'i>>,
    pub(super) price: Option<View<'t, 'i>>,
    pub(super) qty: Option<View<'t, 'i>>,
    pub(super) bid: Option<View<'t, 'i>>,
    pub(super) bid_qty: Option<View<'t, 'i>>,
    pub(super) ask: Option<View<'t, 'i>>,
    pub(super) ask_qty: Option<View<'t, 'i>>,
    pub(super) execution: Option<&'i str>,
    pub(super) is_buyer_maker: Option<bool>,
}

/// Reads one frame.
///
/// # Errors
///
/// [`FrameError`]: a documented message without what it must have, or no documented message.
#[inline]
pub(super) fn read<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let (mut stream, mut data) = (None, None);
    for (key, value) in root.entries() {
        match key {
            "stream" => stream = value.text(),
            "data" => data = Some(value),
            "id" | "result" | "error" | "code" => return read_answer(root),
            _ => {}
        }
    }
    let Some(data) = data else { return read_event("", root) };
    let stream = stream.unwrap_or_default();
    if data.items().is_some() && stream.starts_with('!') {
        return Ok(Message::Other); // All-market arrays: tickers, mark prices.
    }
    read_event(stream, data)
}

/// Reads a frame of a combined stream that is one delta in the spelling it always has; `None` for any other.
///
/// ```text
/// {"stream":"..","data":{"e":"depthUpdate","E":..,"s":"..","U":..,"u":..,"b":[..],"a":[..]}}                          spot
/// {"stream":"..","data":{"e":"depthUpdate","E":..,"T":..,"s":"..","ps":"..","U":..,"u":..,"pu":..,"b":[..],"a":[..]}} futures;
///                                                                                                            `ps` COIN-M
/// ```
#[inline]
pub(super) fn scan<'a>(frame: &'a [u8], levels: &'a mut Levels) -> Option<DepthWire<'a, 'a>> {
    let mut scan = Scan::new(frame);
    scan.step(br#"{"stream":""#)?;
    let stream = scan.text()?;
    scan.step(br#","data":{"e":"depthUpdate","E":"#)?;
    let event_time = scan.int()?;
    let time = if scan.skip(br#","T":"#) { scan.int()? } else { event_time };
    scan.step(br#","s":""#)?;
    let symbol = scan.text()?;
    if scan.skip(br#","ps":""#) {
        scan.bytes()?;
    }
    scan.step(br#","U":"#)?;
    let first_id = scan.int()?;
    scan.step(br#","u":"#)?;
    let last_id = scan.int()?;
    let previous_id = if scan.skip(br#","pu":"#) { Some(scan.int()?) } else { None };
    levels.clear();
    scan.step(br#","b":["#)?;
    scan.levels(&mut levels.bids)?;
    scan.step(br#","a":["#)?;
    scan.levels(&mut levels.asks)?;
    scan.step(b"}}")?;
    scan.end()?;
    let (time, levels) = (epoch(time), DepthLevels::Scanned(levels));
    (!is_partial_book(stream)).then_some(DepthWire { symbol, first_id, last_id, previous_id, time, levels })
}

#[inline]
fn read_event<'t, 'i>(stream: &str, data: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let fields = Fields::read(data);
    match fields.kind {
        Some("depthUpdate") if is_partial_book(stream) => Ok(Message::Other),
        Some("depthUpdate") => Ok(Message::Depth(DepthWire {
            symbol: fields.symbol()?,
            first_id: fields.first_id.need("U")?,
            last_id: fields.last_id.need("u")?,
            previous_id: fields.previous_id.map(|id| Some(id).need("pu")).transpose()?,
            time: fields.time(),
            levels: DepthLevels::Tape { bids: fields.bid, asks: fields.ask },
        })),
        Some("bookTicker") => Ok(Message::Quote(QuoteWire { symbol: fields.symbol()?, fields })),
        Some("trade") => Ok(Message::Trade(TradeWire {
            symbol: fields.symbol()?,
            is_aggregate: false,
            id: fields.trade_id.need("t")?,
            fields,
        })),
        // `a` is the aggregate's id here, a price elsewhere.
        Some("aggTrade") => Ok(Message::Trade(TradeWire {
            symbol: fields.symbol()?,
            is_aggregate: true,
            id: fields.ask.need("a")?,
            fields,
        })),
        Some("serverShutdown") => Ok(Message::Shutdown),
        Some(kind) if is_known(kind) => Ok(Message::Other),
        // Spot sends quotes without `e`; partial books without `e` and `s`.
        None if fields.bid_qty.is_some() && fields.ask_qty.is_some() => {
            Ok(Message::Quote(QuoteWire { symbol: fields.symbol()?, fields }))
        }
        None if is_partial_book(stream) => Ok(Message::Other),
        Some(kind) => Err(FrameError::Unknown { head: format!("event {kind:?} of stream {stream:?}") }),
        None => Err(FrameError::Unknown { head: format!("no event kind, stream {stream:?}") }),
    }
}

fn read_answer<'t, 'i>(root: View<'t, 'i>) -> Result<Message<'t, 'i>, FrameError> {
    let error = root.get("error").unwrap_or(root);
    let refusal = match (error.get("code"), error.get("msg")) {
        (None, None) => None,
        (code, msg) => Some(format!(
            "{} (code {})",
            msg.and_then(View::text).unwrap_or("no reason given"),
            code.map_or_else(|| "none".into(), View::shown)
        )),
    };
    let id = root.get("id").and_then(View::int).unwrap_or(NO_ID);
    Ok(Message::Answer { id, refusal })
}

impl DepthWire<'_, '_> {
    /// Emits the levels. The caller drops what was pushed on an error.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: a side is missing, or a level is no level.
    #[inline]
    pub(super) fn push(&self, head: &LevelHead, out: &mut Outbox) -> Result<(), FrameError> {
        match &self.levels {
            DepthLevels::Tape { bids, asks } => {
                head.push_pairs(Side::Buy, "b", *bids, out)?;
                head.push_pairs(Side::Sell, "a", *asks, out)
            }
            DepthLevels::Scanned(levels) => {
                levels.push(head, out);
                Ok(())
            }
        }
    }
}

impl<'t, 'i> Fields<'t, 'i> {
    #[inline]
    fn read(data: View<'t, 'i>) -> Self {
        let mut fields = Self::default();
        for (key, value) in data.entries() {
            match key.as_bytes() {
                b"e" => fields.kind = value.text(),
                b"E" => fields.event_time = Some(value),
                b"T" => fields.time = Some(value),
                b"s" => fields.symbol = value.text(),
                b"U" => fields.first_id = Some(value),
                b"u" => fields.last_id = Some(value),
                b"pu" => fields.previous_id = Some(value),
                b"t" => fields.trade_id = Some(value),
                b"p" => fields.price = Some(value),
                b"q" => fields.qty = Some(value),
                b"b" => fields.bid = Some(value),
                b"B" => fields.bid_qty = Some(value),
                b"a" => fields.ask = Some(value),
                b"A" => fields.ask_qty = Some(value),
                b"X" => fields.execution = value.text(),
                b"m" => fields.is_buyer_maker = value.bool(),
                _ => {}
            }
        }
        fields
    }

    fn symbol(&self) -> Result<&'i str, FrameError> {
        self.symbol.ok_or_else(|| FrameError::missing("s", "a symbol"))
    }

    /// Transaction time, or event time where there is none (spot books); `None` when neither is usable.
    #[inline]
    pub(super) fn time(&self) -> Option<Micros> {
        self.time.or(self.event_time).and_then(View::int).and_then(epoch)
    }

    /// The book ticker's update id.
    pub(super) fn update_id(&self) -> Option<i64> {
        self.last_id.and_then(View::int)
    }
}

/// What a field must be, with the venue's name of it for the error.
trait Need {
    fn need(self, field: &'static str) -> Result<i64, FrameError>;
}

impl Need for Option<View<'_, '_>> {
    #[inline]
    fn need(self, field: &'static str) -> Result<i64, FrameError> {
        let value = self.ok_or_else(|| FrameError::missing(field, "an integer"))?;
        value.int().ok_or_else(|| FrameError::field(field, "an integer", &value.shown()))
    }
}

/// A price and a quantity; an empty side is written as zero price.
pub(super) fn quote_side(
    (price_field, price): (&'static str, Option<View<'_, '_>>),
    (qty_field, qty): (&'static str, Option<View<'_, '_>>),
) -> Result<Option<(rust_decimal::Decimal, rust_decimal::Decimal)>, FrameError> {
    let price = number::price(price_field, text(price_field, price)?)?;
    let qty = number::qty(qty_field, text(qty_field, qty)?)?;
    Ok((!price.is_zero()).then_some((price, qty)))
}

/// The text of a field that must be there.
#[inline]
pub(super) fn text<'i>(field: &'static str, value: Option<View<'_, 'i>>) -> Result<&'i str, FrameError> {
    let value = value.ok_or_else(|| FrameError::missing(field, "a string"))?;
    value.text().ok_or_else(|| FrameError::field(field, "a string", &value.shown()))
}

/// `<symbol>@depth5`, `@depth20@100ms`: whole top levels, not changes.
fn is_partial_book(stream: &str) -> bool {
    let levels = stream.split_once("@depth").map(|(_, rest)| rest);
    levels.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Documented events of streams that are not recorded.
fn is_known(kind: &str) -> bool {
    matches!(
        kind,
        "kline"
            | "continuous_kline"
            | "indexPrice_kline"
            | "markPrice_kline"
            | "24hrTicker"
            | "24hrMiniTicker"
            | "1hTicker"
            | "4hTicker"
            | "1dTicker"
            | "avgPrice"
            | "markPriceUpdate"
            | "indexPriceUpdate"
            | "forceOrder"
            | "compositeIndex"
            | "contractInfo"
            | "assetIndexUpdate"
            | "tradingSession"
    )
}

/// An answer without an id: to a message the venue could not read.
const NO_ID: i64 = -1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::assert_strict;

    const USDM: &str = r#"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":7,"u":9,"pu":6,"b":[["58710.20","0.014"],["61496.50","0"]],"a":[]}}"#;

    #[test]
    fn a_delta_as_each_venue_spells_it_is_scanned() {
        let spot = USDM.replace(r#""T":1723161256298,"#, "").replace(r#""pu":6,"#, "");
        let coinm = USDM.replace(r#""U":7"#, r#""ps":"BTCUSD","U":7"#);
        for (frame, previous_id, millis) in
            [(USDM, Some(6), 1_723_161_256_298), (&spot, None, 1_723_161_256_299), (&coinm, Some(6), 1_723_161_256_298)]
        {
            let mut levels = Levels::default();
            let delta = scan(frame.as_bytes(), &mut levels).unwrap();
            assert_eq!((delta.symbol, delta.first_id, delta.last_id), ("BTCUSDT", 7, 9), "{frame}");
            assert_eq!((delta.previous_id, delta.time), (previous_id, epoch(millis)), "{frame}");
            let shown: Vec<_> = levels.bids.iter().map(|(price, qty)| format!("{price}:{qty}")).collect();
            assert_eq!(shown, ["58710.20:0.014", "61496.50:0"]);
            assert!(levels.asks.is_empty());
        }
    }

    #[test]
    fn any_other_spelling_is_left_to_the_parser() {
        let mut levels = Levels::default();
        let others = [
            ("{\"stream\"", " {\"stream\""),
            ("@depth@0ms", "@depth5@100ms"),
            ("depthUpdate", "trade"),
            ("\"0.014\"", "0.014"),
            ("\"0.014\"", "\"-0.014\""),
            ("\"0.014\"", "\"1.4e-2\""),
            ("\"U\":7", "\"U\":\"7\""),
            ("\"U\":7", "\"U\":07"),
            ("\"U\":7", "\"U\":7.0"),
            ("\"s\"", "\"x\":1,\"s\""),
            ("]}}", "]}} "),
        ];
        assert_strict(USDM, &others, |frame| scan(frame, &mut levels).is_some());
    }
}
