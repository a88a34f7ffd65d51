//! Trades from Coinbase's REST service: `/products/{id}/trades?after=<id>&limit=<n>`, newest first, no key.

use std::time::Duration;

use super::{Market, wire};
use crate::{
    adapter::HttpRequest,
    backfill::{Refused, percent_encoded, query_value, tag},
    error::FrameError,
    event::{Flags, Trade},
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
    let path = format!("/products/{}/trades?after={}&limit={limit}", percent_encoded(name), last.saturating_add(2));
    HttpRequest { tag: tag(name, first), path, weight: 1, delay: Duration::ZERO }
}

/// The tag of a request, from the URL of a recorded answer.
pub(super) fn tag_of_url(url: &str) -> Option<String> {
    let (path, query) = url.split_once('?')?;
    let product = path.strip_suffix("/trades")?.rsplit_once("/products/")?.1;
    let number = |key| query_value(query, key)?.parse::<i64>().ok();
    let first = number("after")?.saturating_sub(number("limit")?);
    Some(tag(product, first))
}

/// Reads an answer: between its first and its last trade it leaves none out.
///
/// # Errors
///
/// It is no list of trades.
pub(super) fn page(symbol: SymbolIx, root: View<'_, '_>) -> Result<Page, Refused> {
    let items = root.items().ok_or_else(|| FrameError::field("(body)", "a list of trades", &root.shown()))?;
    let rows = items.map(|item| {
        let wire::Fill { trade_id, time, price, qty, side } = wire::Fill::read(item)?;
        let (flags, trade_ref) = (Flags::NONE, None);
        let trade = Trade { frame: 0, symbol, side, flags, time, price, qty, trade_id: Some(trade_id), trade_ref };
        Ok((trade_id, trade))
    });
    Ok(Page::contiguous(rows.collect::<Result<Vec<_>, FrameError>>()?))
}

/// Ids asked for at once: a page, with room for the one after them.
const PAGE_IDS: i64 = PAGE_ROWS - 1;
/// Most trades of an answer.
const PAGE_ROWS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backfill::tag_parts;

    #[test]
    fn exactly_the_missing_ids_and_the_one_after_them_are_asked_for() {
        let want = Want { first: 12, last: 14, since: None, is_old: false, tries: 0 };
        let HttpRequest { tag, path, weight, .. } = request("BTC-USD", &want);
        assert_eq!((tag.as_str(), weight), ("trades:BTC-USD:12", 1));
        assert_eq!(path, "/products/BTC-USD/trades?after=16&limit=4");
        assert_eq!(tag_parts(&tag), Some(("BTC-USD", "12")));
        let url = format!("https://api.exchange.coinbase.com{path}");
        assert_eq!(tag_of_url(&url), Some(tag));
    }
}
