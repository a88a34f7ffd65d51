//! Coinbase Exchange feed: subscribe and `subscriptions`, `matches` with `last_match`, `level2_batch` with
//! `snapshot` and `l2update`, `heartbeat`.
//!
//! As the venue does, a subscription to `level2_batch` is acknowledged under the name `level2_50`, and `level2` asks
//! for authentication. `side` is the maker's.

use serde_json::Value;

use super::{
    engine::{Engine, json},
    faults::{Channel, FaultKind},
    hub::Hub,
    market::{Step, Symbol, Trade},
    text::{IsoClock, put_decimal, put_u64},
    truth::{BookIds, put_pairs},
    venue::Instrument,
};

/// Handles subscribe and unsubscribe.
pub(super) fn on_message(engine: &mut Engine, slot: usize, text: &str) {
    let Ok(request) = serde_json::from_str::<Value>(text) else {
        return refuse(engine, slot, "Malformed JSON", "");
    };
    let is_subscribe = match request.get("type").and_then(Value::as_str) {
        Some("subscribe") => true,
        Some("unsubscribe") => false,
        Some(_) | None => return refuse(engine, slot, "Type has to be either subscribe or unsubscribe", ""),
    };
    match wanted(engine, &request) {
        Err(reason) if is_subscribe => refuse(engine, slot, "Failed to subscribe", &reason),
        Err(reason) => refuse(engine, slot, "Failed to unsubscribe", &reason),
        Ok(wanted) if is_subscribe => {
            let refused = wanted.iter().find(|(channel, symbol)| {
                let name = engine.market.symbols.get(*symbol).map_or("", |state| state.instrument.symbol.as_str());
                engine.faults.strikes(FaultKind::RefuseSubscriptions, name, Some(*channel)).is_some()
            });
            if let Some((_, symbol)) = refused {
                let reason = format!("{} is not a valid product", engine.symbol_name(*symbol));
                return refuse(engine, slot, "Failed to subscribe", &reason);
            }
            acknowledge(engine, slot, &wanted);
            for (channel, symbol) in wanted {
                if !engine.hub.subscribed(slot, channel).any(|known| known == symbol) {
                    engine.begin_subscription(slot, symbol, channel, 0);
                }
            }
        }
        Ok(wanted) => {
            for (channel, symbol) in wanted {
                engine.cancel_late(slot, symbol, channel);
                if engine.hub.unsubscribe(slot, symbol, channel, None) {
                    engine.note_subscription("unsubscribe", slot, symbol, channel);
                }
            }
            acknowledge(engine, slot, &[]);
        }
    }
}

fn wanted(engine: &Engine, request: &Value) -> Result<Vec<(Channel, usize)>, String> {
    let names = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let shared = names(request.get("product_ids"));
    let channels = request.get("channels").and_then(Value::as_array).ok_or("channels must be an array")?;
    let mut wanted = Vec::new();
    for entry in channels {
        let name = entry.as_str().or_else(|| entry.get("name").and_then(Value::as_str)).unwrap_or("");
        let channel = match name {
            "matches" => Channel::Trades,
            "level2_batch" | "level2_50" => Channel::Book,
            "heartbeat" => Channel::Heartbeat,
            "level2" | "level3" | "full" => {
                return Err("level2, level3, and full channels now require authentication".into());
            }
            other => return Err(format!("{other} is not a valid channel")),
        };
        let mut products = names(entry.get("product_ids"));
        if products.is_empty() {
            products.clone_from(&shared);
        }
        if products.is_empty() {
            return Err("product_ids must be given".into());
        }
        for product in products {
            let symbol = engine.symbol_index(&product).ok_or_else(|| format!("{product} is not a valid product"))?;
            wanted.push((channel, symbol));
        }
    }
    Ok(wanted)
}

fn acknowledge(engine: &mut Engine, slot: usize, more: &[(Channel, usize)]) {
    let mut channels = Vec::new();
    for (channel, name) in
        [(Channel::Trades, "matches"), (Channel::Book, "level2_50"), (Channel::Heartbeat, "heartbeat")]
    {
        let mut symbols: Vec<usize> = engine.hub.subscribed(slot, channel).collect();
        symbols.extend(more.iter().filter(|(wanted, _)| *wanted == channel).map(|(_, symbol)| *symbol));
        symbols.sort_unstable();
        symbols.dedup();
        if !symbols.is_empty() {
            let products: Vec<_> = symbols.iter().map(|symbol| json(engine.symbol_name(*symbol))).collect();
            channels
                .push(format!("{{\"name\":\"{name}\",\"product_ids\":[{}],\"account_ids\":null}}", products.join(",")));
        }
    }
    let text = format!("{{\"type\":\"subscriptions\",\"channels\":[{}]}}", channels.join(","));
    engine.hub.send(slot, text.as_bytes());
}

