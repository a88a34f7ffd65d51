//! Binance spot and USD-M futures: combined and raw streams, SUBSCRIBE and its acknowledgement, depth snapshots.
//!
//! Shapes as in the venues' documents and in recorded sessions: spot writes eight decimals and has no `T` in depth
//! and quotes; USD-M writes the instrument's precision, has `T` and `pu`, and marks prints outside the book in `X`.

use serde_json::Value;

use super::{
    engine::{Engine, json},
    faults::{Channel, FaultKind},
    market::{Step, Symbol, Trade},
    query,
    text::{put_decimal, put_u64},
    truth::{BookIds, put_levels, put_pairs},
    venue::{Instrument, Venue},
};

/// The stream path of a URL: whether frames are combined, and the streams named in it. `None` for a path
/// that is not one of the venue's.
pub(super) fn ws_path(path: &str) -> Option<(bool, Vec<String>)> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = ["/public", "/market"].iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    let pairs = query::pairs(query);
    let split = |text: &str| text.split('/').filter(|stream| !stream.is_empty()).map(query::decode).collect();
    match path {
        "/stream" => Some((true, split(query::value(&pairs, "streams").unwrap_or("")))),
        "/ws" | "/ws/" => Some((false, Vec::new())),
        _ => path.strip_prefix("/ws/").map(|streams| (false, split(streams))),
    }
}

/// Subscribes what the URL names.
pub(super) fn on_open(engine: &mut Engine, slot: usize, path: &str) {
    let Some((is_combined, streams)) = ws_path(path) else { return };
    if let Some(conn) = engine.hub.conn(slot) {
        conn.is_combined = is_combined;
        conn.is_micros = path.to_ascii_uppercase().contains("TIMEUNIT=MICROSECOND");
    }
    for stream in &streams {
        subscribe(engine, slot, stream);
    }
}

/// Handles SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY and GET_PROPERTY.
pub(super) fn on_message(engine: &mut Engine, slot: usize, text: &str) {
    let request: Value = match serde_json::from_str(text) {
        Ok(request) => request,
        Err(error) => {
            return refuse(engine, slot, 3, &format!("Invalid JSON: {error}"), &Value::Null);
        }
    };
    let id = request.get("id").cloned().unwrap_or(Value::Null);
    let strings = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let streams = strings(request.get("params"));
    match request.get("method").and_then(Value::as_str) {
        Some("SUBSCRIBE") => {
            let streams_max = if engine.venue == Venue::BinanceSpot { 1_024 } else { 200 };
            let has = engine.hub.conn(slot).map_or(0, |conn| conn.subscriptions);
            let refused = streams.iter().any(|stream| {
                let (symbol, channel) = stream.split_once('@').unwrap_or((stream, ""));
                engine.faults.strikes(FaultKind::RefuseSubscriptions, symbol, channel_of(channel)).is_some()
            });
            if refused || streams.is_empty() {
                return refuse(engine, slot, 2, "Invalid request: invalid stream", &id);
            }
            if has + streams.len() > streams_max {
                return refuse(engine, slot, 2, "Invalid request: too many streams", &id);
            }
            // The acknowledgement may come after the first frames; here it comes before them.
            acknowledge(engine, slot, "null", &id);
            streams.iter().for_each(|stream| subscribe(engine, slot, stream));
        }
        Some("UNSUBSCRIBE") => {
            streams.iter().for_each(|stream| unsubscribe(engine, slot, stream));
            acknowledge(engine, slot, "null", &id);
        }
        Some("LIST_SUBSCRIPTIONS") => {
            let mut names = Vec::new();
            for channel in [Channel::Trades, Channel::AggTrades, Channel::Book, Channel::Quotes] {
                let stream = match channel {
                    Channel::Trades => "trade",
                    Channel::AggTrades => "aggTrade",
                    Channel::Book => "depth@100ms",
                    Channel::Quotes | Channel::Heartbeat => "bookTicker",
                };
                let symbols: Vec<usize> = engine.hub.subscribed(slot, channel).collect();
                let lower = |symbol| engine.symbol_name(symbol).to_ascii_lowercase();
                names.extend(symbols.into_iter().map(|symbol| json(&format!("{}@{stream}", lower(symbol)))));
            }
            acknowledge(engine, slot, &format!("[{}]", names.join(",")), &id);
        }
        Some("SET_PROPERTY") => {
            let value = request.get("params").and_then(|params| params.get(1)).and_then(Value::as_bool);
            if let (Some(conn), Some(value)) = (engine.hub.conn(slot), value) {
                conn.is_combined = value;
            }
            acknowledge(engine, slot, "null", &id);
        }
        Some("GET_PROPERTY") => {
            let is_combined = engine.hub.conn(slot).is_some_and(|conn| conn.is_combined);
            acknowledge(engine, slot, if is_combined { "true" } else { "false" }, &id);
        }
        Some(other) => refuse(engine, slot, 2, &format!("Invalid request: unknown method {other}"), &id),
        None => refuse(engine, slot, 2, "Invalid request: missing field `method`", &id),
    }
}

