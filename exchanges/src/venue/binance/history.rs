//! Trades from Binance's REST services: what to ask for, and what the answers are.
//!
//! ```text
//! spot      historicalTrades?fromId   every trade, by id, far back; no key
//! futures   trades?limit=1000         the newest market trades, one by one; no key
//!           aggTrades?startTime       older ones, merged by price and side within 100 ms; no key
//!           historicalTrades?fromId   asks for a key (security type MARKET_DATA), so it is not used
//! ```
//!
//! An aggregate stands for the ids `f..=l` and is taken only if all of them are missing. NOTES.md has the
//! evidence.

use rust_decimal::Decimal;

use super::Flavor;
use crate::{
    adapter::{At, HttpRequest},
    backfill::{percent_encoded, query_value, tag, tag_parts},
    error::FrameError,
    event::{Flags, Side, Trade},
    holes::{Page, Want},
    ids::{Micros, SymbolIx},
    json::View,
    number,
    time::epoch,
};

/// What an answer holds, from its request's tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// Trades from this id on.
    From(i64),
    /// The newest trades.
    Recent,
    /// Aggregates of the hour that begins at this millisecond.
    Aggregates(i64),
}

/// The request for what is missing.
pub(super) fn request(flavor: Flavor, name: &str, want: &Want) -> HttpRequest {
    let symbol = percent_encoded(name);
    let base = flavor.rest_base();
    let Want { first, last, since, is_old, .. } = *want;
    let (what, path, weight) = match (flavor, since.filter(|_| is_old)) {
        (Flavor::Spot, _) => {
            // One more than is missing: when it comes, so has everything before it.
            let limit = last.saturating_sub(first).saturating_add(2).min(PAGE_ROWS);
            (format!("{first}"), format!("historicalTrades?symbol={symbol}&fromId={first}&limit={limit}"), 25)
        }
        (Flavor::Usdm | Flavor::Coinm, Some(since)) => {
            let start = since.0.div_euclid(1_000).saturating_sub(AGGREGATE_MS).max(0);
            let end = start.saturating_add(HOUR_MS - 1);
            let query = format!("symbol={symbol}&startTime={start}&endTime={end}&limit={PAGE_ROWS}");
            (format!("{AGGREGATES}{start}"), format!("aggTrades?{query}"), 20)
        }
        (Flavor::Usdm | Flavor::Coinm, None) => (RECENT.into(), format!("trades?symbol={symbol}&limit={PAGE_ROWS}"), 5),
    };
    let delay = std::time::Duration::ZERO;
    HttpRequest { tag: tag(name, what), path: format!("{base}/{path}"), weight, delay }
}

/// The kind of answer a request's tag is about; `None` when it is not for trades.
pub(super) fn asked(tag: &str) -> Option<Asked> {
    let (_, what) = tag_parts(tag)?;
    Some(match what.strip_prefix(AGGREGATES) {
        Some(start) => Asked::Aggregates(start.parse().ok()?),
        None if what == RECENT => Asked::Recent,
        None => Asked::From(what.parse().ok()?),
    })
}

/// The tag of a request, from the parts of a recorded answer's URL.
pub(super) fn tag_of(path: &str, symbol: &str, query: &str) -> Option<String> {
    let what = match path.rsplit('/').next()? {
        "historicalTrades" => query_value(query, "fromId")?.to_owned(),
        "trades" => RECENT.to_owned(),
        "aggTrades" => format!("{AGGREGATES}{}", query_value(query, "startTime")?),
        _ => return None,
    };
    Some(tag(symbol, what))
}

/// Reads an answer.
///
/// # Errors
///
/// [`FrameError`]: it is not what was asked for.
pub(super) fn page(at: At, symbol: SymbolIx, asked: Asked, root: View<'_, '_>) -> Result<Page, FrameError> {
    let items = root.items().ok_or_else(|| FrameError::field("(body)", "a list of trades", &root.shown()))?;
    let is_aggregate = matches!(asked, Asked::Aggregates(_));
    let rows = items.map(|item| if is_aggregate { aggregate(at, symbol, item) } else { trade(at, symbol, item) });
    let page = Page::contiguous(rows.collect::<Result<Vec<_>, _>>()?);
    Ok(match asked {
        Asked::From(id) => page.asked_from(id),
        Asked::Recent => Page { is_recent: true, lacks: Some(LACKS_OFF_BOOK), ..page },
        Asked::Aggregates(start) => {
            let silent_until = Some(Micros(start.saturating_add(HOUR_MS).saturating_mul(1_000)));
            let trades = without_overlaps(page.trades);
            Page { trades, silent_until, lacks: Some(LACKS_MERGED), ..page }
        }
    })
}

