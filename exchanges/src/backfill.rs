//! When to ask a venue for missing trades: one page an instrument, a few at once a lane, later and later when the
//! answers do not help.
//!
//! Which ids are missing is known by [`Holes`](crate::holes::Holes), whose state is saved. Nothing here changes
//! any event: it only decides what is asked for and when. So it is not part of the saved state; a new connection
//! asks for everything that is still missing.

use std::{collections::VecDeque, fmt::Display, time::Duration};

use crate::{
    adapter::{Actions, HttpRequest},
    by_symbol::BySymbol,
    error::{FrameError, head},
    ids::SymbolIx,
};

/// Trades asked for on this connection.
#[derive(Debug, Default)]
pub(crate) struct Backfills {
    asks: BySymbol<Ask>,
    /// Whose turn is next.
    waiting: VecDeque<SymbolIx>,
    /// Turns taken.
    in_flight: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ask {
    is_asked: bool,
    /// Has its turn. A request after a failure has none, so that one instrument keeps no other waiting.
    has_turn: bool,
    failures: u32,
    /// An answer has come on this connection.
    is_begun: bool,
}

/// How an answer served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Served {
    /// It brought something: the next page can be had at once.
    Yes,
    /// It did not.
    No,
}

impl Backfills {
    /// Forgets everything: a new connection begins.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// An instrument misses trades. Nothing happens while it is being asked for.
    #[inline]
    pub(crate) fn want(&mut self, symbol: SymbolIx) {
        if !std::mem::replace(&mut self.asks.entry(symbol).is_asked, true) {
            self.waiting.push_back(symbol);
        }
    }

    /// The instrument is no longer recorded.
    pub(crate) fn forget(&mut self, symbol: SymbolIx) {
        self.waiting.retain(|waiting| *waiting != symbol);
        let ask = std::mem::take(self.asks.entry(symbol));
        self.in_flight -= usize::from(ask.has_turn);
    }

    /// An answer about the instrument came. `request` makes what is to be asked next, `None` when nothing is missing.
    pub(crate) fn answered(
        &mut self,
        symbol: SymbolIx,
        served: Served,
        actions: &mut Actions,
        mut request: impl FnMut(SymbolIx) -> Option<HttpRequest>,
    ) {
        let ask = self.asks.entry(symbol);
        self.in_flight -= usize::from(std::mem::take(&mut ask.has_turn));
        if ask.is_asked {
            ask.is_begun = true;
            match served {
                Served::Yes => {
                    ask.failures = 0;
                    ask.is_asked = false;
                    self.want(symbol); // At the end of the line: all instruments come on.
                }
                Served::No => {
                    let delay = delay(ask.failures);
                    ask.failures = ask.failures.saturating_add(1);
                    match request(symbol) {
                        Some(request) => actions.requests.push(HttpRequest { delay, ..request }),
                        None => *ask = Ask::default(),
                    }
                }
            }
        }
        self.send(actions, request);
    }

    /// Whether an instrument waits for its turn and there is one.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.in_flight < IN_FLIGHT_MAX && !self.waiting.is_empty()
    }

    /// Asks for as much as may be asked for at once.
    pub(crate) fn send(&mut self, actions: &mut Actions, mut request: impl FnMut(SymbolIx) -> Option<HttpRequest>) {
        while self.is_due()
            && let Some(symbol) = self.waiting.pop_front()
        {
            let ask = self.asks.entry(symbol);
            match request(symbol) {
                Some(request) => {
                    let delay = if ask.is_begun { Duration::ZERO } else { FIRST_DELAY };
                    ask.has_turn = true;
                    self.in_flight += 1;
                    actions.requests.push(HttpRequest { delay, ..request });
                }
                None => *ask = Ask::default(),
            }
        }
    }
}

/// What a status other than 200 says of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// Not now: too many requests, or the venue has its troubles.
    Busy,
    /// The venue will answer the same again.
    Final,
    /// It may be otherwise next time.
    Odd,
}

impl Refusal {
    /// Reads a status and the body behind it. A refusal is final only in the venue's own words: a page of HTML is
    /// from something in between.
    fn of(status: u16, body: &[u8]) -> Self {
        match status {
            418 | 429 | 500..=599 => Self::Busy,
            400 | 401 | 403 | 404 | 410 | 451 if body.trim_ascii_start().starts_with(b"{") => Self::Final,
            _ => Self::Odd,
        }
    }
}

/// An answer that brings no trades.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) how: Refusal,
    pub(crate) error: FrameError,
}

impl Refused {
    /// One with a status other than 200.
    pub(crate) fn by_status(tag: &str, status: u16, body: &[u8]) -> Self {
        Self { how: Refusal::of(status, body), error: FrameError::Http { tag: tag.into(), status, head: head(body) } }
    }

    /// One in which the venue names its reason.
    pub(crate) fn by_venue(how: Refusal, reason: String) -> Self {
        Self { how, error: FrameError::Refused { what: "a request for trades".into(), reason } }
    }
}

