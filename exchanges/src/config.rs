//! What a venue's planner needs to know: the checked form of `config/exchanges/<venue>.yaml`, and the
//! venue's own limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{event::Channel, top_book::OrderBooks};

/// One venue as configured, after every rule has passed and symbol patterns have been resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VenueConfig {
    /// The venue's name.
    pub venue: &'static str,
    /// Symbols as the venue spells them, without duplicates.
    pub symbols: Vec<String>,
    /// What to record of each.
    pub channels: Vec<Channel>,
    /// Book levels a side; `None` for the venue's default.
    pub book_depth: Option<u32>,
    /// When whole books are written; `None` for never.
    pub order_books: Option<OrderBooks>,
    /// At least this many lanes; more are made when the limits ask for it.
    pub lanes_min: usize,
    /// WebSocket base URL (scheme, host, port; a path only if the venue's own path is to be replaced).
    pub ws_url: String,
    /// REST base URL, without a trailing slash.
    pub http_url: String,
    /// Limits to plan within.
    pub limits: Limits,
}

/// What a venue allows one client. Sources: the venue's NOTES.md.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Subscribed streams (symbol times channel) on one connection.
    pub streams_per_connection: usize,
    /// Client messages a second on one connection.
    pub messages_per_second: u32,
    /// Connection attempts ...
    pub connects: u32,
    /// ... in this time, from one address.
    pub connects_per: Duration,
    /// REST request weight a minute, from one address.
    pub http_weight_per_minute: u32,
    /// Longest silence on a whole connection that is still normal.
    pub silence: Duration,
    /// How long a connection may live before the venue ends it; `None` when it does not.
    pub lifetime: Option<Duration>,
}