fn trade(at: At, symbol: SymbolIx, item: View<'_, '_>) -> Result<(i64, Trade), FrameError> {
    let id = item.need_int("id")?;
    let price = number::price("price", item.need_text("price")?)?;
    let qty = number::qty("qty", item.need_text("qty")?)?;
    let is_buyer_maker = item.get("isBuyerMaker").and_then(View::bool);
    Ok((id, row(at, symbol, id, (price, qty), (item.get("time"), is_buyer_maker, "isBuyerMaker"))?))
}

fn aggregate(at: At, symbol: SymbolIx, item: View<'_, '_>) -> Result<(i64, Trade), FrameError> {
    let (first, last) = (item.need_int("f")?, item.need_int("l")?);
    if first > last {
        return Err(FrameError::field("l", "the last id, not before the first", &last.to_string()));
    }
    let price = number::price("p", item.need_text("p")?)?;
    let qty = number::qty("q", item.need_text("q")?)?;
    let is_buyer_maker = item.get("m").and_then(View::bool);
    Ok((first, row(at, symbol, last, (price, qty), (item.get("T"), is_buyer_maker, "m"))?))
}

fn row(
    at: At,
    symbol: SymbolIx,
    id: i64,
    (price, qty): (Decimal, Decimal),
    (time, is_buyer_maker, field): (Option<View<'_, '_>>, Option<bool>, &'static str),
) -> Result<Trade, FrameError> {
    let is_buyer_maker = is_buyer_maker.ok_or_else(|| FrameError::missing(field, "true or false"))?;
    let venue_time = time.and_then(View::int).and_then(epoch);
    let flags = if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD };
    let time = venue_time.unwrap_or(at.received.micros());
    let side = if is_buyer_maker { Side::Sell } else { Side::Buy };
    Ok(Trade { frame: 0, symbol, side, flags, time, price, qty, trade_id: Some(id), trade_ref: None })
}

/// Rows by id, without those whose ids reach into another's: which trade belongs to which cannot be told.
fn without_overlaps(rows: Vec<(i64, Trade)>) -> Vec<(i64, Trade)> {
    let ends: Vec<_> = rows.iter().map(|(first, trade)| (*first, trade.trade_id.unwrap_or(*first))).collect();
    let mut reach = i64::MIN;
    let mut is_alone = Vec::with_capacity(ends.len());
    for (at, (first, last)) in ends.iter().enumerate() {
        is_alone.push(*first > reach && ends.get(at + 1).is_none_or(|(next, _)| next > last));
        reach = reach.max(*last);
    }
    rows.into_iter().zip(is_alone).filter(|(_, is_alone)| *is_alone).map(|(row, _)| row).collect()
}

/// Ids asked for at once: a page, with room for the one after them.
pub(super) const PAGE_IDS: i64 = PAGE_ROWS - 1;
/// Most rows of any of these answers.
const PAGE_ROWS: i64 = 1_000;
/// The longest stretch of aggregates that may be asked for.
const HOUR_MS: i64 = 3_600_000;
/// Trades are merged over 100 ms, and which of their times the aggregate has is not said.
const AGGREGATE_MS: i64 = 200;
const RECENT: &str = "recent";
const AGGREGATES: &str = "agg-";
const LACKS_OFF_BOOK: &str = "the venue serves market trades only and does not have them";
const LACKS_MERGED: &str = "the venue has them only merged with others, or not at all";

#[cfg(test)]
mod tests {
    use super::*;

    const WANT: Want = Want { first: 7, last: 9, since: Some(Micros(1_700_000_000_123_456)), is_old: false, tries: 0 };

    #[test]
    fn spot_is_asked_by_id() {
        let HttpRequest { tag, path, weight, .. } = request(Flavor::Spot, "BTCUSDT", &WANT);
        assert_eq!((tag.as_str(), weight), ("trades:BTCUSDT:7", 25));
        assert_eq!(path, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=7&limit=4");
        assert_eq!(asked(&tag), Some(Asked::From(7)));
        assert_eq!(request(Flavor::Spot, "X", &Want { last: i64::MAX, ..WANT }).path.rsplit('=').next(), Some("1000"));
    }

    #[test]
    fn futures_are_asked_for_the_newest_trades_and_then_by_time() {
        let HttpRequest { tag, path, weight, .. } = request(Flavor::Usdm, "BTCUSDT", &WANT);
        assert_eq!((path.as_str(), weight), ("/fapi/v1/trades?symbol=BTCUSDT&limit=1000", 5));
        assert_eq!(asked(&tag), Some(Asked::Recent));
        let HttpRequest { tag, path, weight, .. } =
            request(Flavor::Coinm, "BTCUSD_PERP", &Want { is_old: true, ..WANT });
        assert_eq!(weight, 20);
        assert_eq!(
            path,
            "/dapi/v1/aggTrades?symbol=BTCUSD_PERP&startTime=1699999999923&endTime=1700003599922&limit=1000"
        );
        assert_eq!(asked(&tag), Some(Asked::Aggregates(1_699_999_999_923)));
    }
}