/// Tells a connection that its server is about to shut down.
pub(super) fn announce_shutdown(engine: &mut Engine, slot: usize) {
    let time_ms = engine.clock_us() / 1_000;
    engine.hub.send(slot, format!("{{\"e\":\"serverShutdown\",\"E\":{time_ms}}}").as_bytes());
}

fn acknowledge(engine: &mut Engine, slot: usize, result: &str, id: &Value) {
    engine.hub.send(slot, format!("{{\"result\":{result},\"id\":{id}}}").as_bytes());
}

fn refuse(engine: &mut Engine, slot: usize, code: i32, message: &str, id: &Value) {
    let text = format!("{{\"error\":{{\"code\":{code},\"msg\":{}}},\"id\":{id}}}", json(message));
    engine.hub.send(slot, text.as_bytes());
}

fn channel_of(stream: &str) -> Option<Channel> {
    match stream {
        "trade" => Some(Channel::Trades),
        "aggTrade" => Some(Channel::AggTrades),
        "bookTicker" => Some(Channel::Quotes),
        "depth" => Some(Channel::Book),
        _ => stream.strip_prefix("depth@").is_some_and(|speed| speed.ends_with("ms")).then_some(Channel::Book),
    }
}

/// A stream's symbol and channel; `None` for a stream that will never say anything, which the venue accepts too.
fn find(engine: &Engine, stream: &str) -> Option<(usize, Channel)> {
    let (symbol, channel) = stream.split_once('@')?;
    Some((engine.symbol_index(symbol)?, channel_of(channel)?))
}

fn prefix(engine: &mut Engine, slot: usize, stream: &str) -> Option<Box<[u8]>> {
    let is_combined = engine.hub.conn(slot)?.is_combined;
    is_combined.then(|| format!("{{\"stream\":{},\"data\":", json(stream)).into_bytes().into())
}

fn subscribe(engine: &mut Engine, slot: usize, stream: &str) {
    let Some((symbol, channel)) = find(engine, stream) else { return };
    let prefix = prefix(engine, slot, stream);
    let variant = u16::from(engine.hub.conn(slot).is_some_and(|conn| conn.is_micros));
    if engine.hub.subscribe(slot, symbol, channel, variant, prefix) {
        engine.note_subscription("subscribe", slot, symbol, channel);
    }
}

fn unsubscribe(engine: &mut Engine, slot: usize, stream: &str) {
    let Some((symbol, channel)) = find(engine, stream) else { return };
    let prefix = prefix(engine, slot, stream);
    if engine.hub.unsubscribe(slot, symbol, channel, prefix.as_deref()) {
        engine.note_subscription("unsubscribe", slot, symbol, channel);
    }
}