fn refuse(engine: &mut Engine, slot: usize, message: &str, reason: &str) {
    let text = format!("{{\"type\":\"error\",\"message\":{},\"reason\":{}}}", json(message), json(reason));
    engine.hub.send(slot, text.as_bytes());
}

/// Sends what a new subscription begins with.
pub(super) fn snapshot(engine: &mut Engine, slot: usize, symbol: usize, channel: Channel) {
    let clock_us = engine.clock_us();
    let Engine { market, hub, truth, buf, iso, .. } = engine;
    let Some(state) = market.symbols.get(symbol) else { return };
    let (instrument, conn) = (&state.instrument, hub.conn(slot).map(|conn| conn.number));
    buf.clear();
    match channel {
        Channel::Book => {
            put_snapshot(buf, state, iso, clock_us);
            let fields = format!(",\"channel\":\"book\",\"before\":{}", truth.count());
            truth.note("snapshot", conn, &instrument.symbol, &fields);
        }
        Channel::Trades => {
            let Some(last) = state.trades.back() else { return };
            put_match(buf, "last_match", instrument, last, state.update_id, iso);
            let fields = format!(",\"channel\":\"trades\",\"id\":{},\"before\":{}", last.id, truth.count());
            truth.note("snapshot", conn, &instrument.symbol, &fields);
        }
        Channel::AggTrades | Channel::Quotes | Channel::Heartbeat => return,
    }
    hub.send(slot, buf);
}

/// Sends each heartbeat subscription its second's heartbeat.
pub(super) fn heartbeats(engine: &mut Engine) {
    let clock_us = engine.clock_us();
    let Engine { market, hub, faults, buf, iso, .. } = engine;
    for (symbol, state) in market.symbols.iter().enumerate() {
        if hub.has_subscribers(symbol, Channel::Heartbeat) {
            buf.clear();
            buf.extend_from_slice(b"{\"type\":\"heartbeat\",\"last_trade_id\":");
            put_u64(buf, state.last_trade_id());
            put_product(buf, &state.instrument);
            buf.extend_from_slice(b",\"sequence\":");
            put_u64(buf, state.update_id);
            put_time(buf, iso, clock_us);
            let fate = faults.fate(&state.instrument.symbol, Channel::Heartbeat);
            hub.deliver(symbol, Channel::Heartbeat, None, buf, fate);
        }
    }
}

/// Sends what a step brought; returns its rows.
pub(super) fn emit(engine: &mut Engine, step: &Step) -> u64 {
    let Engine { market, hub, faults, truth, stats, kinds, buf, iso, .. } = engine;
    let state = &market.symbols[step.symbol];
    let (instrument, symbol) = (&state.instrument, step.symbol);
    let mut rows = 0;
    let mut event = |channel: Channel, count: u64, put: &mut dyn FnMut(&mut Vec<u8>), hub: &mut Hub| {
        let fate = faults.fate(&instrument.symbol, channel);
        hub.sent.clear();
        if hub.has_subscribers(symbol, channel) {
            buf.clear();
            put(buf);
            hub.deliver(symbol, channel, None, buf, fate);
        }
        stats.add(symbol, channel, count, hub.sent.len());
        fate
    };
    if kinds.has_trades {
        for (index, trade) in step.trades.iter().enumerate() {
            let sequence = step.first_id + index as u64;
            let put = &mut |out: &mut Vec<u8>| put_match(out, "match", instrument, trade, sequence, iso);
            let fate = event(Channel::Trades, 1, put, hub);
            truth.trade(instrument, "trade", trade.id, trade, fate, &hub.sent);
            rows += 1;
        }
    }
    if kinds.has_book && !step.changes.is_empty() {
        let count = step.changes.len() as u64;
        let fate = event(Channel::Book, count, &mut |out| put_update(out, instrument, step, iso), hub);
        truth.book(instrument, BookIds::None, &step.changes, step.time_us, fate, &hub.sent);
        rows += count;
    }
    rows
}

fn put_match(out: &mut Vec<u8>, kind: &str, instrument: &Instrument, trade: &Trade, sequence: u64, iso: &mut IsoClock) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"trade_id\":");
    put_u64(out, trade.id);
    out.extend_from_slice(b",\"maker_order_id\":\"");
    put_order_id(out, trade.id.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    out.extend_from_slice(b"\",\"taker_order_id\":\"");
    put_order_id(out, trade.id.wrapping_mul(0xC2B2_AE3D_27D4_EB4F));
    // The maker's side: a buying aggressor met a sell order.
    out.extend_from_slice(if trade.is_buy { b"\",\"side\":\"sell\"" } else { b"\",\"side\":\"buy\"" });
    put_size_price(out, instrument, trade);
    put_product(out, instrument);
    out.extend_from_slice(b",\"sequence\":");
    put_u64(out, sequence);
    put_time(out, iso, trade.time_us);
}

