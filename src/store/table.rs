//! The tables that events go to, named once.

use std::time::Duration;

use tapeway_exchanges::event::Channel;

use crate::config::{Database, TablePolicy};

/// A table of events in schema `market_data`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// Trades.
    Trades,
    /// Changed and snapshot levels of order books.
    BookDeltas,
    /// Best bid and ask.
    Quotes,
    /// Whole books at moments.
    OrderBooks,
}

impl Table {
    /// Every table, in the order a transaction writes them.
    pub const ALL: [Self; Self::COUNT] = [Self::Trades, Self::BookDeltas, Self::Quotes, Self::OrderBooks];
    /// How many there are.
    pub const COUNT: usize = 4;

    /// Name without schema, as in `database.tables` of the configuration and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::BookDeltas => "book_deltas",
            Self::Quotes => "quotes",
            Self::OrderBooks => "order_books",
        }
    }

    /// Name with schema.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Trades => "market_data.trades",
            Self::BookDeltas => "market_data.book_deltas",
            Self::Quotes => "market_data.quotes",
            Self::OrderBooks => "market_data.order_books",
        }
    }

    /// The channel its rows are of.
    #[must_use]
    pub const fn channel(self) -> Channel {
        match self {
            Self::Trades => Channel::Trades,
            Self::BookDeltas | Self::OrderBooks => Channel::Book,
            Self::Quotes => Channel::Quotes,
        }
    }

    /// Columns in the order in which rows are encoded.
    #[must_use]
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Trades => &[
                "time",
                "recv_time",
                "instrument_id",
                "price",
                "qty",
                "side",
                "trade_id",
                "trade_ref",
                "flags",
                "lane_id",
                "frame_pos",
            ],
            Self::BookDeltas => {
                &["time", "recv_time", "instrument_id", "side", "price", "qty", "seq", "flags", "lane_id", "frame_pos"]
            }
            Self::Quotes => &[
                "time",
                "recv_time",
                "instrument_id",
                "bid_price",
                "bid_qty",
                "ask_price",
                "ask_qty",
                "seq",
                "flags",
                "lane_id",
                "frame_pos",
            ],
            Self::OrderBooks => &[
                "time",
                "recv_time",
                "instrument_id",
                "seq",
                "bid_prices",
                "bid_qtys",
                "ask_prices",
                "ask_qtys",
                "bids_exact",
                "asks_exact",
                "flags",
                "lane_id",
                "frame_pos",
            ],
        }
    }

    /// The `COPY` statement that takes encoded rows.
    #[must_use]
    pub fn copy_sql(self) -> String {
        format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.path(), self.columns().join(", "))
    }

    /// This table's policy: the configured one or the default.
    #[must_use]
    pub fn policy(self, database: &Database) -> TablePolicy {
        database.tables.get(self.name()).copied().unwrap_or(DEFAULT_POLICY)
    }
}

/// How the columnstore groups and orders every event table. Measured with 64 instruments, see ARCHITECTURE.md:
/// a segment per instrument reads one instrument's rows without touching the others.
pub const SEGMENT_BY: &str = "instrument_id";
/// Order inside a segment.
pub const ORDER_BY: &str = "\"time\"";

/// Policy of a table that the configuration does not name.
pub const DEFAULT_POLICY: TablePolicy = TablePolicy {
    chunk_interval: Duration::from_secs(86_400),
    compress_after: Some(Duration::from_secs(2 * 86_400)),
    drop_after: None,
};
