//! Binance's messages, spot and USD-M.

use serde_json::Value;
use tapeway_exchanges::conn::Conn;

use super::{
    Answer, Channel, Kind, Venue,
    market::{Step, Symbol, Trade},
    text::decimal,
};

/// SUBSCRIBE and its acknowledgement.
pub(super) fn on_message(venue: &mut Venue, conn: Conn, message: &Value) {
    let streams: Vec<String> =
        message["params"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let is_subscribe = message["method"] == "SUBSCRIBE";
    for stream in &streams {
        let Some((name, channel)) = stream.split_once('@') else { continue };
        let Some(symbol) = venue.symbols.iter().position(|symbol| symbol.name.eq_ignore_ascii_case(name)) else {
            continue;
        };
        let channel = match channel {
            "trade" => Channel::Trades,
            "bookTicker" => Channel::Quotes,
            _ => Channel::Book,
        };
        venue.set_subscribed(conn, symbol, channel, is_subscribe);
    }
    venue.push(conn, format!("{{\"result\":null,\"id\":{}}}", message["id"]));
}

/// What says that the connection is about to end.
pub(super) fn shutdown(now_us: i64) -> String {
    format!("{{\"e\":\"serverShutdown\",\"E\":{}}}", now_us / 1_000)
}

/// The messages of a step, each with its channel.
pub(super) fn frames(kind: Kind, symbol: &Symbol, step: &Step, wrong_id: u64) -> Vec<(Channel, String)> {
    let mut frames = Vec::new();
    let name = symbol.name;
    let lower = name.to_lowercase();
    for trade in &symbol.trades[step.trades.clone()] {
        let data = trade_data(kind, name, trade, wrong_id);
        frames.push((Channel::Trades, format!("{{\"stream\":\"{lower}@trade\",\"data\":{data}}}")));
    }
    let ms = step.time_us / 1_000;
    let [bid, ask] = symbol.top();
    let event =
        if kind == Kind::BinanceUsdm { format!("\"e\":\"bookTicker\",\"T\":{ms},\"E\":{ms},") } else { String::new() };
    frames.push((
        Channel::Quotes,
        format!(
            "{{\"stream\":\"{lower}@bookTicker\",\"data\":{{{event}\"u\":{},\"s\":\"{name}\",\"b\":\"{}\",\"B\":\"{}\",\"a\":\"{}\",\"A\":\"{}\"}}}}",
            symbol.update_id,
            decimal(bid.0, 2),
            decimal(bid.1, 8),
            decimal(ask.0, 2),
            decimal(ask.1, 8)
        ),
    ));
    if !step.changes.is_empty() {
        let side = |is_bid: bool| {
            let side = step.changes.iter().filter(|((bid, _), _)| *bid == is_bid);
            let levels: Vec<_> = side
                .map(|((_, price), qty)| format!("[\"{}\",\"{}\"]", decimal(*price, 2), decimal(*qty, 8)))
                .collect();
            levels.join(",")
        };
        let previous = if kind == Kind::BinanceUsdm {
            format!(",\"T\":{ms},\"pu\":{}", step.previous_id + wrong_id)
        } else {
            String::new()
        };
        frames.push((
            Channel::Book,
            format!(
                "{{\"stream\":\"{lower}@depth@100ms\",\"data\":{{\"e\":\"depthUpdate\",\"E\":{ms}{previous},\"s\":\"{name}\",\"U\":{},\"u\":{},\"b\":[{}],\"a\":[{}]}}}}",
                (step.first_id + wrong_id).min(step.last_id),
                step.last_id,
                side(true),
                side(false)
            ),
        ));
    }
    frames
}

fn trade_data(kind: Kind, name: &str, trade: &Trade, wrong_id: u64) -> String {
    let ms = trade.time_us / 1_000;
    let market = if kind == Kind::BinanceUsdm { ",\"X\":\"MARKET\"" } else { "" };
    format!(
        "{{\"e\":\"trade\",\"E\":{ms},\"T\":{ms},\"s\":\"{name}\",\"t\":{},\"p\":\"{}\",\"q\":\"{}\",\"m\":{}{market}}}",
        trade.id + wrong_id,
        decimal(trade.price, 2),
        decimal(trade.qty, 8),
        !trade.is_buy
    )
}

/// Depth snapshots and trades by REST.
pub(super) fn http(venue: &Venue, path: &str, query: &dyn Fn(&str) -> Option<u64>, symbol: &Symbol) -> Answer {
    let limit = usize::try_from(query("limit").unwrap_or(500)).unwrap_or(usize::MAX);
    let body = match path.rsplit('/').next().unwrap_or_default() {
        "depth" => {
            let side = |levels: &mut dyn Iterator<Item = (&u64, &u64)>| {
                let levels: Vec<_> = levels
                    .take(limit)
                    .map(|(price, qty)| format!("[\"{}\",\"{}\"]", decimal(*price, 2), decimal(*qty, 8)))
                    .collect();
                levels.join(",")
            };
            let time = if venue.kind == Kind::BinanceUsdm {
                format!("\"E\":{0},\"T\":{0},", venue.now_us / 1_000)
            } else {
                String::new()
            };
            format!(
                "{{{time}\"lastUpdateId\":{},\"bids\":[{}],\"asks\":[{}]}}",
                symbol.update_id,
                side(&mut symbol.bids.iter().rev()),
                side(&mut symbol.asks.iter())
            )
        }
        "historicalTrades" => {
            let from = query("fromId").unwrap_or_default();
            let rows: Vec<_> =
                symbol.trades.iter().filter(|trade| trade.id >= from).take(venue.page(limit)).map(single).collect();
            format!("[{}]", rows.join(","))
        }
        "trades" => {
            let count = symbol.trades.len();
            let rows: Vec<_> = symbol.trades[count.saturating_sub(venue.page(limit))..].iter().map(single).collect();
            format!("[{}]", rows.join(","))
        }
        "aggTrades" => {
            let (start, end) = (query("startTime").unwrap_or_default(), query("endTime").unwrap_or(u64::MAX));
            // Two of one parity are one aggregate.
            let mut groups: Vec<&[Trade]> = symbol.trades.chunk_by(|a, b| a.id / 2 == b.id / 2).collect();
            groups.retain(|group| (start..=end).contains(&(group[0].time_us.unsigned_abs() / 1_000)));
            let rows: Vec<_> = groups.iter().take(venue.page(limit)).map(|group| aggregate(group)).collect();
            format!("[{}]", rows.join(","))
        }
        _ => return Answer { status: 404, body: "{\"code\":-1,\"msg\":\"no such path\"}".into() },
    };
    Answer { status: 200, body }
}

fn single(trade: &Trade) -> String {
    format!(
        "{{\"id\":{},\"price\":\"{}\",\"qty\":\"{}\",\"time\":{},\"isBuyerMaker\":{}}}",
        trade.id,
        decimal(trade.price, 2),
        decimal(trade.qty, 8),
        trade.time_us / 1_000,
        !trade.is_buy
    )
}

fn aggregate(group: &[Trade]) -> String {
    let (first, last) = (group[0], group[group.len() - 1]);
    format!(
        "{{\"a\":{},\"p\":\"{}\",\"q\":\"{}\",\"f\":{},\"l\":{},\"T\":{},\"m\":{}}}",
        first.id / 2,
        decimal(first.price, 2),
        decimal(group.iter().map(|trade| trade.qty).sum(), 8),
        first.id,
        last.id,
        first.time_us / 1_000,
        !first.is_buy
    )
}
