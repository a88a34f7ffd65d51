//! Coinbase Exchange's messages.

use serde_json::Value;
use tapeway_exchanges::conn::Conn;

use super::{
    Answer, Channel, Venue,
    market::{Step, Symbol, Trade},
    text::{decimal, rfc3339},
};

/// `subscribe` and `unsubscribe`.
pub(super) fn on_message(venue: &mut Venue, conn: Conn, message: &Value) {
    let texts = |key: &str| -> Vec<String> {
        message[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let is_subscribe = message["type"] == "subscribe";
    let (products, channels) = (texts("product_ids"), texts("channels"));
    let mut begun = Vec::new();
    for product in &products {
        let Some(symbol) = venue.symbols.iter().position(|symbol| symbol.name == product) else { continue };
        for channel in &channels {
            let channel = match channel.as_str() {
                "matches" => Channel::Trades,
                "heartbeat" => Channel::Heartbeat,
                _ => Channel::Book,
            };
            venue.set_subscribed(conn, symbol, channel, is_subscribe);
            if is_subscribe {
                begun.push((symbol, channel));
            }
        }
    }
    let list = listing(venue, conn);
    venue.push(conn, list);
    for (symbol, channel) in begun {
        match channel {
            Channel::Book => {
                let text = snapshot(&venue.symbols[symbol], venue.book_us(symbol));
                venue.renew(conn, symbol);
                venue.push(conn, text);
            }
            Channel::Trades => {
                let text = matched("last_match", &venue.symbols[symbol], &venue.symbols[symbol].last_trade(), 0);
                venue.push(conn, text);
            }
            Channel::Heartbeat | Channel::Quotes => {}
        }
    }
}

fn listing(venue: &Venue, conn: Conn) -> String {
    let channels = [(Channel::Trades, "matches"), (Channel::Book, "level2_batch"), (Channel::Heartbeat, "heartbeat")];
    let channels = channels.map(|(channel, name)| {
        let products: Vec<_> = venue
            .symbols
            .iter()
            .enumerate()
            .filter(|(index, _)| venue.is_subscribed(conn, *index, channel))
            .map(|(_, symbol)| format!("\"{}\"", symbol.name))
            .collect();
        format!("{{\"name\":\"{name}\",\"product_ids\":[{}]}}", products.join(","))
    });
    format!("{{\"type\":\"subscriptions\",\"channels\":[{}]}}", channels.join(","))
}

/// The messages of a step, each with its channel.
pub(super) fn frames(symbol: &Symbol, step: &Step, wrong_id: u64) -> Vec<(Channel, String)> {
    let mut frames = Vec::new();
    for trade in &symbol.trades[step.trades.clone()] {
        frames.push((Channel::Trades, matched("match", symbol, trade, wrong_id)));
    }
    if !step.changes.is_empty() {
        let changes: Vec<_> = step
            .changes
            .iter()
            .map(|((is_bid, price), qty)| {
                let side = if *is_bid { "buy" } else { "sell" };
                format!("[\"{side}\",\"{}\",\"{}\"]", decimal(*price, 2), decimal(*qty, 8))
            })
            .collect();
        frames.push((
            Channel::Book,
            format!(
                "{{\"type\":\"l2update\",\"product_id\":\"{}\",\"changes\":[{}],\"time\":\"{}\"}}",
                symbol.name,
                changes.join(","),
                rfc3339(step.time_us)
            ),
        ));
    }
    frames
}

/// A second's heartbeat.
pub(super) fn heartbeat(symbol: &Symbol, now_us: i64) -> String {
    format!(
        "{{\"type\":\"heartbeat\",\"last_trade_id\":{},\"product_id\":\"{}\",\"sequence\":1,\"time\":\"{}\"}}",
        symbol.last_trade().id,
        symbol.name,
        rfc3339(now_us)
    )
}

fn matched(kind: &str, symbol: &Symbol, trade: &Trade, wrong_id: u64) -> String {
    format!(
        "{{\"type\":\"{kind}\",\"trade_id\":{},\"side\":\"{}\",\"size\":\"{}\",\"price\":\"{}\",\"product_id\":\"{}\",\"sequence\":1,\"time\":\"{}\"}}",
        trade.id + wrong_id,
        if trade.is_buy { "sell" } else { "buy" },
        decimal(trade.qty, 8),
        decimal(trade.price, 2),
        symbol.name,
        rfc3339(trade.time_us)
    )
}

fn snapshot(symbol: &Symbol, now_us: i64) -> String {
    let side = |levels: &mut dyn Iterator<Item = (&u64, &u64)>| {
        let levels: Vec<_> =
            levels.map(|(price, qty)| format!("[\"{}\",\"{}\"]", decimal(*price, 2), decimal(*qty, 8))).collect();
        levels.join(",")
    };
    format!(
        "{{\"type\":\"snapshot\",\"product_id\":\"{}\",\"asks\":[{}],\"bids\":[{}],\"time\":\"{}\"}}",
        symbol.name,
        side(&mut symbol.asks.iter()),
        side(&mut symbol.bids.iter().rev()),
        rfc3339(now_us)
    )
}

/// `/products/{id}/trades?after=&limit=`: newest first, before an id.
pub(super) fn http(venue: &Venue, query: &dyn Fn(&str) -> Option<u64>, symbol: &Symbol) -> Answer {
    let after = query("after").unwrap_or(u64::MAX);
    let limit = usize::try_from(query("limit").unwrap_or(100)).unwrap_or(usize::MAX);
    let older = symbol.trades.iter().rev().filter(|trade| trade.id < after).take(venue.page(limit));
    let rows: Vec<_> = older
        .map(|trade| {
            format!(
                "{{\"trade_id\":{},\"side\":\"{}\",\"size\":\"{}\",\"price\":\"{}\",\"time\":\"{}\"}}",
                trade.id,
                if trade.is_buy { "sell" } else { "buy" },
                decimal(trade.qty, 8),
                decimal(trade.price, 2),
                rfc3339(trade.time_us)
            )
        })
        .collect();
    Answer { status: 200, body: format!("[{}]", rows.join(",")) }
}
