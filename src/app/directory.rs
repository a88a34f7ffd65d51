//! The venue's instrument list: what patterns are resolved against and what instruments are described by.

use std::collections::HashSet;

use futures_util::{SinkExt, StreamExt};
use tapeway_exchanges::{
    error::FrameError,
    metadata::{self, Instrument, ParseMessage, Source},
};
use thiserror::Error;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::warn;
use wildmatch::WildMatch;

use crate::{
    config::{SymbolPattern, Venue},
    session::{VenueLink, connect::ConnectError, http},
};

/// Why an instrument list could not be had. All are tried again.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// No answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the list came.
    #[error("instrument list: {0}")]
    Socket(#[source] Box<tungstenite::Error>),
    /// The venue answered with an error.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The list could not be read.
    #[error("instrument list: {0}")]
    Frame(#[from] FrameError),
    /// The list has nothing in it: more likely a venue in trouble than one without instruments.
    #[error("the instrument list of {venue} is empty")]
    Empty {
        /// The venue.
        venue: &'static str,
    },
    /// The venue closed the connection, or stayed silent, without a list.
    #[error("{url} sent no instrument list within {after:?}")]
    Silent {
        /// Where.
        url: String,
        /// The limit.
        after: Duration,
    },
}

/// Fetches the instrument list of a venue.
///
/// # Errors
///
/// See [`DirectoryError`]; nothing is kept of a list that could not be read whole.
pub(super) async fn fetch(venue: &Venue, link: &VenueLink) -> Result<Vec<Instrument>, DirectoryError> {
    let mut list = fetch_any(venue, link).await?;
    let unnamed = metadata::drop_unnamed(&mut list);
    if unnamed > 0 {
        warn!(venue = venue.spec.name, unnamed, "instruments without a usable symbol in the venue's list are left out");
    }
    if list.is_empty() { Err(DirectoryError::Empty { venue: venue.spec.name }) } else { Ok(list) }
}

async fn fetch_any(venue: &Venue, link: &VenueLink) -> Result<Vec<Instrument>, DirectoryError> {
    match venue.spec.metadata {
        Source::Http { path, weight, parse } => {
            let url = format!("{}{path}", venue.http_url);
            link.http_weight.take(weight).await;
            let answer = http::get(&link.dialer, &url).await?;
            if answer.status != 200 {
                return Err(DirectoryError::Status { url, status: answer.status });
            }
            Ok(parse(&mut Vec::from(answer.body))?)
        }
        Source::WebSocket { path, subscribe, parse } => {
            let url = &format!("{}{path}", venue.ws_url);
            link.connects.take(1).await;
            timeout(LIST_TIMEOUT, listen(url, link, subscribe, parse))
                .await
                .unwrap_or_else(|_| Err(DirectoryError::Silent { url: url.clone(), after: LIST_TIMEOUT }))
        }
    }
}

async fn listen(
    url: &str,
    link: &VenueLink,
    subscribe: &str,
    parse: ParseMessage,
) -> Result<Vec<Instrument>, DirectoryError> {
    let broken = |failure| DirectoryError::Socket(Box::new(failure));
    let mut socket = link.dialer.websocket(url).await?;
    socket.send(Message::text(subscribe)).await.map_err(broken)?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(broken)? else { continue };
        if let Some(list) = parse(&mut text.as_bytes().to_vec())? {
            drop(socket.close(None).await);
            return Ok(list);
        }
    }
    Err(DirectoryError::Silent { url: url.into(), after: LIST_TIMEOUT })
}

/// Whether the venue's symbols cannot be known without its instrument list.
pub(super) fn needs_list(patterns: &[SymbolPattern]) -> bool {
    patterns.iter().any(|pattern| matches!(pattern, SymbolPattern::Glob(_)))
}

