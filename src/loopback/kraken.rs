//! Kraken WebSocket v2: status, subscribe with one acknowledgement a symbol, book with CRC32, trade, ticker,
//! instrument, heartbeat, ping.
//!
//! A book subscription shows the best `depth` levels a side. An update carries what a client needs to get from one
//! view to the next when it truncates to `depth` after each message: changed levels within the new view, removals
//! of levels it had, and levels that moved into the view because better ones went. A level that falls out of the
//! view is not mentioned. Numbers are bare and keep the instrument's precision, which the checksum is made of.

use serde_json::Value;

use super::{
    engine::{Engine, json},
    faults::{Channel, Fate, FaultKind},
    hub::Hub,
    market::{Change, Market, Step, Symbol, Trade, key},
    text::{IsoClock, put_decimal, put_padded, put_u64},
    truth::BookIds,
    venue::Instrument,
};

/// Every second, on every connection that has subscribed anything.
pub(super) const HEARTBEAT: &[u8] = b"{\"channel\":\"heartbeat\"}";

/// The views subscribed of one symbol's book, as they were before a step.
#[derive(Debug, Default)]
pub(super) struct Views {
    depths: Vec<u16>,
    /// For each depth, the keys of the last bid and ask shown; `None` when the whole side is.
    bounds: Vec<[Option<i64>; 2]>,
    shown: Vec<Change>,
    crc: Vec<u8>,
}

impl Views {
    /// Remembers where the views end.
    pub(super) fn before(&mut self, market: &Market, hub: &Hub, symbol: usize) {
        let state = &market.symbols[symbol];
        hub.variants(symbol, Channel::Book, DEPTH, &mut self.depths);
        self.bounds.clear();
        self.bounds.extend(self.depths.iter().map(|depth| bounds(state, *depth)));
    }
}

/// Greets a new connection.
pub(super) fn on_open(engine: &mut Engine, slot: usize) {
    let number = engine.hub.conn(slot).map_or(0, |conn| conn.number);
    let id = (number ^ 0x5217_0000_0000_0000).wrapping_mul(0x9E37_79B9) | 1 << 60;
    let text = format!(
        "{{\"channel\":\"status\",\"type\":\"update\",\"data\":[{{\"version\":\"2.0.10\",\"system\":\"online\",\
         \"api_version\":\"v2\",\"connection_id\":{id}}}]}}"
    );
    engine.hub.send(slot, text.as_bytes());
}

/// Handles subscribe, unsubscribe and ping.
pub(super) fn on_message(engine: &mut Engine, slot: usize, text: &str) {
    let Ok(request) = serde_json::from_str::<Value>(text) else {
        return refuse(engine, slot, "subscribe", "Malformed request", None, "");
    };
    let id = request.get("req_id").map(|id| format!(",\"req_id\":{id}")).unwrap_or_default();
    let params = request.get("params").unwrap_or(&Value::Null);
    let method = match request.get("method").and_then(Value::as_str) {
        Some("ping") => {
            let times = times(engine);
            return engine.hub.send(slot, format!("{{\"method\":\"pong\"{id}{times}}}").as_bytes());
        }
        Some(method @ ("subscribe" | "unsubscribe")) => method,
        Some(_) | None => return refuse(engine, slot, "subscribe", "Method not found", None, &id),
    };
    let channel = match params.get("channel").and_then(Value::as_str) {
        Some("book") => Channel::Book,
        Some("trade") => Channel::Trades,
        Some("ticker") => Channel::Quotes,
        Some("instrument") => return instruments(engine, slot, method, &id),
        Some(_) | None => return refuse(engine, slot, method, "Channel not supported", None, &id),
    };
    let depth =
        params.get("depth").map_or(Some(DEPTH), |depth| depth.as_u64().and_then(|depth| u16::try_from(depth).ok()));
    let Some(depth) = depth.filter(|depth| DEPTHS.contains(depth)) else {
        return refuse(engine, slot, method, "Subscription depth not supported", None, &id);
    };
    let symbols = params.get("symbol").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let is_snapshot_wanted = params.get("snapshot").and_then(Value::as_bool).unwrap_or(true);
    for name in symbols.map(str::to_owned).collect::<Vec<_>>() {
        let is_refused = engine.faults.strikes(FaultKind::RefuseSubscriptions, &name, Some(channel)).is_some();
        let Some(symbol) = engine.symbol_index(&name).filter(|_| !is_refused) else {
            let error = format!("Currency pair not supported {name}");
            refuse(engine, slot, method, &error, Some(&name), &id);
            continue;
        };
        let variant = if channel == Channel::Book { depth } else { 0 };
        if method == "subscribe" {
            subscribe(engine, slot, symbol, channel, variant, is_snapshot_wanted, &id);
        } else {
            engine.cancel_late(slot, symbol, channel);
            acknowledge(engine, slot, method, channel, symbol, depth, "", &id);
            if engine.hub.unsubscribe(slot, symbol, channel, None) {
                engine.note_subscription("unsubscribe", slot, symbol, channel);
            }
        }
    }
}