/// Sends what a step brought; returns its rows.
pub(super) fn emit(engine: &mut Engine, step: &Step) -> u64 {
    let Engine { venue, market, hub, faults, truth, stats, kinds, buf, variants, .. } = engine;
    let state = &market.symbols[step.symbol];
    let (instrument, symbol) = (&state.instrument, step.symbol);
    let mut rows = 0;
    let mut event =
        |channel: Channel, count: u64, put: &mut dyn FnMut(&mut Vec<u8>, Unit), hub: &mut super::hub::Hub| {
            let fate = faults.fate(&instrument.symbol, channel);
            hub.sent.clear();
            if hub.has_subscribers(symbol, channel) {
                hub.variants(symbol, channel, 0, variants);
                for variant in variants.iter() {
                    buf.clear();
                    put(buf, if *variant == 0 { Unit::Millis } else { Unit::Micros });
                    hub.deliver(symbol, channel, Some(*variant), buf, fate);
                }
            }
            stats.add(symbol, channel, count, hub.sent.len());
            fate
        };
    if kinds.has_trades {
        for trade in &step.trades {
            let fate = event(Channel::Trades, 1, &mut |out, unit| put_trade(out, *venue, instrument, trade, unit), hub);
            truth.trade(instrument, "trade", trade.id, trade, fate, &hub.sent);
            rows += 1;
            if hub.has_subscribers(symbol, Channel::AggTrades) {
                let put = &mut |out: &mut Vec<u8>, unit| put_agg_trade(out, *venue, instrument, trade, unit);
                let fate = event(Channel::AggTrades, 1, put, hub);
                truth.trade(instrument, "agg_trade", agg_id(trade.id), trade, fate, &hub.sent);
                rows += 1;
            }
        }
    }
    if let Some(top) = state.top().filter(|_| kinds.has_quotes && step.is_top_changed) {
        let id = step.last_id;
        let put = &mut |out: &mut Vec<u8>, unit| put_quote(out, *venue, instrument, id, top, step.time_us, unit);
        let fate = event(Channel::Quotes, 1, put, hub);
        truth.quote(instrument, Some(id), top, step.time_us, fate, &hub.sent);
        rows += 1;
    }
    if kinds.has_book && !step.changes.is_empty() {
        let count = step.changes.len() as u64;
        let put = &mut |out: &mut Vec<u8>, unit| put_book(out, *venue, instrument, step, unit);
        let fate = event(Channel::Book, count, put, hub);
        let previous = (*venue == Venue::BinanceUsdm).then_some(step.previous_id);
        let ids = BookIds::Range { first: step.first_id, last: step.last_id, previous };
        truth.book(instrument, ids, &step.changes, step.time_us, fate, &hub.sent);
        rows += count;
    }
    rows
}

#[derive(Clone, Copy)]
enum Unit {
    Millis,
    Micros,
}

fn put_trade(out: &mut Vec<u8>, venue: Venue, instrument: &Instrument, trade: &Trade, unit: Unit) {
    out.extend_from_slice(b"{\"e\":\"trade\",\"E\":");
    put_time(out, trade.time_us, unit);
    if venue == Venue::BinanceUsdm {
        out.extend_from_slice(b",\"T\":");
        put_time(out, trade.time_us, unit);
    }
    put_symbol(out, instrument);
    out.extend_from_slice(b",\"t\":");
    put_u64(out, trade.id);
    put_price_qty(out, instrument, trade);
    if venue == Venue::BinanceUsdm {
        out.extend_from_slice(if trade.is_off_book { b",\"X\":\"INSURANCE_FUND\"" } else { b",\"X\":\"MARKET\"" });
        put_maker(out, trade);
    } else {
        out.extend_from_slice(b",\"T\":");
        put_time(out, trade.time_us, unit);
        put_maker(out, trade);
        out.extend_from_slice(b",\"M\":true");
    }
    out.push(b'}');
}

fn put_agg_trade(out: &mut Vec<u8>, venue: Venue, instrument: &Instrument, trade: &Trade, unit: Unit) {
    out.extend_from_slice(b"{\"e\":\"aggTrade\",\"E\":");
    put_time(out, trade.time_us, unit);
    let is_spot = venue == Venue::BinanceSpot;
    if is_spot {
        put_symbol(out, instrument);
    }
    out.extend_from_slice(b",\"a\":");
    put_u64(out, agg_id(trade.id));
    if !is_spot {
        put_symbol(out, instrument);
    }
    put_price_qty(out, instrument, trade);
    for key in [b",\"f\":", b",\"l\":"] {
        out.extend_from_slice(key);
        put_u64(out, trade.id);
    }
    out.extend_from_slice(b",\"T\":");
    put_time(out, trade.time_us, unit);
    put_maker(out, trade);
    if is_spot {
        out.extend_from_slice(b",\"M\":true");
    }
    out.push(b'}');
}