/// The symbols that `patterns` mean as far as that is known without the instrument list: exact ones as written, and of the
/// `recorded` those that match a wildcard, by name.
pub(super) fn remembered(patterns: &[SymbolPattern], recorded: &HashSet<String>) -> Vec<String> {
    let mut symbols = resolve(patterns, &[], recorded);
    let mut known: Vec<&String> = recorded.iter().filter(|symbol| !symbols.contains(symbol)).collect();
    known.sort();
    let is_match = |symbol: &str| {
        patterns.iter().any(|pattern| match pattern {
            SymbolPattern::Glob(glob) => WildMatch::new(glob).matches(symbol),
            SymbolPattern::Exact(_) => false,
        })
    };
    let matching: Vec<String> = known.into_iter().filter(|symbol| is_match(symbol)).cloned().collect();
    // Nothing of the pattern is known: a start that must wait, as the first does.
    if matching.is_empty() {
        return Vec::new();
    }
    symbols.extend(matching);
    symbols
}

/// The symbols that `patterns` mean: exact ones as written, wildcards by the instruments that trade, or are among the
/// `recorded`: one that is halted is still there when it trades again. In the order of the patterns, then of the list;
/// each once.
pub(super) fn resolve(
    patterns: &[SymbolPattern],
    instruments: &[Instrument],
    recorded: &HashSet<String>,
) -> Vec<String> {
    let is_wanted = |one: &Instrument| one.is_trading || recorded.contains(&*one.symbol);
    let mut symbols: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for pattern in patterns {
        match pattern {
            SymbolPattern::Exact(symbol) => {
                if seen.insert(symbol.as_str()) {
                    symbols.push(symbol.clone());
                }
            }
            SymbolPattern::Glob(glob) => {
                let glob = WildMatch::new(glob);
                for instrument in instruments.iter().filter(|one| is_wanted(one) && glob.matches(&one.symbol)) {
                    if seen.insert(instrument.symbol.as_str()) {
                        symbols.push(instrument.symbol.clone());
                    }
                }
            }
        }
    }
    symbols
}

/// Exact symbols that the venue's list does not have: most likely misspelt.
pub(super) fn unknown<'a>(patterns: &'a [SymbolPattern], instruments: &[Instrument]) -> Vec<&'a str> {
    let known: HashSet<&str> = instruments.iter().map(|one| one.symbol.as_str()).collect();
    let exact = patterns.iter().filter_map(|pattern| match pattern {
        SymbolPattern::Exact(symbol) => Some(symbol.as_str()),
        SymbolPattern::Glob(_) => None,
    });
    exact.filter(|symbol| !known.contains(symbol)).collect()
}

/// Longest wait for a list over WebSocket.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use tapeway_exchanges::metadata::InstrumentKind;

    use super::*;

    fn instrument(symbol: &str, is_trading: bool) -> Instrument {
        Instrument {
            symbol: symbol.into(),
            base: "B".into(),
            quote: "Q".into(),
            kind: InstrumentKind::Spot,
            expiry: None,
            price_tick: None,
            qty_step: None,
            contract_size: None,
            listed: None,
            is_trading,
        }
    }

    fn resolved(recorded: &[&str]) -> Vec<String> {
        let list = [instrument("AUSD", true), instrument("BUSD", false), instrument("CUSD", false)];
        let patterns = [SymbolPattern::Exact("ZEUR".into()), SymbolPattern::Glob("*USD".into())];
        resolve(&patterns, &list, &recorded.iter().map(|symbol| (*symbol).into()).collect())
    }

    #[test]
    fn a_pattern_means_what_trades_and_a_symbol_is_taken_at_its_word() {
        assert_eq!(resolved(&[]), ["ZEUR", "AUSD"]);
    }

    #[test]
    fn a_halt_does_not_end_a_symbols_recording_but_its_removal_from_the_list_does() {
        assert_eq!(resolved(&["BUSD", "GONEUSD"]), ["ZEUR", "AUSD", "BUSD"]);
    }
}
