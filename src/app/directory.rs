//! The venue's instrument list: what patterns are resolved against and what instruments are described by.

use futures_util::{SinkExt, StreamExt};
use tapeway_exchanges::{
    error::FrameError,
    metadata::{Instrument, ParseMessage, Source},
};
use thiserror::Error;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
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

/// The symbols that `patterns` mean: exact ones as written, wildcards by the instruments that trade. In the order of
/// the patterns, then of the list; each once.
pub(super) fn resolve(patterns: &[SymbolPattern], instruments: &[Instrument]) -> Vec<String> {
    let mut symbols: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for pattern in patterns {
        match pattern {
            SymbolPattern::Exact(symbol) => {
                if seen.insert(symbol.as_str()) {
                    symbols.push(symbol.clone());
                }
            }
            SymbolPattern::Glob(glob) => {
                let glob = WildMatch::new(glob);
                for instrument in instruments.iter().filter(|one| one.is_trading && glob.matches(&one.symbol)) {
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
    let known: std::collections::HashSet<&str> = instruments.iter().map(|one| one.symbol.as_str()).collect();
    let exact = patterns.iter().filter_map(|pattern| match pattern {
        SymbolPattern::Exact(symbol) => Some(symbol.as_str()),
        SymbolPattern::Glob(_) => None,
    });
    exact.filter(|symbol| !known.contains(symbol)).collect()
}

/// Longest wait for a list over WebSocket.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
