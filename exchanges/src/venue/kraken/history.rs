//! Trades from Kraken's REST service: `/0/public/Trades?pair=<pair>&since=<ns>`, oldest first, no key.
//!
//! ```text
//! {"error":[],"result":{"XXBTZUSD":[["30243.4","0.345",1688669597.8277369,"b","m","",61044952],..],"last":"<ns>"}}
//! ```
//!
//! The history is read by time: from just before the last trade ahead of the gap, page by page. The rows are
//! matched by their trade id.

use std::time::Duration;

use super::Market;
use crate::{
    adapter::HttpRequest,
    backfill::{Refusal, Refused, percent_encoded, tag},
    error::FrameError,
    event::{Flags, Side, Trade},
    healing::History,
    holes::{Page, Want},
    ids::SymbolIx,
    json::View,
    number, time,
};

/// The history, as asked for what is missing.
#[derive(Debug, Default)]
pub(super) struct Rest;

impl History for Rest {
    type Market = Market;

    fn request(&self, name: &str, market: &mut Market) -> Option<HttpRequest> {
        Some(request(name, &market.trades.want(PAGE_IDS)?))
    }
}

fn request(name: &str, want: &Want) -> HttpRequest {
    let Want { first, last, since, tries, .. } = *want;
    let pair = percent_encoded(&pair(name));
    // Trades of one moment with the one before the gap come along; if that was not enough, a whole page.
    let count = last.saturating_sub(first).saturating_add(MARGIN_ROWS);
    let count = if tries == 0 { count.min(PAGE_ROWS) } else { PAGE_ROWS };
    let since =
        since.map_or(String::new(), |since| format!("&since={}", since.0.saturating_mul(1_000).saturating_sub(1)));
    let path = format!("/0/public/Trades?pair={pair}{since}&count={count}");
    HttpRequest { tag: tag(name, first), path, weight: 1, delay: Duration::ZERO }
}

/// Reads an answer: between its first and its last trade it leaves none out.
///
/// # Errors
///
/// The venue's error and how it is meant, or that it is no list of trades.
pub(super) fn page(symbol: SymbolIx, root: View<'_, '_>) -> Result<Page, Refused> {
    if let Some(text) = root.need_items("error")?.find_map(View::text) {
        return Err(Refused::by_venue(meaning(text), text.into()));
    }
    let result = root.get("result").ok_or_else(|| FrameError::missing("result", "an object"))?;
    let trades = result.entries().find(|(key, _)| *key != "last").and_then(|(_, trades)| trades.items());
    let trades = trades.ok_or_else(|| FrameError::field("result", "a pair with a list of trades", &result.shown()))?;
    let rows = trades.map(|item| trade(symbol, item)).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::contiguous(rows))
}

/// How an error of the venue is meant: questions it will never answer, or a moment it cannot.
fn meaning(error: &str) -> Refusal {
    let is_final = ["EQuery:", "EGeneral:Invalid arguments", "EGeneral:Permission denied", "EAPI:Invalid key"];
    if is_final.iter().any(|beginning| error.starts_with(beginning)) { Refusal::Final } else { Refusal::Busy }
}

/// The name of a pair by REST: without the slash, with `XBT` for `BTC` and `XDG` for `DOGE`.
fn pair(name: &str) -> String {
    let asset = |name: &str| match name {
        "BTC" => "XBT".to_owned(),
        "DOGE" => "XDG".to_owned(),
        other => other.to_owned(),
    };
    name.split('/').map(asset).collect()
}

fn trade(symbol: SymbolIx, item: View<'_, '_>) -> Result<(i64, Trade), FrameError> {
    const RULE: &str = "price, volume, time, side, type, misc and trade id";
    let wrong = || FrameError::field("result", RULE, &item.shown());
    let mut values = item.items().ok_or_else(wrong)?;
    let mut text = || values.next().and_then(View::text).ok_or_else(wrong);
    let (price, qty, seconds, side) = (text()?, text()?, text()?, text()?);
    let id = values.nth(2).and_then(View::int).ok_or_else(wrong)?;
    let trade = Trade {
        frame: 0,
        symbol,
        side: match side {
            "b" => Side::Buy,
            "s" => Side::Sell,
            other => return Err(FrameError::field("side", "`b` or `s`", other)),
        },
        flags: Flags::NONE,
        time: time::seconds("time", seconds)?,
        price: number::price("price", price)?,
        qty: number::qty("volume", qty)?,
        trade_id: Some(id),
        trade_ref: None,
    };
    Ok((id, trade))
}

/// Ids asked for at once.
const PAGE_IDS: i64 = PAGE_ROWS - MARGIN_ROWS;
/// Most trades of an answer.
const PAGE_ROWS: i64 = 1_000;
/// Trades asked for beside the missing ones.
const MARGIN_ROWS: i64 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backfill::tag_parts;
    use crate::ids::Micros;

    #[test]
    fn the_history_is_asked_from_just_before_the_last_trade_ahead_of_the_gap() {
        let since = Some(Micros(1_688_669_597_827_736));
        let want = Want { first: 12, last: 14, since, is_old: false, tries: 0 };
        let HttpRequest { tag, path, weight, .. } = request("BTC/USD", &want);
        assert_eq!((tag.as_str(), weight), ("trades:BTC/USD:12", 1));
        assert_eq!(path, "/0/public/Trades?pair=XBTUSD&since=1688669597827735999&count=22");
        assert_eq!(tag_parts(&tag), Some(("BTC/USD", "12")));
        assert!(request("BTC/USD", &Want { tries: 1, ..want }).path.ends_with("count=1000"));
    }

    #[test]
    fn pairs_are_named_as_rest_does() {
        assert_eq!((pair("ETH/BTC"), pair("DOGE/EUR")), ("ETHXBT".into(), "XDGEUR".into()));
    }

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(meaning("EQuery:Unknown asset pair"), Refusal::Final);
        assert_eq!(meaning("EAPI:Rate limit exceeded"), Refusal::Busy);
        assert_eq!(meaning("EService:Unavailable"), Refusal::Busy);
    }
}
