//! Kraken's messages, WebSocket v2.

use serde_json::Value;
use tapeway_exchanges::conn::Conn;

use super::{
    Answer, Channel, Venue,
    market::{Step, Symbol, Trade},
    text::{EPOCH_US, decimal, rfc3339},
};

/// `subscribe` and `unsubscribe`, each symbol acknowledged on its own.
pub(super) fn on_message(venue: &mut Venue, conn: Conn, message: &Value) {
    let params = &message["params"];
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    let is_subscribe = method == "subscribe";
    let wire = params["channel"].as_str().unwrap_or_default().to_owned();
    let channel = match wire.as_str() {
        "trade" => Channel::Trades,
        "ticker" => Channel::Quotes,
        _ => Channel::Book,
    };
    let names: Vec<String> =
        params["symbol"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    for name in names {
        let Some(index) = venue.symbols.iter().position(|symbol| symbol.name == name) else { continue };
        venue.set_subscribed(conn, index, channel, is_subscribe);
        let depth = if channel == Channel::Book { format!("\"depth\":{},", params["depth"]) } else { String::new() };
        let done = format!(
            "{{\"method\":\"{method}\",\"result\":{{\"channel\":\"{wire}\",{depth}\"symbol\":\"{name}\"}},\"success\":true}}"
        );
        venue.push(conn, done);
        if !is_subscribe {
            continue;
        }
        let (symbol, now_us) = (&venue.symbols[index], venue.now_us);
        let text = match channel {
            Channel::Book => {
                let text = snapshot(symbol, venue.book_us(index));
                venue.renew(conn, index);
                text
            }
            Channel::Trades => {
                let latest = &symbol.trades[symbol.trades.len().saturating_sub(SNAPSHOT_TRADES)..];
                trades("snapshot", symbol, latest, 0)
            }
            Channel::Quotes | Channel::Heartbeat => ticker("snapshot", symbol, now_us),
        };
        venue.push(conn, text);
    }
}

/// The messages of a step, each with its channel.
pub(super) fn frames(symbol: &Symbol, step: &Step, (wrong_id, wrong_checksum): (u64, bool)) -> Vec<(Channel, String)> {
    let mut frames = Vec::new();
    if !step.trades.is_empty() {
        frames.push((Channel::Trades, trades("update", symbol, &symbol.trades[step.trades.clone()], wrong_id)));
    }
    frames.push((Channel::Quotes, ticker("update", symbol, step.time_us)));
    if !step.changes.is_empty() {
        let side = |is_bid: bool| {
            let side = step.changes.iter().filter(|((bid, _), _)| *bid == is_bid);
            side.map(|((_, price), qty)| level(*price, *qty)).collect::<Vec<_>>().join(",")
        };
        let checksum = checksum(symbol) ^ u32::from(wrong_checksum);
        frames.push((
            Channel::Book,
            format!(
                "{{\"channel\":\"book\",\"type\":\"update\",\"data\":[{{\"symbol\":\"{}\",\"bids\":[{}],\"asks\":[{}],\"checksum\":{checksum},\"timestamp\":\"{}\"}}]}}",
                symbol.name,
                side(true),
                side(false),
                rfc3339(step.time_us)
            ),
        ));
    }
    frames
}

/// A second's heartbeat.
pub(super) const HEARTBEAT: &str = "{\"channel\":\"heartbeat\"}";

fn level(price: u64, qty: u64) -> String {
    format!("{{\"price\":{},\"qty\":{}}}", decimal(price, 2), decimal(qty, 8))
}

fn snapshot(symbol: &Symbol, now_us: i64) -> String {
    let side = |levels: &mut dyn Iterator<Item = (&u64, &u64)>| {
        levels.map(|(price, qty)| level(*price, *qty)).collect::<Vec<_>>().join(",")
    };
    format!(
        "{{\"channel\":\"book\",\"type\":\"snapshot\",\"data\":[{{\"symbol\":\"{}\",\"bids\":[{}],\"asks\":[{}],\"checksum\":{},\"timestamp\":\"{}\"}}]}}",
        symbol.name,
        side(&mut symbol.bids.iter().rev()),
        side(&mut symbol.asks.iter()),
        checksum(symbol),
        rfc3339(now_us)
    )
}

fn checksum(symbol: &Symbol) -> u32 {
    let mut text = String::new();
    for (price, qty) in symbol.asks.iter().take(10).chain(symbol.bids.iter().rev().take(10)) {
        text.push_str(&format!("{price}{qty}"));
    }
    crc32fast::hash(text.as_bytes())
}

fn trades(kind: &str, symbol: &Symbol, list: &[Trade], wrong_id: u64) -> String {
    let rows: Vec<_> = list
        .iter()
        .map(|trade| {
            format!(
                "{{\"symbol\":\"{}\",\"side\":\"{}\",\"price\":{},\"qty\":{},\"ord_type\":\"market\",\"trade_id\":{},\"timestamp\":\"{}\"}}",
                symbol.name,
                if trade.is_buy { "buy" } else { "sell" },
                decimal(trade.price, 2),
                decimal(trade.qty, 8),
                trade.id + wrong_id,
                rfc3339(trade.time_us)
            )
        })
        .collect();
    format!("{{\"channel\":\"trade\",\"type\":\"{kind}\",\"data\":[{}]}}", rows.join(","))
}

fn ticker(kind: &str, symbol: &Symbol, time_us: i64) -> String {
    let [bid, ask] = symbol.top();
    format!(
        "{{\"channel\":\"ticker\",\"type\":\"{kind}\",\"data\":[{{\"symbol\":\"{}\",\"bid\":{},\"bid_qty\":{},\"ask\":{},\"ask_qty\":{},\"last\":{},\"timestamp\":\"{}\"}}]}}",
        symbol.name,
        decimal(bid.0, 2),
        decimal(bid.1, 8),
        decimal(ask.0, 2),
        decimal(ask.1, 8),
        decimal(symbol.last_trade().price, 2),
        rfc3339(time_us)
    )
}

/// `/0/public/Trades?pair=&since=&count=`: oldest first, after a moment.
pub(super) fn http(venue: &Venue, query: &dyn Fn(&str) -> Option<u64>, symbol: &Symbol) -> Answer {
    let since = query("since").unwrap_or_default();
    let count = usize::try_from(query("count").unwrap_or(1_000)).unwrap_or(usize::MAX);
    let later = symbol.trades.iter().filter(|trade| moment(trade).unsigned_abs() * 1_000 > since);
    let rows: Vec<_> = later
        .take(venue.page(count))
        .map(|trade| {
            let time_us = moment(trade);
            format!(
                "[\"{}\",\"{}\",{}.{:06},\"{}\",\"m\",\"\",{}]",
                decimal(trade.price, 2),
                decimal(trade.qty, 8),
                time_us / 1_000_000,
                time_us % 1_000_000,
                if trade.is_buy { "b" } else { "s" },
                trade.id
            )
        })
        .collect();
    Answer {
        status: 200,
        body: format!("{{\"error\":[],\"result\":{{\"PAIR\":[{}],\"last\":\"1\"}}}}", rows.join(",")),
    }
}

fn moment(trade: &Trade) -> i64 {
    trade.time_us.max(EPOCH_US)
}

/// Trades of a snapshot.
const SNAPSHOT_TRADES: usize = 5;
