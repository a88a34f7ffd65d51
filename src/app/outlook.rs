//! What would run: the plan of every venue, without starting anything. For `tapeway check`.

use std::{collections::HashSet, sync::Arc};

use tapeway_exchanges::{adapter::LanePlan, config::VenueConfig};

use super::directory::{self, DirectoryError};
use crate::{
    config::{Config, Venue},
    session::{VenueLink, connect::Dialer, tls},
};

/// One venue as it would run.
#[derive(Debug)]
pub struct Outlook {
    /// Its name.
    pub venue: &'static str,
    /// Symbols after patterns were resolved.
    pub symbols: usize,
    /// Streams: symbol times channel.
    pub streams: usize,
    /// Connections of each lane.
    pub redundancy: u32,
    /// The lanes.
    pub lanes: Vec<LanePlan>,
    /// Configured symbols that the venue's instrument list does not have; empty when the list was not asked for.
    pub unknown: Vec<String>,
    /// Why the venue's instrument list could not be had.
    pub list_error: Option<DirectoryError>,
}

/// Plans every venue. With `is_online`, asks the venues for their instrument lists; otherwise patterns stay
/// unresolved and their symbols uncounted.
///
/// # Errors
///
/// TLS trust cannot be loaded.
pub async fn outlook(config: &Config, is_online: bool) -> Result<Vec<Outlook>, tls::TlsError> {
    let dialer = Dialer::new(tls::client_config(config.ca_file.as_deref())?);
    let mut outlooks = Vec::new();
    for venue in &config.venues {
        let link = Arc::new(VenueLink::new(dialer.clone(), venue.limits));
        let list = if is_online { Some(directory::fetch(venue, &link).await) } else { None };
        let (list, list_error) = match list {
            Some(Ok(list)) => (list, None),
            Some(Err(error)) => (Vec::new(), Some(error)),
            None => (Vec::new(), None),
        };
        let unknown = if list.is_empty() { Vec::new() } else { directory::unknown(&venue.symbols, &list) };
        let unknown = unknown.into_iter().map(str::to_owned).collect();
        let config = venue_config(venue, directory::resolve(&venue.symbols, &list, &HashSet::new()));
        let lanes = (venue.spec.plan)(&config, &[]);
        let symbols = config.symbols.len();
        let streams = symbols * config.channels.len();
        let (name, redundancy) = (venue.spec.name, venue.redundancy);
        outlooks.push(Outlook { venue: name, symbols, streams, redundancy, lanes, unknown, list_error });
    }
    Ok(outlooks)
}

/// The planner's view of a venue.
pub(super) fn venue_config(venue: &Venue, symbols: Vec<String>) -> VenueConfig {
    VenueConfig {
        venue: venue.spec.name,
        symbols,
        channels: venue.channels.clone(),
        book_depth: venue.book_depth,
        order_books: venue.order_books,
        lanes_min: venue.lanes_min,
        ws_url: venue.ws_url.clone(),
        http_url: venue.http_url.clone(),
        limits: venue.limits,
    }
}
