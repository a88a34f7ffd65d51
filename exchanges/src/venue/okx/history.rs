//! Trades from OKX's REST service: `/api/v5/market/history-trades?instId=<id>&type=1&after=<id>&limit=<n>`, those before
//! an id, newest first, three months back, no key.
//!
//! ```text
//! {"code":"0","msg":"","data":[{"instId":"BTC-USDT","tradeId":"7","px":"..","sz":"..","side":"sell","ts":"1597026383085"},..]}
//! ```

use std::time::Duration;

use super::{Market, wire};
use crate::{
    adapter::{At, HttpRequest},
    backfill::{Refusal, Refused, percent_encoded, query_value, tag},
    error::FrameError,
    healing::History,
    holes::{Page, Want},
    ids::SymbolIx,
    json::View,
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
    let Want { first, last, .. } = *want;
    // One more than is missing, the one after them: when it comes, so has everything before it.
    let limit = last.saturating_sub(first).saturating_add(2).min(PAGE_ROWS);
    let (instrument, after) = (percent_encoded(name), last.saturating_add(2));
    let path = format!("{PATH}?instId={instrument}&type=1&after={after}&limit={limit}");
    HttpRequest { tag: tag(name, first), path, weight: 1, delay: Duration::ZERO }
}

/// The tag of a request, from the URL of a recorded answer.
pub(super) fn tag_of_url(url: &str) -> Option<String> {
    let (path, query) = url.split_once('?')?;
    let number = |key| query_value(query, key)?.parse::<i64>().ok();
    let first = number("after")?.saturating_sub(number("limit")?);
    path.ends_with(PATH).then_some(tag(query_value(query, "instId")?, first))
}

/// Reads an answer: between its first and its last trade it leaves none out.
///
/// # Errors
///
/// The venue's error and how it is meant, or that it is no list of trades.
pub(super) fn page(at: At, symbol: SymbolIx, root: View<'_, '_>) -> Result<Page, Refused> {
    let code = root.need_text("code")?;
    if code != "0" {
        let reason = root.get("msg").and_then(View::text).unwrap_or_default();
        return Err(Refused::by_venue(meaning(code), format!("{reason} (code {code})")));
    }
    let rows = root.need_items("data")?.map(|item| wire::trade(at, symbol, item));
    let rows = rows.map(|row| row.map(|((first, _), trade)| (first, trade)));
    Ok(Page::contiguous(rows.collect::<Result<Vec<_>, FrameError>>()?))
}

/// How a code of the venue is meant: those that begin with 51 are about what was asked for, those with 50 mostly about the
/// moment.
fn meaning(code: &str) -> Refusal {
    match code {
        "50001" | "50004" | "50011" | "50013" | "50026" | "50040" | "50061" => Refusal::Busy,
        _ if code.len() == 5 && code.starts_with("51") => Refusal::Final,
        _ => Refusal::Odd,
    }
}

/// Ids asked for at once: a page, with room for the one after them.
const PAGE_IDS: i64 = PAGE_ROWS - 1;
/// Most trades of an answer.
const PAGE_ROWS: i64 = 100;
const PATH: &str = "/api/v5/market/history-trades";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backfill::tag_parts;

    #[test]
    fn exactly_the_missing_ids_and_the_one_after_them_are_asked_for() {
        let want = Want { first: 12, last: 14, since: None, is_old: false, tries: 0 };
        let HttpRequest { tag, path, weight, .. } = request("BTC-USDT", &want);
        assert_eq!((tag.as_str(), weight), ("trades:BTC-USDT:12", 1));
        assert_eq!(path, "/api/v5/market/history-trades?instId=BTC-USDT&type=1&after=16&limit=4");
        assert_eq!(tag_parts(&tag), Some(("BTC-USDT", "12")));
        assert_eq!(tag_of_url(&format!("https://www.okx.com{path}")), Some(tag));
        assert_eq!(tag_of_url("https://www.okx.com/api/v5/market/trades?instId=BTC-USDT&after=16&limit=4"), None);
    }

    #[test]
    fn the_venue_is_busy_or_will_never_answer_or_neither() {
        assert_eq!(["50011", "50013"].map(meaning), [Refusal::Busy; 2]);
        assert_eq!(["51000", "51001"].map(meaning), [Refusal::Final; 2]);
        assert_eq!(["50014", "1", ""].map(meaning), [Refusal::Odd; 3]);
    }
}
