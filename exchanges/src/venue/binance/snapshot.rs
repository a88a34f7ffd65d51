//! Which snapshots are to be fetched by HTTP: a few at a time, one an instrument, later and later when the
//! answers do not serve.
//!
//! Nothing here changes any event: it only decides what is asked for. So it is not part of the saved state.

use std::{collections::VecDeque, time::Duration};

use super::Flavor;
use crate::{
    adapter::{Actions, HttpRequest},
    backfill::percent_encoded,
    by_symbol::BySymbol,
    ids::SymbolIx,
    symbols::Symbols,
};

/// Snapshots wanted on this connection.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    wants: BySymbol<Want>,
    /// First requests not yet sent, in order.
    waiting: VecDeque<SymbolIx>,
    /// First requests sent and not answered.
    in_flight: usize,
    limit: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Want {
    is_asked: bool,
    /// Counted in `in_flight`; a retry is not, so that one instrument's failure keeps no other waiting.
    has_slot: bool,
    attempts: u32,
}

impl Snapshots {
    /// Forgets everything: a new connection begins. `limit` is the number of levels a side to ask for.
    pub(super) fn reset(&mut self, limit: u32) {
        *self = Self { limit, ..Self::default() };
    }

    /// An instrument needs a snapshot. Nothing happens while one is on its way.
    pub(super) fn want(&mut self, flavor: Flavor, symbol: SymbolIx, symbols: &Symbols, actions: &mut Actions) {
        if !std::mem::replace(&mut self.wants.entry(symbol).is_asked, true) {
            self.waiting.push_back(symbol);
        }
        self.send_waiting(flavor, symbols, actions);
    }

    /// From now on asks for this number of levels a side.
    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// An answer for an instrument came; `serves` when its book is live. Otherwise it is asked again, as long
    /// as the instrument is recorded.
    pub(super) fn answered(
        &mut self,
        flavor: Flavor,
        symbol: SymbolIx,
        serves: bool,
        symbols: &Symbols,
        actions: &mut Actions,
    ) {
        let entry = self.wants.entry(symbol);
        let had_slot = std::mem::take(&mut entry.has_slot);
        if serves {
            *entry = Want::default();
        } else if entry.is_asked {
            entry.attempts = entry.attempts.saturating_add(1);
            let delay = delay(entry.attempts);
            actions.requests.push(self.request(flavor, symbol, symbols, delay));
        }
        self.in_flight -= usize::from(had_slot);
        self.send_waiting(flavor, symbols, actions);
    }

    /// The instrument is no longer recorded.
    pub(super) fn forget(&mut self, symbol: SymbolIx) {
        self.waiting.retain(|waiting| *waiting != symbol);
        let want = std::mem::take(self.wants.entry(symbol));
        self.in_flight -= usize::from(want.has_slot);
    }

    fn send_waiting(&mut self, flavor: Flavor, symbols: &Symbols, actions: &mut Actions) {
        while self.in_flight < IN_FLIGHT_MAX
            && let Some(symbol) = self.waiting.pop_front()
        {
            self.wants.entry(symbol).has_slot = true;
            self.in_flight += 1;
            actions.requests.push(self.request(flavor, symbol, symbols, FIRST_DELAY));
        }
    }

    fn request(&self, flavor: Flavor, symbol: SymbolIx, symbols: &Symbols, delay: Duration) -> HttpRequest {
        let name = symbols.name(symbol);
        let limit = self.limit.max(1);
        HttpRequest {
            tag: format!("{TAG}{name}"),
            path: format!("{}/depth?symbol={}&limit={limit}", flavor.rest_base(), percent_encoded(name)),
            weight: flavor.depth_weight(limit),
            delay,
        }
    }
}

/// The symbol a request's tag is about.
pub(super) fn symbol_of(tag: &str) -> Option<&str> {
    tag.strip_prefix(TAG)
}

/// The tag of a request, from the path and the symbol of a recorded answer's URL.
pub(super) fn tag_of(path: &str, symbol: &str) -> Option<String> {
    path.ends_with("/depth").then(|| format!("{TAG}{symbol}"))
}

fn delay(attempts: u32) -> Duration {
    RETRY_DELAY_MIN.saturating_mul(1 << attempts.min(10)).min(RETRY_DELAY_MAX)
}

const TAG: &str = "depth:";
/// First requests on their way at once, a lane.
const IN_FLIGHT_MAX: usize = 4;
/// Before a first request, so that the stream is sure to run when the snapshot is taken: a snapshot older
/// than the first delta has to be fetched again.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Doubled with every answer that does not serve ...
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// ... up to this.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(count: u32) -> Symbols {
        let mut symbols = Symbols::default();
        (0..count).for_each(|ix| drop(symbols.intern(&format!("S{ix}"))));
        symbols
    }

    fn tags(actions: &mut Actions) -> Vec<String> {
        std::mem::take(&mut actions.requests).into_iter().map(|request| request.tag).collect()
    }

    #[test]
    fn a_few_are_asked_for_at_a_time_and_the_next_when_one_is_answered() {
        let (mut snapshots, mut actions, symbols) = (Snapshots::default(), Actions::default(), symbols(6));
        (0..6).for_each(|ix| snapshots.want(Flavor::Spot, SymbolIx(ix), &symbols, &mut actions));
        assert_eq!(tags(&mut actions), ["depth:S0", "depth:S1", "depth:S2", "depth:S3"]);
        snapshots.want(Flavor::Spot, SymbolIx(0), &symbols, &mut actions);
        assert!(tags(&mut actions).is_empty());
        snapshots.answered(Flavor::Spot, SymbolIx(2), true, &symbols, &mut actions);
        assert_eq!(tags(&mut actions), ["depth:S4"]);
    }

    #[test]
    fn an_answer_that_does_not_serve_is_asked_again_later_and_later_and_keeps_no_other_waiting() {
        let (mut snapshots, mut actions, symbols) = (Snapshots::default(), Actions::default(), symbols(5));
        (0..5).for_each(|ix| snapshots.want(Flavor::Spot, SymbolIx(ix), &symbols, &mut actions));
        actions.clear();
        snapshots.answered(Flavor::Spot, SymbolIx(0), false, &symbols, &mut actions);
        let delays: Vec<_> = actions.requests.iter().map(|request| (&*request.tag, request.delay)).collect();
        assert_eq!(delays, [("depth:S0", Duration::from_millis(500)), ("depth:S4", FIRST_DELAY)]);
        for _ in 0..20 {
            actions.clear();
            snapshots.answered(Flavor::Spot, SymbolIx(0), false, &symbols, &mut actions);
        }
        assert_eq!(actions.requests[0].delay, RETRY_DELAY_MAX);
    }

    #[test]
    fn the_request_names_symbol_and_limit_and_costs_what_the_venue_says() {
        let (mut snapshots, mut actions, mut symbols) = (Snapshots::default(), Actions::default(), symbols(0));
        snapshots.reset(5_000);
        let symbol = symbols.intern("币安USDT").unwrap();
        snapshots.want(Flavor::Spot, symbol, &symbols, &mut actions);
        let HttpRequest { path, weight, .. } = &actions.requests[0];
        assert_eq!((path.as_str(), *weight), ("/api/v3/depth?symbol=%E5%B8%81%E5%AE%89USDT&limit=5000", 250));
    }
}