fn put_quote(
    out: &mut Vec<u8>,
    venue: Venue,
    instrument: &Instrument,
    id: u64,
    top: [(u64, u64); 2],
    time_us: i64,
    unit: Unit,
) {
    let is_spot = venue == Venue::BinanceSpot;
    out.extend_from_slice(if is_spot { b"{\"u\":" } else { b"{\"e\":\"bookTicker\",\"u\":" });
    put_u64(out, id);
    put_symbol(out, instrument);
    for (price_key, qty_key, (price, qty)) in
        [(b",\"b\":\"", b"\",\"B\":\"", top[0]), (b",\"a\":\"", b"\",\"A\":\"", top[1])]
    {
        out.extend_from_slice(price_key);
        put_decimal(out, price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(qty_key);
        put_decimal(out, qty, instrument.qty_scale, instrument.qty_decimals);
        out.push(b'"');
    }
    if !is_spot {
        for key in [b",\"T\":", b",\"E\":"] {
            out.extend_from_slice(key);
            put_time(out, time_us, unit);
        }
    }
    out.push(b'}');
}

fn put_book(out: &mut Vec<u8>, venue: Venue, instrument: &Instrument, step: &Step, unit: Unit) {
    out.extend_from_slice(b"{\"e\":\"depthUpdate\",\"E\":");
    put_time(out, step.time_us, unit);
    if venue == Venue::BinanceUsdm {
        out.extend_from_slice(b",\"T\":");
        put_time(out, step.time_us, unit);
    }
    put_symbol(out, instrument);
    out.extend_from_slice(b",\"U\":");
    put_u64(out, step.first_id);
    out.extend_from_slice(b",\"u\":");
    put_u64(out, step.last_id);
    if venue == Venue::BinanceUsdm {
        out.extend_from_slice(b",\"pu\":");
        put_u64(out, step.previous_id);
    }
    out.extend_from_slice(b",\"b\":");
    put_levels(out, instrument, &step.changes, true);
    out.extend_from_slice(b",\"a\":");
    put_levels(out, instrument, &step.changes, false);
    out.push(b'}');
}

/// Appends the body of a depth snapshot.
pub(super) fn put_depth(out: &mut Vec<u8>, venue: Venue, state: &Symbol, limit: usize, time_us: i64) {
    out.extend_from_slice(b"{\"lastUpdateId\":");
    put_u64(out, state.update_id);
    if venue == Venue::BinanceUsdm {
        for key in [b",\"E\":", b",\"T\":"] {
            out.extend_from_slice(key);
            put_time(out, time_us, Unit::Millis);
        }
    }
    for (key, side) in [(b",\"bids\":", &state.bids), (b",\"asks\":", &state.asks)] {
        out.extend_from_slice(key);
        put_pairs(out, &state.instrument, side.best_first().take(limit));
    }
    out.push(b'}');
}

/// Appends the body of an exchangeInfo answer.
pub(super) fn put_exchange_info(out: &mut Vec<u8>, venue: Venue, symbols: &[Symbol], time_us: i64) {
    let is_spot = venue == Venue::BinanceSpot;
    out.extend_from_slice(b"{\"timezone\":\"UTC\",\"serverTime\":");
    put_time(out, time_us, Unit::Millis);
    if !is_spot {
        out.extend_from_slice(b",\"futuresType\":\"U_MARGINED\"");
    }
    let weight = if is_spot { 6_000 } else { 2_400 };
    let limits = format!(
        ",\"rateLimits\":[{{\"rateLimitType\":\"REQUEST_WEIGHT\",\"interval\":\"MINUTE\",\"intervalNum\":1,\"limit\":{weight}}}],\
         \"exchangeFilters\":[],\"symbols\":["
    );
    out.extend_from_slice(limits.as_bytes());
    for (index, state) in symbols.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_listing(out, is_spot, &state.instrument);
    }
    out.extend_from_slice(b"]}");
}

fn put_listing(out: &mut Vec<u8>, is_spot: bool, instrument: &Instrument) {
    let Instrument { symbol, base, quote, price_scale, qty_scale, price_decimals, qty_decimals, .. } = instrument;
    let unit = |scale: u32, decimals: u32| {
        let mut text = Vec::new();
        put_decimal(&mut text, 1, scale, decimals);
        String::from_utf8_lossy(&text).into_owned()
    };
    let (tick, lot) = (unit(*price_scale, *price_decimals), unit(*qty_scale, *qty_decimals));
    let filters = format!(
        "\"filters\":[{{\"filterType\":\"PRICE_FILTER\",\"minPrice\":\"{tick}\",\"maxPrice\":\"1000000.00\",\"tickSize\":\"{tick}\"}},\
         {{\"filterType\":\"LOT_SIZE\",\"minQty\":\"{lot}\",\"maxQty\":\"9000000.00\",\"stepSize\":\"{lot}\"}}]"
    );
    let text = if is_spot {
        format!(
            "{{\"symbol\":\"{symbol}\",\"status\":\"TRADING\",\"baseAsset\":\"{base}\",\"baseAssetPrecision\":8,\
             \"quoteAsset\":\"{quote}\",\"quotePrecision\":8,\"quoteAssetPrecision\":8,\"orderTypes\":[\"LIMIT\",\"MARKET\"],\
             \"isSpotTradingAllowed\":true,\"isMarginTradingAllowed\":false,{filters},\"permissions\":[\"SPOT\"]}}"
        )
    } else {
        format!(
            "{{\"symbol\":\"{symbol}\",\"pair\":\"{symbol}\",\"contractType\":\"PERPETUAL\",\"deliveryDate\":4133404800000,\
             \"onboardDate\":1569398400000,\"status\":\"TRADING\",\"baseAsset\":\"{base}\",\"quoteAsset\":\"{quote}\",\
             \"marginAsset\":\"{quote}\",\"pricePrecision\":{price_decimals},\"quantityPrecision\":{qty_decimals},\
             \"baseAssetPrecision\":8,\"quotePrecision\":8,\"underlyingType\":\"COIN\",{filters},\
             \"orderTypes\":[\"LIMIT\",\"MARKET\"],\"timeInForce\":[\"GTC\",\"IOC\",\"FOK\",\"GTX\"]}}"
        )
    };
    out.extend_from_slice(text.as_bytes());
}