fn put_update(out: &mut Vec<u8>, instrument: &Instrument, step: &Step, iso: &mut IsoClock) {
    out.extend_from_slice(b"{\"type\":\"l2update\"");
    put_product(out, instrument);
    out.extend_from_slice(b",\"changes\":[");
    for (index, change) in step.changes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(if change.is_bid { b"[\"buy\",\"" } else { b"[\"sell\",\"" });
        put_decimal(out, change.price, instrument.price_scale, instrument.price_decimals);
        out.extend_from_slice(b"\",\"");
        put_decimal(out, change.qty, instrument.qty_scale, instrument.qty_decimals);
        out.extend_from_slice(b"\"]");
    }
    out.push(b']');
    put_time(out, iso, step.time_us);
}

fn put_snapshot(out: &mut Vec<u8>, state: &Symbol, iso: &mut IsoClock, time_us: i64) {
    out.extend_from_slice(b"{\"type\":\"snapshot\"");
    put_product(out, &state.instrument);
    for (key, side) in [(b",\"asks\":", &state.asks), (b",\"bids\":", &state.bids)] {
        out.extend_from_slice(key);
        put_pairs(out, &state.instrument, side.best_first());
    }
    put_time(out, iso, time_us);
}

/// Appends the body of `/products`: all of them, or the one asked for without the list around it.
pub(super) fn put_products(out: &mut Vec<u8>, symbols: &[Symbol]) {
    out.push(b'[');
    for (index, state) in symbols.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_listing(out, &state.instrument);
    }
    out.push(b']');
}

/// Appends one product.
pub(super) fn put_listing(out: &mut Vec<u8>, instrument: &Instrument) {
    let Instrument { symbol, base, quote, price_scale, qty_scale, .. } = instrument;
    let unit = |scale: u32| {
        let mut text = Vec::new();
        put_decimal(&mut text, 1, scale, scale);
        String::from_utf8_lossy(&text).into_owned()
    };
    let (tick, lot) = (unit(*price_scale), unit(*qty_scale));
    let text = format!(
        "{{\"id\":\"{symbol}\",\"base_currency\":\"{base}\",\"quote_currency\":\"{quote}\",\"quote_increment\":\"{tick}\",\
         \"base_increment\":\"{lot}\",\"display_name\":\"{base}/{quote}\",\"min_market_funds\":\"1\",\
         \"margin_enabled\":false,\"post_only\":false,\"limit_only\":false,\"cancel_only\":false,\"status\":\"online\",\
         \"status_message\":\"\",\"trading_disabled\":false,\"fx_stablecoin\":false,\"auction_mode\":false}}"
    );
    out.extend_from_slice(text.as_bytes());
}

/// Appends the body of `/products/{id}/trades`, in the order given.
pub(super) fn put_trades<'a>(
    out: &mut Vec<u8>,
    instrument: &Instrument,
    trades: impl Iterator<Item = &'a Trade>,
    iso: &mut IsoClock,
) {
    out.push(b'[');
    for (index, trade) in trades.enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"trade_id\":" } else { b"{\"trade_id\":" });
        put_u64(out, trade.id);
        out.extend_from_slice(if trade.is_buy { b",\"side\":\"sell\"" } else { b",\"side\":\"buy\"" });
        put_size_price(out, instrument, trade);
        put_time(out, iso, trade.time_us);
    }
    out.push(b']');
}

fn put_size_price(out: &mut Vec<u8>, instrument: &Instrument, trade: &Trade) {
    out.extend_from_slice(b",\"size\":\"");
    put_decimal(out, trade.qty, instrument.qty_scale, instrument.qty_decimals);
    out.extend_from_slice(b"\",\"price\":\"");
    put_decimal(out, trade.price, instrument.price_scale, instrument.price_decimals);
    out.push(b'"');
}

fn put_product(out: &mut Vec<u8>, instrument: &Instrument) {
    out.extend_from_slice(b",\"product_id\":\"");
    out.extend_from_slice(instrument.symbol.as_bytes());
    out.push(b'"');
}

/// Appends the time as the object's last field, and the object's end.
fn put_time(out: &mut Vec<u8>, iso: &mut IsoClock, time_us: i64) {
    out.extend_from_slice(b",\"time\":\"");
    iso.put(out, time_us);
    out.extend_from_slice(b"\"}");
}

fn put_order_id(out: &mut Vec<u8>, hash: u64) {
    for (index, group) in (0_u32..).zip([8, 4, 4, 4, 12]) {
        if index > 0 {
            out.push(b'-');
        }
        for digit in 0..group {
            let shift = (digit * 4 + index * 13) % 61;
            out.push(HEX[(hash >> shift & 15) as usize]);
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Largest page of trades.
pub(super) const TRADES_LIMIT_MAX: u64 = 1_000;
