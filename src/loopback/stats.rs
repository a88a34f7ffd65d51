//! What a loopback venue has made and sent: the summary at the end and the answer to `GET /loopback/stats`.

use std::fmt::Write as _;

use super::{faults::Channel, hub::Hub, venue::Venue};

/// One venue's counts since the start.
#[derive(Clone, Debug)]
pub struct VenueStats {
    /// The venue.
    pub venue: Venue,
    /// Counts by symbol, in the order of [`Venue::symbols`]. Empty for a recording.
    pub symbols: Vec<SymbolStats>,
    /// All rows of the venue, a recording's too.
    pub total: Count,
    /// WebSocket frames and bytes given to connections.
    pub frames: u64,
    /// See `frames`.
    pub bytes: u64,
    /// Events in the truth file.
    pub events: u64,
    /// Connections since the start.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Clients disconnected because they read too slowly.
    pub slow_clients_cut: u64,
    /// Times the market fell so far behind its rate that it went on from the present.
    pub ticks_skipped: u64,
}

/// Counts of one symbol, by table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SymbolStats {
    /// Trades.
    pub trades: Count,
    /// Book levels.
    pub book: Count,
    /// Quotes.
    pub quotes: Count,
}

/// Rows: a trade, a book level, a quote.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// Rows the market made.
    pub made: u64,
    /// Rows given to at least one connection.
    pub sent: u64,
    /// Rows times the connections they were given to.
    pub deliveries: u64,
}

impl VenueStats {
    pub(super) fn new(venue: Venue, symbols: usize) -> Self {
        Self {
            venue,
            symbols: vec![SymbolStats::default(); symbols],
            total: Count::default(),
            frames: 0,
            bytes: 0,
            events: 0,
            connections: 0,
            connections_open: 0,
            subscriptions: 0,
            slow_clients_cut: 0,
            ticks_skipped: 0,
        }
    }

    /// Rows made so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.total.made
    }

    /// Adds rows that went to `conns` connections.
    pub(super) fn add(&mut self, symbol: usize, channel: Channel, rows: u64, conns: usize) {
        let added = Count { made: rows, sent: if conns > 0 { rows } else { 0 }, deliveries: rows * conns as u64 };
        self.total.add(added);
        if let Some(symbol) = self.symbols.get_mut(symbol) {
            match channel {
                Channel::Trades | Channel::AggTrades => symbol.trades.add(added),
                Channel::Book => symbol.book.add(added),
                Channel::Quotes => symbol.quotes.add(added),
                Channel::Heartbeat => {}
            }
        }
    }

    pub(super) fn finish(&mut self, hub: &Hub, events: u64) {
        self.frames = hub.frames;
        self.bytes = hub.bytes;
        self.events = events;
        self.connections_open = hub.len() as u64;
        self.subscriptions = hub.subscriptions() as u64;
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let count =
            |count: Count| serde_json::json!({"made": count.made, "sent": count.sent, "deliveries": count.deliveries});
        let names = self.venue.symbols(self.symbols.len());
        let symbols: serde_json::Map<_, _> = names
            .into_iter()
            .zip(&self.symbols)
            .map(|(name, symbol)| {
                let tables = [("trades", symbol.trades), ("book_deltas", symbol.book), ("quotes", symbol.quotes)];
                (name, tables.into_iter().map(|(table, rows)| (table.to_owned(), count(rows))).collect())
            })
            .collect();
        serde_json::json!({
            "venue": self.venue.name(),
            "rows": count(self.total),
            "frames": self.frames,
            "bytes": self.bytes,
            "events": self.events,
            "connections": self.connections,
            "connections_open": self.connections_open,
            "subscriptions": self.subscriptions,
            "slow_clients_cut": self.slow_clients_cut,
            "ticks_skipped": self.ticks_skipped,
            "symbols": symbols,
        })
    }

    /// As a few lines for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, count: Count| {
            writeln!(out, "  {name:<28} {:>14} {:>14} {:>14}", count.made, count.sent, count.deliveries)
                .expect("a string takes everything");
        };
        line(&format!("{} (made, sent, deliveries)", self.venue), self.total);
        for (name, symbol) in self.venue.symbols(self.symbols.len()).iter().zip(&self.symbols) {
            for (table, count) in [("trades", symbol.trades), ("book_deltas", symbol.book), ("quotes", symbol.quotes)] {
                if count.made > 0 {
                    line(&format!("  {name} {table}"), count);
                }
            }
        }
        out
    }
}

impl Count {
    const fn add(&mut self, more: Self) {
        self.made += more.made;
        self.sent += more.sent;
        self.deliveries += more.deliveries;
    }
}