/// One that cannot be read.
impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Self {
        Self { how: Refusal::Odd, error }
    }
}

/// The tag of a request for trades of an instrument; `what` tells it from others of the same instrument.
pub(crate) fn tag(name: &str, what: impl Display) -> String {
    format!("{TAG}{name}:{what}")
}

/// The instrument a request's tag is about, and which of its requests it is; `None` when it is not for trades.
pub(crate) fn tag_parts(tag: &str) -> Option<(&str, &str)> {
    tag.strip_prefix(TAG)?.rsplit_once(':')
}

/// The value of a key in the query of a URL.
pub(crate) fn query_value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// Everything but unreserved ASCII as `%XX`: some symbols are not ASCII.
pub(crate) fn percent_encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

fn delay(failures: u32) -> Duration {
    DELAY_MIN.saturating_mul(1 << failures.min(16)).min(DELAY_MAX)
}

/// What begins the tag of every request for trades.
const TAG: &str = "trades:";
/// Status of an answer that is one.
pub(crate) const STATUS_OK: u16 = 200;
/// Turns at once, a lane: half of what a session has under way, so that books are not kept waiting.
const IN_FLIGHT_MAX: usize = 2;
/// Before an instrument's first request, so that late trades have come and the venue's history has the new ones.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Before the request after the first failure; doubled with every further one ...
const DELAY_MIN: Duration = Duration::from_secs(1);
/// ... up to this.
const DELAY_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(symbol: SymbolIx) -> Option<HttpRequest> {
        let tag = format!("{TAG}{}", symbol.0);
        Some(HttpRequest { tag, path: "/".into(), weight: 1, delay: Duration::ZERO })
    }

    fn take(actions: &mut Actions) -> Vec<(String, Duration)> {
        std::mem::take(&mut actions.requests).into_iter().map(|request| (request.tag, request.delay)).collect()
    }

    #[test]
    fn a_few_instruments_at_once_and_in_turn() {
        let (mut backfills, mut actions) = (Backfills::default(), Actions::default());
        (0..4).for_each(|ix| backfills.want(SymbolIx(ix)));
        backfills.want(SymbolIx(0));
        backfills.send(&mut actions, request);
        assert_eq!(take(&mut actions), [("trades:0".into(), FIRST_DELAY), ("trades:1".into(), FIRST_DELAY)]);
        backfills.answered(SymbolIx(0), Served::Yes, &mut actions, request);
        assert_eq!(take(&mut actions), [("trades:2".into(), FIRST_DELAY)]);
        backfills.answered(SymbolIx(1), Served::Yes, &mut actions, |symbol| request(symbol).filter(|_| symbol.0 != 1));
        assert_eq!(take(&mut actions), [("trades:3".into(), FIRST_DELAY)]);
        backfills.answered(SymbolIx(2), Served::Yes, &mut actions, request);
        assert_eq!(take(&mut actions), [("trades:0".into(), Duration::ZERO)]);
    }

    #[test]
    fn what_does_not_serve_is_asked_again_later_and_later_and_gives_up_its_turn() {
        let (mut backfills, mut actions) = (Backfills::default(), Actions::default());
        (0..3).for_each(|ix| backfills.want(SymbolIx(ix)));
        backfills.send(&mut actions, request);
        take(&mut actions);
        backfills.answered(SymbolIx(0), Served::No, &mut actions, request);
        assert_eq!(take(&mut actions), [("trades:0".into(), DELAY_MIN), ("trades:2".into(), FIRST_DELAY)]);
        for _ in 0..40 {
            backfills.answered(SymbolIx(0), Served::No, &mut actions, request);
        }
        assert_eq!(take(&mut actions).pop(), Some(("trades:0".into(), DELAY_MAX)));
    }

    #[test]
    fn a_forgotten_instrument_gives_its_turn_to_the_next() {
        let (mut backfills, mut actions) = (Backfills::default(), Actions::default());
        (0..3).for_each(|ix| backfills.want(SymbolIx(ix)));
        backfills.send(&mut actions, request);
        backfills.forget(SymbolIx(0));
        take(&mut actions);
        backfills.answered(SymbolIx(0), Served::No, &mut actions, request);
        assert_eq!(take(&mut actions), [("trades:2".into(), FIRST_DELAY)]);
    }

    #[test]
    fn a_refusal_is_final_in_the_venues_own_words_only() {
        assert_eq!(Refusal::of(401, br#"{"code":-2014,"msg":"API-key format invalid."}"#), Refusal::Final);
        assert_eq!(Refusal::of(403, b"<html>"), Refusal::Odd);
        assert_eq!(Refusal::of(429, b"{}"), Refusal::Busy);
        assert_eq!(Refusal::of(503, b""), Refusal::Busy);
        assert_eq!(Refusal::of(302, b"{}"), Refusal::Odd);
    }
}