fn subscribe(
    engine: &mut Engine,
    slot: usize,
    symbol: usize,
    channel: Channel,
    variant: u16,
    is_snapshot_wanted: bool,
    id: &str,
) {
    if engine.hub.subscribed(slot, channel).any(|known| known == symbol) {
        let name = engine.symbol_name(symbol).to_owned();
        return refuse(engine, slot, "subscribe", "Already subscribed", Some(&name), id);
    }
    let snapshot = format!(",\"snapshot\":{is_snapshot_wanted}");
    acknowledge(engine, slot, "subscribe", channel, symbol, variant, &snapshot, id);
    if is_snapshot_wanted {
        engine.begin_subscription(slot, symbol, channel, variant);
    } else if engine.hub.subscribe(slot, symbol, channel, variant, None) {
        engine.note_subscription("subscribe", slot, symbol, channel);
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a field of the answer")]
fn acknowledge(
    engine: &mut Engine,
    slot: usize,
    method: &str,
    channel: Channel,
    symbol: usize,
    depth: u16,
    snapshot: &str,
    id: &str,
) {
    let name = json(engine.symbol_name(symbol));
    let result = match channel {
        Channel::Book => format!("\"channel\":\"book\",\"depth\":{depth}{snapshot},\"symbol\":{name}"),
        Channel::Quotes => format!("\"channel\":\"ticker\",\"event_trigger\":\"bbo\"{snapshot},\"symbol\":{name}"),
        Channel::Trades | Channel::AggTrades | Channel::Heartbeat => {
            format!("\"channel\":\"trade\"{snapshot},\"symbol\":{name}")
        }
    };
    let times = times(engine);
    let text = format!("{{\"method\":\"{method}\",\"result\":{{{result}}},\"success\":true{times}{id}}}");
    engine.hub.send(slot, text.as_bytes());
}

fn refuse(engine: &mut Engine, slot: usize, method: &str, error: &str, symbol: Option<&str>, id: &str) {
    let symbol = symbol.map(|symbol| format!(",\"symbol\":{}", json(symbol))).unwrap_or_default();
    let times = times(engine);
    let text = format!("{{\"error\":{},\"method\":\"{method}\",\"success\":false{symbol}{times}{id}}}", json(error));
    engine.hub.send(slot, text.as_bytes());
}

fn times(engine: &mut Engine) -> String {
    let clock_us = engine.clock_us();
    let mut out = b",\"time_in\":\"".to_vec();
    engine.iso.put(&mut out, clock_us);
    out.extend_from_slice(b"\",\"time_out\":\"");
    engine.iso.put(&mut out, clock_us + 40);
    out.push(b'"');
    String::from_utf8_lossy(&out).into_owned()
}

fn instruments(engine: &mut Engine, slot: usize, method: &str, id: &str) {
    let times = times(engine);
    let is_subscribe = method == "subscribe";
    let snapshot = if is_subscribe { ",\"snapshot\":true" } else { "" };
    let text = format!(
        "{{\"method\":\"{method}\",\"result\":{{\"channel\":\"instrument\"{snapshot}}},\"success\":true{times}{id}}}"
    );
    engine.hub.send(slot, text.as_bytes());
    if !is_subscribe {
        return;
    }
    let unit = |scale: u32| {
        let mut text = Vec::new();
        put_decimal(&mut text, 1, scale, scale);
        String::from_utf8_lossy(&text).into_owned()
    };
    let (mut assets, mut pairs) = (vec![asset("USD")], Vec::new());
    for Symbol { instrument, .. } in &engine.market.symbols {
        let Instrument { symbol, base, quote, price_scale, qty_scale, .. } = instrument;
        let (tick, lot) = (unit(*price_scale), unit(*qty_scale));
        assets.push(asset(base));
        pairs.push(format!(
            "{{\"symbol\":\"{symbol}\",\"base\":\"{base}\",\"quote\":\"{quote}\",\"status\":\"online\",\
             \"qty_precision\":{qty_scale},\"qty_increment\":{lot},\"price_precision\":{price_scale},\"cost_precision\":5,\
             \"marginable\":false,\"has_index\":true,\"cost_min\":0.50,\"tick_size\":{tick},\"price_increment\":{tick},\
             \"qty_min\":{lot}}}"
        ));
    }
    let text = format!(
        "{{\"channel\":\"instrument\",\"type\":\"snapshot\",\"data\":{{\"assets\":[{}],\"pairs\":[{}]}}}}",
        assets.join(","),
        pairs.join(",")
    );
    engine.hub.send(slot, text.as_bytes());
}

fn asset(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"status\":\"enabled\",\"precision\":8,\"precision_display\":5,\"borrowable\":false}}")
}

/// Sends what a new subscription begins with.
pub(super) fn snapshot(engine: &mut Engine, slot: usize, symbol: usize, channel: Channel, depth: u16) {
    let clock_us = engine.clock_us();
    let Engine { market, hub, truth, buf, iso, .. } = engine;
    let Some(state) = market.symbols.get(symbol) else { return };
    let (instrument, conn) = (&state.instrument, hub.conn(slot).map(|conn| conn.number));
    buf.clear();
    let fields = match channel {
        Channel::Book => {
            let mut levels = Vec::new();
            for (is_bid, side) in [(true, &state.bids), (false, &state.asks)] {
                let shown = side.best_first().take(depth.into());
                levels.extend(shown.map(|(price, qty)| Change { is_bid, price, qty }));
            }
            let checksum = checksum(state, &mut Vec::new());
            put_book(buf, "snapshot", instrument, &levels, checksum, clock_us, iso);
            format!(",\"channel\":\"book\",\"depth\":{depth},\"checksum\":{checksum}")
        }
        Channel::Trades => {
            let latest = state.trades_from(state.last_trade_id().saturating_sub(TRADES_IN_SNAPSHOT - 1));
            let latest: Vec<Trade> = latest.copied().collect();
            let (Some(first), Some(last)) = (latest.first(), latest.last()) else { return };
            put_trades(buf, "snapshot", instrument, &latest, iso);
            format!(",\"channel\":\"trades\",\"first\":{},\"last\":{}", first.id, last.id)
        }
        Channel::Quotes => {
            let Some(top) = state.top() else { return };
            put_ticker(buf, "snapshot", state, top, clock_us, iso);
            // A quote is a whole state, so this is one more; the market may not have made it before.
            let sent: Vec<u64> = conn.into_iter().collect();
            truth.quote(instrument, None, top, clock_us, Fate::Sent, &sent);
            ",\"channel\":\"quotes\"".to_owned()
        }
        Channel::AggTrades | Channel::Heartbeat => return,
    };
    hub.send(slot, buf);
    truth.note("snapshot", conn, &instrument.symbol, &format!("{fields},\"before\":{}", truth.count()));
}

/// Sends what a step brought; returns its rows.
pub(super) fn emit(engine: &mut Engine, views: &mut Views, step: &Step) -> u64 {
    let Engine { market, hub, faults, truth, stats, kinds, buf, iso, .. } = engine;
    let state = &market.symbols[step.symbol];
    let (instrument, symbol) = (&state.instrument, step.symbol);
    let mut rows = 0;
    if kinds.has_trades && !step.trades.is_empty() {
        let fate = faults.fate(&instrument.symbol, Channel::Trades);
        hub.sent.clear();
        if hub.has_subscribers(symbol, Channel::Trades) {
            buf.clear();
            put_trades(buf, "update", instrument, &step.trades, iso);
            hub.deliver(symbol, Channel::Trades, None, buf, fate);
        }
        stats.add(symbol, Channel::Trades, step.trades.len() as u64, hub.sent.len());
        for trade in &step.trades {
            truth.trade(instrument, "trade", trade.id, trade, fate, &hub.sent);
        }
        rows += step.trades.len() as u64;
    }
    if let Some(top) = state.top().filter(|_| kinds.has_quotes && step.is_top_changed) {
        let fate = faults.fate(&instrument.symbol, Channel::Quotes);
        hub.sent.clear();
        if hub.has_subscribers(symbol, Channel::Quotes) {
            buf.clear();
            put_ticker(buf, "update", state, top, step.time_us, iso);
            hub.deliver(symbol, Channel::Quotes, None, buf, fate);
        }
        stats.add(symbol, Channel::Quotes, 1, hub.sent.len());
        truth.quote(instrument, None, top, step.time_us, fate, &hub.sent);
        rows += 1;
    }
    if kinds.has_book && !step.changes.is_empty() {
        let fate = faults.fate(&instrument.symbol, Channel::Book);
        let checksum = checksum(state, &mut views.crc);
        let said = if fate == Fate::WrongChecksum { checksum ^ 1 } else { checksum };
        for (depth, before) in views.depths.iter().copied().zip(&views.bounds) {
            view(state, step, depth, *before, &mut views.shown);
            if views.shown.is_empty() {
                continue;
            }
            hub.sent.clear();
            buf.clear();
            put_book(buf, "update", instrument, &views.shown, said, step.time_us, iso);
            hub.deliver(symbol, Channel::Book, Some(depth), buf, fate);
            let count = views.shown.len() as u64;
            stats.add(symbol, Channel::Book, count, hub.sent.len());
            let ids = BookIds::Checksum { depth, checksum: said };
            truth.book(instrument, ids, &views.shown, step.time_us, fate, &hub.sent);
            // The usual depth is in the truth even when only others are subscribed; the rate is of what goes out.
            if !hub.sent.is_empty() || !hub.has_subscribers(symbol, Channel::Book) {
                rows += count;
            }
        }
    }
    rows
}

/// What a client with a view of `depth` levels needs to know of a step.
fn view(state: &Symbol, step: &Step, depth: u16, before: [Option<i64>; 2], shown: &mut Vec<Change>) {
    let after = bounds(state, depth);
    shown.clear();
    let is_within = |bounds: [Option<i64>; 2], change: &Change| {
        let bound = bounds[usize::from(!change.is_bid)];
        bound.is_none_or(|bound| key(change.is_bid, change.price) >= bound)
    };
    for change in &step.changes {
        if is_within(if change.qty == 0 { before } else { after }, change) {
            shown.push(*change);
        }
    }
    for (is_bid, side) in [(true, &state.bids), (false, &state.asks)] {
        let Some(bound) = before[usize::from(!is_bid)] else { continue };
        let entered = side.entered(depth.into(), bound).filter(|(price, _)| !step.has(is_bid, *price));
        shown.extend(entered.map(|(price, qty)| Change { is_bid, price, qty }));
    }
}

fn bounds(state: &Symbol, depth: u16) -> [Option<i64>; 2] {
    [state.bids.bound(depth.into()), state.asks.bound(depth.into())]
}

/// CRC32 over the ten best asks, then bids: price and quantity as digits without dot and leading zeros.
fn checksum(state: &Symbol, text: &mut Vec<u8>) -> u32 {
    text.clear();
    for side in [&state.asks, &state.bids] {
        for (price, qty) in side.best_first().take(CHECKSUM_LEVELS) {
            put_u64(text, price);
            put_u64(text, qty);
        }
    }
    crc32fast::hash(text)
}

fn put_book(
    out: &mut Vec<u8>,
    kind: &str,
    instrument: &Instrument,
    levels: &[Change],
    checksum: u32,
    time_us: i64,
    iso: &mut IsoClock,
) {
    put_head(out, "book", kind, instrument);
    for (key, is_bid) in [(b",\"bids\":[", true), (b",\"asks\":[", false)] {
        out.extend_from_slice(key);
        for (index, level) in levels.iter().filter(|level| level.is_bid == is_bid).enumerate() {
            out.extend_from_slice(if index > 0 { b",{\"price\":" } else { b"{\"price\":" });
            put_decimal(out, level.price, instrument.price_scale, instrument.price_decimals);
            out.extend_from_slice(b",\"qty\":");
            put_decimal(out, level.qty, instrument.qty_scale, instrument.qty_decimals);
            out.push(b'}');
        }
        out.push(b']');
    }
    out.extend_from_slice(b",\"checksum\":");
    put_u64(out, checksum.into());
    put_time(out, iso, time_us);
    out.extend_from_slice(b"]}");
}

fn put_trades(out: &mut Vec<u8>, kind: &str, instrument: &Instrument, trades: &[Trade], iso: &mut IsoClock) {
    for (index, trade) in trades.iter().enumerate() {
        if index == 0 {
            put_head(out, "trade", kind, instrument);
        } else {
            out.extend_from_slice(b",{\"symbol\":\"");
            out.extend_from_slice(instrument.symbol.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(if trade.is_buy {
            b",\"side\":\"buy\",\"price\":"
        } else {
            b",\"side\":\"sell\",\"price\":"
        });
        put_decimal(out, trade.price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(b",\"qty\":");
        put_decimal(out, trade.qty, instrument.qty_scale, instrument.qty_decimals);
        out.extend_from_slice(b",\"ord_type\":\"market\",\"trade_id\":");
        put_u64(out, trade.id);
        put_time(out, iso, trade.time_us);
    }
    out.extend_from_slice(b"]}");
}

fn put_ticker(out: &mut Vec<u8>, kind: &str, state: &Symbol, top: [(u64, u64); 2], time_us: i64, iso: &mut IsoClock) {
    let instrument = &state.instrument;
    put_head(out, "ticker", kind, instrument);
    for (price_key, qty_key, (price, qty)) in
        [(",\"bid\":", ",\"bid_qty\":", top[0]), (",\"ask\":", ",\"ask_qty\":", top[1])]
    {
        out.extend_from_slice(price_key.as_bytes());
        put_decimal(out, price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(qty_key.as_bytes());
        put_decimal(out, qty, instrument.qty_scale, instrument.qty_decimals);
    }
    let last = state.trades.back().map_or(top[0].0, |trade| trade.price);
    for key in [",\"last\":", ",\"vwap\":", ",\"low\":", ",\"high\":"] {
        out.extend_from_slice(key.as_bytes());
        put_decimal(out, last, instrument.price_scale, instrument.price_decimals);
    }
    out.extend_from_slice(b",\"volume\":163.28908096,\"change\":0.0,\"change_pct\":0.00");
    put_time(out, iso, time_us);
    out.extend_from_slice(b"]}");
}

fn put_head(out: &mut Vec<u8>, channel: &str, kind: &str, instrument: &Instrument) {
    for part in
        ["{\"channel\":\"", channel, "\",\"type\":\"", kind, "\",\"data\":[{\"symbol\":\"", &instrument.symbol, "\""]
    {
        out.extend_from_slice(part.as_bytes());
    }
}

fn put_time(out: &mut Vec<u8>, iso: &mut IsoClock, time_us: i64) {
    out.extend_from_slice(b",\"timestamp\":\"");
    iso.put(out, time_us);
    out.extend_from_slice(b"\"}");
}

/// Appends the body of `/0/public/Trades`: the pair's trades, and where the next page begins.
pub(super) fn put_rest_trades(out: &mut Vec<u8>, instrument: &Instrument, trades: &[Trade], since_ns: u64) {
    out.extend_from_slice(b"{\"error\":[],\"result\":{\"");
    out.extend_from_slice(pair_name(instrument).as_bytes());
    out.extend_from_slice(b"\":[");
    for (index, trade) in trades.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",[\"" } else { b"[\"" });
        put_decimal(out, trade.price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(b"\",\"");
        put_decimal(out, trade.qty, instrument.qty_scale, instrument.qty_decimals);
        out.extend_from_slice(b"\",");
        let time_us = trade.time_us.unsigned_abs();
        put_u64(out, time_us / 1_000_000);
        out.push(b'.');
        put_padded(out, time_us % 1_000_000, 6);
        out.extend_from_slice(if trade.is_buy { b",\"b\",\"m\",\"\"," } else { b",\"s\",\"m\",\"\"," });
        put_u64(out, trade.id);
        out.push(b']');
    }
    out.extend_from_slice(b"],\"last\":\"");
    put_u64(out, trades.last().map_or(since_ns, |trade| trade.time_us.unsigned_abs() * 1_000));
    out.extend_from_slice(b"\"}}");
}

/// Appends the body of `/0/public/AssetPairs`.
pub(super) fn put_asset_pairs(out: &mut Vec<u8>, symbols: &[Symbol]) {
    out.extend_from_slice(b"{\"error\":[],\"result\":{");
    for (index, Symbol { instrument, .. }) in symbols.iter().enumerate() {
        let Instrument { base, quote, price_scale, qty_scale, .. } = instrument;
        let base = rest_name(base);
        let comma = if index > 0 { "," } else { "" };
        let pair = pair_name(instrument);
        let text = format!(
            "{comma}\"{pair}\":{{\"altname\":\"{base}{quote}\",\"wsname\":\"{base}/{quote}\",\"base\":\"{base}\",\
             \"quote\":\"Z{quote}\",\"pair_decimals\":{price_scale},\"lot_decimals\":{qty_scale},\"status\":\"online\"}}"
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"}}");
}

/// Whether a REST `pair` means this instrument: `BTC/USD`, `BTCUSD`, `XBTUSD`, `XBT/USD` and `XXBTZUSD` do.
pub(super) fn is_pair(instrument: &Instrument, pair: &str) -> bool {
    let (base, quote, rest) = (&instrument.base, instrument.quote, rest_name(&instrument.base));
    let names =
        [instrument.symbol.clone(), format!("{base}{quote}"), format!("{rest}{quote}"), format!("{rest}/{quote}")];
    names.iter().any(|name| name.eq_ignore_ascii_case(pair)) || pair_name(instrument).eq_ignore_ascii_case(pair)
}

fn rest_name(base: &str) -> &str {
    match base {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        other => other,
    }
}

fn pair_name(instrument: &Instrument) -> String {
    let base = rest_name(&instrument.base);
    match base {
        "XBT" | "ETH" | "XRP" | "LTC" | "XLM" | "ETC" | "MLN" | "ZEC" => format!("X{base}Z{}", instrument.quote),
        _ => format!("{base}{}", instrument.quote),
    }
}

const DEPTH: u16 = 10;
const DEPTHS: [u16; 5] = [10, 25, 100, 500, 1_000];
const CHECKSUM_LEVELS: usize = 10;
const TRADES_IN_SNAPSHOT: u64 = 50;
