//! The venues' REST answers, made by the engine from the same state as the streams.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    binance, coinbase,
    engine::Engine,
    kraken,
    market::{Symbol, Trade},
    query,
    venue::Venue,
};

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Sent this much later.
    pub(super) delay: Duration,
}

impl Answer {
    /// A JSON body with status 200.
    pub(super) const fn json(body: Vec<u8>) -> Self {
        Self { status: 200, headers: Vec::new(), body, delay: Duration::ZERO }
    }

    /// An error body with this status.
    pub(super) fn error(status: u16, body: String) -> Self {
        Self { status, ..Self::json(body.into_bytes()) }
    }

    /// A refusal in the venue's words.
    pub(super) fn denied(venue: Venue, status: u16) -> Self {
        let body = match venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => {
                r#"{"code":-1003,"msg":"Too much request weight used; please use WebSocket Streams for live updates."}"#
            }
            Venue::Coinbase => r#"{"message":"Public rate limit exceeded"}"#,
            Venue::Kraken => r#"{"error":["EAPI:Rate limit exceeded"]}"#,
        };
        let mut answer = Self::error(status, body.into());
        if status == 429 || status == 418 {
            answer.headers.push(("retry-after", "1".into()));
        }
        answer
    }
}

/// Answers a GET, now or (a depth snapshot) a little later.
pub(super) fn answer(engine: &mut Engine, path: &str, query: &str, reply: oneshot::Sender<Answer>) {
    let query = query::pairs(query);
    let is_depth = matches!(path, "/api/v3/depth" | "/fapi/v1/depth");
    let is_binance = matches!(engine.venue, Venue::BinanceSpot | Venue::BinanceUsdm);
    if is_binance && is_depth {
        return depth(engine, &query, reply);
    }
    let answer = match engine.venue {
        Venue::BinanceSpot | Venue::BinanceUsdm => binance_rest(engine, path, &query),
        Venue::Coinbase => coinbase_rest(engine, path, &query),
        Venue::Kraken => kraken_rest(engine, path, &query),
    };
    // Fails only when the client has gone already.
    drop(reply.send(answer.unwrap_or_else(|| Answer::error(404, r#"{"message":"NotFound"}"#.into()))));
}

fn depth(engine: &mut Engine, query: &[(String, String)], reply: oneshot::Sender<Answer>) {
    let name = query::value(query, "symbol").unwrap_or("");
    let Some(symbol) = engine.symbol_index(name) else {
        return drop(reply.send(Answer::error(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#.into())));
    };
    let (default, most) = if engine.venue == Venue::BinanceSpot { (100, 5_000) } else { (500, 1_000) };
    let limit = usize::try_from(query::number(query, "limit", default).clamp(1, most)).unwrap_or(usize::MAX);
    if let Some(recording) = engine.recording() {
        let answer = recording.depth(symbol, limit).map_or_else(
            || Answer::error(503, r#"{"code":-1000,"msg":"the recording holds no snapshot of this symbol"}"#.into()),
            Answer::json,
        );
        return drop(reply.send(answer));
    }
    engine.answer_depth(symbol, limit, reply);
}

fn find<'a>(symbols: &'a [Symbol], name: &str) -> Option<&'a Symbol> {
    symbols.iter().find(|state| state.instrument.symbol.eq_ignore_ascii_case(name))
}

/// The last `count` of what an iterator has, in its order.
fn latest<'a>(all: impl DoubleEndedIterator<Item = &'a Trade>, count: usize) -> Vec<&'a Trade> {
    let mut page: Vec<_> = all.rev().take(count).collect();
    page.reverse();
    page
}

fn binance_rest(engine: &mut Engine, path: &str, query: &[(String, String)]) -> Option<Answer> {
    let (venue, symbols, clock_us) = (engine.venue, &engine.market.symbols, engine.clock_us());
    let path = path.strip_prefix(if venue == Venue::BinanceSpot { "/api/v3/" } else { "/fapi/v1/" })?;
    let mut body = Vec::new();
    match path {
        "ping" => body.extend_from_slice(b"{}"),
        "time" => body.extend_from_slice(format!("{{\"serverTime\":{}}}", clock_us / 1_000).as_bytes()),
        "exchangeInfo" => binance::put_exchange_info(&mut body, venue, symbols, clock_us),
        "trades" | "historicalTrades" | "aggTrades" => {
            let Some(state) = find(symbols, query::value(query, "symbol").unwrap_or("")) else {
                return Some(Answer::error(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#.into()));
            };
            let limit = usize::try_from(query::number(query, "limit", 500).clamp(1, 1_000)).unwrap_or(usize::MAX);
            let from = query::value(query, "fromId").and_then(|id| id.parse().ok());
            // Trades outside the book have an id in the stream and are not to be had here.
            let served = |trade: &&Trade| !trade.is_off_book;
            if path == "aggTrades" {
                let micros = |key, default| {
                    i64::try_from(query::number(query, key, default)).unwrap_or(i64::MAX).saturating_mul(1_000)
                };
                let (start_us, end_us) = (micros("startTime", 0), micros("endTime", u64::MAX).saturating_add(999));
                let is_latest = from.is_none() && start_us == 0;
                let within = |trade: &&Trade| (start_us..=end_us).contains(&trade.time_us) && served(trade);
                let all = state.trades_from(from.map_or(0, binance::trade_id)).filter(within);
                let page: Vec<&Trade> = if is_latest { latest(all, limit) } else { all.take(limit).collect() };
                binance::put_agg_trades(&mut body, venue, &state.instrument, page.into_iter());
            } else {
                let from = from.filter(|_| path == "historicalTrades");
                let all = state.trades_from(from.unwrap_or(0)).filter(served);
                let page: Vec<&Trade> = if from.is_none() { latest(all, limit) } else { all.take(limit).collect() };
                binance::put_trades(&mut body, venue, &state.instrument, page.into_iter());
            }
        }
        _ => return None,
    }
    Some(Answer::json(body))
}

fn coinbase_rest(engine: &mut Engine, path: &str, query: &[(String, String)]) -> Option<Answer> {
    let Engine { market, iso, .. } = engine;
    let mut body = Vec::new();
    if path == "/products" {
        coinbase::put_products(&mut body, &market.symbols);
        return Some(Answer::json(body));
    }
    let rest = path.strip_prefix("/products/")?;
    let (product, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let state = find(&market.symbols, &query::decode(product))?;
    match rest {
        "" => {
            coinbase::put_listing(&mut body, &state.instrument);
            Some(Answer::json(body))
        }
        "trades" => {
            let limit = query::number(query, "limit", coinbase::TRADES_LIMIT_MAX).clamp(1, coinbase::TRADES_LIMIT_MAX);
            let (after, before) = (query::number(query, "after", u64::MAX), query::number(query, "before", 0));
            // Newest first: trades older than `after` and newer than `before`.
            let end = after.min(state.last_trade_id() + 1);
            let first = end.saturating_sub(limit).max(before.saturating_add(1));
            let page: Vec<&Trade> = state.trades_from(first).take_while(|trade| trade.id < end).collect();
            coinbase::put_trades(&mut body, &state.instrument, page.iter().rev().copied(), iso);
            let mut answer = Answer::json(body);
            if let (Some(oldest), Some(newest)) = (page.first(), page.last()) {
                answer.headers = vec![("cb-before", newest.id.to_string()), ("cb-after", oldest.id.to_string())];
            }
            Some(answer)
        }
        _ => None,
    }
}

fn kraken_rest(engine: &mut Engine, path: &str, query: &[(String, String)]) -> Option<Answer> {
    let symbols = &engine.market.symbols;
    let mut body = Vec::new();
    match path {
        "/0/public/AssetPairs" => kraken::put_asset_pairs(&mut body, symbols),
        "/0/public/Time" => {
            let second = engine.clock_us() / 1_000_000;
            body.extend_from_slice(format!("{{\"error\":[],\"result\":{{\"unixtime\":{second}}}}}").as_bytes());
        }
        "/0/public/Trades" => {
            let pair = query::value(query, "pair").unwrap_or("");
            let Some(state) = symbols.iter().find(|state| kraken::is_pair(&state.instrument, pair)) else {
                return Some(Answer::json(br#"{"error":["EQuery:Unknown asset pair"]}"#.to_vec()));
            };
            let since_ns = query::value(query, "since").map_or(0, since_ns);
            let count = usize::try_from(query::number(query, "count", 1_000).clamp(1, 1_000)).unwrap_or(usize::MAX);
            // Without `since` the latest trades; with it the first ones after it.
            let first = if since_ns == 0 { (state.last_trade_id() + 1).saturating_sub(count as u64) } else { 0 };
            let page = state.trades_from(first).filter(|trade| trade.time_us.unsigned_abs() * 1_000 > since_ns);
            let page: Vec<Trade> = page.take(count).copied().collect();
            kraken::put_rest_trades(&mut body, &state.instrument, &page, since_ns);
        }
        _ => return None,
    }
    Some(Answer::json(body))
}

/// `since` is nanoseconds, or seconds where it is too small for that, with or without a fraction.
fn since_ns(text: &str) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().unwrap_or(0);
    if whole >= SECONDS_MAX {
        return whole;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    whole.saturating_mul(1_000_000_000).saturating_add(digits.parse().unwrap_or(0))
}

/// The year 5138: a `since` from here on is not seconds.
const SECONDS_MAX: u64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_read_as_seconds_or_nanoseconds() {
        assert_eq!(since_ns("1616663618"), 1_616_663_618_000_000_000);
        assert_eq!(since_ns("1616663618.25"), 1_616_663_618_250_000_000);
        assert_eq!(since_ns("1616663618250000001"), 1_616_663_618_250_000_001);
        assert_eq!(since_ns("x"), 0);
    }
}