/// Appends the body of a `trades` or `historicalTrades` answer.
pub(super) fn put_trades<'a>(
    out: &mut Vec<u8>,
    venue: Venue,
    instrument: &Instrument,
    trades: impl Iterator<Item = &'a Trade>,
) {
    out.push(b'[');
    for (index, trade) in trades.enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"id\":" } else { b"{\"id\":" });
        put_u64(out, trade.id);
        out.extend_from_slice(b",\"price\":\"");
        put_decimal(out, trade.price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(b"\",\"qty\":\"");
        put_decimal(out, trade.qty, instrument.qty_scale, instrument.qty_decimals);
        out.extend_from_slice(b"\",\"quoteQty\":\"");
        let scale = instrument.price_scale + instrument.qty_scale;
        put_decimal(out, trade.price.saturating_mul(trade.qty), scale, scale);
        out.extend_from_slice(b"\",\"time\":");
        put_time(out, trade.time_us, Unit::Millis);
        out.extend_from_slice(b",\"isBuyerMaker\":");
        out.extend_from_slice(if trade.is_buy { b"false" } else { b"true" });
        if venue == Venue::BinanceSpot {
            out.extend_from_slice(b",\"isBestMatch\":true");
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends the body of an `aggTrades` answer.
pub(super) fn put_agg_trades<'a>(
    out: &mut Vec<u8>,
    venue: Venue,
    instrument: &Instrument,
    trades: impl Iterator<Item = &'a Trade>,
) {
    out.push(b'[');
    for (index, trade) in trades.enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"a\":" } else { b"{\"a\":" });
        put_u64(out, agg_id(trade.id));
        put_price_qty(out, instrument, trade);
        for key in [b",\"f\":", b",\"l\":"] {
            out.extend_from_slice(key);
            put_u64(out, trade.id);
        }
        out.extend_from_slice(b",\"T\":");
        put_time(out, trade.time_us, Unit::Millis);
        put_maker(out, trade);
        out.extend_from_slice(if venue == Venue::BinanceSpot { b",\"M\":true}" } else { b"}" });
    }
    out.push(b']');
}

/// Each trade is an aggregate of its own, under an id of its own.
pub(super) const fn agg_id(trade_id: u64) -> u64 {
    trade_id.saturating_sub(AGG_ID_OFFSET)
}

/// The trade behind an aggregate's id.
pub(super) const fn trade_id(agg_id: u64) -> u64 {
    agg_id.saturating_add(AGG_ID_OFFSET)
}

fn put_symbol(out: &mut Vec<u8>, instrument: &Instrument) {
    out.extend_from_slice(b",\"s\":\"");
    out.extend_from_slice(instrument.symbol.as_bytes());
    out.push(b'"');
}

fn put_price_qty(out: &mut Vec<u8>, instrument: &Instrument, trade: &Trade) {
    out.extend_from_slice(b",\"p\":\"");
    put_decimal(out, trade.price, instrument.price_scale, instrument.price_decimals);
    out.extend_from_slice(b"\",\"q\":\"");
    put_decimal(out, trade.qty, instrument.qty_scale, instrument.qty_decimals);
    out.push(b'"');
}

fn put_maker(out: &mut Vec<u8>, trade: &Trade) {
    out.extend_from_slice(if trade.is_buy { b",\"m\":false" } else { b",\"m\":true" });
}

fn put_time(out: &mut Vec<u8>, time_us: i64, unit: Unit) {
    let time_us = time_us.unsigned_abs();
    match unit {
        Unit::Millis => put_u64(out, time_us / 1_000),
        Unit::Micros => put_u64(out, time_us),
    }
}

const AGG_ID_OFFSET: u64 = 500_000;
