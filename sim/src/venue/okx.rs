//! OKX's messages, v5.

use serde_json::Value;
use tapeway_exchanges::conn::Conn;

use super::{
    Answer, Channel, Venue,
    market::{Step, Symbol, Trade},
    text::decimal,
};

/// `subscribe` and `unsubscribe`, each argument acknowledged on its own.
pub(super) fn on_message(venue: &mut Venue, conn: Conn, message: &Value) {
    let op = message["op"].as_str().unwrap_or_default().to_owned();
    let is_subscribe = op == "subscribe";
    for arg in message["args"].as_array().into_iter().flatten() {
        let (wire, name) = (arg["channel"].as_str().unwrap_or_default(), arg["instId"].as_str().unwrap_or_default());
        let Some(index) = venue.symbols.iter().position(|symbol| symbol.name == name) else { continue };
        let channel = match wire {
            "trades" => Channel::Trades,
            "bbo-tbt" => Channel::Quotes,
            _ => Channel::Book,
        };
        venue.set_subscribed(conn, index, channel, is_subscribe);
        venue.push(conn, format!("{{\"event\":\"{op}\",\"arg\":{{\"channel\":\"{wire}\",\"instId\":\"{name}\"}}}}"));
        if !is_subscribe {
            continue;
        }
        let (symbol, ms) = (&venue.symbols[index], venue.now_us / 1_000);
        let text = match channel {
            Channel::Book => snapshot(symbol, ms),
            Channel::Trades => trade(symbol, &symbol.last_trade(), 0),
            Channel::Quotes | Channel::Heartbeat => quote(symbol, ms),
        };
        venue.push(conn, text);
    }
}

/// The messages of a step, each with its channel.
pub(super) fn frames(symbol: &Symbol, step: &Step, wrong_id: u64) -> Vec<(Channel, String)> {
    let ms = step.time_us / 1_000;
    let trades = symbol.trades[step.trades.clone()].iter();
    let mut frames: Vec<_> = trades.map(|one| (Channel::Trades, trade(symbol, one, wrong_id))).collect();
    frames.push((Channel::Quotes, quote(symbol, ms)));
    if !step.changes.is_empty() {
        let side = |is_bid: bool| {
            let side = step.changes.iter().filter(|((bid, _), _)| *bid == is_bid);
            side.map(|((_, price), qty)| level(*price, *qty)).collect::<Vec<_>>().join(",")
        };
        let ids = (step.previous_id + wrong_id, step.last_id);
        frames.push((Channel::Book, book("update", symbol, (side(false), side(true)), ids, ms)));
    }
    frames
}

/// What says that the connection is about to end.
pub(super) const NOTICE: &str = r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade.","connId":"1"}"#;

/// What says that a book lives, when nothing has changed.
pub(super) fn keep_alive(symbol: &Symbol, now_us: i64) -> String {
    let ids = (symbol.update_id, symbol.update_id);
    book("update", symbol, (String::new(), String::new()), ids, now_us / 1_000)
}

fn snapshot(symbol: &Symbol, ms: i64) -> String {
    let side = |levels: &mut dyn Iterator<Item = (&u64, &u64)>| {
        levels.map(|(price, qty)| level(*price, *qty)).collect::<Vec<_>>().join(",")
    };
    let (asks, bids) = (side(&mut symbol.asks.iter()), side(&mut symbol.bids.iter().rev()));
    let text = book("snapshot", symbol, (asks, bids), (0, symbol.update_id), ms);
    text.replace("\"prevSeqId\":0", "\"prevSeqId\":-1")
}

fn book(action: &str, symbol: &Symbol, (asks, bids): (String, String), (previous, id): (u64, u64), ms: i64) -> String {
    format!(
        "{{\"arg\":{{\"channel\":\"books\",\"instId\":\"{}\"}},\"action\":\"{action}\",\"data\":[{{\"asks\":[{asks}],\"bids\":[{bids}],\"ts\":\"{ms}\",\"checksum\":0,\"seqId\":{id},\"prevSeqId\":{previous}}}]}}",
        symbol.name
    )
}

fn level(price: u64, qty: u64) -> String {
    format!("[\"{}\",\"{}\",\"0\",\"1\"]", decimal(price, 2), decimal(qty, 8))
}

/// `/api/v5/market/history-trades?instId=&type=1&after=&limit=`: newest first, before an id.
pub(super) fn http(venue: &Venue, query: &dyn Fn(&str) -> Option<u64>, symbol: &Symbol) -> Answer {
    let after = query("after").unwrap_or(u64::MAX);
    let limit = usize::try_from(query("limit").unwrap_or(100)).unwrap_or(usize::MAX).min(100);
    let older = symbol.trades.iter().rev().filter(|trade| trade.id < after).take(venue.page(limit));
    let rows: Vec<_> = older.map(|trade| fill(symbol, trade, 0, "")).collect();
    Answer { status: 200, body: format!("{{\"code\":\"0\",\"msg\":\"\",\"data\":[{}]}}", rows.join(",")) }
}

fn trade(symbol: &Symbol, trade: &Trade, wrong_id: u64) -> String {
    let fill = fill(symbol, trade, wrong_id, ",\"count\":\"1\"");
    format!("{{\"arg\":{{\"channel\":\"trades\",\"instId\":\"{}\"}},\"data\":[{fill}]}}", symbol.name)
}

fn fill(symbol: &Symbol, trade: &Trade, wrong_id: u64, count: &str) -> String {
    format!(
        "{{\"instId\":\"{}\",\"tradeId\":\"{}\",\"px\":\"{}\",\"sz\":\"{}\",\"side\":\"{}\",\"ts\":\"{}\"{count}}}",
        symbol.name,
        trade.id + wrong_id,
        decimal(trade.price, 2),
        decimal(trade.qty, 8),
        if trade.is_buy { "buy" } else { "sell" },
        trade.time_us / 1_000
    )
}

fn quote(symbol: &Symbol, ms: i64) -> String {
    let [bid, ask] = symbol.top();
    format!(
        "{{\"arg\":{{\"channel\":\"bbo-tbt\",\"instId\":\"{}\"}},\"data\":[{{\"asks\":[{}],\"bids\":[{}],\"ts\":\"{ms}\",\"seqId\":{}}}]}}",
        symbol.name,
        level(ask.0, ask.1),
        level(bid.0, bid.1),
        symbol.update_id
    )
}
